"""From photos to maps of the photos' own size: what networks in torch and in other runtimes have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any, overload

import numpy as np
from PIL import Image

from edgeseg.arguments import require_pixels, require_size
from edgeseg.config import ModelConfig, origin
from edgeseg.machine.terminal import printable_lines
from edgeseg.predict.pipeline import equal_runs
from edgeseg.spec import Input, Preprocess, Task
from edgeseg.tasks import kind_of
from edgeseg.tasks.pictures import picture_of, with_key
from edgeseg.vision.images import ImageLike, read_input, tiles
from edgeseg.vision.visualize import as_picture

SHOWN = 6  # classes that the representation of a model names


class Predictor(ABC):
    """Predicts maps from photos. A subclass runs the network.

    Attributes:
        config: The record of the model.
    """

    config: ModelConfig

    @property
    def name(self) -> str:
        """Name of the model in the zoo, of its decoder family, or of its builder."""
        return self.config.name

    @property
    def tasks(self) -> Mapping[str, Task]:
        """What the model predicts, by name."""
        return self.config.tasks

    @property
    def inputs(self) -> Mapping[str, Input]:
        """The images that the model takes, by name; the last is the photo that the predictions belong to."""
        return self.config.inputs

    @property
    def in_channels(self) -> tuple[int, ...]:
        """Number of channels of each input."""
        return self.config.in_channels

    @property
    def preprocess(self) -> Preprocess:
        """How photos become input tensors."""
        return self.config.preprocess

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} {self.name}"]
        lines += [f"  {title}: {text}" for title, text in origin(self.config.notes)]
        lines += [
            f"  input {name}: {each.kind}, {_counted(each.channels, 'channel')}" for name, each in self.inputs.items()
        ]
        for name, task in self.tasks.items():
            counts = _counted(task.channels, "channel") + (
                f", {task.class_count} classes" if kind_of(task).has_classes else ""
            )
            lines.append(
                f"  task {name}: {task.kind}, {counts}" + (f" ({_names(task.classes)})" if task.classes else "")
            )
        return printable_lines("\n".join([*lines, f"  {self.preprocess!r}"]))

    @abstractmethod
    def _maps(
        self, frames: Sequence[Sequence[np.ndarray]], preprocess: Preprocess, tasks: Sequence[str]
    ) -> list[dict[str, np.ndarray]]:
        """Runs the network on frames of one size.

        Args:
            frames: Per frame, one uint8 [H, W, C] array per input.
            preprocess: How the pixels become input tensors.
            tasks: Names of the tasks to predict.

        Returns:
            Per frame, one map [H, W] per task.
        """

    @overload
    def predict(
        self,
        *images: ImageLike,
        task: str | None = None,
        tile: Sequence[int] | None = None,
        batch_size: int = 1,
        max_pixels: int | None = None,
    ) -> np.ndarray: ...

    @overload
    def predict(
        self,
        *images: list[Any] | tuple[Any, ...],
        task: str | None = None,
        tile: Sequence[int] | None = None,
        batch_size: int = 1,
        max_pixels: int | None = None,
    ) -> list[np.ndarray]: ...

    def predict(
        self,
        *images: ImageLike | list[Any] | tuple[Any, ...],
        task: str | None = None,
        tile: Sequence[int] | None = None,
        batch_size: int = 1,
        max_pixels: int | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Predicts one task from photos. Any number of threads may call it on one model.

        Args:
            images: Per input of the model, one image or a list of images. An image is a path, a PIL image, a uint8
                array [H, W, C] or [H, W], or a uint8 tensor [C, H, W], in RGB. It is preprocessed as the weights need.
                Files and PIL images get the channels of the input; see `edgeseg.vision.images.read_photo`.
            task: Name of the task; by default the first.
            tile: Height and width of the tiles, in pixels of the photo, in which larger photos are predicted. Tiles
                overlap by a quarter, and each is resized by the same factor as the whole photo would be. For photos
                that do not fit into memory; near the seams the network sees less of a pixel's surroundings.
            batch_size: Number of successive photos of one size that go through the network together.
            max_pixels: Height times width above which files and PIL images are refused; by default Pillow's limit.

        Returns:
            One map [H, W] per image, of the image's own size, with class ids (uint8, or uint16 beyond 256 classes) or
            the float32 values of a regressed task. A single map for a single image, a list for a list.

        Raises:
            OSError: a file is missing or unreadable, or an image has more than `max_pixels` pixels; names the file.
            TypeError: an image is of another type.
            ValueError: an unknown task; another number of inputs than the model's, or inputs of different sizes; an
                image of another shape or number of channels; a file whose range of values cannot be known; a tile or
                batch size below 1.

        Example:
            >>> import edgeseg
            >>> name = "fpn_aspp_mobilenetv2_tv_edgeailite"
            >>> model = edgeseg.create_model(name, pretrained=True)
            >>> labels = model.predict("photo.jpg")
            >>> labels.shape, str(labels.dtype)  # the photo has 90x60 pixels
            ((60, 90), 'uint8')
        """
        task = self._task(task)
        self._check_count(images)
        single = not isinstance(images[0], list | tuple)
        streams = [list(stream) if isinstance(stream, list | tuple) else [stream] for stream in images]
        if len({len(stream) for stream in streams}) > 1:
            counts = ", ".join(f"{name} {len(stream)}" for name, stream in zip(self.inputs, streams, strict=True))
            raise ValueError(f"every input needs the same number of images, got {counts}")
        frames = zip(*streams, strict=True)
        maps = [by_task[task] for by_task in self._predict_frames(frames, [task], tile, batch_size, max_pixels)]
        return maps[0] if single else maps

    def draw(
        self,
        *images: ImageLike,
        task: str | None = None,
        tile: Sequence[int] | None = None,
        max_pixels: int | None = None,
    ) -> Image.Image:
        """Predicts one task of one photo and draws it: the photo in the colours of the classes, with a legend below.

        A notebook shows the picture as the result of a cell.

        Args:
            images: One image per input, as in `predict`.
            task: Name of the task; by default the first.
            tile: As in `predict`.
            max_pixels: As in `predict`.

        Returns:
            A picture that is as wide as the photo.

        Raises:
            OSError, TypeError, ValueError: as in `predict`.
        """
        task = self._task(task)
        require_pixels(max_pixels)
        pixels = self._load(images, max_pixels)
        values = self.predict(*pixels, task=task, tile=tile)
        drawn = self.tasks[task]
        return with_key(picture_of(values, drawn, as_picture(pixels[-1])), values, drawn)

    def predict_tasks(
        self, *images: ImageLike, tile: Sequence[int] | None = None, max_pixels: int | None = None
    ) -> dict[str, np.ndarray]:
        """Predicts all tasks in one pass of the network.

        Args:
            images: One image per input, as in `predict`.
            tile: As in `predict`.
            max_pixels: As in `predict`.

        Returns:
            One map per task, by name, each as in `predict`.

        Raises:
            OSError, TypeError, ValueError: as in `predict`.
        """
        (maps,) = self.predict_frames([images], tile=tile, max_pixels=max_pixels)
        return maps

    def predict_frames(
        self,
        frames: Iterable[Sequence[ImageLike]],
        *,
        tile: Sequence[int] | None = None,
        batch_size: int = 1,
        max_pixels: int | None = None,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Predicts all tasks of any number of frames.

        Args:
            frames: Each has one image per input. They are read one after the other, while the maps are asked for.
            tile: As in `predict`.
            batch_size: As in `predict`.
            max_pixels: As in `predict`.

        Returns:
            An iterator over the frames. Each item has one map per task, by name, as in `predict`.

        Raises:
            OSError, TypeError, ValueError: as in `predict`, when the iterator reaches the frame.
        """
        return self._predict_frames(frames, list(self.tasks), tile, batch_size, max_pixels)

    def _predict_frames(
        self,
        frames: Iterable[Sequence[ImageLike]],
        tasks: Sequence[str],
        tile: Sequence[int] | None,
        batch_size: int,
        max_pixels: int | None,
    ) -> Iterator[dict[str, np.ndarray]]:
        if not isinstance(batch_size, Integral) or batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, and an integer, got {batch_size!r}")
        require_size("tile", tile)
        require_pixels(max_pixels)
        loaded = (self._load(frame, max_pixels) for frame in frames)
        for batch in equal_runs(loaded, lambda pixels: pixels[-1].shape, batch_size):
            height, width = batch[0][-1].shape[:2]
            if tile is None or (height <= tile[0] and width <= tile[1]):
                yield from self._maps(batch, self.preprocess, tasks)
            else:
                yield from (self._in_tiles(pixels, tasks, tile) for pixels in batch)

    def _load(self, images: Sequence[ImageLike], max_pixels: int | None = None) -> list[np.ndarray]:
        """The pixels of one frame, uint8 [H, W, C] per input."""
        self._check_count(images)
        inputs = zip(images, self.inputs.values(), strict=True)
        pixels = [read_input(image, each, max_pixels=max_pixels) for image, each in inputs]
        self._check_sizes([array.shape[:2] for array in pixels])
        return pixels

    def _in_tiles(
        self, pixels: Sequence[np.ndarray], tasks: Sequence[str], tile: Sequence[int]
    ) -> dict[str, np.ndarray]:
        height, width = pixels[-1].shape[:2]
        whole = self.preprocess.input_size((height, width))
        result: dict[str, np.ndarray] = {}
        for outer, inner in tiles((height, width), tile):
            size = [max(round(len(r) * n / m), 1) for r, n, m in zip(outer, whole, (height, width), strict=True)]
            piece = [image[outer[0].start : outer[0].stop, outer[1].start : outer[1].stop] for image in pixels]
            preprocess = self.preprocess
            if preprocess.size is not None:
                preprocess = replace(preprocess, size=(size[0], size[1]), keep_aspect=False)
            y, x = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
            (maps,) = self._maps([piece], preprocess, tasks)
            for name, values in maps.items():
                part = result.setdefault(name, np.empty((height, width, *values.shape[2:]), values.dtype))
                part[inner[0].start : inner[0].stop, inner[1].start : inner[1].stop] = values[y, x]
        return result

    def _task(self, name: str | None) -> str:
        """The name of the task that is meant; a ValueError if there is none of that name."""
        if name is None:
            return next(iter(self.tasks))
        if name not in self.tasks:
            raise ValueError(f"no task named {name!r}; this model has {', '.join(self.tasks)}")
        return name

    def _check_count(self, images: Sequence[Any]) -> None:
        if not isinstance(images, list | tuple):
            raise TypeError(f"a frame is a tuple of images, one per input of the network, got {type(images).__name__}")
        if len(images) != len(self.inputs):
            wanted = ", ".join(f"{name} ({each.channels} channels)" for name, each in self.inputs.items())
            raise ValueError(f"this model takes {wanted}, got {len(images)} inputs")

    def _check_sizes(self, sizes: Sequence[Sequence[int]]) -> None:
        if any(tuple(size) != tuple(sizes[0]) for size in sizes):
            given = ", ".join(f"{name} {list(size)}" for name, size in zip(self.inputs, sizes, strict=True))
            raise ValueError(f"all inputs need one size, got {given}")


def _names(classes: Sequence[str]) -> str:
    return ", ".join(classes[:SHOWN]) + (", ..." if len(classes) > SHOWN else "")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
