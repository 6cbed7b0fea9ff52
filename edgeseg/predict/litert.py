"""Exported networks in LiteRT, formerly TensorFlow Lite. Needs no torch."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.machine.errors import value_errors
from edgeseg.machine.processor import cores
from edgeseg.machine.quiet import captured_stderr
from edgeseg.predict.facts import litert_content
from edgeseg.predict.segmenter import FileSegmenter


class LiteRTSegmenter(FileSegmenter):
    """A LiteRT file that `edgeseg.export` wrote, with the `predict` of a model.

    Its attributes are those of `edgeseg.predict.segmenter.FileSegmenter`, and those below.

    Args:
        path: The file, `.tflite`.
        threads: Number of threads on the CPU; default as many as this process may use.
        device: Only "cpu"; delegates for other devices belong to the applications on phones.

    Attributes:
        interpreter: The interpreter of the file. Threads that call `run` take turns with it.

    Raises:
        ImportError: without ai-edge-litert: `pip install 'edgeseg[litert]'`.
        FileNotFoundError: no such file.
        ValueError: no LiteRT file, a damaged one, one that edgeseg did not write, one that this version of LiteRT
            cannot load, or another device.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None, device: str | None = None) -> None:
        if device not in (None, "cpu"):
            raise ValueError(f"LiteRT files run on the CPU here, not on {device!r}")
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {path}")
        self.threads = threads or cores()
        self._content, facts = litert_content(Path(path))  # what is at the path may change
        super().__init__(path, facts, [])
        self._open()
        with value_errors(path, f"{path} does not take images"):
            batch, height, width, channels = self._runner.get_input_details()[list(self.inputs)[-1]]["shape"].tolist()
        self.shape = [batch, channels, height, width]
        self._check_shape()

    def run(self, *images: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the file on tensors; see `FileSegmenter.run`. Its own tensors are NHWC."""
        self._check_tensors(images)
        feed = {
            name: np.ascontiguousarray(image.transpose(0, 2, 3, 1))
            for name, image in zip(self.inputs, images, strict=True)
        }
        with self._lock:
            found = self._runner(**feed)
        return {name: _channels_first(found[name]) for name in self.tasks}

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: everything but the interpreter, which is opened anew from the file's content."""
        return {name: value for name, value in vars(self).items() if name not in ("interpreter", "_runner", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _open(self) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ImportError("running LiteRT files needs ai-edge-litert: pip install 'edgeseg[litert]'") from error
        self._lock = threading.Lock()
        try:
            with captured_stderr():  # it announces its kernels
                self.interpreter = Interpreter(model_content=self._content, num_threads=self.threads)
                self.interpreter.allocate_tensors()
                self._runner = self.interpreter.get_signature_runner()
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"LiteRT cannot load {self.path}: {error}") from error
        names = sorted(self.inputs), sorted(self.tasks)
        if names != (sorted(self._runner.get_input_details()), sorted(self._runner.get_output_details())):
            raise ValueError(f"the tensors in {self.path} are not those of its model; export the network again")


def _channels_first(array: np.ndarray) -> np.ndarray:
    """[N, H, W, C] -> [N, C, H, W]; labels [N, H, W] stay."""
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if array.ndim == 4 else array
