"""Runs a network in the fastest runtime at hand: exported once, kept in the cache, opened as a segmenter."""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal, overload

import torch

from edgeseg.deploy.formats import export
from edgeseg.machine.download import cache_folder, has_its_hash, record_file, record_sha256
from edgeseg.machine.errors import ExportError
from edgeseg.machine.terminal import say
from edgeseg.machine.versions import version_of
from edgeseg.networks.network_bytes import network_bytes
from edgeseg.networks.optimize import optimize as optimize_in_torch
from edgeseg.networks.optimize import with_hooks
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.predict.load import load_segmenter
from edgeseg.predict.predictor import Predictor
from edgeseg.predict.segmenter import FileSegmenter

FileRuntime = Literal["onnxruntime", "openvino"]
SUFFIXES: dict[str, str] = {"onnxruntime": ".onnx", "openvino": ".xml"}
KEPT = 16  # number of networks in the cache; those that were not used for longest are removed
# Number of photos from which on an export takes less time than it saves: the seconds of `optimize(runtime=...)` divided
# by what `predict` then saves per photo against PyTorch. 876 for the FPN for CamVid, on two threads of an AMD EPYC.
WORTHWHILE = 1000


@overload
def optimize(
    model: Pixel2Pixel,
    *,
    dtype: torch.dtype | None = None,
    compile: bool = False,
    runtime: Literal["torch"] = "torch",
) -> Pixel2Pixel: ...


@overload
def optimize(model: Pixel2Pixel, *, runtime: FileRuntime) -> FileSegmenter: ...


def optimize(
    model: Pixel2Pixel,
    *,
    dtype: torch.dtype | None = None,
    compile: bool = False,
    runtime: Literal["torch", "onnxruntime", "openvino"] = "torch",
) -> Predictor:
    """Returns a faster form of a network for inference, in PyTorch or in another runtime.

    In PyTorch this is a copy with batch norms folded into convolutions, channels-last memory and no gradients. Its
    logits differ from those of the model in float32 by less than 1e-4 of their standard deviation. In another runtime
    it is a file that `edgeseg.export` writes into the cache, once per network, and that is verified as every exported
    file. Its labels equal those of the model except where two classes are almost equally likely.

    Args:
        model: A float network in evaluation mode; it stays as it is.
        dtype: In PyTorch, precision of the computation: `torch.bfloat16`, or on a GPU `torch.float16`.
        compile: In PyTorch, compile encoder and decoders with torch.compile, once for each size of images.
        runtime: "torch", or on CPUs "onnxruntime" or "openvino".

    Returns:
        A `Pixel2Pixel` in evaluation mode, or a segmenter with the same `predict`.

    Raises:
        ImportError: the runtime is not installed.
        OSError: the cache cannot be written.
        RuntimeError: the network cannot be exported, or the file differs from it.
        ValueError: the model is in training mode, has hooks or is quantization-aware, the dtype or the runtime is not
            supported, or dtype or compile is given for another runtime than PyTorch.

    Example:
        >>> import edgeseg
        >>> model = edgeseg.create_model("fpn_aspp_mobilenetv2_tv_edgeailite")
        >>> fast = edgeseg.optimize(model.eval())
        >>> fast.config.notes["optimized"]
        '69 batch norms folded, channels_last'
    """
    if runtime == "torch":
        return optimize_in_torch(model, dtype=dtype, compile=compile)
    if runtime not in SUFFIXES:
        raise ValueError(f"no runtime named {runtime!r}; the runtimes are torch, {', '.join(SUFFIXES)}")
    if dtype is not None or compile:
        raise ValueError("dtype and compile are options of PyTorch; they cannot be combined with another runtime")
    if model.training:
        raise ValueError(f"{model.name} is in training mode; call eval() before optimize()")
    if hooked := with_hooks(model):
        raise ValueError(f"{hooked[0] or 'the model'} has hooks, which an exported file would lose; remove them")
    return load_segmenter(_exported(model, runtime))


def faster(model: Pixel2Pixel, runtime: str, count: int) -> Predictor:
    """The form of a network that `edgeseg predict` and `edgeseg evaluate` run.

    Args:
        model: A network in evaluation mode.
        runtime: "torch", "onnxruntime" or "openvino"; "auto" is onnxruntime on CPUs, if the exported network is in the
            cache or the number of photos makes up for the time of an export, and otherwise torch; also if the network
            cannot be exported.
        count: Number of photos.
    """
    plain = model.config.quantization is not None or bool(with_hooks(model))
    if runtime == "auto":
        runtime = "torch"
        if not plain and _pays(model, count):
            try:
                return optimize(model, runtime="onnxruntime")
            except (ValueError, ExportError, OSError) as error:
                say(f"the network cannot be exported, so PyTorch runs it: {error}")
    if runtime == "torch":
        return model if plain else optimize_in_torch(model)
    return optimize(model, runtime="openvino" if runtime == "openvino" else "onnxruntime")


def _pays(model: Pixel2Pixel, count: int) -> bool:
    """Whether onnxruntime is faster in all, the time of the export included."""
    parameter = next(model.parameters())
    if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
        return False
    if any(importlib.util.find_spec(name) is None for name in ("onnxruntime", "onnxscript")):
        return False
    return count >= WORTHWHILE or (count > 1 and _place(model, "onnxruntime").exists())


def _exported(model: Pixel2Pixel, runtime: str) -> Path:
    """The file of a network in the cache, written if it is not there or has changed since."""
    place = _place(model, runtime)
    if all(has_its_hash(path) for path in _parts(place)):
        with suppress(OSError):  # a cache that can only be read
            os.utime(place)
        return place
    place = _writable(place.parent) / place.name
    export(model, place, output="small_logits", preprocess=True)
    for path in _parts(place):
        record_sha256(path)
    networks = sorted(
        (path for suffix in SUFFIXES.values() for path in place.parent.glob(f"*{suffix}")),
        key=lambda path: path.stat().st_mtime,
    )
    for path in networks[:-KEPT]:
        for part in _parts(path):
            part.unlink(missing_ok=True)
            record_file(part).unlink(missing_ok=True)
    return place


def _writable(folder: Path) -> Path:
    """`folder`, or one that is removed when the process ends if nothing can be written there."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK):
        return folder
    temporary = Path(tempfile.mkdtemp(prefix="edgeseg-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return temporary


def _parts(path: Path) -> list[Path]:
    """The files of an exported network: OpenVINO has two."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def _place(model: Pixel2Pixel, runtime: str) -> Path:
    """Where the file of a network is kept: its name depends on weights, record, and versions."""
    versions = {name: version_of(name) for name in ("edgeseg", "torch", "timm", runtime)}
    digest = hashlib.sha256(json.dumps([versions, model.config.to_json()], sort_keys=True).encode())
    for part in network_bytes(model):
        digest.update(part)
    return cache_folder() / "exported" / f"{digest.hexdigest()[:32]}{SUFFIXES[runtime]}"
