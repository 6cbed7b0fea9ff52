"""Folders for browsers: a page that segments photos with a network, for any server of static files."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeseg.arguments import as_size
from edgeseg.config import origin
from edgeseg.deploy.calibration import Frame, given_images
from edgeseg.deploy.facts import check_free
from edgeseg.deploy.formats import Precision, write_onnx
from edgeseg.deploy.verify import Exported
from edgeseg.labels import class_names, palette_of
from edgeseg.machine.download import cache_folder, download
from edgeseg.machine.files import check_folder, replacing_folder
from edgeseg.machine.versions import version_of
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.tasks import kind_of
from edgeseg.tasks.binary import Binary

MODEL, FACTS, LIBRARY = "model.onnx", "model.json", "ort"
KINDS = ("segmentation", "binary")
PAGE = Path(__file__).with_name("page")
FILES = sorted(path.name for path in PAGE.iterdir())
REGISTRY = "https://registry.npmjs.org"
PACKAGE = "onnxruntime-web"


@dataclass(frozen=True)
class Runtime:
    """One version of onnxruntime-web.

    Args:
        version: The version.
        sha256: Digest of its package in npm's registry, as hex digits.
        files: Device -> the files of the build for it and their subresource integrity: its module, the module that
            starts the WebAssembly, and the WebAssembly.
    """

    version: str
    sha256: str
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where the page gets the files from, if they are not in its folder."""
        return f"https://cdn.jsdelivr.net/npm/{PACKAGE}@{self.version}/dist/"


# The registry's integrity of this package is
# sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==.
RUNTIME = Runtime(
    "1.30.0",
    "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
    {
        "webgpu": {
            "ort.webgpu.min.mjs": "sha384-FPQBMbud8ICuP0Ii+Gr95KWEX9pKHtUC3lacIp0aPI8WYluKvTsEGQ3AE2Ze3QlL",
            "ort-wasm-simd-threaded.asyncify.mjs":
                "sha384-qViEcCGzsR/m8nlQwIsbYh7afN4thuraqFYDQY6huvmoLVoZq/eYawQ1wrv8nnhA",
            "ort-wasm-simd-threaded.asyncify.wasm":
                "sha384-EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR",
        },
        "wasm": {
            "ort.wasm.min.mjs": "sha384-SfFfy/pvthiOsgaw3KX0bV5TfQ6Iq+oY9KutMe4SxIuHH4cl+DCSD4rTsYOoG1tJ",
            "ort-wasm-simd-threaded.mjs": "sha384-XcXA/MtAf0WpB8e023xQH9CM7RIjiugakT7x99DIwpFf7k56BIFFcAPerIF7FDad",
            "ort-wasm-simd-threaded.wasm": "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
        },
    },
)  # fmt: skip


def export_web(
    model: Pixel2Pixel,
    directory: str | os.PathLike[str],
    *,
    size: Sequence[int] | None = None,
    precision: Precision = "float32",
    images: Sequence[Frame] = (),
    bundle: bool = False,
) -> Exported:
    """Writes a page that segments photos in the browser, as a folder for any server of static files.

    The folder has the page, the network as `model.onnx`, and `model.json` with its classes, colours, preprocessing,
    and the origin and licence of its weights. The page runs the network with onnxruntime-web, on the processor
    (WebAssembly) or, for a file in float32, on the GPU (WebGPU); photos do not leave the device. The ONNX file is run
    against the network in onnxruntime, as that of `edgeseg.export`, and `edgeseg.load_segmenter` opens it too.

    Args:
        model: Exported as it is in evaluation mode; one photo in RGB, one task with classes.
        directory: The folder. It appears complete or not at all; an earlier export in its place is replaced.
        size: Height and width that photos are resized to; by default those that the weights were trained for.
        precision: "float32" or "int8"; see `edgeseg.export`.
        images: Typical photos for "int8".
        bundle: Copy onnxruntime-web into the folder, from npm's registry (the environment variable
            NPM_CONFIG_REGISTRY names another). By default the page loads it from jsDelivr. Either way the version is
            fixed, and the files are checked against their hashes.

    Returns:
        The folder, the sizes at which the ONNX file was compared, the differences, and for "int8" the agreement.

    Raises:
        ImportError: onnxruntime or onnxscript is missing: `pip install 'edgeseg[onnx]'`.
        FileNotFoundError: the folder in which `directory` should be does not exist.
        FileExistsError: `directory` is a file, or a folder with other content than an earlier export.
        OSError: the registry cannot be reached.
        ValueError: the network has another input or task, its weights do not have a size and none is given, the
            precision is unknown or does not fit the images, or what the registry sends has another hash.
        RuntimeError: the outputs of the file differ from those of the network; nothing is kept.

    Example:
        >>> import edgeseg
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", channels=32, num_classes=5)
        >>> done = edgeseg.export_web(model, "page", size=(64, 96))
        >>> sorted(path.name for path in done.path.iterdir() if path.suffix in (".html", ".onnx"))
        ['index.html', 'model.onnx']
    """
    folder = Path(directory)
    check_folder(folder)
    check_free(folder, MODEL, (*FILES, FACTS, LIBRARY))
    size = as_size("size", size) if size is not None else None
    _check_model(model, size)
    if precision not in ("float32", "int8"):
        raise ValueError(f"the page's network is float32 or int8, got {precision}")
    images = given_images(precision, images, trained=model.config.quantization is not None)
    devices = ["wasm"] if precision == "int8" or model.config.quantization is not None else ["webgpu", "wasm"]
    runtime = replace(RUNTIME, files={device: RUNTIME.files[device] for device in devices})
    options = {"size": size, "output": "small_logits"}
    dynamic = ("height", "width") if model.preprocess.keep_aspect else ()
    with replacing_folder(folder, content=MODEL) as made:
        shutil.copytree(PAGE, made)
        if bundle:
            copy_runtime(made / LIBRARY, runtime)
        done = write_onnx(model, made / MODEL, precision=precision, images=images, dynamic=dynamic, **options)
        facts = _facts(model, size, precision) | {
            "bytes": (made / MODEL).stat().st_size,
            "runtime": {
                "name": f"{PACKAGE} {runtime.version}",
                "address": f"{LIBRARY}/" if bundle else runtime.address,
                "files": runtime.files,
            },
        }
        (made / FACTS).write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
        check_free(folder, MODEL, (*FILES, FACTS, LIBRARY))  # it may have changed while this took its time
    return replace(done, path=folder)


