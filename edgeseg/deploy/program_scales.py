"""Networks that were trained for 8 bit, with their roundings as operators of PyTorch's quantized programs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.quantized import QuantizedConv2d, Quantizer

RANGE = (-128, 127)


def fix_scales(model: Pixel2Pixel) -> None:
    """Replaces the roundings of a quantization-aware network in place by operators with constant scales.

    These are `quantized_decomposed.quantize_per_tensor` and relatives, which the backends of torch.export compute in 8
    bit together with the operator between them. Activations are signed here, so zero points are lower by 128. Last
    convolutions compute in float32 with their rounded weights.
    """
    import torch.ao.quantization.fx._decomposed  # noqa: F401 (registers the operators)

    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedConv2d):
            model.set_submodule(name, _Convolution(module))
    for name, module in list(model.named_modules()):
        if isinstance(module, Quantizer):
            model.set_submodule(name, _Grid(module))


class _Grid(nn.Module):
    """Rounds a tensor to a fixed grid of 8 bit and back."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        scale, zero = quantizer.scale_and_zero()
        self.scale, self.zero = float(scale), int(zero) + RANGE[0]

    def forward(self, x: Tensor) -> Tensor:
        """Rounds a tensor of any shape."""
        grid = (self.scale, self.zero, *RANGE, torch.int8)
        rounded = torch.ops.quantized_decomposed.quantize_per_tensor(x, *grid)
        return torch.ops.quantized_decomposed.dequantize_per_tensor(rounded, *grid)


class _Convolution(nn.Module):
    """A convolution with constant int8 weights, one scale per channel."""

    weight: Tensor
    scale: Tensor
    zero: Tensor
    bias: Tensor | None

    def __init__(self, module: QuantizedConv2d) -> None:
        super().__init__()
        self.before, self.conv, self.levels, self.last = module.before, module.conv, module.levels, module.last
        scale, zero = module.weight_scale()
        shape = (-1, *(1 for _ in module.conv.weight.shape[1:]))
        weight = (module.conv.weight.detach() / scale.view(shape)).round().clamp(-self.levels, self.levels - 1)
        self.register_buffer("weight", weight * scale.view(shape) if self.last else weight.to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, h, w]."""
        if self.before is not None:
            x = self.before(x)
        weight = self.weight
        if not self.last:
            weight = torch.ops.quantized_decomposed.dequantize_per_channel(
                weight, self.scale, self.zero, 0, -self.levels, self.levels - 1, torch.int8
            )
        return self.conv._conv_forward(x, weight, self.conv.bias)
