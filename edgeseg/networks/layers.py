"""Layers that encoders and decoders are built from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = type[nn.Module]


class ConvNormAct(nn.Sequential):
    """A convolution without bias, a batch norm and an activation; padded so that stride 1 keeps the size.

    Args:
        in_channels: Channels of the input [N, in_channels, H, W].
        out_channels: Channels of the output.
        kernel_size: Height and width of the kernel, an odd number.
        stride: Stride of the convolution.
        dilation: Dilation of the convolution.
        groups: Number of groups of the convolution, which divides both numbers of channels.
        activation: Class of the activation; None for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: Activation | None = nn.ReLU,
    ) -> None:
        padding = dilation * (kernel_size - 1) // 2
        layers = [
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        if activation is not None:
            layers.append(activation(inplace=True))
        super().__init__(*layers)


def conv_groups(channels: int, group_width: int) -> int:
    """The number of groups of a 3x3 convolution over `channels`, with about `group_width` channels per group.

    TI's zoo uses `channels // group_width` and fails if that does not divide the channels; here it is lowered to the
    next divisor.
    """
    groups = max(channels // group_width, 1)
    while channels % groups:
        groups -= 1
    return groups


class SeparableConv(nn.Sequential):
    """A depthwise (or grouped) 3x3 `ConvNormAct` and a dense 1x1 `ConvNormAct`.

    Args:
        in_channels: Channels of the input [N, in_channels, H, W].
        out_channels: Channels of the output.
        stride: Stride of the 3x3 convolution.
        dilation: Dilation of the 3x3 convolution.
        group_width: Channels per group of the 3x3 convolution; 1 for a depthwise one.
        activation: Class of the activations; None for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        group_width: int = 1,
        activation: Activation | None = nn.ReLU,
    ) -> None:
        groups = conv_groups(in_channels, group_width)
        super().__init__(
            ConvNormAct(
                in_channels, in_channels, 3, stride=stride, dilation=dilation, groups=groups, activation=activation
            ),
            ConvNormAct(in_channels, out_channels, activation=activation),
        )


class ASPPLite(nn.Module):
    """Atrous spatial pyramid pooling with separable convolutions and no image pooling.

    The outputs of a 1x1 branch and of the dilated 3x3 branches are concatenated, dropped out and projected. After
    DeepLabV3+ (Chen et al., 2018, https://arxiv.org/abs/1802.02611).

    Args:
        in_channels: Channels of the input [N, in_channels, H, W].
        out_channels: Channels of each branch and of the output.
        dilations: Dilation of each 3x3 branch.
        group_width: Channels per group of the 3x3 convolutions; 1 for depthwise ones.
        activation: Class of the activations.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dilations: Sequence[int] = (6, 12, 18),
        group_width: int = 1,
        activation: Activation = nn.ReLU,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvNormAct(in_channels, out_channels, activation=activation)])
        for dilation in dilations:
            self.branches.append(
                SeparableConv(
                    in_channels, out_channels, dilation=dilation, group_width=group_width, activation=activation
                )
            )
        self.dropout = nn.Dropout2d(0.2)
        self.project = ConvNormAct(len(self.branches) * out_channels, out_channels, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]."""
        x = torch.cat([branch(x) for branch in self.branches], dim=1)
        return self.project(self.dropout(x))


class Clamp(nn.Hardtanh):
    """A hardtanh whose gradient is 1 everywhere in training, so that values outside the range can come back."""

    def forward(self, x: Tensor) -> Tensor:
        """Clamps a tensor of any shape."""
        clamped = super().forward(x)
        return x + (clamped - x).detach() if self.training else clamped


class PredictionHead(nn.Sequential):
    """A separable convolution that computes logits, without activations and without norm or bias at the end.

    Args:
        in_channels: Channels of the input [N, in_channels, H, W].
        out_channels: Channels of the output: one per class, or one per value.
        group_width: Channels per group of the 3x3 convolution; 1 for a depthwise one.
        value_range: Lowest and highest value of the output, which is clamped to it; None does not clamp.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        group_width: int = 1,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        groups = conv_groups(in_channels, group_width)
        super().__init__(
            ConvNormAct(in_channels, in_channels, 3, groups=groups, activation=None),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )
        if value_range is not None:
            self.append(Clamp(*value_range))


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes [N, C, H, W] to [N, C, *size], bilinearly with half-pixel centres, as all features and logits are."""
    if x.shape[-2:] == torch.Size(size):
        return x
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=False)


class Resize(nn.Module):
    """`resize` as a module, so that quantization can round its output."""

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Resizes x [N, C, H, W] to `size`, a height and width."""
        return resize(x, size)


def mean_matrix(count: int, length: int, like: Tensor) -> Tensor:
    """The matrix [count, length] whose product with a line of `length` values is its adaptive average pooling."""
    start = torch.arange(count, device=like.device)[:, None] * length
    place = torch.arange(length, device=like.device)
    inside = (place >= start // count) & (place * count < start + length)
    return inside.to(like.dtype) / inside.sum(dim=1, keepdim=True)


def initialize(module: nn.Module) -> None:
    """Initializes convolutions with Kaiming-normal weights (fan out) and resets batch norms, as TI's zoo does."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            # torch divides its fan_out by the groups, TI's zoo does not.
            fan_out = layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1]
            nn.init.normal_(layer.weight, 0.0, (2.0 / fan_out) ** 0.5)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
