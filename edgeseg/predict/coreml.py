"""Exported networks in Core ML, on macOS. Needs no torch."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import numpy as np
from PIL import Image

from edgeseg.predict.facts import read_facts
from edgeseg.predict.segmenter import FileSegmenter
from edgeseg.tasks import kind_of

UNITS = {"cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "ane": "CPU_AND_NE", "all": "ALL"}


class CoreMLSegmenter(FileSegmenter):
    """A Core ML package that `edgeseg.export` wrote, with the `predict` of a model. Runs on macOS only.

    Its attributes are those of `edgeseg.predict.segmenter.FileSegmenter`, and those below.

    Args:
        path: The package, `.mlpackage`.
        threads: None: Core ML chooses its threads itself.
        device: "cpu", "gpu" or "ane" (the neural engine), each with the CPU for what it does not have, or "all";
            default "cpu".

    Attributes:
        model: The model of coremltools.

    Raises:
        ImportError: without coremltools: `pip install 'edgeseg[coreml]'`.
        FileNotFoundError: no such package.
        OSError: this system is not macOS.
        ValueError: a corrupt package, one that edgeseg did not write, a number of threads, or an unknown device.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None, device: str | None = None) -> None:
        facts = read_facts(path)
        if threads is not None:
            raise ValueError(f"Core ML chooses its threads itself; leave threads (--threads) out, got {threads}")
        self.device = (device or "cpu").lower()
        if self.device not in UNITS:
            raise ValueError(f"no device {device!r} of Core ML; the devices are {', '.join(UNITS)}")
        if sys.platform != "darwin":
            raise OSError(f"{path} runs on macOS and iOS only; Core ML does not exist on this system")
        super().__init__(path, facts, [1, 0, 0, 0])
        self._open()

    def run(self, *images: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the package on tensors; see `FileSegmenter.run`."""
        self._check_tensors(images)
        given = [_picture(image[0]) if self.normalizes else image for image in images]
        with self._lock:  # a model of Core ML answers one call at a time
            found = self.model.predict(dict(zip(self.inputs, given, strict=True)))
        return {name: self._typed(name, np.asarray(found[name])) for name in self.tasks}

    def _typed(self, name: str, values: np.ndarray) -> np.ndarray:
        """Labels in the type that other formats have; Core ML returns int32."""
        task = self.tasks[name]
        if not (self.output.endswith("labels") and kind_of(task).has_classes):
            return values.astype(np.float32, copy=False)
        return values.astype(np.uint8 if task.class_count <= 256 else np.int32, copy=False)

    def _open(self) -> None:
        try:
            import coremltools
        except ImportError as error:
            raise ImportError("running Core ML packages needs coremltools: pip install 'edgeseg[coreml]'") from error
        tools: Any = coremltools
        try:
            self.model = tools.models.MLModel(str(self.path), compute_units=tools.ComputeUnit[UNITS[self.device]])
        except Exception as error:  # of many kinds, none of them documented
            raise ValueError(f"Core ML cannot load {self.path}: {error}") from error
        self.shape = _shape(self.model.get_spec().description.input[-1].type, self.in_channels[-1])
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: everything but the model, which is opened anew from the package."""
        return {name: value for name, value in vars(self).items() if name not in ("model", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()


def _shape(kind: Any, channels: int) -> list[int | str]:
    if kind.WhichOneof("Type") == "imageType":
        return [1, channels, kind.imageType.height, kind.imageType.width]
    return [int(length) for length in kind.multiArrayType.shape]


def _picture(pixels: np.ndarray) -> Image.Image:
    """uint8 [C, H, W] -> a picture, RGB or for one channel gray."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
