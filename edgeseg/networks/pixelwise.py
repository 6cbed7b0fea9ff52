"""The last convolution of a decoder as a matrix product.

Logits stay in float32, since 8-bit logits would have ties. onnxruntime has no convolution of 8-bit inputs with float32
outputs, but it has such a matrix product.
"""

from __future__ import annotations

import re
from typing import TypeGuard

from torch import Tensor, nn

from edgeseg.networks.pixel2pixel import Pixel2Pixel

Convolution = nn.Conv2d | nn.ConvTranspose2d


class PixelwiseConv2d(nn.Module):
    """A 1x1 convolution that multiplies every pixel by a matrix [in_channels, out_channels]."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.register_buffer("weight", conv.weight.detach().flatten(1).t().contiguous())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]."""
        return product(x, self.weight, self.bias)


def product(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """Multiplies every pixel of [N, in, H, W] by a matrix [in, out]; returns [N, out, H, W]."""
    y = (x.permute(0, 2, 3, 1) @ matrix).permute(0, 3, 1, 2)
    # Behind the permutation: onnxruntime would make one float32 product of a product and a sum that follow each other.
    return y if bias is None else y + bias.view(-1, 1, 1)


def last_convolutions(model: Pixel2Pixel, *tasks: str) -> dict[str, Convolution]:
    """The convolutions of the decoders of some tasks, or of all, that compute logits, by their paths in the model.

    They are the plain 1x1 convolutions that are children of `head`, and otherwise the last convolution.
    """
    last: dict[str, Convolution] = {}
    for name in tasks or model.tasks:
        decoder = model.decoders[name]
        kinds = (nn.Conv2d, nn.ConvTranspose2d)
        convs = {path: module for path, module in decoder.named_modules() if type(module) in kinds}
        head = [path for path, conv in convs.items() if re.fullmatch(r"head\.\d+", path) and is_pixelwise(conv)]
        last |= {f"decoders.{name}.{path}": convs[path] for path in head or list(convs)[-1:]}
    return last


def is_pixelwise(conv: Convolution) -> TypeGuard[nn.Conv2d]:
    """Whether a convolution is a plain 1x1 convolution."""
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.groups)
    return isinstance(conv, nn.Conv2d) and shape == ((1, 1), (1, 1), (0, 0), 1)
