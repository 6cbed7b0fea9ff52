"""Exported networks in ExecuTorch. Its Python binding takes and returns torch's tensors, so torch is needed here."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import weakref
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.machine.processor import cores
from edgeseg.machine.quiet import captured_stderr, quiet_logging
from edgeseg.predict.facts import appended_facts
from edgeseg.predict.pte import HEADER, program_size
from edgeseg.predict.segmenter import FileSegmenter

INSTALL = "pip install 'edgeseg[executorch]'"
BACKEND = "XnnpackBackend"
DIGEST, VERSION = "sha256", "executorch"  # names of facts: of the content, and of what wrote it

# The threads of ExecuTorch, and therefore this lock, are those of the process, not of a file.
_lock = threading.Lock()
_opened: weakref.WeakSet[ExecuTorchSegmenter] = weakref.WeakSet()


class ExecuTorchSegmenter(FileSegmenter):
    """A .pte file that `edgeseg.export` wrote, on the CPU, with the `predict` and `predict_tasks` of a model.

    Files are run one after the other, also those of several segmenters in several threads, since ExecuTorch has one
    set of threads per process.

    Its attributes are those of `edgeseg.predict.segmenter.FileSegmenter`.

    Args:
        path: The file.
        threads: Threads of ExecuTorch, for all files in this process; by default as they are, and for the first file as
            many as this process may use. A program of your own, opened in this process without edgeseg, must not be
            used any more after the number has changed.
        device: "cpu", or None for the same.

    Raises:
        ImportError: without executorch, or with one that lacks XNNPACK: `pip install 'edgeseg[executorch]'`.
        FileNotFoundError: no such file.
        ValueError: no program, one that is corrupt or that edgeseg did not write, one that this version of ExecuTorch
            cannot load, or another device.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None, device: str | None = None) -> None:
        if device not in (None, "cpu"):
            raise ValueError(f"ExecuTorch files of edgeseg run on the cpu (XNNPACK) only, got device {device!r}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads is a positive number, got {threads}")
        _runtime()
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {path}")
        content = Path(path).read_bytes()
        content, facts = content[: program_size(content[:HEADER], len(content), path)], appended_facts(Path(path))
        if DIGEST in facts and hashlib.sha256(content).hexdigest() != facts[DIGEST]:
            raise ValueError(f"{path} is corrupt: its content is not what edgeseg wrote")
        super().__init__(path, facts, [])
        self._version = facts.get(VERSION, "of an unknown version")
        self._content, self._threads = content, threads  # what is at the path may change
        self._loaded: tuple[Any, Any] | None = None  # the program and its method, which needs the program
        with _lock:
            sizes = self._start().metadata.input_tensor_meta(len(self.inputs) - 1).sizes()
        self.shape = [int(n) for n in sizes]
        self._check_shape()

    def run(self, *images: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the file on tensors; see `FileSegmenter.run`.

        The order of a tensor's values in memory does not matter: ExecuTorch itself would read a tensor with channels
        last as if it had channels first, without an error.
        """
        import torch

        self._check_tensors(images)
        tensors = [torch.tensor(np.ascontiguousarray(image)) for image in images]
        with _lock:
            if self._loaded is None:  # since then the number of threads has changed
                self._loaded = self._open()
            outputs = self._loaded[1].execute(tensors)
        return {name: output.numpy() for name, output in zip(self.tasks, outputs, strict=True)}

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: everything but the program, which is opened anew from the file's content."""
        return {**vars(self), "_loaded": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        with _lock:
            self._start()

    def _start(self) -> Any:
        """Sets the number of threads and loads the program; returns its method."""
        _set_threads(self._threads)
        self._loaded = self._open()
        _opened.add(self)
        return self._loaded[1]

    def _open(self) -> tuple[Any, Any]:
        with captured_stderr() as said:
            try:
                program = _runtime().load_program(self._content)
                method = program.load_method("forward")
                if method.metadata.num_inputs() != len(self.inputs) or method.metadata.num_outputs() != len(self.tasks):
                    raise ValueError("it has other inputs or outputs than its record says")
                return program, method
            except Exception as error:  # of many kinds, none of them documented
                reason = " ".join([str(error), *said().split("\n")]).strip()
                here = version("executorch")
                raise ValueError(
                    f"ExecuTorch {here} cannot load {self.path}, which ExecuTorch {self._version} wrote: {reason}"
                ) from error


def _runtime() -> Any:
    """The runtime; its operators of 8 bit are registered.

    Raises:
        ImportError: there is none, or it lacks XNNPACK.
    """
    try:
        with quiet_logging(logging.WARNING):  # what libraries say of each other when they are imported
            import executorch.kernels.quantized  # noqa: F401
            from executorch.runtime import Runtime

            runtime = Runtime.get()
    except ImportError as error:
        raise ImportError(f"running ExecuTorch files needs torch and executorch: {INSTALL}") from error
    if not runtime.backend_registry.is_available(BACKEND):
        raise ImportError(f"this executorch was built without XNNPACK, which edgeseg's files need: {INSTALL}")
    return runtime


def _set_threads(threads: int | None) -> None:
    """Sets the number of threads; loaded programs point to those there were, and are loaded anew when they run next."""
    from executorch.extension.pybindings import portable_lib

    if threads is None and len(_opened):
        return
    with captured_stderr():
        if portable_lib._threadpool_get_thread_count() != (threads or cores()):
            for each in _opened:
                each._loaded = None
            portable_lib._unsafe_reset_threadpool(threads or cores())