def copy_runtime(folder: Path, runtime: Runtime = RUNTIME) -> None:
    """Copies files of onnxruntime-web from npm's registry, each checked against its hash.

    Args:
        folder: A folder that does not exist.
        runtime: The version and its files.

    Raises:
        OSError: the registry cannot be reached.
        ValueError: the package or a file in it has another hash than it should have.
    """
    registry = os.environ.get("NPM_CONFIG_REGISTRY", REGISTRY).rstrip("/")
    archive = download(
        f"{registry}/{PACKAGE}/-/{PACKAGE}-{runtime.version}.tgz", cache_folder() / "npm", sha256=runtime.sha256
    )
    folder.mkdir()
    hashes = {f"dist/{name}": digest for files in runtime.files.values() for name, digest in files.items()}
    with tarfile.open(archive) as package:
        # The last two say whose work it is, and its licence.
        for name in (*hashes, "package.json", "README.md"):
            member = package.extractfile(f"package/{name}")
            content = member.read() if member else b""
            if name in hashes and integrity(content) != hashes[name]:
                raise ValueError(f"{name} in {archive} has the hash {integrity(content)}, expected {hashes[name]}")
            (folder / Path(name).name).write_bytes(content)


def integrity(content: bytes) -> str:
    """The hash by which a browser checks a file (https://www.w3.org/TR/SRI/)."""
    return f"sha384-{base64.b64encode(hashlib.sha384(content).digest()).decode()}"


def _check_model(model: Pixel2Pixel, size: Sequence[int] | None) -> None:
    inputs, tasks = list(model.inputs.values()), list(model.tasks.values())
    if [(each.kind, each.channels) for each in inputs] != [("image", 3)]:
        given = ", ".join(f"{name} ({each.channels} channels)" for name, each in model.inputs.items())
        raise ValueError(f"the page has one photo in RGB for the network, and this network takes {given}")
    if len(tasks) != 1 or tasks[0].kind not in KINDS:
        given = ", ".join(f"{name} ({task.kind})" for name, task in model.tasks.items())
        raise ValueError(f"the page shows one task, segmentation or binary, and this network has {given}")
    if size is None and model.preprocess.size is None:
        raise ValueError(
            "the weights do not say to which size photos are resized, and a browser cannot compute photos of any size: "
            "pass size (--img-resize)"
        )


def _facts(model: Pixel2Pixel, size: Sequence[int] | None, precision: str) -> dict[str, Any]:
    """What the page knows of the network."""
    preprocess = model.preprocess
    [input_name], [(output_name, task)] = model.inputs, model.tasks.items()
    kind = kind_of(task)
    return {
        "name": model.name,
        "edgeseg": version_of("edgeseg"),
        "origin": dict(origin(model.config.notes)),
        "classes": class_names(task),
        "palette": palette_of(task),
        "preprocess": {
            "size": list(size or preprocess.size or ()),
            "keep_aspect": preprocess.keep_aspect,
            "mean": preprocess.mean,
            "std": preprocess.std,
            "channel_order": preprocess.channel_order,
        },
        "limit": kind.limit if isinstance(kind, Binary) else None,  # of the one logit
        "model": MODEL,
        "input": input_name,
        "output": output_name,
        "precision": "int8" if model.config.quantization is not None else precision,
    }
