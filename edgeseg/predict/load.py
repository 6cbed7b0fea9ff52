"""Opens exported files: the suffix of a file says which runtime runs it."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from edgeseg.predict.segmenter import FileSegmenter

# Suffix -> module and class. Every class is called as `Class(path, threads=...)`.
RUNTIMES = {
    ".onnx": ("edgeseg.predict.onnx", "OnnxSegmenter"),
    ".tflite": ("edgeseg.predict.litert", "LiteRTSegmenter"),
    ".pte": ("edgeseg.predict.executorch", "ExecuTorchSegmenter"),
    ".xml": ("edgeseg.predict.openvino", "OpenVINOSegmenter"),
    ".mlpackage": ("edgeseg.predict.coreml", "CoreMLSegmenter"),
}
WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt")  # how files of weights end, which are not exported files


def load_segmenter(
    path: str | os.PathLike[str], *, threads: int | None = None, device: str | None = None
) -> FileSegmenter:
    """Opens a file that `edgeseg.export` wrote, in the runtime of its suffix. Only .pte files need torch.

    Args:
        path: A file with one of the suffixes that `RUNTIMES` lists.
        threads: Number of threads on the CPU; by default as many as this process may use.
        device: Device of the runtime, such as "GPU" for OpenVINO or "cuda" for onnxruntime; by default the CPU.

    Returns:
        A predictor with `predict`, `predict_tasks`, `predict_frames` and `draw`, as a model has them. It can be
        pickled, and any number of threads may call it.

    Raises:
        FileNotFoundError: the file does not exist.
        ImportError: the runtime is not installed; the message has the command that installs it.
        ValueError: no runtime for the suffix, no such device, or a file that edgeseg did not write or that the runtime
            cannot load.

    Example:
        >>> import edgeseg
        >>> segmenter = edgeseg.load_segmenter("model.onnx", threads=2)  # a file of edgeseg.export
        >>> segmenter.predict("photo.jpg").shape  # the photo has 90x60 pixels
        (60, 90)
    """
    suffix = Path(path).suffix.lower()
    if suffix not in RUNTIMES:
        cure = "; for weights use create_model (--checkpoint)" if suffix in WEIGHTS else ""
        raise ValueError(f"no runtime for {path}; exported files that can be run end in {', '.join(RUNTIMES)}{cure}")
    if not Path(path).exists():
        raise FileNotFoundError(f"no file {path}")
    module, name = RUNTIMES[suffix]
    options: dict[str, Any] = {} if device is None else {"device": device}
    return getattr(importlib.import_module(module), name)(path, threads=threads, **options)
