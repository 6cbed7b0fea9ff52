"""From photos to maps of their own size: what a network in torch and one in onnxruntime have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np

from edgeseg.images import ImageLike, input_size, load_pixels, tiles
from edgeseg.pipeline import equal_runs
from edgeseg.spec import Preprocess, Task


class Predictor(ABC):
    """Segments photos; a subclass runs the network.

    Attributes:
        tasks: What is predicted, by name.
        in_channels: Channels of each input.
        input_names: Of the inputs; the last is the photo that is labelled.
        preprocess: How photos become input tensors.
    """

    tasks: Mapping[str, Task]
    in_channels: tuple[int, ...]
    input_names: tuple[str, ...]
    preprocess: Preprocess

    @abstractmethod
    def _maps(
        self, frames: Sequence[Sequence[np.ndarray]], preprocess: Preprocess, tasks: Sequence[str]
    ) -> list[dict[str, np.ndarray]]:
        """Of each frame one uint8 [H,W,C] array an input, all of one size -> of each a map [H,W] for the tasks."""

    @overload
    def predict(
        self, *images: ImageLike, task: str | None = None, tile: Sequence[int] | None = None, batch_size: int = 1
    ) -> np.ndarray: ...

    @overload
    def predict(
        self,
        *images: list[ImageLike] | tuple[ImageLike, ...],
        task: str | None = None,
        tile: Sequence[int] | None = None,
        batch_size: int = 1,
    ) -> list[np.ndarray]: ...

    def predict(
        self,
        *images: ImageLike | list[ImageLike] | tuple[ImageLike, ...],
        task: str | None = None,
        tile: Sequence[int] | None = None,
        batch_size: int = 1,
    ) -> np.ndarray | list[np.ndarray]:
        """Segments photos, from pixels to label maps.

        Args:
            images: Per input of the model one image or a list of them. An image is a path, a PIL image, a uint8 array
                [H,W,C] or a uint8 tensor [C,H,W], RGB. They are preprocessed as the weights were trained.
            task: Name of the task; by default the first.
            tile: Height and width of the pieces, in pixels of the photo, that a larger one is segmented in, with an
                overlap of a quarter; each is resized by as much as the whole would be. For photos that do not fit
                into memory; at the seams the network sees less around a pixel.
            batch_size: Photos of one size that, where they follow each other, go through the network together.

        Returns:
            For each image a map [H,W] of its own size: class ids (uint8, uint16 beyond 256 classes), or float32 values
            for a regressed task. One map for one image, a list for a list.
        """
        task = task or next(iter(self.tasks))
        if task not in self.tasks:
            raise ValueError(f"no task named {task!r}; this model has {', '.join(self.tasks)}")
        self._check_count(images)
        single = not isinstance(images[0], list | tuple)
        streams = [list(stream) if isinstance(stream, list | tuple) else [stream] for stream in images]
        if len({len(stream) for stream in streams}) > 1:
            counts = zip(self.input_names, map(len, streams), strict=True)
            raise ValueError(f"each input needs as many images, got {', '.join(f'{n} {count}' for n, count in counts)}")
        frames = zip(*streams, strict=True)
        maps = [found[task] for found in self._predict_frames(frames, [task], tile, batch_size)]
        return maps[0] if single else maps

    def predict_tasks(self, *images: ImageLike, tile: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """All tasks in one pass: `{task: map [H,W]}` for one image per input; arguments as of `predict`."""
        (maps,) = self.predict_frames([images], tile=tile)
        return maps

    def predict_frames(
        self, frames: Iterable[Sequence[ImageLike]], *, tile: Sequence[int] | None = None, batch_size: int = 1
    ) -> Iterator[dict[str, np.ndarray]]:
        """`predict_tasks` of any number of frames, each with one image per input; arguments as of `predict`."""
        return self._predict_frames(frames, list(self.tasks), tile, batch_size)

    def _predict_frames(
        self, frames: Iterable[Sequence[ImageLike]], tasks: Sequence[str], tile: Sequence[int] | None, batch_size: int
    ) -> Iterator[dict[str, np.ndarray]]:
        if batch_size < 1:
            raise ValueError(f"batch_size is at least 1, got {batch_size}")
        for batch in equal_runs(map(self._load, frames), lambda pixels: pixels[-1].shape, batch_size):
            height, width = batch[0][-1].shape[:2]
            if tile is None or (height <= tile[0] and width <= tile[1]):
                yield from self._maps(batch, self.preprocess, tasks)
            else:
                yield from (self._in_tiles(pixels, tasks, tile) for pixels in batch)

    def _load(self, images: Sequence[ImageLike]) -> list[np.ndarray]:
        self._check_count(images)
        pixels = [load_pixels(image) for image in images]
        self._check_sizes([array.shape[:2] for array in pixels])
        return pixels

    def _in_tiles(
        self, pixels: Sequence[np.ndarray], tasks: Sequence[str], tile: Sequence[int]
    ) -> dict[str, np.ndarray]:
        height, width = pixels[-1].shape[:2]
        whole = input_size((height, width), self.preprocess)
        result: dict[str, np.ndarray] = {}
        for outer, inner in tiles((height, width), tile):
            size = [max(round(len(r) * n / m), 1) for r, n, m in zip(outer, whole, (height, width), strict=True)]
            piece = [image[outer[0].start : outer[0].stop, outer[1].start : outer[1].stop] for image in pixels]
            preprocess = replace(self.preprocess, size=(size[0], size[1]), keep_aspect=False)
            y, x = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
            (maps,) = self._maps([piece], preprocess, tasks)
            for name, found in maps.items():
                part = result.setdefault(name, np.empty((height, width), found.dtype))
                part[inner[0].start : inner[0].stop, inner[1].start : inner[1].stop] = found[y, x]
        return result

    def _check_count(self, images: Sequence[Any]) -> None:
        if len(images) != len(self.in_channels):
            wanted = zip(self.input_names, self.in_channels, strict=True)
            inputs = ", ".join(f"{name} ({channels} channels)" for name, channels in wanted)
            raise ValueError(f"this model takes {inputs}, got {len(images)} inputs")

    def _check_sizes(self, sizes: Sequence[Sequence[int]]) -> None:
        if any(tuple(size) != tuple(sizes[0]) for size in sizes):
            given = ", ".join(f"{name} {list(size)}" for name, size in zip(self.input_names, sizes, strict=True))
            raise ValueError(f"all inputs need one size, got {given}")


def default_input_names(count: int) -> tuple[str, ...]:
    """Names of that many inputs: the photo comes last, one before it is optical flow."""
    if count == 2:
        return ("flow", "image")
    return (*(f"input{i}" for i in range(1, count)), "image")
