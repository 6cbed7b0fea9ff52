"""The base of decoders: the features that they use, and layers in the style of the encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from edgeseg.networks.layers import Activation, ASPPLite, ConvNormAct, PredictionHead, SeparableConv
from edgeseg.spec import Task


@dataclass(frozen=True)
class Pyramid:
    """The features of an encoder, from fine to coarse, and the style of its layers.

    Args:
        channels: Channels of each feature.
        strides: Stride of each feature.
        group_width: Channels per group of the 3x3 convolutions; 1 for depthwise ones.
        activation: Class of the activations.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    group_width: int = 1
    activation: Activation = nn.ReLU

    def from_stride(self, stride: int) -> Pyramid:
        """The features from `stride` on; if the encoder has none that fine, all of them.

        Raises:
            ValueError: fewer than two features are left.
        """
        first = sum(own < stride for own in self.strides)
        if len(self.strides) - first < 2:
            raise ValueError(
                f"prediction_stride={stride} leaves fewer than two of the encoder's features, which have the strides "
                f"{', '.join(map(str, self.strides))}"
            )
        return replace(self, channels=self.channels[first:], strides=self.strides[first:])

    def conv(self, in_channels: int, out_channels: int) -> ConvNormAct:
        """A 1x1 convolution with batch norm and activation."""
        return ConvNormAct(in_channels, out_channels, activation=self.activation)

    def linear(self, in_channels: int, out_channels: int) -> ConvNormAct:
        """A 1x1 convolution with batch norm, without activation."""
        return ConvNormAct(in_channels, out_channels, activation=None)

    def separable(self, in_channels: int, out_channels: int, *, stride: int = 1) -> SeparableConv:
        """A depthwise (or grouped) 3x3 convolution and a 1x1 convolution."""
        return SeparableConv(
            in_channels, out_channels, stride=stride, group_width=self.group_width, activation=self.activation
        )

    def aspp(self, in_channels: int, out_channels: int, dilations: Sequence[int]) -> ASPPLite:
        """Atrous spatial pyramid pooling (ASPP)."""
        return ASPPLite(
            in_channels, out_channels, dilations=dilations, group_width=self.group_width, activation=self.activation
        )

    def head(self, in_channels: int, task: Task) -> PredictionHead:
        """The layers that predict a task."""
        return PredictionHead(in_channels, task.channels, group_width=self.group_width, value_range=task.range)


class Decoder(nn.Module, ABC):
    """Computes the logits of one task from the features of an encoder.

    A subclass builds its layers in `__init__(pyramid, task, spec)`, calls `super().__init__(pyramid)` first, and
    computes the logits in `decode`.

    Args:
        pyramid: The features that the decoder uses: those of the encoder from `spec.prediction_stride` on.
    """

    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        self.levels = len(pyramid.channels)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """All features of the encoder, [N, C, H, W] from fine to coarse; returns the logits at the decoder's stride."""
        return self.decode(*features[-self.levels :])

    @abstractmethod
    def decode(self, *features: Tensor) -> Tensor:
        """The logits [N, task.channels, h, w] from the features of the pyramid, fine to coarse."""
