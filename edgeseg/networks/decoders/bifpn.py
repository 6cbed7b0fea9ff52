"""BiFPN lite (after Tan et al., 2019, https://arxiv.org/abs/1911.09070), without the weights of its sums."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgeseg.networks.decoders.base import Decoder, Pyramid
from edgeseg.networks.layers import Resize
from edgeseg.spec import ModelSpec, Task

BLOCKS = 4
EXTRA_LEVELS = 2


class Fuse(nn.Module):
    """Activation of the sum of a level and its resized neighbour, then a separable 3x3."""

    def __init__(self, channels: int, pyramid: Pyramid) -> None:
        super().__init__()
        self.resize = Resize()
        self.activation = pyramid.activation(inplace=True)
        self.conv = pyramid.separable(channels, channels)

    def forward(self, x: Tensor, neighbour: Tensor) -> Tensor:
        """[N, C, H, W] and [N, C, h, w] -> [N, C, H, W]."""
        return self.conv(self.activation(x + self.resize(neighbour, x.shape[-2:])))


class BiFPNBlock(nn.Module):
    """A pass from the coarsest level to the finest and, except in the last block, a pass back."""

    def __init__(self, levels: int, channels: int, pyramid: Pyramid, *, last: bool) -> None:
        super().__init__()
        steps = levels - 1
        self.up = nn.ModuleList(Fuse(channels, pyramid) for _ in range(steps))
        self.down = nn.ModuleList(Fuse(channels, pyramid) for _ in range(0 if last else steps))
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Features from fine to coarse -> the same shapes; the last block returns only the finest."""
        ups = [inputs[-1]]
        for feature, fuse in zip(reversed(inputs[:-1]), reversed(self.up), strict=True):
            ups.insert(0, fuse(feature, ups[0]))
        outputs = [ups[0]]
        for level, fuse in enumerate(self.down, start=1):
            residual = inputs[level] if level == len(inputs) - 1 else inputs[level] + ups[level]
            outputs.append(fuse(residual, self.pool(outputs[-1])))
        return outputs


class BiFPN(Decoder):
    """Context on the deepest feature, two pooled levels beyond it, four bidirectional blocks; a head on the finest."""

    def __init__(self, pyramid: Pyramid, task: Task, spec: ModelSpec) -> None:
        super().__init__(pyramid)
        width, (*finer, deepest) = spec.channels, pyramid.channels
        self.context: nn.Module = (
            pyramid.aspp(deepest, width, spec.dilations) if spec.aspp else pyramid.conv(deepest, width)
        )
        self.laterals = nn.ModuleList(pyramid.linear(channels, width) for channels in [*finer, width])
        self.pool = nn.MaxPool2d(3, 2, 1)
        levels = len(pyramid.channels) + EXTRA_LEVELS
        self.blocks = nn.ModuleList(
            BiFPNBlock(levels, width, pyramid, last=block == BLOCKS - 1) for block in range(BLOCKS)
        )
        self.head = pyramid.head(width, task)

    def decode(self, *features: Tensor) -> Tensor:
        """The logits at the stride of the finest feature."""
        *finer, deepest = features
        x = self.context(deepest)
        levels = [lateral(feature) for lateral, feature in zip(self.laterals, [*finer, x], strict=True)]
        for _ in range(EXTRA_LEVELS):
            x = self.pool(x)  # pooled from the context itself, not from its lateral
            levels.append(x)
        for block in self.blocks:
            levels = block(levels)
        return self.head(levels[0])
