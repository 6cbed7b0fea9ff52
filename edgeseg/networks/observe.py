"""A pass over typical images, for what measures the values within a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
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


def require_finite(model: Pixel2Pixel, measured: Iterable[tuple[nn.Module, Tensor]]) -> None:
    """Raises a ValueError that names a layer if what was measured at it is infinite or NaN."""
    names = {module: name for name, module in model.named_modules()}
    for module, values in measured:
        if not values.isfinite().all():
            raise ValueError(
                f"{names[module]} has infinite values or NaN for the images that 8-bit files are calibrated on; the "
                "weights, or images of floating-point numbers, are damaged"
            )
