"""The images on which 8-bit files are calibrated and compared, as the tensors that a file takes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from edgeseg.deploy.facts import facts_of
from edgeseg.deploy.graph import AXES, Graph
from edgeseg.machine.terminal import progress_bar
from edgeseg.networks.equalize import equalize_channels
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.rounding import round_weights
from edgeseg.predict.segmenter import FileSegmenter, Fit
from edgeseg.vision.images import ImageLike

Frame = ImageLike | tuple[ImageLike, ...]
ROUNDING_IMAGES = 32  # on which weights are rounded
T = TypeVar("T")


def suit_8_bit(model: Pixel2Pixel, inputs: Sequence[Sequence[Tensor]], *, pixels: bool) -> None:
    """Prepares a network in place for 8 bits with one weight scale per channel: equalizes channels and rounds weights.

    Args:
        model: A float network.
        inputs: As `calibration_inputs` returns them.
        pixels: Whether they are uint8 pixels, which the file normalizes itself.
    """

    def shown(part: Sequence[Sequence[Tensor]], title: str) -> Iterator[list[Tensor]]:
        for images in progress_bar(part, title, "image"):
            yield [model.preprocess.normalize(image) for image in images] if pixels else list(images)

    equalize_channels(model, shown(inputs, "equalization"))
    round_weights(model, shown(some(inputs, ROUNDING_IMAGES), "rounding"), levels=127)


def some(items: Sequence[T], number: int) -> Sequence[T]:
    """At most a number of items, evenly spread."""
    return items[:: math.ceil(len(items) / number)]


class Prepared(Sequence[T]):
    """Items that are prepared each time that they are asked for, so that the memory holds one at a time."""

    def __init__(self, items: Sequence[Any], prepare: Callable[[Any], T]) -> None:
        self.items, self.prepare = items, prepare

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return map(self.prepare, self.items)  # an IndexError of `prepare` does not end it

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Prepared(self.items[index], self.prepare)
        return self.prepare(self.items[index])


def as_frame(images: Frame) -> tuple[ImageLike, ...]:
    """One image per input; a single one need not be given as a tuple."""
    return images if isinstance(images, tuple) else (images,)


class _Unwritten(FileSegmenter):
    """A file that is yet to be written: photos are fitted to its tensors as they will be."""

    def run(self, *images: np.ndarray) -> dict[str, np.ndarray]:
        """There is nothing to run."""
        raise NotImplementedError


def check_images(images: Any) -> None:
    """Raises a ValueError unless these are several photos: not a single one, a generator, or none."""
    if isinstance(images, str | os.PathLike) or not isinstance(images, Sequence | np.ndarray):
        raise ValueError(f"images is a list of photos, got {type(images).__name__}; for a single one pass [photo]")
    if not len(images):
        raise ValueError("images is empty; an 8-bit file needs typical photos that the ranges are measured on")


def given_images(precision: str, images: Any, *, trained: bool) -> Any:
    """Returns the photos; raises a ValueError unless there are some for "int8", and none for another precision.

    A network that was `trained` for 8 bits has its ranges, and needs none for "int8".
    """
    images = () if images is None else images
    given = not (isinstance(images, Sequence | np.ndarray) and not len(images))
    if (precision == "int8") != given and not (precision == "int8" and trained):
        raise ValueError('precision="int8" needs images, on which ranges are measured, and other precisions need none')
    if given:
        check_images(images)
    return images


def calibration_inputs(
    graph: Graph, images: Sequence[Frame], *, size: Sequence[int] | None = None, fit: Fit = "stretch"
) -> Sequence[list[Tensor]]:
    """Fits photos to the tensors of a file, each time that one is asked for.

    Args:
        graph: The content of the file.
        images: Photos, given as for `predict`; for several inputs, tuples with one image per input.
        size: As in `facts_of`.
        fit: How photos are fitted to a file of fixed size.

    Returns:
        Per photo, one tensor [1, C, H, W] per input of the file. One that cannot be read raises an OSError.
    """
    batch, height, width = graph.ends.example
    shape: list[int | str] = [batch, graph.model.in_channels[-1], height, width]
    for axis, name in AXES.items():
        if name in graph.ends.dynamic:
            shape[axis] = name
    file = _Unwritten(Path("model"), facts_of(graph, size, fit), shape)
    return Prepared(images, lambda image: [torch.from_numpy(array) for array in file.feed(*as_frame(image)).values()])
