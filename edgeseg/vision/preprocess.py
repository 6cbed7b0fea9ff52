"""From the pixels of any input, a photo or optical flow, to the tensor that the weights were trained on."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from edgeseg.spec import Preprocess
from edgeseg.vision.flow import mirror_flow, resize_flow


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
    if kind == "flow":
        size = [max(round(length * scale), 1) for length in preprocess.input_size(image.shape[-2:])]
        flow = resize_flow(image.permute(1, 2, 0).numpy(), size)
        pixels = torch.from_numpy(np.ascontiguousarray(mirror_flow(flow) if mirror else flow))
        return preprocess.normalize(pixels.permute(2, 0, 1))
    batch = preprocess.resize(image, scale)
    return preprocess.normalize(batch.flip(-1) if mirror else batch)
