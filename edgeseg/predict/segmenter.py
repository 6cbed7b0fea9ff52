"""Files that `edgeseg.export` wrote, in whatever runtime runs them: from photos to its tensors, and back to maps."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from edgeseg.config import read_config
from edgeseg.machine.errors import value_errors
from edgeseg.predict.predictor import Predictor
from edgeseg.records import Record
from edgeseg.spec import Preprocess
from edgeseg.tasks import kind_of
from edgeseg.vision.flow import ZERO, resize_flow
from edgeseg.vision.images import ImageLike

Fit = Literal["stretch", "letterbox"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Written(Record):
    """How a file was written.

    Args:
        output: What the file returns.
        preprocess: Whether the file takes uint8 pixels and normalizes them itself.
        fit: How photos are fitted to a file of fixed size.
    """

    output: Literal["logits", "labels", "small_logits", "small_labels"]
    preprocess: bool
    fit: Fit = "stretch"


class FileSegmenter(Predictor):
    """A network in a file. A subclass opens the file and runs it; `predict` and the others do what those of a model do.

    Args:
        path: The file.
        facts: What the file says of itself: "edgeseg" is the record of the model and "edgeseg_file" says how the file
            was written, both as JSON.
        shape: Shape of its last input, [N, C, H, W]; names stand for dimensions that may change from call to call.

    Attributes:
        path: The file.
        fit: How photos are fitted to a file of fixed size: "stretch" or "letterbox", see `edgeseg.export`.
        output: What the file returns: "logits", "labels", "small_logits" or "small_labels".
        normalizes: Whether the file takes uint8 pixels and normalizes them itself.
        shape: As the argument.

    Raises:
        ValueError: edgeseg did not write the file.
    """

    def __init__(self, path: str | os.PathLike[str], facts: Mapping[str, str], shape: Sequence[int | str]) -> None:
        self.path, self.shape = Path(path), list(shape)
        if "edgeseg" not in facts or "edgeseg_file" not in facts:
            raise ValueError(f"{path} was not written by edgeseg.export; it does not say what its tensors mean")
        self.config = read_config(facts["edgeseg"], str(path))
        with value_errors(path, f"{path} does not say how it was written"):
            about = Written.from_json(json.loads(facts["edgeseg_file"]))
        self.output, self.normalizes, self.fit = about.output, about.preprocess, about.fit

    def _check_shape(self) -> None:
        """Raises a ValueError if `shape` is not that of images of the last input, or does not suit `fit`."""
        fixed = [length for length in self.shape if isinstance(length, int)]
        known = all(isinstance(length, int | str) for length in self.shape)
        fits = known and len(self.shape) == 4 and self.shape[1] == self.in_channels[-1] and min(fixed) >= 1
        if not fits or (self.fit == "letterbox" and len(fixed) < 3):
            raise ValueError(
                f"{self.path} takes images of the shape {self.shape}, which does not fit its record: "
                f"{self.in_channels[-1]} channels, fit {self.fit}"
            )

    @abstractmethod
    def run(self, *images: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the file on tensors.

        Args:
            images: Per input, an array [N, C, H, W]: uint8 pixels in RGB if the file `normalizes`, else normalized
                float32.

        Returns:
            The outputs by task, whose form `output` names: logits or values [N, C, H, W], or labels [N, H, W].

        Raises:
            ValueError: another number of tensors, or shapes or dtypes that the file cannot take; says which it can.
        """

    def _check_tensors(self, images: Sequence[np.ndarray]) -> None:
        """Raises the errors of `run`."""
        self._check_count(images)
        dtype = "uint8" if self.normalizes else "float32"
        for (name, each), image in zip(self.inputs.items(), images, strict=True):
            if not isinstance(image, np.ndarray):
                raise ValueError(f"{name} must be a NumPy array, got {type(image).__name__}; predict() takes photos")
            shape = [self.shape[0], each.channels, *self.shape[2:]]
            fits = image.ndim == 4 and all(
                isinstance(wanted, str) or wanted == given for wanted, given in zip(shape, image.shape, strict=True)
            )
            if not fits or str(image.dtype) != dtype:
                raise ValueError(
                    f"{name} is {dtype} {shape} in {self.path.name}, got {image.dtype} {list(image.shape)}"
                )

    def feed(self, *images: ImageLike) -> dict[str, np.ndarray]:
        """Prepares photos for `run`, as `predict` does.

        Args:
            images: One image per input, as in `predict`.

        Returns:
            Per input, by name, the array [1, C, H, W] that the file takes.
        """
        return dict(zip(self.inputs, self._to_inputs(self._load(images), self.preprocess), strict=True))

    def _maps(
        self, frames: Sequence[Sequence[np.ndarray]], preprocess: Preprocess, tasks: Sequence[str]
    ) -> list[dict[str, np.ndarray]]:
        size = frames[0][-1].shape[:2]
        inputs = [self._to_inputs(pixels, preprocess) for pixels in frames]
        try:
            if self.shape[0] == 1:
                runs = [self.run(*each) for each in inputs]
            else:
                together = self.run(*(np.concatenate(images) for images in zip(*inputs, strict=True)))
                runs = [{name: found[i : i + 1] for name, found in together.items()} for i in range(len(frames))]
            return [self._at(size, {name: found[name][0] for name in tasks}) for found in runs]
        except MemoryError:
            raise
        except Exception as error:  # of the runtimes, which do not document them
            raise ValueError(f"{self.path} cannot be run on these images: {error}") from error

    def _at(self, size: tuple[int, ...], outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the file answers of one frame -> maps of the photo's size."""
        canvas, top, left = self._canvas(size)
        maps = {}
        for name, values in outputs.items():
            kind = kind_of(self.tasks[name])
            if not self.output.endswith("labels") and values.shape[:1] != (self.tasks[name].channels,):
                raise ValueError(
                    f"{name} has {self.tasks[name].channels} channels, and the file returns {values.shape}"
                )
            labels = kind.has_classes and self.output.endswith("labels")
            if labels and values.ndim == 3:  # the files for TI's devices keep the dimension of the channels
                values = values[0]
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
        color = np.array(ZERO) if kind == "flow" else _ordered(np.array(preprocess.mean), preprocess)
        fill = np.broadcast_to(color, pixels.shape[2:]).round().clip(0, 255)
        framed = np.empty((height, width, pixels.shape[2]), np.uint8)
        framed[:] = fill.astype(np.uint8)
        framed[corner[0] : corner[0] + pixels.shape[0], corner[1] : corner[1] + pixels.shape[1]] = pixels
        return framed

    def _to_input(self, pixels: np.ndarray, kind: str, size: Sequence[int], preprocess: Preprocess) -> np.ndarray:
        """uint8 [H,W,C] -> what the file takes, [1,C,h,w]."""
        pixels = _scaled(pixels, kind, size)
        if self.normalizes:
            return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
        pixels = _ordered(pixels, preprocess)
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)
        mean, std = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (preprocess.mean, preprocess.std))
        return ((planes - mean) / std)[None]


def _ordered(channels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Channels, the last dimension, in the order of the weights; "bgr" turns the first three."""
    if preprocess.channel_order != "bgr":
        return channels
    return np.concatenate([channels[..., :3][..., ::-1], channels[..., 3:]], axis=-1)


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
