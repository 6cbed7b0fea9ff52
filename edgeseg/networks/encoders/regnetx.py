"""RegNetX (Radosavovic et al., 2020, https://arxiv.org/abs/2003.13678)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.networks.encoders.trunk import Block, Trunk, check_output_stride
from edgeseg.networks.layers import Activation


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Builds a convolution without bias and its batch norm."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]


class Bottleneck(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions of one width, and a projected or plain shortcut; named as in pycls."""

    def __init__(self, in_channels: int, channels: int, stride: int, group_width: int, activation: Activation):
        super().__init__()
        a, a_bn = conv_norm(in_channels, channels, 1)
        b, b_bn = conv_norm(channels, channels, 3, stride, channels // group_width)
        c, c_bn = conv_norm(channels, channels, 1)
        self.f = nn.Sequential(
            OrderedDict(
                a=a, a_bn=a_bn, a_act=activation(inplace=True),
                b=b, b_bn=b_bn, b_act=activation(inplace=True),
                c=c, c_bn=c_bn,
            )
        )  # fmt: skip
        self.project = stride != 1 or in_channels != channels
        if self.project:
            self.proj, self.bn = conv_norm(in_channels, channels, 1, stride)
        self.act = activation(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, channels, H/stride, W/stride]."""
        shortcut = self.bn(self.proj(x)) if self.project else x
        return self.act(torch.add(shortcut, self.f(x)))


def regnetx(
    in_channels: int,
    *,
    widths: Sequence[int],
    depths: Sequence[int],
    group_width: int,
    activation: Activation = nn.ReLU,
    fast_down: bool = False,
    output_stride: int = 32,
) -> Trunk:
    """Builds the blocks "stem" and "s1" to "s4", named as in pycls; fast-down adds a max pool after the stem."""
    dense = check_output_stride("RegNetX", output_stride, 64 if fast_down else 32)
    conv, bn = conv_norm(in_channels, 32, 3, 2)
    stem = nn.Sequential(OrderedDict(conv=conv, bn=bn, act=activation(inplace=True)))
    channels, stride = 32, 2
    blocks = [Block("stem", stem, channels, stride)]
    if fast_down:
        stride *= 2
        blocks.append(Block("maxpool", nn.MaxPool2d(3, 2, 1), channels, stride))
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        first_stride = 1 if stage == 4 and dense else 2
        bottlenecks: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(depth):
            bottlenecks[f"b{i + 1}"] = Bottleneck(
                channels, width, first_stride if i == 0 else 1, group_width, activation
            )
            channels = width
        stride *= first_stride
        blocks.append(Block(f"s{stage}", nn.Sequential(bottlenecks), channels, stride))
    return Trunk(blocks, stem=len(blocks) - 3)
