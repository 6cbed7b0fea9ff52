"""Exported networks in onnxruntime. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.machine.errors import value_errors
from edgeseg.machine.processor import cores
from edgeseg.predict.segmenter import FileSegmenter

CPU = "CPUExecutionProvider"


class OnnxSegmenter(FileSegmenter):
    """An ONNX file that `edgeseg.export_onnx` or `edgeseg quantize` wrote, with the `predict` of a model.

    Its attributes are those of `edgeseg.predict.segmenter.FileSegmenter`, and those below.

    Args:
        path: The file.
        providers: Execution providers in order of preference, such as ["CUDAExecutionProvider"], each alone or with its
            options as in onnxruntime; by default the CPU.
        threads: Number of threads on the CPU; None or 0 for as many as this process may use.
        device: "cuda", "coreml", ...: the providers of that device, then the CPU; replaces `providers`.

    Attributes:
        session: The onnxruntime session, of all sizes that the file takes.

    Raises:
        ImportError: without onnxruntime: `pip install 'edgeseg[onnx]'`.
        FileNotFoundError: no such file.
        ValueError: not an ONNX file, one that edgeseg did not write, a provider that this onnxruntime does not have, or
            an argument of another type.

    Example:
        >>> import edgeseg
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", channels=32, num_classes=5)
        >>> done = edgeseg.export_onnx(model, "model.onnx", size=(64, 96))
        >>> segmenter = edgeseg.OnnxSegmenter("model.onnx", threads=2)
        >>> segmenter.predict("photo.jpg").shape  # the photo has 90x60 pixels
        (60, 90)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError("running ONNX files needs onnxruntime: pip install 'edgeseg[onnx]'") from error
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {path}")
        available = onnxruntime.get_available_providers()
        _check_options(providers, threads, device)
        wanted = list(providers or [CPU])
        if device is not None and device.lower() != "cpu":
            wanted = [name for name in available if name.lower().startswith(f"{device.lower()}exec")] or [device]
            wanted.append(CPU)
        missing = [name for name in map(_provider, wanted) if name not in available]
        if missing:
            has = ", ".join(available)
            raise ValueError(
                f"this onnxruntime does not have {', '.join(missing)}, only {has}; other providers come in packages of "
                "their own, such as onnxruntime-gpu"
            )
        self.providers, self.threads = wanted, threads or cores()
        self._content = Path(path).read_bytes()  # what is at the path may change
        with value_errors(path, f"onnxruntime cannot load {path}"):
            self.session = self._open({})
            facts = self.session.get_modelmeta().custom_metadata_map
            inputs = {each.name: each.shape for each in self.session.get_inputs()}
            outputs = {each.name for each in self.session.get_outputs()}
        super().__init__(path, facts, next(reversed(inputs.values()), []))
        if [*inputs] != [*self.inputs] or outputs != {*self.tasks}:
            raise ValueError(f"the tensors in {path} are not those of its model; export the network again")
        self._check_shape()
        self._last: tuple[int, ...] = ()
        self._fixed: tuple[tuple[int, ...], Any] = (), None

    def run(self, *images: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the file on tensors; see `FileSegmenter.run`."""
        self._check_tensors(images)
        feed = dict(zip(self.inputs, images, strict=True))
        session = self._session_for(images[-1].shape)
        return dict(zip(self.tasks, session.run(list(self.tasks), feed), strict=True))

    def _session_for(self, shape: tuple[int, ...]) -> Any:
        """The session; on the CPU, for a shape that comes a second time in a row, one for it alone.

        With sizes that may change onnxruntime changes the layout of every tensor before a resize, see
        docs/benchmarks.md. It takes some hundredths of a second; other providers may compile for minutes.
        """
        again, self._last = shape == self._last, shape
        fixed = self._fixed
        sizes = {name: length for name, length in zip(self.shape, shape, strict=True) if isinstance(name, str)}
        if again and sizes and fixed[0] != shape and self.providers == [CPU]:
            fixed = self._fixed = shape, self._open(sizes)
        return fixed[1] if fixed[0] == shape else self.session

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: everything but the sessions, which are opened anew from the file's content."""
        return {**vars(self), "session": None, "_fixed": ((), None)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.session = self._open({})

    def _open(self, sizes: Mapping[str, int]) -> Any:
        """A session of the file, with some of the dimensions that may change fixed."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        # As fast (docs/benchmarks.md), and between runs the cores are free for what else there is.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # A file could name files of the current folder as its weights.
        nowhere = os.path.join(os.devnull, "no-folder")
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", nowhere)
        for name, length in sizes.items():
            options.add_free_dimension_override_by_name(name, length)
        return onnxruntime.InferenceSession(self._content, options, providers=self.providers)


def _provider(wanted: str | tuple[str, Mapping[str, Any]]) -> str:
    """The name of a provider, which may come with options."""
    return wanted if isinstance(wanted, str) else wanted[0]


def _check_options(providers: Any, threads: Any, device: Any) -> None:
    """Raises a ValueError for arguments of `OnnxSegmenter` of another type."""
    named = isinstance(providers, list | tuple) and all(
        isinstance(each, str) or (isinstance(each, tuple) and len(each) == 2 and isinstance(each[0], str))
        for each in providers
    )
    if providers is not None and not named:
        raise ValueError(f"providers is a list of names, or of (name, options) as in onnxruntime, got {providers!r}")
    if threads is not None and (not isinstance(threads, Integral) or threads < 0):
        raise ValueError(f"threads is a number of threads, got {threads!r}")
    if device is not None and not isinstance(device, str):
        raise ValueError(f"device is the name of a device, such as 'cuda', got {device!r}")
