"""Kinds of tensors that torchvision does not know: optical flow and depth, so that its transforms treat them right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F


class Depth(tv_tensors.Mask):
    """A map of distances [1,H,W] or [H,W], 0 where unknown: moves like a label map, its values stay."""


class Flow(tv_tensors.TVTensor):
    """Optical flow as the original zoo stores it: uint8 [3,H,W], x and y motion in pixels + 128, and a third channel.

    A resize scales the vectors with the picture, a flip and a rotation turn them.
    """


ZERO = 128


def _wrapped(flow: Flow, values: Tensor) -> Flow:
    return tv_tensors.wrap(values, like=flow)


def _as_vectors(flow: Tensor, matrix: tuple[tuple[float, float], tuple[float, float]]) -> Tensor:
    """The flow with its vectors multiplied by a 2x2 matrix, rounded, saturated at what uint8 holds."""
    (xx, xy), (yx, yy) = matrix
    x, y = (flow[channel].float() - ZERO for channel in (0, 1))
    turned = torch.stack([xx * x + xy * y, yx * x + yy * y]) + ZERO
    return torch.cat([turned.round().clamp(0, 255).to(flow.dtype), flow[2:]])


@F.register_kernel(F.resize, Flow)
def _resize(
    flow: Flow, size: list[int], interpolation: Any = None, max_size: Any = None, antialias: Any = True
) -> Flow:
    height, width = flow.shape[-2:]
    resized = F.resize(flow.as_subclass(Tensor), size, interpolation=F.InterpolationMode.NEAREST)
    factors = (resized.shape[-1] / width, resized.shape[-2] / height)
    return _wrapped(flow, _as_vectors(resized, ((factors[0], 0.0), (0.0, factors[1]))))


@F.register_kernel(F.horizontal_flip, Flow)
def _horizontal_flip(flow: Flow) -> Flow:
    return _wrapped(flow, _as_vectors(F.horizontal_flip(flow.as_subclass(Tensor)), ((-1.0, 0.0), (0.0, 1.0))))


@F.register_kernel(F.rotate, Flow)
def _rotate(
    flow: Flow, angle: float, interpolation: Any = None, expand: bool = False, center: Any = None, fill: Any = None
) -> Flow:
    plain = flow.as_subclass(Tensor)
    rotated = F.rotate(
        plain, angle, F.InterpolationMode.NEAREST, expand=expand, center=center, fill=[ZERO] * len(plain)
    )
    radians = torch.deg2rad(torch.tensor(angle))
    cos, sin = float(radians.cos()), float(radians.sin())
    # Counter-clockwise on the screen, where y points down.
    return _wrapped(flow, _as_vectors(rotated, ((cos, sin), (-sin, cos))))


@F.register_kernel(F.crop, Flow)
def _crop(flow: Flow, top: int, left: int, height: int, width: int) -> Flow:
    return _wrapped(flow, F.crop(flow.as_subclass(Tensor), top, left, height, width))


@F.register_kernel(F.pad, Flow)
def _pad(flow: Flow, padding: list[int], fill: Any = None, padding_mode: str = "constant") -> Flow:
    return _wrapped(flow, F.pad(flow.as_subclass(Tensor), padding, fill=ZERO, padding_mode=padding_mode))
