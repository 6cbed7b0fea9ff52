"""SwiftNet (Oršić et al., 2019, https://arxiv.org/abs/1903.08469), single scale: a ladder of dense 3x3 convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.networks.encoders import build_encoder
from edgeseg.networks.layers import mean_matrix, resize
from edgeseg.spec import Task

CHANNELS = 128
GRIDS = (8, 4, 2)  # rows that the deepest feature is pooled to; its aspect ratio decides the columns


def build(tasks: Mapping[str, Task], *, encoder: str) -> tuple[nn.Module, dict[str, nn.Module]]:
    """Builds the encoder and one decoder per task."""
    network = build_encoder(encoder, (3,), activation=nn.ReLU6)
    return network, {name: Decoder(network.channels, task.channels) for name, task in tasks.items()}


class Decoder(nn.Module):
    """Computes logits at stride 4 from the features at strides 4 to 32; finer features are not used."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        *skips, deepest = channels[-4:]
        self.pyramid = SpatialPyramidPooling(deepest)
        self.skips = nn.ModuleList(_norm_act_conv(skip, CHANNELS) for skip in reversed(skips))
        self.blends = nn.ModuleList(_norm_act_conv(CHANNELS, CHANNELS, 3) for _ in skips)
        self.logits = _norm_act_conv(CHANNELS, classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The features of the encoder, from fine to coarse -> logits."""
        *fine, deepest = features[-4:]
        x = self.pyramid(deepest)
        for feature, skip, blend in zip(reversed(fine), self.skips, self.blends, strict=True):
            x = blend(resize(x, feature.shape[-2:]) + skip(feature))
        return self.logits(x)


class SpatialPyramidPooling(nn.Module):
    """Fuses a feature with its means over coarse grids."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        width = CHANNELS // len(GRIDS)
        self.narrow = _norm_act_conv(in_channels, CHANNELS)
        self.levels = nn.ModuleList(_norm_act_conv(CHANNELS, width) for _ in GRIDS)
        self.fuse = _norm_act_conv(CHANNELS + width * len(GRIDS), CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, 128, H, W]."""
        x = self.narrow(x)
        height, width = x.shape[-2:]
        parts = [x]
        for rows, level in zip(GRIDS, self.levels, strict=True):
            columns = (2 * rows * width + height) // (2 * height)  # rounded
            pooled = mean_matrix(rows, height, x) @ x @ mean_matrix(columns, width, x).t()
            # Not `resize`, which does nothing for a grid as large as the feature: a file needs it for every size.
            parts.append(F.interpolate(level(pooled), size=(height, width), mode="bilinear"))
        return self.fuse(torch.cat(parts, dim=1))


def _norm_act_conv(in_channels: int, out_channels: int, kernel_size: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(), conv)
