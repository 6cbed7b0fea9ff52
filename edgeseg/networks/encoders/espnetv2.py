"""ESPNetv2 (Mehta et al., 2019, https://arxiv.org/abs/1811.11431) up to stride 16, as its authors use it to segment.

The layers are those of their repository EdgeNets, whose published weights fit them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Channels at strides 2, 4, 8 and 16.
WIDTHS = {0.5: (16, 32, 64, 128), 1.0: (32, 64, 128, 256), 1.5: (32, 96, 192, 384), 2.0: (32, 128, 256, 512)}
BRANCHES = 4


def conv_norm(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution without bias and its batch norm."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def conv_norm_prelu(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution without bias, its batch norm and a PReLU with one slope per channel."""
    return conv_norm(in_channels, out_channels, kernel_size, stride, groups).append(nn.PReLU(out_channels))


def norm_prelu(channels: int) -> nn.Sequential:
    """A batch norm and a PReLU with one slope per channel."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))


class EESP(nn.Module):
    """Extremely efficient spatial pyramid: depthwise convolutions of growing dilation, fused hierarchically.

    With stride 1 the input is added to the output; with stride 2 the block ends before the sum and its activation.
    """

    def __init__(self, in_channels: int, out_channels: int, dilations: Sequence[int], stride: int = 1) -> None:
        super().__init__()
        width = out_channels // BRANCHES
        self.reduce = conv_norm_prelu(in_channels, width, 1, groups=BRANCHES)
        self.branches = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride, dilation, dilation, groups=width, bias=False) for dilation in dilations
        )
        self.norm = norm_prelu(out_channels)
        self.expand = conv_norm(out_channels, out_channels, 1, groups=BRANCHES)
        self.activation = nn.PReLU(out_channels) if stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H/stride, W/stride]."""
        reduced = self.reduce(x)
        fused = [self.branches[0](reduced)]
        for branch in self.branches[1:]:
            fused.append(branch(reduced) + fused[-1])
        y = self.expand(self.norm(torch.cat(fused, dim=1)))
        return y if self.activation is None else self.activation(y + x)


class Down(nn.Module):
    """Halves the resolution: pooled and convolved features side by side, and the pooled image added to them."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.eesp = EESP(in_channels, out_channels - in_channels, (1, 2, 3, 4), stride=2)
        self.reinforce = nn.Sequential(conv_norm_prelu(3, 3, 3), conv_norm(3, out_channels, 1))
        self.activation = nn.PReLU(out_channels)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """[N, in_channels, H, W] and the image pooled to [N, 3, H/2, W/2] -> [N, out_channels, H/2, W/2]."""
        y = torch.cat([pooled(x), self.eesp(x)], dim=1)
        return self.activation(y + self.reinforce(image))


def pooled(x: Tensor) -> Tensor:
    """The mean of 3x3 pixels at every second place; beyond the border pixels are 0, and counted."""
    return F.avg_pool2d(x, 3, stride=2, padding=1)


class ESPNetv2(nn.Module):
    """Features at strides 1 (the image itself), 2, 4, 8 and 16.

    Args:
        in_channels: 3; the image is added to the features on the way.
        scale: Width of the network: 0.5, 1.0, 1.5 or 2.0.

    Raises:
        ValueError: another number of channels.
    """

    strides = (1, 2, 4, 8, 16)

    def __init__(self, in_channels: int, *, scale: float) -> None:
        super().__init__()
        if in_channels != 3:
            raise ValueError(f"ESPNetv2 takes images of 3 channels, got {in_channels}")
        first, second, third, fourth = WIDTHS[scale]
        self.channels = (3, first, second, third, fourth)
        self.level1 = conv_norm_prelu(3, first, 3, stride=2)
        self.down2 = Down(first, second)
        self.down3 = Down(second, third)
        self.level3 = nn.Sequential(*(EESP(third, third, (1, 2, 3, 4)) for _ in range(3)))
        self.down4 = Down(third, fourth)
        self.level4 = nn.Sequential(*(EESP(fourth, fourth, (1, 1, 2, 3)) for _ in range(7)))

    def forward(self, image: Tensor) -> list[Tensor]:
        """[N, 3, H, W] -> five features, from fine to coarse; halved sizes are rounded up."""
        quarter = pooled(pooled(image))
        eighth = pooled(quarter)
        level1 = self.level1(image)
        level2 = self.down2(level1, quarter)
        level3 = self.level3(self.down3(level2, eighth))
        level4 = self.level4(self.down4(level3, pooled(eighth)))
        return [image, level1, level2, level3, level4]
