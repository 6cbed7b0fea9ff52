"""UNet lite (after Ronneberger et al., 2015, https://arxiv.org/abs/1505.04597)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.layers import Activation, ASPPLite, PredictionHead, Resize, SeparableConv
from edgeseg.spec import ModelSpec, Task


class UNet(nn.Module):
    """ASPP on the deepest feature, then per level: upsample, concatenate the raw feature, a separable 3x3.

    A level is as wide as its feature but never below twice the classes or 32 channels, so parameters and
    multiply-accumulates depend on the number of classes.
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
        width = spec.channels
        self.context = ASPPLite(
            channels[-1], width, dilations=spec.dilations, group_width=group_width, activation=activation
        )
        self.resizes = nn.ModuleList(Resize() for _ in channels[:-1])
        self.smooths = nn.ModuleList()
        for feature_channels in reversed(channels[:-1]):
            out = max(2 * task.channels, 32, feature_channels)
            self.smooths.append(
                SeparableConv(width + feature_channels, out, group_width=group_width, activation=activation)
            )
            width = out
        self.head = PredictionHead(width, task.channels, group_width=group_width, value_range=task.range)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """All features of the encoder, fine to coarse -> logits at the stride of the finest one used."""
        *pyramid, deepest = features[self.first :]
        x = self.context(deepest)
        for feature, resize, smooth in zip(reversed(pyramid), self.resizes, self.smooths, strict=True):
            x = smooth(torch.cat([resize(x, feature.shape[-2:]), feature], dim=1))
        return self.head(x)
