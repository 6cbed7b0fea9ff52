"""Kinds of tensors that torchvision does not know, so that its transforms treat them right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from edgeseg.vision.flow import ZERO, mirror_flow, resize_flow, turn_flow


class Depth(tv_tensors.Mask):
    """A map of distances [1,H,W] or [H,W], 0 where unknown: moves like a label map, its values stay."""


class Values(tv_tensors.Mask):
    """Any numbers per pixel, 0 where unknown: they move like a label map and stay as they are."""


class Probabilities(tv_tensors.Mask):
    """Probabilities uint8 [C,H,W] of the classes of each pixel, in 255ths, 0 in all classes where they are unknown.

    They move like a label map, and a resize averages them.
    """


class Flow(tv_tensors.TVTensor):
    """Optical flow as `edgeseg.vision.flow` has it: a resize scales the vectors, flip and rotation turn them."""


def _wrapped(flow: Flow, values: Tensor) -> Flow:
    return tv_tensors.wrap(values, like=flow)


def _changed(flow: Flow, change: Callable[[np.ndarray], np.ndarray]) -> Flow:
    """By a function of `edgeseg.vision.flow`, on [H,W,3]."""
    changed = change(flow.as_subclass(Tensor).permute(1, 2, 0).numpy())
    return _wrapped(flow, torch.from_numpy(np.ascontiguousarray(changed.transpose(2, 0, 1))))


@F.register_kernel(F.resize, Flow)
def _resize(
    flow: Flow, size: list[int], interpolation: Any = None, max_size: Any = None, antialias: Any = True
) -> Flow:
    return _changed(flow, lambda array: resize_flow(array, size))


@F.register_kernel(F.horizontal_flip, Flow)
def _horizontal_flip(flow: Flow) -> Flow:
    return _changed(flow, mirror_flow)


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
    return _changed(_wrapped(flow, rotated), lambda array: turn_flow(array, ((cos, sin), (-sin, cos))))


@F.register_kernel(F.crop, Flow)
def _crop(flow: Flow, top: int, left: int, height: int, width: int) -> Flow:
    return _wrapped(flow, F.crop(flow.as_subclass(Tensor), top, left, height, width))


@F.register_kernel(F.pad, Flow)
def _pad(flow: Flow, padding: list[int], fill: Any = None, padding_mode: str = "constant") -> Flow:
    return _wrapped(flow, F.pad(flow.as_subclass(Tensor), padding, fill=ZERO, padding_mode=padding_mode))


@F.register_kernel(F.resize, Probabilities)
def _resize_probabilities(
    values: Probabilities, size: list[int], interpolation: Any = None, max_size: Any = None, antialias: Any = True
) -> Probabilities:
    resized = F.resize(values.as_subclass(Tensor), size, F.InterpolationMode.BILINEAR, antialias=True)
    return tv_tensors.wrap(resized, like=values)
