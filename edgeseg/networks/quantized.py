"""Quantization-aware training: a network that computes with the rounding of its 8-bit file, in training too.

`quantize_aware` gives such a network, still a `Pixel2Pixel`: `edgeseg.engine.train`, `evaluate` and `predict` take it
as any other, and `export_onnx` writes it with its scales (QuantizeLinear and DequantizeLinear), for onnxruntime's 8-bit
kernels. After Jacob et al., 2018, https://arxiv.org/abs/1712.05877.

torchao's PT2E flow is not used: its graph is no `Pixel2Pixel` any more, its training steps take several times as long
as those of the network itself, and onnxruntime runs its files no faster than float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
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
SLOWEST = 1e-3  # of the moving averages of ranges
SMALLEST = 2.0**-16
# Activations that 8-bit kernels do along with the convolution before them.
FUSED = (nn.ReLU, nn.ReLU6)
# What only selects among values, so that they stay on the grid they are on.
TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.MaxPool2d)


def quantize_aware(
    model: Pixel2Pixel, quantization: Quantization | None = None, images: Iterable[Sequence[Tensor]] | None = None
) -> Pixel2Pixel:
    """A copy of a trained network that rounds weights and activations to 8 bit.

    Batch norms are folded, with their statistics as they are. What convolutions, activations, resizes and sums answer
    is rounded to unsigned 8 bit, with one range a tensor that follows the data while training (the outermost 0.01 %
    left out), until `freeze_ranges`; before the first batch nothing is rounded. Logits are not rounded.

    Args:
        images: Some preprocessed ones; with them channels are equalized where weights have a scale for each, see
            `edgeseg.networks.equalize`.

    Raises:
        ValueError: a network that is quantized already.
    """
    if model.config.quantization is not None:
        raise ValueError(f"{model.name} is quantization-aware already")
    quantized, how = copy.deepcopy(model), quantization or Quantization()
    if images is not None and how.scheme == "per_channel":
        equalize_channels(quantized, images)
    fold_batch_norms(quantized)
    for module in quantized.modules():
        if getattr(module, "inplace", False):
            vars(module)["inplace"] = False  # what was rounded must stay as it is
        elif isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0  # it would widen the ranges
    last = last_convolutions(quantized)
    for name, module in list(quantized.named_modules()):
        if type(module) is nn.Conv2d and (name not in last or is_pixelwise(module)):
            quantized.set_submodule(name, QuantizedConv2d(module, how, last=name in last))
    _place(quantized, how, set(last))
    quantized.configure(quantization=how)
    return quantized.train(model.training)


def freeze_ranges(model: nn.Module, frozen: bool = True) -> None:
    """Whether the ranges of activations stay as they are from now on."""
    for module in model.modules():
        if isinstance(module, Quantizer):
            module.frozen = frozen


@contextmanager
def exporting(model: nn.Module) -> Iterator[None]:
    """Inside, what is rounded appears as ONNX's operators with constant scales, for torch.export."""
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
    """Scale and zero point of normalized pixels; None where channels differ in them."""
    mean, std = set(preprocess.mean), set(preprocess.std)
    if len(mean) != 1 or len(std) != 1 or not float(*mean).is_integer():
        return None
    return 1 / std.pop(), int(mean.pop())


