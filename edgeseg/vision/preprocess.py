"""From the pixels of a photo to the tensor that the weights were trained on."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgeseg.spec import Preprocess
from edgeseg.vision.flow import mirror_flow, resize_flow
from edgeseg.vision.images import input_size


def normalize(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Normalizes pixels with the channel order, mean and standard deviation of the weights.

    Args:
        images: uint8 [N, C, H, W] of 0 to 255, RGB.
        preprocess: Of the weights.

    Returns:
        float32 [N, C, H, W].

    Raises:
        ValueError: `preprocess` has a mean or a standard deviation for another number of channels.
    """
    for values in (preprocess.mean, preprocess.std):
        if len(values) not in (1, images.shape[1]):
            raise ValueError(f"the weights take {len(values)} channels per image, got {images.shape[1]}")
    if preprocess.channel_order == "bgr":
        images = images.flip(1)
    mean, std = (
        torch.tensor(values, device=images.device).view(1, -1, 1, 1) for values in (preprocess.mean, preprocess.std)
    )
    return (images.float() - mean) / std


def to_input(
    image: Tensor,
    preprocess: Preprocess,
    kind: Literal["image", "flow"] = "image",
    *,
    scale: float = 1.0,
    mirror: bool = False,
) -> Tensor:
    """Resizes an image as `preprocess` says (antialiased bilinear) and normalizes it.

    Args:
        image: uint8 [C, H, W].
        preprocess: Of the weights.
        kind: Kind of the input; the vectors of optical flow change with the picture.
        scale: A further factor on the size.
        mirror: Swap left and right.

    Returns:
        float32 [1, C, h, w].
    """
    height, width = input_size(image.shape[-2:], preprocess)
    size = [max(round(height * scale), 1), max(round(width * scale), 1)]
    if kind == "flow":
        flow = resize_flow(image.permute(1, 2, 0).numpy(), size)
        pixels = torch.from_numpy(np.ascontiguousarray(mirror_flow(flow) if mirror else flow))
        return normalize(pixels.permute(2, 0, 1).unsqueeze(0), preprocess)
    batch = image.unsqueeze(0)
    if size != list(image.shape[-2:]):
        batch = F.interpolate(batch, size=size, mode="bilinear", antialias=True)
    return normalize(batch.flip(-1) if mirror else batch, preprocess)
