"""FPN lite (after Lin et al., 2016, https://arxiv.org/abs/1612.03144): laterals added top-down, smoothed on the way."""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.networks.decoders.base import Decoder, Pyramid
from edgeseg.networks.layers import Resize
from edgeseg.spec import ModelSpec, Task


class FPN(Decoder):
    """Context on the deepest feature; then, per level: upsample, add a 1x1 lateral, smooth with a separable 3x3.

    Each smoothed sum feeds the next finer level. Without ASPP, two strided convolutions add two coarser levels instead.
    """

    def __init__(self, pyramid: Pyramid, task: Task, spec: ModelSpec) -> None:
        super().__init__(pyramid)
        width, (*finer, deepest) = spec.channels, pyramid.channels
        self.context: nn.Module
        self.extra_levels = not spec.aspp
        if self.extra_levels:
            self.context = nn.ModuleList(pyramid.separable(deepest, out, stride=2) for out in (deepest, width))
            finer += [deepest, deepest]
        else:
            self.context = pyramid.aspp(deepest, width, spec.dilations)
        coarse_to_fine = finer[::-1]
        self.laterals = nn.ModuleList(pyramid.conv(channels, width) for channels in coarse_to_fine)
        self.resizes = nn.ModuleList(Resize() for _ in coarse_to_fine)
        self.smooths = nn.ModuleList(pyramid.separable(width, width) for _ in coarse_to_fine)
        self.head = pyramid.head(width, task)

    def decode(self, *features: Tensor) -> Tensor:
        """The logits at the stride of the finest feature."""
        *finer, x = features
        if self.extra_levels:
            first, second = self.context.children()
            finer += [x, first(x)]
            x = second(finer[-1])
        else:
            x = self.context(x)
        for feature, resize, lateral, smooth in zip(
            reversed(finer), self.resizes, self.laterals, self.smooths, strict=True
        ):
            x = smooth(resize(x, feature.shape[-2:]) + lateral(feature))
        return self.head(x)
