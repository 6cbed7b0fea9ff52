"""Rounds the weights of convolutions together, so that the outputs change less than by rounding each for itself.

After Frantar et al., 2023, "GPTQ", https://arxiv.org/abs/2210.17323: the weights of an output channel are rounded one
after the other, and those that are not rounded yet make up for the errors, by the second moments of the inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.networks.observe import observe, require_finite
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.pixelwise import last_convolutions

POSITIONS = 4096  # of a convolution, per image
BLOCK = 64  # weights whose errors the others make up for in one product
DAMPING = 0.01  # share of the mean second moment that is added to each
MOST = 5000  # weights of an output channel that are rounded together, whose second moments take 200 MB


@torch.no_grad()
def round_weights(model: Pixel2Pixel, images: Iterable[Sequence[Tensor]], levels: int) -> None:
    """Rounds the weights of all convolutions but the last in place, with one scale per output channel.

    After GPTQ (Frantar et al., 2023, https://arxiv.org/abs/2210.17323).

    The scale is the largest weight by `levels`, and the largest weight stays, so that whoever rounds again finds it.
    Convolutions with more than 5,000 weights per output channel stay as they are.

    Args:
        model: A trained float network.
        images: Typical images, preprocessed. Each item is one run of the network: one float32 tensor [N, C, H, W] per
            input.
        levels: Number of steps between 0 and the largest weight: 127 for 8 bits, 64 for the 7 bits of onnxruntime.

    Raises:
        ValueError: a layer has infinite values or NaN for these images; names it. The weights are as before.
    """
    last = last_convolutions(model)
    convs = [
        conv
        for name, conv in model.named_modules()
        if type(conv) is nn.Conv2d and name not in last and conv.weight[0].numel() <= MOST
    ]
    for conv, moments in _moments(model, convs, images).items():
        weights = conv.weight.reshape(conv.groups, conv.out_channels // conv.groups, -1)
        conv.weight.copy_(_rounded(weights.double(), moments, levels).view_as(conv.weight))


def _moments(
    model: Pixel2Pixel, convs: Sequence[nn.Conv2d], images: Iterable[Sequence[Tensor]]
) -> dict[nn.Conv2d, Tensor]:
    """Per convolution, the sums of products of the values that meet its weights, float64 [groups, K, K]."""
    sums: dict[nn.Conv2d, Tensor] = {}

    def see(conv: Any, inputs: tuple[Tensor]) -> None:
        values = _patches(conv, inputs[0])
        sums[conv] = sums.get(conv, 0) + (values @ values.mT).double()

    hooks = [conv.register_forward_pre_hook(see) for conv in convs]
    observe(model, images, hooks)
    require_finite(model, sums.items())
    return sums


def _patches(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The values that meet the weights of a group, at evenly spread positions: [groups, K, positions]."""
    height, width = ((n - 1) // s + 1 for n, s in zip(x.shape[-2:], conv.stride, strict=True))
    step = max(1, math.ceil(math.sqrt(x.shape[0] * height * width / POSITIONS)))
    stride = tuple(step * each for each in conv.stride)
    if conv.kernel_size == (1, 1):
        patches = x[..., :: stride[0], :: stride[1]].flatten(2)
    else:
        same = tuple(d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
        patches = F.unfold(x, conv.kernel_size, conv.dilation, same, stride)
    return patches.transpose(0, 1).reshape(conv.groups, patches.shape[1] // conv.groups, -1)


def _rounded(weights: Tensor, moments: Tensor, levels: int) -> Tensor:
    """Rounds float64 weights [groups, channels, K] by moments [groups, K, K]."""
    highest = weights.abs().amax(-1, keepdim=True).clamp(min=1e-12)
    scale, largest = highest / levels, weights.abs() == highest
    diagonal = moments.diagonal(dim1=-2, dim2=-1)
    damping = DAMPING * diagonal.mean(-1, keepdim=True) + 1e-12
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments + torch.diag_embed(damping.expand_as(diagonal))))
    factors = torch.linalg.cholesky(inverse, upper=True)
    left, result = weights.clone(), torch.empty_like(weights)
    for start in range(0, weights.shape[-1], BLOCK):
        block = slice(start, start + BLOCK)
        errors = torch.zeros_like(left[..., block])
        for k in range(start, start + errors.shape[-1]):
            value = (left[..., k] / scale[..., 0]).round().clamp(-levels, levels) * scale[..., 0]
            result[..., k] = torch.where(largest[..., k], weights[..., k], value)
            errors[..., k - start] = (left[..., k] - result[..., k]) / factors[:, None, k, k]
            left[..., k : block.stop] -= errors[..., k - start, None] * factors[:, None, k, k : block.stop]
        left[..., block.stop :] -= errors @ factors[:, block, block.stop :]
    return result
