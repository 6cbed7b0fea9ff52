// The page: photos in, classes over them. The numbers are in maps.js, the network is in network.js.

import { colored, shares } from "./maps.js";
import { Network, Problem, devices, fetched, filesFor, loaded } from "./network.js";

const LARGEST = 16e6; // pixels of a photo that is shown as it is; some browsers have no larger canvas
const NAMES = { webgpu: "the GPU (WebGPU)", wasm: "the processor (WebAssembly)" };

const part = (id) => document.getElementById(id);
const photo = part("photo").getContext("2d");
const overlay = part("classes").getContext("2d");
// What is being segmented, until its classes are there to be shown over it.
const coming = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

let facts;
let network;
let shown; // the class ids of the photo, its width and height, and the point whose class is named
let filming = false;
let work = Promise.resolve(); // one photo after the other

/** Changes a text only if it is another one, since screen readers read it out. */
function write(id, text) {
  if (part(id).textContent !== text) part(id).textContent = text;
}

function say(text) {
  write("status", text);
}

function complain(error) {
  const text = error instanceof Problem ? error.message : `This page has failed: ${error?.message ?? error}`;
  part("problem").textContent = text;
  part("problem").hidden = false;
  say("");
}

/** Does something after all that was asked for before, and tells what goes wrong. */
function next(task) {
  part("problem").hidden = true;
  work = work.then(task).catch(complain);
  return work;
}

async function start() {
  part("problem").classList.remove("later");
  if (typeof WebAssembly !== "object") {
    throw new Problem("This browser has no WebAssembly, or it is switched off; the network needs it.");
  }
  say("Loading the network …");
  facts = await (await fetched("model.json")).json();
  describe();
  const available = await devices(facts);
  const failed = [];
  while (!network) {
    try {
      await open(available[0]);
    } catch (error) {
      failed.push(error.message);
      available.shift();
      if (!available.length) throw new Problem(failed.join(" "));
    }
  }
  part("device").replaceChildren(...available.map((device) => new Option(NAMES[device], device)));
  part("choice").hidden = available.length === 1;
  part("controls").hidden = false;
  part("camera").disabled = !navigator.mediaDevices?.getUserMedia;
  const camera = part("camera").disabled ? "The camera needs a page from https or localhost." : "";
  say([...failed, "Ready.", camera].join(" ").trim());
}

async function open(device) {
  say(`Loading the network and onnxruntime-web for ${NAMES[device]} …`);
  network = await Network.open(facts, device);
}

/** Stores everything that the page has loaded, so that it opens without a connection from now on. */
async function keep() {
  if (!network) return;
  if (!navigator.serviceWorker || !window.caches) {
    throw new Error("browsers store pages from https or localhost only.");
  }
  const own = ["./", "index.html", "app.js", "maps.js", "network.js", "style.css", "model.json", facts.model];
  const wanted = own.map((name) => new URL(name, document.baseURI).href);
  for (const device of loaded()) wanted.push(...filesFor(facts, device).map(([address]) => address));
  const cache = await caches.open(`edgeseg ${new URL("./", document.baseURI).href}`);
  await cache.addAll(wanted);
  for (const { url } of await cache.keys()) if (!wanted.includes(url)) await cache.delete(url);
  await navigator.serviceWorker.register("offline.js");
  await navigator.serviceWorker.ready;
  const threads = window.crossOriginIsolated ? "" : " When it is opened again, it computes in several threads.";
  part("offline").textContent = `From now on, this page also opens without a connection.${threads}`;
}

function tellWhy(error) {
  part("offline").textContent = `This page needs a connection each time that it is opened: ${error.message}`;
}

function describe() {
  document.title = `Segment a photo: ${facts.name}`;
  const [height, width] = facts.preprocess.size;
  const rows = {
    network: `${facts.name}, ${facts.precision}, ${(facts.bytes / 1e6).toFixed(1)} MB`,
    ...facts.origin,
    input: facts.preprocess.keep_aspect
      ? `as many pixels as ${width} x ${height}, in the aspect ratio of the photo`
      : `${width} x ${height} pixels`,
    classes: facts.classes.join(", "),
    "written by": `edgeseg ${facts.edgeseg}`,
    "run by": `${facts.runtime.name} (MIT licence)`,
  };
  const entries = Object.entries(rows).flatMap(([title, text]) => [element("dt", title), element("dd", text)]);
  part("about").replaceChildren(...entries);
}

function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

/** Decodes a photo file or a frame of the video, and returns its size and whether that was changed. */
async function decode(source, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(source, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Problem(`${name} is not a photo that this browser can decode; JPEG, PNG and WebP are always possible.`);
  }
  const scale = Math.sqrt(LARGEST / (bitmap.width * bitmap.height));
  const size = `${bitmap.width} x ${bitmap.height}`;
  if (scale < 1) {
    const [resizeWidth, resizeHeight] = [bitmap.width, bitmap.height].map((length) => Math.floor(length * scale));
    bitmap = await createImageBitmap(bitmap, { resizeWidth, resizeHeight, resizeQuality: "high" });
  }
  const { canvas } = coming;
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  coming.drawImage(bitmap, 0, 0);
  bitmap.close();
  return scale < 1 ? `${size} pixels, reduced to ${canvas.width} x ${canvas.height}` : `${size} pixels`;
}

