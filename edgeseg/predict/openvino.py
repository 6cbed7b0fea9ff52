"""Exported networks in OpenVINO. Needs no torch."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.machine.errors import value_errors
from edgeseg.machine.processor import cores
from edgeseg.predict.facts import read_facts
from edgeseg.predict.segmenter import FileSegmenter

AXES = ("batch", "channels", "height", "width")


class OpenVINOSegmenter(FileSegmenter):
    """OpenVINO files (.xml and .bin) that `edgeseg.export` wrote, with the `predict` of a model.

    On CPUs the network computes in float32, also where OpenVINO would use bfloat16 by itself; 8-bit files compute in 8
    bit. On other devices it computes in the precision that OpenVINO prefers there, for GPUs float16.

    Its attributes are those of `edgeseg.predict.segmenter.FileSegmenter`, and those below.

    Args:
        path: The file, `.xml`; its weights are in a file with the same name and the suffix `.bin` beside it.
        threads: On the CPU; default as many as this process may use.
        device: "CPU", another device that OpenVINO finds on this machine, such as "GPU", or "AUTO" for its own choice.

    Attributes:
        compiled: The compiled model of OpenVINO.
        device: The device that it is compiled for.

    Raises:
        ImportError: without openvino: `pip install 'edgeseg[openvino]'`.
        FileNotFoundError: no such file, or no `.bin` beside it.
        ValueError: no OpenVINO file, a corrupt one, one that edgeseg did not write, a `.bin` of another file, a device
            that does not exist here, or a number of threads below 1.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None, device: str | None = None) -> None:
        core = _core()
        weights = Path(path).with_suffix(".bin")
        facts = read_facts(path)
        if not weights.is_file():
            raise FileNotFoundError(f"no file {weights}, in which an OpenVINO file keeps its weights")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.threads, self.device = threads or cores(), _device(core, device or "CPU")
        self._content = Path(path).read_bytes(), weights.read_bytes()  # what is at the path may change
        if "weights_sha256" in facts and facts["weights_sha256"] != digest(self._content[1]):
            raise ValueError(f"{weights} is corrupt, or does not belong to {path}: its content is not what it was")
        model = _read(core, path, *self._content)
        with value_errors(path, f"{path} does not take images"):
            shape = _shape(model)
            found = [{name for port in ports for name in port.names} for ports in (model.inputs, model.outputs)]
        super().__init__(path, facts, shape)
        if not (set(self.inputs) <= found[0] and set(self.tasks) <= found[1]):
            raise ValueError(f"the tensors in {path} are not those of its model; export the network again")
        self._check_shape()
        self._compile(core, model)

    def run(self, *images: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the file on tensors; see `FileSegmenter.run`."""
        self._check_tensors(images)
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self.compiled.create_infer_request()
        found = request.infer(dict(zip(self.inputs, images, strict=True)))
        return {name: np.array(found[name]) for name in self.tasks}

    def _compile(self, core: Any, model: Any) -> None:
        hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self.device == "CPU":
            hints |= {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": self.threads}
        try:
            self.compiled = core.compile_model(model, self.device, hints)
        except RuntimeError as error:
            raise ValueError(f"OpenVINO cannot compile {self.path} for {self.device}: {error}") from error
        self._local = threading.local()  # one request per thread: it holds the tensors of a run

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: everything but the compiled model, which is compiled anew from the file's content."""
        return {name: value for name, value in vars(self).items() if name not in ("compiled", "_local")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        core = _core()
        self._compile(core, _read(core, self.path, *self._content))


def digest(weights: bytes) -> str:
    """The SHA-256 of the content of a `.bin` file, which the `.xml` file states."""
    return hashlib.sha256(weights).hexdigest()


def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ImportError("running OpenVINO files needs openvino: pip install 'edgeseg[openvino]'") from error
    return openvino.Core()


def _read(core: Any, path: str | os.PathLike[str], xml: bytes, weights: bytes) -> Any:
    try:
        return core.read_model(xml, weights)
    except RuntimeError as error:
        raise ValueError(f"OpenVINO cannot load {path}: {error}") from error


def _shape(model: Any) -> list[int | str]:
    """Shape of the last input; names stand for dimensions that may change."""
    dims = model.inputs[-1].partial_shape
    return [name if dim.is_dynamic else dim.get_length() for name, dim in zip(AXES, dims, strict=True)]


def _device(core: Any, name: str) -> str:
    """The device as OpenVINO spells it; raises a ValueError that names what exists."""
    has = [*core.available_devices, "AUTO"]
    wanted = name.upper()
    if wanted not in has and not any(each.startswith(f"{wanted}.") for each in has):
        raise ValueError(f"OpenVINO finds no device {name!r} on this machine, only {', '.join(has)}")
    return wanted
