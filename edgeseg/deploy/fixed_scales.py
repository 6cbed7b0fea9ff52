"""Networks that were trained for 8 bits, with their roundings as operators with constant scales."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.quantized import QuantizedConv2d, Quantizer

LOWEST, HIGHEST = RANGE = (-128, 127)


def fix_scales(model: Pixel2Pixel, convolution: Callable[[QuantizedConv2d], nn.Module]) -> None:
    """Replaces the roundings of a quantization-aware network in place by PyTorch's `quantized_decomposed` operators.

    Backends of torch.export compute the operators between them in 8 bit. Activations are signed there, so zero points
    are lower by 128.

    Args:
        model: A network that was trained for 8 bits.
        convolution: Makes what takes the place of a convolution, with the weights in the form of a backend.
    """
    import torch.ao.quantization.fx._decomposed  # noqa: F401 (registers the operators)

    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedConv2d):
            model.set_submodule(name, convolution(module))
    for name, module in list(model.named_modules()):  # those of convolutions have new paths
        if isinstance(module, Quantizer):
            model.set_submodule(name, _Grid(module))


class _Grid(nn.Module):
    """Rounds a tensor to a fixed grid of 8 bit and back."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        scale, zero = quantizer.scale_and_zero()
        self.grid = (float(scale), int(zero) + LOWEST, *RANGE, torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        """Rounds a tensor of any shape."""
        rounded = torch.ops.quantized_decomposed.quantize_per_tensor(x, *self.grid)
        return torch.ops.quantized_decomposed.dequantize_per_tensor(rounded, *self.grid)
