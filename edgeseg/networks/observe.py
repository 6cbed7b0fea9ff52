"""A pass over typical images, for what measures the values within a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from edgeseg.networks.modes import evaluating
from edgeseg.networks.pixel2pixel import Pixel2Pixel


def observe(model: Pixel2Pixel, images: Iterable[Sequence[Tensor]], hooks: Sequence[RemovableHandle]) -> None:
    """Runs a network in evaluation mode, and removes hooks afterwards.

    Args:
        model: In any mode, which it keeps.
        images: Preprocessed. Each item is one run of the network: one tensor [N, C, H, W] per input.
        hooks: Those that measure.
    """
    try:
        with evaluating(model):
            for inputs in images:
                model.decode(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
