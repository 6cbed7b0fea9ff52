"""ResNet-50 v1.5 (He et al., 2015, https://arxiv.org/abs/1512.03385, with the stride on the 3x3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.networks.encoders.trunk import Block, Trunk, check_output_stride
from edgeseg.networks.layers import Activation

EXPANSION = 4  # output channels of a bottleneck per channel of its 3x3 convolution


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last one wider, and a projected or plain shortcut; named as in torchvision."""

    def __init__(self, in_channels: int, channels: int, stride: int, activation: Activation) -> None:
        super().__init__()
        out_channels = channels * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = activation(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = activation(inplace=True)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.act3 = activation(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, 4 * channels, H/stride, W/stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.act2(self.bn2(self.conv2(x)))
        return self.act3(torch.add(self.bn3(self.conv3(x)), shortcut))


def resnet50(
    in_channels: int,
    *,
    width: float = 1.0,
    activation: Activation = nn.ReLU,
    fast_down: bool = False,
    output_stride: int = 32,
) -> Trunk:
    """Builds the blocks "conv1", "bn1", "relu", "maxpool" and "layer1" to "layer4", named as in torchvision."""
    dense = check_output_stride("ResNet-50", output_stride, 64 if fast_down else 32)
    channels = int(64 * width)
    blocks = [
        Block("conv1", nn.Conv2d(in_channels, channels, 7, 2, 3, bias=False), channels, 2),
        Block("bn1", nn.BatchNorm2d(channels), channels, 2),
        Block("relu", activation(inplace=True), channels, 2),
        Block("maxpool", nn.MaxPool2d(3, 2, 1), channels, 4),
    ]
    stride = 4
    for stage, depth in enumerate((3, 4, 6, 3)):
        first_stride = 1 if (stage == 0 and not fast_down) or (stage == 3 and dense) else 2
        base = int(64 * width) * 2**stage
        bottlenecks = nn.Sequential()
        for i in range(depth):
            bottlenecks.append(Bottleneck(channels, base, first_stride if i == 0 else 1, activation))
            channels = base * EXPANSION
        stride *= first_stride
        blocks.append(Block(f"layer{stage + 1}", bottlenecks, channels, stride))
    return Trunk(blocks, stem=4)
