"""Photos in any of the forms that users have them, without torch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from PIL import Image, ImageOps

from edgeseg.spec import Preprocess

if TYPE_CHECKING:
    from torch import Tensor

ImageLike = Union[str, "os.PathLike[str]", Image.Image, np.ndarray, "Tensor"]
"""A path, PIL image, uint8 array [H,W,C] or [H,W], or uint8 tensor [C,H,W]."""


def load_pixels(image: ImageLike) -> np.ndarray:
    """`image` as a uint8 array [H,W,C]; files and PIL images become RGB, turned upright by their EXIF tag.

    Raises:
        TypeError: not one of the forms above, or not uint8.
        ValueError: a wrong number of dimensions.
        OSError: a file that is missing or is no readable image.
    """
    if isinstance(image, str | os.PathLike):
        with Image.open(Path(image)) as opened:
            return load_pixels(opened)
    if isinstance(image, Image.Image):
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise TypeError(f"image arrays are uint8, 0 to 255, got {image.dtype}")
        if image.ndim == 2:
            return np.repeat(image[:, :, None], 3, axis=2)
        if image.ndim != 3:
            raise ValueError(f"an image array is [H,W,C] or [H,W], got shape {image.shape}")
        return image
    if _is_tensor(image):
        if str(image.dtype) != "torch.uint8":
            raise TypeError(f"image tensors are uint8, 0 to 255, got {image.dtype}; call the model for float tensors")
        if image.ndim != 3:
            raise ValueError(f"an image tensor is [C,H,W], got shape {tuple(image.shape)}; pass a batch as a list")
        return np.asarray(image.permute(1, 2, 0).cpu())
    raise TypeError(f"an image is a path, PIL image, uint8 array or uint8 tensor, got {type(image).__name__}")


def _is_tensor(image: Any) -> bool:
    """Whether it is one of torch's, which is not imported for that."""
    return any(kind.__module__ == "torch" and kind.__name__ == "Tensor" for kind in type(image).__mro__)


def input_size(size: Sequence[int], preprocess: Preprocess) -> tuple[int, int]:
    """Height and width that a photo of `size` has at the network's input."""
    height, width = size
    if preprocess.size is None:
        return height, width
    if not preprocess.keep_aspect:
        return preprocess.size
    scale = math.sqrt(math.prod(preprocess.size) / (height * width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def tiles(size: Sequence[int], tile: Sequence[int]) -> Iterator[tuple[tuple[range, range], tuple[range, range]]]:
    """Pieces that cover an image: what to look at (rows, columns), and the part of it to keep.

    Neighbours overlap by a quarter of a tile; of that each keeps its half.
    """
    rows, columns = (_spans(length, min(part, length)) for length, part in zip(size, tile, strict=True))
    for outer_rows, inner_rows in rows:
        for outer_columns, inner_columns in columns:
            yield (outer_rows, outer_columns), (inner_rows, inner_columns)


def _spans(length: int, part: int) -> list[tuple[range, range]]:
    count = math.ceil(max(length - part, 0) / max(part * 3 // 4, 1)) + 1
    starts = [round(i * (length - part) / max(count - 1, 1)) for i in range(count)]
    cuts = [0, *((a + part + b) // 2 for a, b in pairwise(starts)), length]
    return [(range(s, s + part), range(cuts[i], cuts[i + 1])) for i, s in enumerate(starts)]
