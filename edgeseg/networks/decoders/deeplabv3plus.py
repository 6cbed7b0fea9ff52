"""DeepLabV3+ lite (after Chen et al., 2018, https://arxiv.org/abs/1802.02611)."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseg.networks.decoders.base import Decoder, Pyramid
from edgeseg.networks.layers import Resize
from edgeseg.spec import ModelSpec, Task


class DeepLabV3Plus(Decoder):
    """ASPP on the deepest feature, upsampled once and concatenated with a narrowed low-level feature.

    The prediction head follows immediately, without the 3x3 refinement of the paper.
    """

    def __init__(self, pyramid: Pyramid, task: Task, spec: ModelSpec) -> None:
        super().__init__(pyramid)
        spec.require(spec.aspp, "aspp", "is True for DeepLabV3+, which has no other context block")
        self.context = pyramid.aspp(pyramid.channels[-1], spec.channels, spec.dilations)
        self.resize = Resize()
        self.shortcut = pyramid.conv(pyramid.channels[0], spec.shortcut_channels)
        self.head = pyramid.head(spec.channels + spec.shortcut_channels, task)

    def decode(self, *features: Tensor) -> Tensor:
        """The logits at the stride of the finest feature."""
        shortcut = self.shortcut(features[0])
        x = self.resize(self.context(features[-1]), shortcut.shape[-2:])
        return self.head(torch.cat([x, shortcut], dim=1))
