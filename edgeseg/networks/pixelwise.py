"""The last convolution of a task as a product of matrices.

8-bit logits would have ties, and onnxruntime has no convolution from 8 bit to float32, but such a product.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.networks.pixel2pixel import Pixel2Pixel


class PixelwiseConv2d(nn.Module):
    """A 1x1 convolution, as a product with a matrix [in_channels,out_channels] at every pixel."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.register_buffer("weight", conv.weight.detach().flatten(1).t().contiguous())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """[N,in_channels,H,W] -> [N,out_channels,H,W]."""
        return product(x, self.weight, self.bias)


def product(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """[N,in,H,W] and [in,out] -> [N,out,H,W]."""
    y = x.permute(0, 2, 3, 1) @ matrix
    if bias is not None:
        y = y + bias
    return y.permute(0, 3, 1, 2)


def last_convolutions(model: Pixel2Pixel) -> dict[str, nn.Conv2d]:
    """By path, the convolution of each decoder that gives its logits."""
    found: dict[str, nn.Conv2d] = {}
    for name, decoder in model.decoders.items():
        convs = [(f"decoders.{name}.{path}", each) for path, each in decoder.named_modules() if type(each) is nn.Conv2d]
        found.update(convs[-1:])
    return found


def is_pixelwise(conv: nn.Conv2d) -> bool:
    """Whether it is a plain 1x1 convolution."""
    return (conv.kernel_size, conv.stride, conv.padding, conv.groups) == ((1, 1), (1, 1), (0, 0), 1)
