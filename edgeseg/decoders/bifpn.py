"""BiFPN lite (after Tan et al., 2019, https://arxiv.org/abs/1911.09070), without the weights of its sums."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgeseg.layers import Activation, ASPPLite, ConvNormAct, PredictionHead, Resize, SeparableConv
from edgeseg.spec import ModelSpec, Task

BLOCKS = 4
EXTRA_LEVELS = 2


class Fuse(nn.Module):
    """Activation on the sum of a level and its resized neighbour, then a separable 3x3."""

    def __init__(self, channels: int, group_width: int, activation: Activation) -> None:
        super().__init__()
        self.resize = Resize()
        self.activation = activation(inplace=True)
        self.conv = SeparableConv(channels, channels, group_width=group_width, activation=activation)

    def forward(self, x: Tensor, neighbour: Tensor) -> Tensor:
        """[N,C,H,W] and [N,C,h,w] -> [N,C,H,W]."""
        return self.conv(self.activation(x + self.resize(neighbour, x.shape[-2:])))


class BiFPNBlock(nn.Module):
    """One way from the coarsest level to the finest, and (except in the last block) one back."""

    def __init__(self, levels: int, channels: int, group_width: int, activation: Activation, *, last: bool) -> None:
        super().__init__()
        steps = levels - 1
        self.up = nn.ModuleList(Fuse(channels, group_width, activation) for _ in range(steps))
        self.down = nn.ModuleList(Fuse(channels, group_width, activation) for _ in range(0 if last else steps))
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Features fine to coarse -> the same shapes; the last block answers only its finest."""
        ups = [inputs[-1]]
        for feature, fuse in zip(reversed(inputs[:-1]), reversed(self.up), strict=True):
            ups.insert(0, fuse(feature, ups[0]))
        outputs = [ups[0]]
        for level, fuse in enumerate(self.down, start=1):
            residual = inputs[level] if level == len(inputs) - 1 else inputs[level] + ups[level]
            outputs.append(fuse(residual, self.pool(outputs[-1])))
        return outputs


class BiFPN(nn.Module):
    """Context on the deepest feature, two pooled levels beyond, four bidirectional blocks; the finest to the head."""

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
        if spec.aspp:
            self.context: nn.Module = ASPPLite(
                channels[-1], width, dilations=spec.dilations, group_width=group_width, activation=activation
            )
        else:
            self.context = ConvNormAct(channels[-1], width, activation=activation)
        self.laterals = nn.ModuleList(ConvNormAct(c, width, activation=None) for c in [*channels[:-1], width])
        self.pool = nn.MaxPool2d(3, 2, 1)
        levels = len(channels) + EXTRA_LEVELS
        self.blocks = nn.ModuleList(
            BiFPNBlock(levels, width, group_width, activation, last=b == BLOCKS - 1) for b in range(BLOCKS)
        )
        self.head = PredictionHead(width, task.channels, group_width=group_width, value_range=task.range)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """All features of the encoder, fine to coarse -> logits at the stride of the finest one used."""
        *pyramid, deepest = features[self.first :]
        x = self.context(deepest)
        levels = [lateral(f) for lateral, f in zip(self.laterals, [*pyramid, x], strict=True)]
        for _ in range(EXTRA_LEVELS):
            x = self.pool(x)  # pooled from the context itself, not from its lateral
            levels.append(x)
        for block in self.blocks:
            levels = block(levels)
        return self.head(levels[0])
