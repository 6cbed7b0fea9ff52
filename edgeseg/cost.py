"""Multiply-accumulates, parameters and elements of a network, counted by fvcore."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.pixel2pixel import Pixel2Pixel

ELEMENTWISE = {
    "relu": ("aten::relu", "aten::relu_", "aten::hardtanh", "aten::hardtanh_", "aten::clamp_min_"),
    "add": ("aten::add", "aten::add_"),
    "concat": ("aten::cat",),
}


@dataclass(frozen=True)
class Complexity:
    """The cost of one image, batch 1, in the conventions that publications count by.

    Attributes:
        gmacs: Multiply-accumulates of the convolutions, in 1e9; all else is free. The original's Cityscapes and
            COCO rows.
        fvcore: fvcore's "flops", in 1e9: for these networks convolutions, two a batch norm element, four a bilinear
            output.
        torchinfo: Convolutions and, once a layer, the parameters of the batch norms, in 1e9: the original's own
            counter today.
        all_operators: Every operator, in 1e9: convolutions, one an element of batch norm, ReLU, add, concatenation
            and argmax, four a bilinear output. The original's ADE20K rows of RegNetX.
        all_operators_folded: The same with batch norm folded away and the labels left at the decoder's stride (no
            last upsample). The original's ADE20K rows of MobileNetV2.
        params: Trainable parameters.
        activations: Output elements of the convolutions.
    """

    gmacs: float
    fvcore: float
    torchinfo: float
    all_operators: float
    all_operators_folded: float
    params: int
    activations: int


class _Outputs(nn.Module):
    """The network with a tuple out: the tracer wants no dict."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(*images).values())


def complexity(model: Pixel2Pixel, size: Sequence[int]) -> Complexity:
    """Counts `model` on images of `size` = (height, width), with one forward pass of that size."""
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import batchnorm_flop_jit, conv_flop_jit

    height, width = size
    device = next(model.parameters()).device
    images = tuple(torch.zeros(1, channels, height, width, device=device) for channels in model.in_channels)
    was_training = model.training
    model.eval()
    analysis = FlopCountAnalysis(_Outputs(model), images)
    for name, operators in ELEMENTWISE.items():
        for operator in operators:
            analysis.set_op_handle(operator, _elements(name))
    for name, operator, handle in (
        ("conv_outputs", "aten::_convolution", conv_flop_jit),
        ("norm_outputs", "aten::batch_norm", batchnorm_flop_jit),
    ):
        analysis.set_op_handle(operator, _elements(name, handle))
    # Operators that no convention counts (pooling, dropout) need no warning.
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    try:
        with torch.no_grad():
            count: Counter[str] = analysis.by_operator()
            decoded = [tuple(logits.shape) for logits in model.decode(*images).values()]
    finally:
        model.train(was_training)

    last = sum(math.prod((*shape[:2], height, width)) for shape in decoded)  # elements of the last upsample
    argmax = len(decoded) * height * width
    small_argmax = sum(shape[-2] * shape[-1] for shape in decoded)
    conv, norm, resized = count["conv"], count["norm_outputs"], count["upsample_bilinear2d"]
    others = sum(count[name] for name in ELEMENTWISE)
    norm_params = sum(p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    return Complexity(
        gmacs=conv / 1e9,
        fvcore=(count.total() - others - norm - count["conv_outputs"]) / 1e9,
        torchinfo=(conv + norm_params) / 1e9,
        all_operators=(conv + norm + others + resized + argmax) / 1e9,
        all_operators_folded=(conv + others + resized - 4 * last + small_argmax) / 1e9,
        params=sum(p.numel() for p in model.parameters() if p.requires_grad),
        activations=count["conv_outputs"],
    )


def _elements(name: str, handle: Any = None) -> Any:
    """An fvcore handle that counts one an output element under `name`, beside what `handle` counts."""

    def count(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        elements: Counter[str] = Counter({name: math.prod(outputs[0].type().sizes() or [1])})
        known = handle(inputs, outputs) if handle else Counter()
        return elements + (known if isinstance(known, Counter) else Counter({"flops": known}))

    return count
