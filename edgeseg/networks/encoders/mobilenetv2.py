"""MobileNetV2 (Sandler et al., 2018, https://arxiv.org/abs/1801.04381) without its last 1280-channel layer."""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.networks.encoders.trunk import Block, Trunk, check_output_stride
from edgeseg.networks.layers import Activation, ConvNormAct

# Per stage: expansion, channels, number of blocks, stride of the first block.
STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def scale_channels(channels: int, width: float) -> int:
    """`channels * width`, rounded to a multiple of 8 that is at least 90 % of it."""
    exact = channels * width
    scaled = max(int(exact + 4) // 8 * 8, 8)
    return scaled if scaled >= 0.9 * exact else scaled + 8


class InvertedResidual(nn.Module):
    """A 1x1 expansion, a depthwise 3x3 and a linear 1x1 convolution, added to the input if the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int, activation: Activation):
        super().__init__()
        hidden = in_channels * expansion
        expand = [] if expansion == 1 else [ConvNormAct(in_channels, hidden, activation=activation)]
        self.conv = nn.Sequential(
            *expand,
            ConvNormAct(hidden, hidden, 3, stride=stride, groups=hidden, activation=activation),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H/stride, W/stride]."""
        return x + self.conv(x) if self.residual else self.conv(x)


def mobilenetv2(
    in_channels: int,
    *,
    width: float = 1.0,
    activation: Activation = nn.ReLU,
    fast_down: bool = False,
    output_stride: int = 32,
) -> Trunk:
    """Builds the blocks "0" to "17", named as in torchvision's `features`."""
    dense = check_output_stride("MobileNetV2", output_stride, 64 if fast_down else 32)
    channels, stride = scale_channels(32, width), 2
    blocks = [Block("0", ConvNormAct(in_channels, channels, 3, stride=2, activation=activation), channels, stride)]
    for stage, (expansion, base, repeats, first_stride) in enumerate(STAGES):
        if stage == 0 and fast_down:
            first_stride = 2
        elif stage == 5 and dense:
            first_stride = 1
        out_channels = scale_channels(base, width)
        for i in range(repeats):
            block_stride = first_stride if i == 0 else 1
            block = InvertedResidual(channels, out_channels, block_stride, expansion, activation)
            channels, stride = out_channels, stride * block_stride
            blocks.append(Block(str(len(blocks)), block, channels, stride))
    return Trunk(blocks, stem=4)
