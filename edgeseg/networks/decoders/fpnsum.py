"""FPN with the sum of the class scores of its levels, of plain 3x3 convolutions: few large steps that suit 8 bit.

Scores are predicted at several levels and added, as in FCN (Long et al., 2015, https://arxiv.org/abs/1411.4038); the
levels are those of FPN (Lin et al., 2016, https://arxiv.org/abs/1612.03144).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgeseg.networks.decoders.base import Decoder, Pyramid
from edgeseg.networks.layers import Clamp, ConvNormAct, Resize, resize
from edgeseg.spec import ModelSpec, Task

SUMMED = 3  # levels that predict scores
CONTEXT = (1, 2)  # dilations on the deepest feature
# Standard deviation of the first weights of the prediction: with PyTorch's own, the first loss is several times that of
# equal probabilities.
START = 0.1


class FPNSum(Decoder):
    """Two residual 3x3 convolutions on the deepest feature; then, per level: upsample, add a 1x1 lateral, 3x3.

    Maps get narrower as they get larger. The finest levels predict scores, which are added.
    """

    def __init__(self, pyramid: Pyramid, task: Task, spec: ModelSpec) -> None:
        super().__init__(pyramid)
        *finer, deepest = pyramid.channels
        coarse_to_fine, width = finer[::-1], spec.channels
        widths = [width, width, width * 3 // 4, *[width // 2] * len(finer)][: len(finer) + 1]

        def conv(before: int, after: int, dilation: int = 1) -> ConvNormAct:
            return ConvNormAct(before, after, 3, dilation=dilation, activation=pyramid.activation)

        self.reduce = pyramid.conv(deepest, width)
        self.context = nn.ModuleList(conv(width, width, dilation) for dilation in CONTEXT)
        self.laterals = nn.ModuleList(map(pyramid.conv, coarse_to_fine, widths))
        self.resizes = nn.ModuleList(Resize() for _ in coarse_to_fine)
        self.smooths = nn.ModuleList(map(conv, widths, widths[1:]))
        self.head = ScoreSum(widths[-SUMMED:], task)

    def decode(self, *features: Tensor) -> Tensor:
        """The logits at the stride of the finest feature."""
        *finer, x = features
        x = self.reduce(x)
        for conv in self.context:
            x = x + conv(x)
        levels = [x]
        for feature, upsample, lateral, smooth in zip(
            reversed(finer), self.resizes, self.laterals, self.smooths, strict=True
        ):
            x = smooth(upsample(x, feature.shape[-2:]) + lateral(feature))
            levels.append(x)
        return self.head(levels[-SUMMED:])


class ScoreSum(nn.ModuleList):
    """A 1x1 convolution per level, whose outputs are resized to the next finer level and added.

    Args:
        widths: Channels per level, from coarse to fine.
        task: What is predicted.
    """

    def __init__(self, widths: Sequence[int], task: Task) -> None:
        super().__init__(_prediction(width, task.channels) for width in widths)
        if task.range is not None:
            self.append(Clamp(*task.range))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """[N, width, h, w] per level, from coarse to fine; returns [N, channels, H, W] at the size of the finest."""
        convs, clamps = list(self)[: len(levels)], list(self)[len(levels) :]
        scores = convs[0](levels[0])
        for conv, level in zip(convs[1:], levels[1:], strict=True):
            scores = resize(scores, level.shape[-2:]) + conv(level)
        for clamp in clamps:
            scores = clamp(scores)
        return scores


def _prediction(width: int, channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(width, channels, 1)
    nn.init.normal_(conv.weight, std=START)
    nn.init.constant_(conv.get_parameter("bias"), 0)
    return conv