/** Segments a photo file or a frame of the video, and shows it. */
async function segment(source, name) {
  const size = await decode(source, name);
  const { width, height } = coming.canvas;
  const { data } = coming.getImageData(0, 0, width, height);
  const { ids, milliseconds } = await network.predict(data, [height, width]);
  for (const { canvas } of [photo, overlay]) [canvas.width, canvas.height] = [width, height];
  photo.drawImage(coming.canvas, 0, 0);
  overlay.putImageData(new ImageData(colored(ids, facts.palette), width, height), 0, 0);
  const moved = !shown || shown.width !== width || shown.height !== height;
  shown = { ids, width, height, point: moved ? null : shown.point };
  list();
  namePoint();
  part("result").hidden = false;
  return `${name}: ${size}; the network took ${milliseconds.toFixed(0)} ms on ${network.where}.`;
}

/** The classes of the photo with their colours and shares. */
function list() {
  const entries = shares(shown.ids, facts.classes.length).map(({ id, share }) => {
    const entry = element("li");
    const color = element("span");
    color.className = "color";
    color.style.background = `rgb(${facts.palette[id]})`;
    entry.dataset.id = id;
    const percent = 100 * share;
    const text = percent < 0.1 ? "< 0.1 %" : `${percent.toFixed(percent < 1 ? 1 : 0)} %`;
    entry.append(color, element("span", facts.classes[id]), element("span", text));
    return entry;
  });
  part("legend").replaceChildren(...entries);
}

function choose(file) {
  if (!file || !network) return;
  setFilming(false);
  next(async () => {
    say(`Segmenting ${file.name} …`);
    say(await segment(file, file.name));
  });
}

/** Names the class at the point, and marks it in the list. */
function namePoint() {
  const point = part("point");
  point.hidden = !shown.point;
  if (!shown.point) {
    write("pointed", "Point at the photo to read its classes.");
    return;
  }
  const [x, y] = shown.point;
  point.style.left = `${(100 * (x + 0.5)) / shown.width}%`;
  point.style.top = `${(100 * (y + 0.5)) / shown.height}%`;
  const id = shown.ids[y * shown.width + x];
  write("pointed", `${facts.classes[id]} at column ${x}, row ${y}`);
  for (const entry of part("legend").children) entry.classList.toggle("pointed", Number(entry.dataset.id) === id);
}

function movePoint(x, y) {
  if (!shown) return;
  const within = (value, length) => Math.min(Math.max(Math.floor(value), 0), length - 1);
  shown.point = [within(x, shown.width), within(y, shown.height)];
  namePoint();
}

function pointAt(event) {
  const frame = part("view").getBoundingClientRect();
  if (!shown) return;
  const across = (event.clientX - frame.left) / frame.width;
  const down = (event.clientY - frame.top) / frame.height;
  movePoint(across * shown.width, down * shown.height);
}

function pressKey(event) {
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const way = ways[event.key];
  if (!way || !shown) return;
  event.preventDefault();
  const step = event.shiftKey ? 1 : Math.max(Math.round(shown.width / 50), 1);
  const [x, y] = shown.point ?? [Math.floor(shown.width / 2), Math.floor(shown.height / 2)];
  shown.point ? movePoint(x + way[0] * step, y + way[1] * step) : movePoint(x, y);
}

function startFilming() {
  setFilming(true);
  next(film).finally(() => setFilming(false));
}

function setFilming(on) {
  filming = on;
  part("camera").textContent = on ? "Stop the camera" : "Use the camera";
}

async function film() {
  const video = part("video");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new Problem(`The camera cannot be used: ${error.message || error.name}.`);
  }
  stream.getVideoTracks()[0].addEventListener("ended", () => setFilming(false));
  try {
    video.srcObject = stream;
    await video.play();
    for (let said = -Infinity; filming; await new Promise(requestAnimationFrame)) {
      const text = await segment(video, "Camera");
      if (performance.now() - said < 5000) continue; // screen readers read it out
      say(text);
      said = performance.now();
    }
  } finally {
    for (const track of stream.getTracks()) track.stop();
  }
}

function listen() {
  part("file").addEventListener("change", (event) => {
    choose(event.target.files[0]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  part("camera").addEventListener("click", () => (filming ? setFilming(false) : startFilming()));
  part("device").addEventListener("change", (event) => {
    setFilming(false);
    next(async () => {
      try {
        await open(event.target.value);
        say(`The network now runs on ${network.where}.`);
      } finally {
        event.target.value = network.device;
      }
    }).then(keep).catch(tellWhy);
  });
  part("opacity").addEventListener("input", (event) => {
    overlay.canvas.style.opacity = event.target.value / 100;
  });
  overlay.canvas.style.opacity = part("opacity").value / 100;
  part("view").addEventListener("pointermove", pointAt);
  part("view").addEventListener("pointerdown", pointAt);
  part("view").addEventListener("keydown", pressKey);
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", kind === "dragenter" || kind === "dragover");
    });
  }
  document.addEventListener("drop", ({ dataTransfer }) => {
    if (dataTransfer.files.length) choose(dataTransfer.files[0]);
    else complain(new Problem("What was dropped is not a file: save the photo first, and drop the file."));
  });
}

listen();
next(start).then(keep).catch(tellWhy);
