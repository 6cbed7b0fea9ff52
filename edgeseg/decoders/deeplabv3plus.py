"""DeepLabV3+ lite (after Chen et al., 2018, https://arxiv.org/abs/1802.02611)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.layers import Activation, ASPPLite, ConvNormAct, PredictionHead, Resize
from edgeseg.spec import ModelSpec, Task


class DeepLabV3Plus(nn.Module):
    """ASPP on the deepest feature, upsampled in one go and concatenated with a narrowed low-level feature.

    The head follows at once, without the 3x3 refinement of the paper.
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
        self.context = ASPPLite(
            channels[-1], spec.channels, dilations=spec.dilations, group_width=group_width, activation=activation
        )
        self.resize = Resize()
        self.shortcut = ConvNormAct(channels[0], spec.shortcut_channels, activation=activation)
        self.head = PredictionHead(
            spec.channels + spec.shortcut_channels, task.channels, group_width=group_width, value_range=task.range
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """All features of the encoder, fine to coarse -> logits at the stride of the finest one used."""
        shortcut = self.shortcut(features[self.first])
        x = self.resize(self.context(features[-1]), shortcut.shape[-2:])
        return self.head(torch.cat([x, shortcut], dim=1))
