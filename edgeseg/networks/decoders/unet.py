"""UNet lite (after Ronneberger et al., 2015, https://arxiv.org/abs/1505.04597)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.networks.decoders.base import Decoder, Pyramid
from edgeseg.networks.layers import Resize
from edgeseg.spec import ModelSpec, Task


class UNet(Decoder):
    """ASPP on the deepest feature; then, per level: upsample, concatenate the raw feature, a separable 3x3.

    A level is as wide as its feature, but never narrower than twice the number of classes or than 32 channels. The
    number of parameters and multiply-accumulates therefore depends on the number of classes.
    """

    def __init__(self, pyramid: Pyramid, task: Task, spec: ModelSpec) -> None:
        super().__init__(pyramid)
        spec.require(spec.aspp, "aspp", "is True for a UNet, which has no other context block")
        width, (*finer, deepest) = spec.channels, pyramid.channels
        self.context = pyramid.aspp(deepest, width, spec.dilations)
        self.resizes = nn.ModuleList(Resize() for _ in finer)
        self.smooths = nn.ModuleList()
        for channels in reversed(finer):
            out = max(2 * task.channels, 32, channels)
            self.smooths.append(pyramid.separable(width + channels, out))
            width = out
        self.head = pyramid.head(width, task)

    def decode(self, *features: Tensor) -> Tensor:
        """The logits at the stride of the finest feature."""
        *finer, deepest = features
        x = self.context(deepest)
        for feature, resize, smooth in zip(reversed(finer), self.resizes, self.smooths, strict=True):
            x = smooth(torch.cat([resize(x, feature.shape[-2:]), feature], dim=1))
        return self.head(x)
