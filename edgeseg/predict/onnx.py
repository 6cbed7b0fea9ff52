"""Exported networks in onnxruntime. Needs no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from edgeseg.config import read_config
from edgeseg.predict.predictor import Predictor
from edgeseg.spec import Preprocess
from edgeseg.tasks import kind_of
from edgeseg.vision.flow import ZERO, resize_flow
from edgeseg.vision.images import ImageLike

CPU = "CPUExecutionProvider"
Fit = Literal["stretch", "letterbox"]


class OnnxSegmenter(Predictor):
    """An ONNX file that `edgeseg.export_onnx` or `edgeseg quantize` wrote; `predict` and `predict_tasks` as of a model.

    Args:
        path: The file.
        providers: Of onnxruntime, in the order of preference, such as ["CUDAExecutionProvider"]; default the CPU.
        threads: On the CPU; default as many as this process may use.

    Attributes:
        session: The onnxruntime session, of all sizes that the file takes.
        fit: How photos are fitted to a file of fixed size: "stretch" or "letterbox", see `edgeseg.export_onnx`.

    Raises:
        ImportError: without onnxruntime: `pip install edgeseg[onnx]`.
        FileNotFoundError: no such file.
        ValueError: no ONNX file, one that edgeseg did not write, or a provider that this onnxruntime has not.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, providers: Sequence[str] | None = None, threads: int | None = None
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError("running ONNX files needs onnxruntime: pip install edgeseg[onnx]") from error
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {path}")
        wanted = list(providers or [CPU])
        missing = [name for name in wanted if name not in onnxruntime.get_available_providers()]
        if missing:
            has = ", ".join(onnxruntime.get_available_providers())
            raise ValueError(
                f"this onnxruntime has no {', '.join(missing)}, only {has}; other providers come in packages of their "
                "own, such as onnxruntime-gpu"
            )
        self.path, self.providers, self.threads = Path(path), wanted, threads or _cores()
        self._content = self.path.read_bytes()  # what is at the path may change
        try:
            self.session = self._open({})
        except Exception as error:  # of many kinds, none of them documented
            raise ValueError(f"onnxruntime cannot load {path}: {error}") from error
        facts = self.session.get_modelmeta().custom_metadata_map
        if "edgeseg" not in facts or "edgeseg_file" not in facts:
            raise ValueError(f"{path} was not written by edgeseg.export_onnx; it does not say what its tensors mean")
        self.config = read_config(facts["edgeseg"], str(path))
        about = json.loads(facts["edgeseg_file"])
        self.output, self.normalizes = str(about["output"]), bool(about["preprocess"])
        self.fit = str(about.get("fit", "stretch"))
        self.shape: list[int | str] = self.session.get_inputs()[-1].shape
        self._last: tuple[int, ...] = ()
        self._fixed: tuple[tuple[int, ...], Any] = (), None

    def run(self, *images: np.ndarray) -> dict[str, np.ndarray]:
        """The file itself: tensors [N,C,H,W] as it takes them -> its outputs by task.

        Raises:
            ValueError: another number of tensors, or shapes or dtypes that the file cannot take; says which it can.
        """
        self._check_count(images)
        for given, image in zip(self.session.get_inputs(), images, strict=True):
            kind = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}.get(given.type, given.type)
            fits = len(image.shape) == 4 and all(
                not isinstance(n, int) or n == m for n, m in zip(given.shape, image.shape, strict=True)
            )
            if not fits or str(image.dtype) != kind:
                raise ValueError(
                    f"{given.name} is {kind} {list(given.shape)} in {self.path.name}, got {image.dtype} "
                    f"{list(image.shape)}"
                )
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
        for name, length in sizes.items():
            options.add_free_dimension_override_by_name(name, length)
        return onnxruntime.InferenceSession(self._content, options, providers=self.providers)

    def feed(self, *images: ImageLike) -> dict[str, np.ndarray]:
        """The tensors, by input, that `predict` gives the file for one image an input."""
        return dict(zip(self.inputs, self._to_inputs(self._load(images), self.preprocess), strict=True))

    def _maps(
        self, frames: Sequence[Sequence[np.ndarray]], preprocess: Preprocess, tasks: Sequence[str]
    ) -> list[dict[str, np.ndarray]]:
        size = frames[0][-1].shape[:2]
        inputs = [self._to_inputs(pixels, preprocess) for pixels in frames]
        if self.shape[0] == 1:
            runs = [self.run(*each) for each in inputs]
        else:
            together = self.run(*(np.concatenate(images) for images in zip(*inputs, strict=True)))
            runs = [{name: found[i : i + 1] for name, found in together.items()} for i in range(len(frames))]
        return [self._at(size, {name: found[name][0] for name in tasks}) for found in runs]

    def _at(self, size: tuple[int, ...], outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the file answers of one frame -> maps of the photo's size."""
        canvas, top, left = self._canvas(size)
        maps = {}
        for name, values in outputs.items():
            kind = kind_of(self.tasks[name])
            labels = kind.has_classes and self.output.endswith("labels")
            whole = kind.resized(values, canvas) if labels else kind.map(values, canvas)
            if labels and whole.dtype == np.int32:  # ONNX's operators lack uint16
                whole = whole.astype(np.uint16)
            maps[name] = whole[top : top + size[0], left : left + size[1]]
        return maps

    def _canvas(self, size: Sequence[int]) -> tuple[tuple[int, int], int, int]:
        """The photo with its letterbox borders, in pixels of the photo: height and width, and the photo's corner."""
        if self.fit != "letterbox":
            return (size[0], size[1]), 0, 0
        inner, corner = self._letterbox(size)
        scales = [small / large for small, large in zip(inner, size, strict=True)]
        top, left = (round(offset / scale) for offset, scale in zip(corner, scales, strict=True))
        height, width = (round(int(n) / scale) for n, scale in zip(self.shape[2:], scales, strict=True))
        return (max(height, top + size[0]), max(width, left + size[1])), top, left

    def _letterbox(self, size: Sequence[int]) -> tuple[list[int], list[int]]:
        """Height and width of a photo within the file's size, and its corner."""
        frame = [int(n) for n in self.shape[2:]]
        scale = min(n / m for n, m in zip(frame, size, strict=True))
        inner = [min(max(round(m * scale), 1), n) for n, m in zip(frame, size, strict=True)]
        return inner, [(n - m) // 2 for n, m in zip(frame, inner, strict=True)]

    def _to_inputs(self, pixels: Sequence[np.ndarray], preprocess: Preprocess) -> list[np.ndarray]:
        size = pixels[-1].shape[:2]
        wanted = preprocess.input_size(size)
        allowed = [n if isinstance(n, int) else m for n, m in zip(self.shape[2:], wanted, strict=True)]
        if preprocess is not self.preprocess and list(wanted) != allowed:
            raise ValueError(
                f"{self.path.name} takes images of {allowed[0]}x{allowed[1]} (height x width) only, and a tile becomes "
                f"{wanted[0]}x{wanted[1]}; tiles need a file with dynamic height and width"
            )
        kinds = [each.kind for each in self.inputs.values()]
        if self.fit == "letterbox":
            inner, corner = self._letterbox(size)
            inputs = zip(pixels, kinds, strict=True)
            pixels = [self._framed(_scaled(image, kind, inner), kind, corner, preprocess) for image, kind in inputs]
        return [self._to_input(image, kind, allowed, preprocess) for image, kind in zip(pixels, kinds, strict=True)]

    def _framed(self, pixels: np.ndarray, kind: str, corner: Sequence[int], preprocess: Preprocess) -> np.ndarray:
        """Pixels within the file's size; around them the mean of the weights, or no motion."""
        height, width = (int(n) for n in self.shape[2:])
        mean = preprocess.mean[::-1] if preprocess.channel_order == "bgr" else preprocess.mean
        fill = np.broadcast_to(np.array(ZERO if kind == "flow" else mean), pixels.shape[2:]).round().clip(0, 255)
        framed = np.empty((height, width, pixels.shape[2]), np.uint8)
        framed[:] = fill.astype(np.uint8)
        framed[corner[0] : corner[0] + pixels.shape[0], corner[1] : corner[1] + pixels.shape[1]] = pixels
        return framed

    def _to_input(self, pixels: np.ndarray, kind: str, size: Sequence[int], preprocess: Preprocess) -> np.ndarray:
        """uint8 [H,W,C] -> what the file takes, [1,C,h,w]."""
        pixels = _scaled(pixels, kind, size)
        if self.normalizes:
            return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
        if preprocess.channel_order == "bgr":
            pixels = pixels[:, :, ::-1]
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)
        mean, std = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (preprocess.mean, preprocess.std))
        return ((planes - mean) / std)[None]


def _cores() -> int:
    """That this process may use; on systems that do not tell, all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _scaled(pixels: np.ndarray, kind: str, size: Sequence[int]) -> np.ndarray:
    """Pixels, or flow with its vectors, at another height and width."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    return resize_flow(pixels, size) if kind == "flow" else _resized(pixels, size)


def _resized(pixels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Antialiased bilinear, as in training."""
    height, width = size
    if pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    planes: list[Any] = [Image.fromarray(pixels[:, :, i]) for i in range(pixels.shape[2])]
    return np.stack([np.asarray(p.resize((width, height), Image.Resampling.BILINEAR)) for p in planes], axis=-1)
