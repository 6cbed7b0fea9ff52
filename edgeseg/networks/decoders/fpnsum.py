"""FPN whose levels are summed before the prediction, of plain 3x3 convolutions: few large steps that suit 8 bit.

The sum of the levels is that of FCN (Long et al., 2015, https://arxiv.org/abs/1411.4038) and of Panoptic FPN (Kirillov
et al., 2019, https://arxiv.org/abs/1901.02446).
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.networks.decoders.base import Decoder, Pyramid
from edgeseg.networks.layers import Clamp, ConvNormAct, Resize
from edgeseg.spec import ModelSpec, Task

SUMMED = 3  # levels
CONTEXT = (1, 2)  # dilations on the deepest feature
# Standard deviation of the start of the prediction layer. PyTorch's own start gives a first loss of several times
# that of equal probabilities.
START = 0.1


class FPNSum(Decoder):
    """Two residual 3x3 convolutions on the deepest feature; then, per level: upsample, add a 1x1 lateral, 3x3.

    The finest levels are projected to the width of the finest one and summed. Maps get narrower as they get larger.
    """

    def __init__(self, pyramid: Pyramid, task: Task, spec: ModelSpec) -> None:
        super().__init__(pyramid)
        *finer, deepest = pyramid.channels
        coarse_to_fine = finer[::-1]
        narrow = [spec.channels * 3 // 4, *[spec.channels // 2] * len(finer)]
        widths = [spec.channels, spec.channels, *narrow][: len(finer) + 1]

        def conv(before: int, after: int, dilation: int = 1) -> ConvNormAct:
            return ConvNormAct(before, after, 3, dilation=dilation, activation=pyramid.activation)

        self.reduce = pyramid.conv(deepest, widths[0])
        self.context = nn.ModuleList(conv(widths[0], widths[0], dilation) for dilation in CONTEXT)
        self.laterals = nn.ModuleList(map(pyramid.conv, coarse_to_fine, widths))
        self.resizes = nn.ModuleList(Resize() for _ in coarse_to_fine)
        self.smooths = nn.ModuleList(map(conv, widths, widths[1:]))
        *coarse, finest = widths[-SUMMED:]
        self.projections = nn.ModuleList([*(pyramid.linear(width, finest) for width in coarse), nn.Identity()])
        self.sums = nn.ModuleList(Resize() for _ in coarse)
        prediction = nn.Conv2d(finest, task.channels, 1)
        nn.init.normal_(prediction.weight, std=START)
        nn.init.zeros_(prediction.bias)
        # Named like the prediction layers of the other decoders: a further module may precede it.
        self.head = nn.Sequential(nn.Identity(), prediction)
        if task.range is not None:
            self.head.append(Clamp(*task.range))

    def decode(self, *features: Tensor) -> Tensor:
        """The logits at the stride of the finest feature."""
        *finer, x = features
        x = self.reduce(x)
        for conv in self.context:
            x = x + conv(x)
        levels = [x]
        for feature, resize, lateral, smooth in zip(
            reversed(finer), self.resizes, self.laterals, self.smooths, strict=True
        ):
            x = smooth(resize(x, feature.shape[-2:]) + lateral(feature))
            levels.append(x)
        total, *rest = (project(x) for project, x in zip(self.projections, levels[-SUMMED:], strict=True))
        for resize, x in zip(self.sums, rest, strict=True):
            total = resize(total, x.shape[-2:]) + x
        return self.head(total)
