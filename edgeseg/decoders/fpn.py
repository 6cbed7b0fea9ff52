"""FPN lite (after Lin et al., 2016, https://arxiv.org/abs/1612.03144): laterals added top-down, smoothed on the way."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgeseg.layers import Activation, ASPPLite, ConvNormAct, PredictionHead, Resize, SeparableConv
from edgeseg.spec import ModelSpec, Task


class FPN(nn.Module):
    """Context on the deepest feature, then per level: upsample, add a 1x1 lateral, smooth with a separable 3x3.

    Each smoothed sum feeds the next level. Without ASPP two strided convolutions add two coarser levels instead.
    """

    def __init__(
        self,
        spec: ModelSpec,
        task: Task,
        first: int,
        channels: Sequence[int],
        group_width: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.first = first
        width, deepest = spec.channels, channels[-1]
        lateral_channels = list(reversed(channels[:-1]))
        if spec.aspp:
            self.context: nn.Module = ASPPLite(
                deepest, width, dilations=spec.dilations, group_width=group_width, activation=activation
            )
        else:
            self.context = nn.ModuleList(
                SeparableConv(deepest, out, stride=2, group_width=group_width, activation=activation)
                for out in (deepest, width)
            )
            lateral_channels = [deepest, deepest, *lateral_channels]
        self.laterals = nn.ModuleList(ConvNormAct(c, width, activation=activation) for c in lateral_channels)
        self.resizes = nn.ModuleList(Resize() for _ in lateral_channels)
        self.smooths = nn.ModuleList(
            SeparableConv(width, width, group_width=group_width, activation=activation) for _ in lateral_channels
        )
        self.head = PredictionHead(width, task.channels, group_width=group_width, value_range=task.range)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """All features of the encoder, fine to coarse -> logits at the stride of the finest one used."""
        pyramid = list(features[self.first :])
        if isinstance(self.context, nn.ModuleList):
            for down in self.context:
                pyramid.append(down(pyramid[-1]))
            x = pyramid.pop()
        else:
            x = self.context(pyramid.pop())
        levels = zip(reversed(pyramid), self.resizes, self.laterals, self.smooths, strict=True)
        for feature, resize, lateral, smooth in levels:
            x = smooth(resize(x, feature.shape[-2:]) + lateral(feature))
        return self.head(x)
