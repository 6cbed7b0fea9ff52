"""Channels of like range before depthwise convolutions, so that one scale of 8 bit suits them all.

After Nagel et al., 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
https://arxiv.org/abs/1906.04721: a channel that is divided by a number before a ReLU and multiplied by it after is the
same channel. A depthwise convolution has a weight scale for each channel, so that there this costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.deploy.fold import PROBE_SIZE, probe
from edgeseg.pixel2pixel import Pixel2Pixel

SMALLEST = 0.01  # of the largest range: what a channel's counts as at least
TOLERANCE = 1e-4  # of the answers, in their standard deviations


@torch.no_grad()
def equalize_channels(model: Pixel2Pixel, images: Iterable[Sequence[Tensor]]) -> int:
    """Equalizes in place, before batch norms are folded; gives the number of depthwise convolutions that gained.

    Where the network's answers would change, since something else reads the channels too, they stay as they are.

    Args:
        images: Preprocessed, typical ones, on which ranges are seen: for each run of the network one float32 tensor
            [N,C,H,W] an input.
    """
    training, count = model.training, 0
    model.eval()
    generator, device = torch.Generator().manual_seed(0), next(model.parameters()).device
    noise = [torch.randn(1, c, PROBE_SIZE, PROBE_SIZE, generator=generator).to(device) for c in model.in_channels]
    expected = model.decode(*noise)
    pairs = _pairs(model)
    for (norm, conv), ranges in zip(pairs, _ranges(model, [norm for norm, _ in pairs], images), strict=True):
        factors = (ranges / ranges.max().clamp(min=1e-12)).clamp(min=SMALLEST)
        before = [each.clone() for each in (norm.weight, norm.bias, conv.weight)]
        norm.weight.div_(factors)
        norm.bias.div_(factors)
        conv.weight.mul_(factors.view(-1, 1, 1, 1))
        if all(_same(expected[name], found) for name, found in model.decode(*noise).items()):
            count += 1
        else:
            for tensor, value in zip((norm.weight, norm.bias, conv.weight), before, strict=True):
                tensor.copy_(value)
    model.train(training)
    return count


def _ranges(model: Pixel2Pixel, norms: Sequence[nn.BatchNorm2d], images: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """Of each batch norm the highest value of each channel."""
    highest = {id(norm): torch.zeros_like(norm.weight) for norm in norms}

    def see(norm: nn.Module, _: Any, output: Tensor) -> None:
        highest[id(norm)] = torch.maximum(highest[id(norm)], output.amax(dim=(0, 2, 3)))

    hooks = [norm.register_forward_hook(see) for norm in norms]
    for inputs in images:
        model.decode(*inputs)
    for hook in hooks:
        hook.remove()
    return [highest[id(norm)] for norm in norms]


def _same(expected: Tensor, found: Tensor) -> bool:
    return float((expected - found).abs().max()) <= TOLERANCE * max(float(expected.std()), 1e-12)


def _pairs(model: Pixel2Pixel) -> list[tuple[nn.BatchNorm2d, nn.Conv2d]]:
    """Batch norms with a ReLU and then a depthwise convolution behind them."""
    makers: dict[int, tuple[nn.BatchNorm2d, Tensor]] = {}  # the tensors are kept, so that no id is used twice
    found: list[tuple[nn.BatchNorm2d, nn.Conv2d]] = []

    def normed(module: Any, _: Any, output: Tensor) -> None:
        makers[id(output)] = module, output

    def activated(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if id(inputs[0]) in makers:
            makers[-id(output)] = makers[id(inputs[0])][0], output

    def convolved(module: Any, inputs: tuple[Tensor, ...]) -> None:
        if -id(inputs[0]) in makers:
            found.append((makers[-id(inputs[0])][0], module))

    hooks = []
    for module in model.modules():
        if type(module) is nn.BatchNorm2d and module.affine:
            hooks.append(module.register_forward_hook(normed))
        elif type(module) is nn.ReLU:
            hooks.append(module.register_forward_hook(activated))
        elif type(module) is nn.Conv2d and module.groups == module.in_channels == module.out_channels:
            hooks.append(module.register_forward_pre_hook(convolved))
    probe(model, hooks)
    return found
