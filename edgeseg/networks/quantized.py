"""Quantization-aware training: networks that round in training as their 8-bit files do.

`quantize_aware` returns such a network, which is a `Pixel2Pixel`: `edgeseg.engine.train`, `evaluate` and `predict` take
it like any other. `export_onnx` writes it with its scales (QuantizeLinear and DequantizeLinear) for the 8-bit kernels
of onnxruntime. After Jacob et al., 2018, https://arxiv.org/abs/1712.05877.

torchao's PT2E flow is not used: its graph is no longer a `Pixel2Pixel`, its training steps take several times as long
as those of the network itself, and onnxruntime runs its files no faster than float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.networks.equalize import equalize_channels
from edgeseg.networks.fold import fold_batch_norms
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.pixelwise import is_pixelwise, last_convolutions, product
from edgeseg.networks.wiring import trace
from edgeseg.spec import Preprocess, Quantization

TRIM = 1e-4  # share of the values at either end that a range leaves out
SLOWEST = 1e-3  # smallest step of the moving averages of ranges
SMALLEST = 2.0**-16  # smallest range
# Activations that 8-bit kernels compute together with the convolution before them.
FUSED = (nn.ReLU, nn.ReLU6)
# Modules that only select among the values of their input, which therefore stay on its grid.
TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.MaxPool2d)


def quantize_aware(
    model: Pixel2Pixel, quantization: Quantization | None = None, images: Iterable[Sequence[Tensor]] | None = None
) -> Pixel2Pixel:
    """Copies a trained network. The copy rounds weights and activations to 8 bit, for quantization-aware training.

    Batch norms are folded with their current statistics. The outputs of convolutions, activations, resizes and sums are
    rounded to unsigned 8 bit with one range per tensor. In training the range follows the data, without the outermost
    0.01 % at either end, until `freeze_ranges`; before the first batch nothing is rounded. Logits are not rounded.
    After Jacob et al., 2018, https://arxiv.org/abs/1712.05877.

    Args:
        model: A trained float network; it stays as it is.
        quantization: Kind of scales and bits of the weights; by default those of `Quantization()`.
        images: Typical images, preprocessed, for a scheme with one weight scale per channel: on them channels are
            equalized, see `edgeseg.networks.equalize`. Each item has one float32 tensor [N, C, H, W] per input.

    Returns:
        The copy, in the mode of `model`.

    Raises:
        ValueError: the network is quantization-aware already, or a layer has infinite values or NaN for the images.
    """
    if model.config.quantization is not None:
        raise ValueError(f"{model.name} is quantization-aware already")
    quantized, quantization = copy.deepcopy(model), quantization or Quantization()
    if images is not None and quantization.scheme == "per_channel":
        equalize_channels(quantized, images)
    fold_batch_norms(quantized)
    for module in quantized.modules():
        if getattr(module, "inplace", False):
            vars(module)["inplace"] = False  # it would overwrite rounded values that others read
        elif isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0  # it would widen the ranges
    last = last_convolutions(quantized)
    for name, module in list(quantized.named_modules()):
        if type(module) is nn.Conv2d and (name not in last or is_pixelwise(module)):
            quantized.set_submodule(name, QuantizedConv2d(module, quantization, last=name in last))
    _place(quantized, quantization, set(last))
    quantized.configure(quantization=quantization)
    return quantized.train(model.training)


def freeze_ranges(model: nn.Module, frozen: bool = True) -> None:
    """Freezes the ranges of all activations; with `frozen=False` they follow the data of the training again."""
    for module in model.modules():
        if isinstance(module, Quantizer):
            module.frozen = frozen


@contextmanager
def exporting(model: nn.Module) -> Iterator[None]:
    """Inside, torch.export records every rounding as operators of ONNX with constant scales."""
    added: list[tuple[nn.Module, str]] = []
    try:
        for module in list(model.modules()):
            constants = module.constants() if isinstance(module, Quantizer | QuantizedConv2d) else {}
            for name, value in constants.items():
                module.register_buffer(name, value, persistent=False)
                added.append((module, name))
        yield
    finally:
        for module, name in added:
            delattr(module, name)


def pixel_grid(preprocess: Preprocess) -> tuple[float, int] | None:
    """Scale and zero point of normalized pixels; None if channels differ in them or the mean is not an integer."""
    mean, std = set(preprocess.mean), set(preprocess.std)
    if len(mean) != 1 or len(std) != 1 or not float(*mean).is_integer():
        return None
    return 1 / std.pop(), int(mean.pop())


class Quantizer(nn.Module):
    """Rounds a tensor to unsigned 8 bit and back; the gradient passes inside the range.

    Attributes:
        low, high: The present range.
        count: Number of batches that the range was measured on; while it is 0 nothing is rounded.
        frozen: Whether the range stays as it is in training.
        fixed: Whether the range was set by `fix` and never changes.
    """

    low: Tensor
    high: Tensor
    count: Tensor

    def __init__(self, quantization: Quantization) -> None:
        super().__init__()
        self.quantization, self.frozen, self.fixed = quantization, False, False
        for name in ("low", "high", "count"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Rounds a tensor of any shape."""
        if hasattr(self, "onnx_scale"):
            return self._operators(x)
        if self.training and not self.frozen and not self.fixed:
            self.observe(x.detach())
        if not torch.compiler.is_exporting() and not self.count:
            return x
        scale, zero = self.scale_and_zero()
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)

    @torch.no_grad()
    def fix(self, low: float, high: float) -> Quantizer:
        """Sets a range that never changes."""
        self.low.fill_(low)
        self.high.fill_(high)
        self.count.fill_(1)
        self.fixed = True
        return self

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Moves the range towards that of `x`, faster in the first batches."""
        sample = x[..., ::2, ::2].float()
        low, high = torch.aminmax(sample)
        histogram = torch.histc(sample, 256, low.item(), high.item()) if low < high else sample.new_ones(256)
        share = histogram.cumsum(0) / histogram.sum()
        width = (high - low) / 256
        first, last = (share > TRIM).nonzero()[0, 0], (share >= 1 - TRIM).nonzero()[0, 0]
        self.count += 1
        pace = max(1 / float(self.count), SLOWEST)
        self.low += pace * (low + width * first - self.low)
        self.high += pace * (low + width * (last + 1) - self.high)

    def scale_and_zero(self) -> tuple[Tensor, Tensor]:
        """The scale (float32) and the zero point (int32), as scalars."""
        low, high = self.low.clamp(max=0), self.high.clamp(min=0)
        if self.quantization.scheme == "power_of_two":
            limit = torch.exp2(torch.log2(torch.maximum(-low, high).clamp(min=SMALLEST)).ceil())
            signed = low < 0
            return torch.where(signed, limit / 128, limit / 256), torch.where(signed, 128, 0).int()
        scale = ((high - low) / 255).clamp(min=SMALLEST / 255)
        return scale, (-low / scale).round().clamp(0, 255).int()

    def constants(self) -> dict[str, Tensor]:
        """The constants of the exported file, by name."""
        scale, zero = self.scale_and_zero()
        return {"onnx_scale": scale, "onnx_zero": zero.to(torch.uint8)}

    def _operators(self, x: Tensor) -> Tensor:
        scale, zero = self.get_buffer("onnx_scale"), self.get_buffer("onnx_zero")
        rounded = torch.onnx.ops.symbolic(
            "QuantizeLinear", (x, scale, zero), dtype=torch.uint8, shape=x.shape, version=20
        )
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (rounded, scale, zero), dtype=torch.float32, shape=x.shape, version=20
        )


class QuantizedConv2d(nn.Module):
    """A convolution with rounded weights.

    Attributes:
        before: The quantizer of the input, if no other module has rounded the input.
        source: The quantizer that rounded the input: `before`, or that of another module.
        last: Whether the outputs are logits. Then the bias is not rounded, and the file has a matrix product instead.
    """

    def __init__(self, conv: nn.Conv2d, quantization: Quantization, *, last: bool = False) -> None:
        super().__init__()
        self.conv, self.quantization, self.last = conv, quantization, last
        self.levels = 2 ** (quantization.weight_bits - 1)
        self.before: Quantizer | None = None
        self.source: tuple[Quantizer, ...] = ()  # in a tuple, so that it is not a submodule of this one

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, h, w]."""
        if self.before is not None:
            x = self.before(x)
        if hasattr(self, "onnx_weight"):
            return self._operators(x)
        scale, zero = self.weight_scale()
        weight = torch.fake_quantize_per_channel_affine(self.conv.weight, scale, zero, 0, -self.levels, self.levels - 1)
        bias = self.conv.bias
        if bias is not None and self.source and not self.last:
            # Rounded like the int32 bias of the file, which decides how sums halfway between two steps are rounded.
            step = self.source[0].scale_and_zero()[0] * scale
            rounded = (bias / step).round() * step
            bias = rounded.detach() + (bias - bias.detach())  # exactly the rounded value, with the bias's gradient
        return self.conv._conv_forward(x, weight, bias)

    def weight_scale(self) -> tuple[Tensor, Tensor]:
        """Scales (float32) and zero points (int32), [out_channels]; a scale for the whole tensor is repeated."""
        weight = self.conv.weight.detach()
        if self.quantization.scheme == "power_of_two":
            limit = torch.exp2(torch.log2(weight.abs().amax().clamp(min=SMALLEST)).ceil())
            scale = (limit / self.levels).expand(len(weight)).contiguous()
        else:
            scale = weight.abs().amax(dim=(1, 2, 3)).clamp(min=SMALLEST) / (self.levels - 1)
        return scale, torch.zeros_like(scale, dtype=torch.int32)

    def constants(self) -> dict[str, Tensor]:
        """The constants of the exported file, by name: int8 weights and int32 biases, with their scales."""
        scale, _ = self.weight_scale()
        weight = (self.conv.weight.detach() / scale.view(-1, 1, 1, 1)).round().clamp(-self.levels, self.levels - 1)
        if self.last:
            weight = weight.flatten(1).t().contiguous()
        constants = {"onnx_weight": weight.to(torch.int8), "onnx_weight_scale": self._one(scale)}
        if self.conv.bias is not None and not self.last:
            bias_scale = self.source[0].scale_and_zero()[0] * scale
            limit = 2**31 - 256  # float32 would round the limits of int32 up to 2**31
            bias = (self.conv.bias.detach() / bias_scale).round().clamp(-limit, limit)
            constants |= {"onnx_bias": bias.to(torch.int32), "onnx_bias_scale": self._one(bias_scale)}
        return constants

    def _one(self, scale: Tensor) -> Tensor:
        return scale[0].clone() if self.quantization.scheme == "power_of_two" else scale

    def _operators(self, x: Tensor) -> Tensor:
        weight = self._dequantized("onnx_weight")
        if self.last:
            return product(x, weight, self.conv.bias)
        return self.conv._conv_forward(x, weight, None if self.conv.bias is None else self._dequantized("onnx_bias"))

    def _dequantized(self, name: str) -> Tensor:
        values, scale = self.get_buffer(name), self.get_buffer(f"{name}_scale")
        attributes: dict[str, Any] = {"axis": int(self.last)} if scale.ndim else {}
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (values, scale), attributes, dtype=torch.float32, shape=values.shape, version=20
        )


