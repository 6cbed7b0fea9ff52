"""The decoder of ESPNetv2 (Mehta et al., 2019, https://arxiv.org/abs/1811.11431): pyramid pooling and gated merges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.networks.decoders.base import Decoder, Pyramid
from edgeseg.networks.encoders.espnetv2 import conv_norm_prelu, norm_prelu
from edgeseg.networks.layers import mean_matrix
from edgeseg.spec import ModelSpec, Task

WIDTHS = (64, 48, 32)
POOLED_CHANNELS = 10  # per scale; as published for 20 and 21 classes, here for any number of classes
SMALLEST = 5  # height and width of the smallest map at another scale
# The scales 2.0, 1.5, 1.0, 0.5 and 0.1 as fractions; scaled lengths are rounded up.
SCALES = ((2, 1), (3, 2), (1, 1), (1, 2), (1, 10))


class PyramidPooling(nn.Module):
    """Depthwise convolutions of one narrow map at five scales, shuffled so that the scales of a channel are joined."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        channels = POOLED_CHANNELS
        self.project = conv_norm_prelu(in_channels, channels, 1)
        self.stages = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False) for _ in SCALES
        )
        self.norm = norm_prelu(channels * len(SCALES))
        self.join = conv_norm_prelu(channels * len(SCALES), channels, 3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, 10, H, W]."""
        x = self.project(x)
        height, width = x.shape[-2:]
        scaled = []
        for (over, under), stage in zip(SCALES, self.stages, strict=True):
            size = _scaled(height, over, under), _scaled(width, over, under)
            if over > under:
                scaled.append(_mean_pooled(stage(_resized(x, size)), (height, width)))
            elif over < under:
                scaled.append(_resized(stage(_mean_pooled(x, size)), (height, width)))
            else:
                scaled.append(stage(x))
        y = self.norm(torch.cat(scaled, dim=1))
        shuffled = y.unflatten(1, (len(SCALES), POOLED_CHANNELS)).transpose(1, 2).flatten(1, 2)
        return self.join(shuffled)


class Gate(nn.Module):
    """A grouped 3x3 convolution of the feature, times a weight per channel from the feature's global mean."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.expand = conv_norm_prelu(in_channels, out_channels, 3, groups=math.gcd(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]."""
        return self.expand(x) * self.weight(F.adaptive_avg_pool2d(x, 1)).sigmoid()


class Level(nn.Module):
    """Pyramid pooling widened to `width`, upsampled and merged with the gated finer feature."""

    def __init__(self, in_channels: int, fine: int, width: int) -> None:
        super().__init__()
        self.pool = PyramidPooling(in_channels)
        self.widen = nn.Sequential(nn.Conv2d(POOLED_CHANNELS, width, 1, bias=False), *norm_prelu(width))
        self.gate = Gate(fine, width)
        self.merge = norm_prelu(width)

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        """[N, in_channels, h, w] and [N, fine, H, W] -> [N, width, H, W]."""
        y = self.widen(self.pool(x))
        return self.merge(_resized(y, feature.shape[-2:]) + self.gate(feature))


class ESPNetv2Decoder(Decoder):
    """Three levels from stride 16 to stride 2, the prediction, and (for `prediction_stride=1`) its last upsampling.

    Unlike the rest of the zoo this network aligns the corners of what it resizes, at the end too: with the published
    `prediction_stride` of 1 the logits leave the decoder at the size of the image.
    """

    def __init__(self, pyramid: Pyramid, task: Task, spec: ModelSpec) -> None:
        super().__init__(pyramid)
        spec.require(pyramid.strides[-4:] == (2, 4, 8, 16), "encoder", "has features at strides 2, 4, 8 and 16")
        *fine, deepest = pyramid.channels[-4:]
        self.levels_up = nn.ModuleList(
            Level(before, channels, width)
            for before, channels, width in zip((deepest, *WIDTHS), reversed(fine), WIDTHS, strict=False)
        )
        self.pool = PyramidPooling(WIDTHS[-1])
        # Named like the prediction layers of the other decoders: a further module may precede it.
        self.head = nn.Sequential(nn.Identity(), nn.Conv2d(POOLED_CHANNELS, task.channels, 1))
        self.full_size = pyramid.strides[0] == 1

    def decode(self, *features: Tensor) -> Tensor:
        """The logits at the stride of the finest feature."""
        *fine, x = features[-4:]
        for level, feature in zip(self.levels_up, reversed(fine), strict=True):
            x = level(x, feature)
        logits = self.head(self.pool(x))
        return _resized(logits, features[0].shape[-2:]) if self.full_size else logits


def _scaled(length: int, over: int, under: int) -> int:
    """`length` times `over / under`, rounded up, but at least 5; symbolic lengths of exported graphs stay symbolic."""
    scaled = (over * length + under - 1) // under
    return cast(int, torch.sym_max(scaled, SMALLEST)) if torch.compiler.is_exporting() else max(int(scaled), SMALLEST)


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=True)


def _mean_pooled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Adaptive average pooling; in exported graphs as two products with matrices, which every runtime has."""
    if not torch.compiler.is_exporting():
        return F.adaptive_avg_pool2d(x, size)
    rows, columns = (mean_matrix(count, length, x) for count, length in zip(size, x.shape[-2:], strict=True))
    return rows @ x @ columns.t()