class Quantizer(nn.Module):
    """Rounds a tensor to unsigned 8 bit and back; the gradient passes where nothing was cut off.

    Attributes:
        low, high: The range so far.
        count: Batches that it was seen on, 0 for none yet: then nothing is rounded.
        frozen: The range stays as it is.
        fixed: And has from the start, see `fix`.
    """

    low: Tensor
    high: Tensor
    count: Tensor

    def __init__(self, how: Quantization) -> None:
        super().__init__()
        self.how, self.frozen, self.fixed = how, False, False
        for name in ("low", "high", "count"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
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
        """Gives it a range for ever."""
        self.low.fill_(low)
        self.high.fill_(high)
        self.count.fill_(1)
        self.fixed = True
        return self

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Moves the range towards that of `x`, quickly at first."""
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
        """float32 and int32 scalars."""
        low, high = self.low.clamp(max=0), self.high.clamp(min=0)
        if self.how.scheme == "power_of_two":
            limit = torch.exp2(torch.log2(torch.maximum(-low, high).clamp(min=SMALLEST)).ceil())
            signed = low < 0
            return torch.where(signed, limit / 128, limit / 256), torch.where(signed, 128, 0).int()
        scale = ((high - low) / 255).clamp(min=SMALLEST / 255)
        return scale, (-low / scale).round().clamp(0, 255).int()

    def constants(self) -> dict[str, Tensor]:
        """What the exported file holds of it."""
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
        before: Rounds the input, where nothing else has.
        source: The quantizer of the input, that or another's.
        last: It gives logits: its bias is not rounded, and in the file it is a product of matrices.
    """

    def __init__(self, conv: nn.Conv2d, how: Quantization, *, last: bool = False) -> None:
        super().__init__()
        self.conv, self.how, self.last, self.levels = conv, how, last, 2 ** (how.weight_bits - 1)
        self.before: Quantizer | None = None
        self.source: tuple[Quantizer, ...] = ()  # in a tuple, since it is another module's

    def forward(self, x: Tensor) -> Tensor:
        """[N,in_channels,H,W] -> [N,out_channels,h,w]."""
        if self.before is not None:
            x = self.before(x)
        if hasattr(self, "onnx_weight"):
            return self._operators(x)
        scale, zero = self.weight_scale()
        weight = torch.fake_quantize_per_channel_affine(self.conv.weight, scale, zero, 0, -self.levels, self.levels - 1)
        bias = self.conv.bias
        if bias is not None and self.source and not self.last:
            # As int32 in the file: it decides on which side of a step sums fall that lie between two.
            step = self.source[0].scale_and_zero()[0] * scale
            bias = ((bias / step).round() * step).detach() + (bias - bias.detach())  # exact, with bias's gradient
        return self.conv._conv_forward(x, weight, bias)

    def weight_scale(self) -> tuple[Tensor, Tensor]:
        """float32 and int32 [out_channels]; where there is one scale for all it is repeated."""
        weight = self.conv.weight.detach()
        if self.how.scheme == "power_of_two":
            limit = torch.exp2(torch.log2(weight.abs().amax().clamp(min=SMALLEST)).ceil())
            scale = (limit / self.levels).expand(len(weight)).contiguous()
        else:
            scale = weight.abs().amax(dim=(1, 2, 3)).clamp(min=SMALLEST) / (self.levels - 1)
        return scale, torch.zeros_like(scale, dtype=torch.int32)

    def constants(self) -> dict[str, Tensor]:
        """What the exported file holds of it: int8 weights and int32 biases, with their scales."""
        scale, _ = self.weight_scale()
        weight = (self.conv.weight.detach() / scale.view(-1, 1, 1, 1)).round().clamp(-self.levels, self.levels - 1)
        if self.last:
            weight = weight.flatten(1).t().contiguous()
        found = {"onnx_weight": weight.to(torch.int8), "onnx_weight_scale": self._one(scale)}
        if self.conv.bias is not None and not self.last:
            bias_scale = self.source[0].scale_and_zero()[0] * scale
            limit = 2**31 - 256  # what float32 can tell from int32's ends
            bias = (self.conv.bias.detach() / bias_scale).round().clamp(-limit, limit)
            found |= {"onnx_bias": bias.to(torch.int32), "onnx_bias_scale": self._one(bias_scale)}
        return found

    def _one(self, scale: Tensor) -> Tensor:
        return scale[0].clone() if self.how.scheme == "power_of_two" else scale

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


def _place(model: Pixel2Pixel, how: Quantization, last: set[str]) -> None:
    """Puts quantizers where values arise: after activations, convolutions without one, resizes and sums.

    A value that a quantizer returns is on the grid of that quantizer, and so is what only selects among such values.
    Convolutions whose input is on no grid (images, concatenations, sums in a decoder) get a quantizer before them; that
    of images has the range of pixels.
    """
    wiring = trace(model)
    device = next(model.parameters()).device
    activated = {call.inputs[0] for call in wiring.calls if isinstance(call.module, FUSED)}
    pixels = pixel_grid(model.preprocess)
    grids: dict[int, Quantizer] = {}
    for call in wiring.calls:
        module = call.module
        if isinstance(module, QuantizedConv2d):
            source = call.inputs[0]
            if source not in grids:
                module.before = Quantizer(how).to(device)
                if pixels is not None and source in wiring.images:
                    module.before.fix(-pixels[0] * pixels[1], pixels[0] * (255 - pixels[1]))
            module.source = (module.before or grids[source],)
        fused = isinstance(module, QuantizedConv2d) and call.output in activated
        if call.output is None or call.output in grids or fused or _at_the_end(call.name, last):
            continue
        if isinstance(module, TRANSPARENT):
            if call.inputs[0] in grids:
                grids[call.output] = grids[call.inputs[0]]
            continue
        grids[call.output] = Quantizer(how).to(device)
        module.add_module("after", grids[call.output])
        module.register_forward_hook(_rounded)


def _at_the_end(name: str, last: set[str]) -> bool:
    """Whether what a module answers is, or comes after, a last convolution's answer."""
    for path in last:
        parent = path.rpartition(".")[0]
        if f"{path}.".startswith(f"{name}.") or not name or (name.startswith(f"{parent}.") and name > path):
            return True
    return False


def _rounded(module: Any, _: Any, output: Tensor) -> Tensor:
    return module.after(output)