def _place(model: Pixel2Pixel, quantization: Quantization, last: set[str]) -> None:
    """Adds quantizers after activations, convolutions without one, resizes and sums.

    The output of a quantizer is on its grid, and so are values that are only selected from it. A convolution whose
    input is on no grid (an image, a concatenation, a sum in a decoder) gets a quantizer before it; for an image, its
    range is that of pixels.
    """
    wiring = trace(model)
    device = next(model.parameters()).device
    order = {call.name: number for number, call in enumerate(wiring.calls)}
    logits = set(wiring.outputs.values())
    activated = {call.inputs[0] for call in wiring.calls if isinstance(call.module, FUSED)}
    pixels = pixel_grid(model.preprocess)
    grids: dict[int, Quantizer] = {}
    for call in wiring.calls:
        module = call.module
        if isinstance(module, QuantizedConv2d):
            source = call.inputs[0]
            if source not in grids:
                module.before = Quantizer(quantization).to(device)
                if pixels is not None and source in wiring.images:
                    module.before.fix(-pixels[0] * pixels[1], pixels[0] * (255 - pixels[1]))
            module.source = (module.before or grids[source],)
        fused = isinstance(module, QuantizedConv2d) and call.output in activated
        if call.output is None or call.output in grids or call.output in logits or fused:
            continue
        if _at_the_end(call.name, last, order):
            continue
        if isinstance(module, TRANSPARENT):
            if call.inputs[0] in grids:
                grids[call.output] = grids[call.inputs[0]]
            continue
        grids[call.output] = Quantizer(quantization).to(device)
        module.add_module("after", grids[call.output])
        module.register_forward_hook(_rounded)


def _at_the_end(name: str, last: set[str], order: Mapping[str, int]) -> bool:
    """Whether a module contains one of the last convolutions or comes after one, so that its output is not rounded."""
    for path in last:
        behind = name.startswith(f"{path.rpartition('.')[0]}.") and order[name] > order[path]
        if not name or behind or f"{path}.".startswith(f"{name}."):
            return True
    return False


def _rounded(module: Any, _: Any, output: Tensor) -> Tensor:
    return module.after(output)
