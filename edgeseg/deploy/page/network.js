// The network in onnxruntime-web. Errors are sentences for the page.

import { classesOf, inputSize, normalized, resized } from "./maps.js";

/** What is wrong, in a sentence, and what to do. */
export class Problem extends Error {}

/** Fetches a file; with its hash, no other content is accepted. */
export async function fetched(address, hash = "") {
  let response;
  try {
    response = await fetch(address, hash ? { integrity: hash } : {});
  } catch {
    // Browsers do not tell a missing file and one with another hash from a lost connection.
    response = await fetch(address, { method: "HEAD" }).catch(() => null);
    if (!response) throw new Problem(`${address} cannot be loaded: there is no connection to it.`);
    if (response.ok) throw new Problem(`${address} is not the file that this page was made for: export it again.`);
  }
  if (!response.ok) {
    throw new Problem(`${address} is missing (${response.status}): upload the whole folder that edgeseg wrote.`);
  }
  return response;
}

/** The devices that this browser has for a network, the fastest first. */
export async function devices(facts) {
  const builds = Object.keys(facts.runtime.files);
  const adapter = builds.includes("webgpu") && (await navigator.gpu?.requestAdapter().catch(() => null));
  const fast = adapter && !adapter.info?.isFallbackAdapter; // which would be the processor, slower than WebAssembly
  return builds.filter((device) => device !== "webgpu" || fast);
}

/** The addresses of the files that a device needs. */
export function filesFor(facts, device) {
  const base = new URL(facts.runtime.address, document.baseURI);
  return Object.entries(facts.runtime.files[device]).map(([name, hash]) => [new URL(name, base).href, hash]);
}

const libraries = new Map();

/** The devices whose files have been loaded. */
export const loaded = () => [...libraries.keys()];

/** onnxruntime-web as a module, in its build for a device. */
async function library(facts, device) {
  if (!libraries.has(device)) {
    const [code, starter, binary] = await Promise.all(
      filesFor(facts, device).map(async ([address, hash]) => (await fetched(address, hash)).blob()),
    );
    const [codeAt, starterAt] = [code, starter].map((blob) =>
      URL.createObjectURL(new Blob([blob], { type: "text/javascript" })),
    );
    const ort = await import(codeAt);
    ort.env.logLevel = "error";
    ort.env.wasm.numThreads = window.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 4) : 1;
    ort.env.wasm.wasmBinary = await binary.arrayBuffer();
    ort.env.wasm.wasmPaths = { mjs: starterAt };
    libraries.set(device, ort);
  }
  return libraries.get(device);
}

export class Network {
  /** Opens the network on a device, and runs it once. */
  static async open(facts, device) {
    const [ort, file] = await Promise.all([library(facts, device), fetched(facts.model)]);
    const network = new Network();
    Object.assign(network, { facts, device, ort });
    try {
      const content = new Uint8Array(await file.arrayBuffer());
      network.session = await ort.InferenceSession.create(content, { executionProviders: [device] });
      const [h, w] = facts.preprocess.size;
      await network.run(new Float32Array(3 * h * w), [h, w]); // the first run prepares the next ones
    } catch (error) {
      throw new Problem(`The network does not run on ${network.where}: ${error.message ?? error}`);
    }
    return network;
  }

  /** Where the network is computed, for people. */
  get where() {
    if (this.device === "webgpu") return "the GPU (WebGPU)";
    const threads = this.ort.env.wasm.numThreads ?? 1;
    return `the processor (WebAssembly, ${threads} ${threads === 1 ? "thread" : "threads"})`;
  }

  async run(tensor, [h, w]) {
    const { Tensor } = this.ort;
    const start = performance.now();
    const outputs = await this.session.run({ [this.facts.input]: new Tensor("float32", tensor, [1, 3, h, w]) });
    const milliseconds = performance.now() - start;
    const { data, dims } = outputs[this.facts.output];
    return { logits: data, shape: dims.slice(1), milliseconds };
  }

  /** The class ids of a photo, RGBA [height, width, 4], and how long the network took. */
  async predict(pixels, size) {
    const small = inputSize(size, this.facts.preprocess);
    const tensor = normalized(resized(pixels, size, small), this.facts.preprocess);
    const { logits, shape, milliseconds } = await this.run(tensor, small);
    return { ids: classesOf(logits, shape, size, this.facts.limit), milliseconds };
  }
}
