"""From a photo, in any of the forms that users have it, to the tensor that the weights were trained on."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from edgeseg.flow import is_flow, mirror_flow, resize_flow
from edgeseg.spec import Preprocess

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
"""A path, PIL image, uint8 array [H,W,C] or [H,W], or uint8 tensor [C,H,W]."""


def load_image(image: ImageLike) -> Tensor:
    """`image` as a uint8 tensor [C,H,W]; files and PIL images become RGB, turned upright by their EXIF tag.

    Raises:
        TypeError: not one of the forms above, or not uint8.
        ValueError: a wrong number of dimensions.
        OSError: a file that is missing or is no readable image.
    """
    if isinstance(image, str | os.PathLike):
        with Image.open(Path(image)) as opened:
            return load_image(opened)
    if isinstance(image, Image.Image):
        image = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise TypeError(f"image arrays are uint8, 0 to 255, got {image.dtype}")
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        if image.ndim != 3:
            raise ValueError(f"an image array is [H,W,C] or [H,W], got shape {image.shape}")
        return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8:
            raise TypeError(f"image tensors are uint8, 0 to 255, got {image.dtype}; call the model for float tensors")
        if image.ndim != 3:
            raise ValueError(f"an image tensor is [C,H,W], got shape {tuple(image.shape)}; pass a batch as a list")
        return image
    raise TypeError(f"an image is a path, PIL image, uint8 array or uint8 tensor, got {type(image).__name__}")


def normalize(images: Tensor, preprocess: Preprocess) -> Tensor:
    """uint8 [N,C,H,W] of 0 to 255, RGB -> float32 [N,C,H,W], with the channel order, mean and std of the weights."""
    for values in (preprocess.mean, preprocess.std):
        if len(values) not in (1, images.shape[1]):
            raise ValueError(f"the weights take {len(values)} channels an image, got {images.shape[1]}")
    if preprocess.channel_order == "bgr":
        images = images.flip(1)
    mean, std = (
        torch.tensor(values, device=images.device).view(1, -1, 1, 1) for values in (preprocess.mean, preprocess.std)
    )
    return (images.float() - mean) / std


def to_input(
    image: Tensor, preprocess: Preprocess, *, name: str = "image", scale: float = 1.0, mirror: bool = False
) -> Tensor:
    """uint8 [C,H,W] -> float32 [1,C,h,w]: resized as `preprocess` says (antialiased bilinear), normalized.

    Args:
        name: Of the input; one with "flow" in it is optical flow, whose vectors change with the picture.
        scale: A further factor on the size.
        mirror: Left and right change places.
    """
    height, width = input_size(image.shape[-2:], preprocess)
    size = [max(round(height * scale), 1), max(round(width * scale), 1)]
    if is_flow(name):
        flow = resize_flow(image.permute(1, 2, 0).numpy(), size)
        pixels = torch.from_numpy(np.ascontiguousarray(mirror_flow(flow) if mirror else flow))
        return normalize(pixels.permute(2, 0, 1).unsqueeze(0), preprocess)
    batch = image.unsqueeze(0)
    if size != list(image.shape[-2:]):
        batch = F.interpolate(batch, size=size, mode="bilinear", antialias=True)
    return normalize(batch.flip(-1) if mirror else batch, preprocess)


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
