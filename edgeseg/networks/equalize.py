"""Equalizes the ranges of channels before depthwise convolutions, so that one 8-bit scale suits all of them.

After Nagel et al., 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
https://arxiv.org/abs/1906.04721: dividing a channel before a ReLU and multiplying it after the ReLU changes nothing. A
depthwise convolution has one weight scale per channel, so the multiplication costs no accuracy there. A ReLU6 then
limits the channel to the range that was measured, as its 8-bit scale does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.networks.observe import observe, require_finite
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.wiring import trace

SMALLEST = 0.01  # share of the largest range below which the range of a channel is not counted
RELUS = ("aten.relu", "aten.relu_", "aten.hardtanh", "aten.hardtanh_")  # the latter with limits 0 and 6 is ReLU6


@torch.no_grad()
def equalize_channels(model: Pixel2Pixel, images: Iterable[Sequence[Tensor]]) -> int:
    """Equalizes channels in place, before batch norms are folded. The outputs for the images stay the same.

    After Nagel et al., 2019, https://arxiv.org/abs/1906.04721.

    Args:
        model: A trained float network.
        images: Typical images, preprocessed, on which the ranges are measured. Each item is one run of the network: one
            float32 tensor [N, C, H, W] per input.

    Returns:
        The number of depthwise convolutions whose input was equalized.

    Raises:
        ValueError: a layer has infinite values or NaN for these images; names it. The weights are as before.
    """
    pairs = _pairs(model)
    ranges = _ranges(model, [norm for norm, _, _ in pairs], images)
    for (norm, conv, limit), measured in zip(pairs, ranges, strict=True):
        reached = measured.clamp(max=limit)
        factors = (reached / reached.max().clamp(min=1e-12)).clamp(min=SMALLEST)
        norm.weight.div_(factors)
        norm.bias.div_(factors)
        conv.weight.mul_(factors.view(-1, 1, 1, 1))
    return len(pairs)


def _pairs(model: Pixel2Pixel) -> list[tuple[nn.BatchNorm2d, nn.Conv2d, float]]:
    """Batch norms that only a ReLU or ReLU6 follows, which only a depthwise convolution follows, and its limit."""
    wiring = trace(model)
    modules: dict[str, Any] = dict(model.named_modules())
    pairs = []
    for op in wiring.ops:
        norm = modules.get(op.module) if "batch_norm" in op.kind else None
        if type(norm) is not nn.BatchNorm2d or not norm.affine or wiring.calls_of(op.module) != 1:
            continue
        relu = wiring.only_consumer(op.outputs[0])
        if relu is None or relu.kind not in RELUS:
            continue
        lowest, limit = relu.arguments[1:] if "hardtanh" in relu.kind else (0, math.inf)
        after = wiring.only_consumer(relu.outputs[0]) if lowest == 0 else None
        conv = modules.get(after.module) if after is not None and after.kind == "aten.convolution" else None
        depthwise = type(conv) is nn.Conv2d and conv.groups == conv.in_channels == conv.out_channels
        if after is not None and conv is not None and depthwise and wiring.calls_of(after.module) == 1:
            pairs.append((norm, conv, limit))
    return pairs


def _ranges(model: Pixel2Pixel, norms: Sequence[nn.BatchNorm2d], images: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """Per batch norm, the highest value of each channel."""
    highest = {norm: torch.zeros_like(norm.weight) for norm in norms}

    def see(norm: Any, _: Any, output: Tensor) -> None:
        highest[norm] = torch.maximum(highest[norm], output.amax(dim=(0, 2, 3)))

    hooks = [norm.register_forward_hook(see) for norm in norms]
    observe(model, images, hooks)
    require_finite(model, highest.items())
    return [highest[norm] for norm in norms]
