"""Multiply-accumulates, parameters and elements of a network, counted from the operators that it calls."""

from __future__ import annotations

import copy
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from edgeseg.arguments import as_size, require_network
from edgeseg.networks.modes import evaluating
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.wiring import Op, Wiring, trace

ELEMENTWISE = ("relu", "relu_", "hardtanh", "hardtanh_", "clamp_min_", "add", "add_", "cat")


@dataclass(frozen=True)
class Complexity:
    """The cost of one image, batch 1, by the conventions of publications.

    Attributes:
        gmacs: Multiply-accumulates of the convolutions, and of matrix products and attention where an encoder has them,
            in 1e9; other operators are not counted. The table of TI's zoo uses this for Cityscapes and COCO.
        torchinfo: The same and, once per layer, the parameters of the batch norms, in 1e9. The library torchinfo,
            which TI's repository uses today, counts like this.
        all_operators: The operators of `gmacs`, one per element of batch norm, ReLU, sum, concatenation and argmax, and
            four per bilinear output, in 1e9. The table of TI's zoo uses this for RegNetX on ADE20K.
        all_operators_folded: The same with batch norm folded away and the labels left at the stride of the decoder,
            without the last upsampling. The table of TI's zoo uses this for MobileNetV2 on ADE20K.
        params: Parameters that require a gradient; 0 for a copy that `edgeseg.optimize` made.
        activations: Output elements of the convolutions.
    """

    gmacs: float
    torchinfo: float
    all_operators: float
    all_operators_folded: float
    params: int
    activations: int
    _counted: tuple[nn.Module, tuple[int, int]]

    @cached_property
    def fvcore(self) -> float:
        """The "flops" of the library fvcore, in 1e9; computed by it when this is read.

        For these networks they are convolutions, two per element of batch norm and four per bilinear output.
        """
        return _fvcore(*self._counted)

    def __repr__(self) -> str:
        shown = ((field.name, getattr(self, field.name)) for field in fields(self) if field.name[0] != "_")
        texts = (f"{name}={value:,}" if isinstance(value, int) else f"{name}={value:.6g}" for name, value in shown)
        return f"Complexity({', '.join(texts)})"


def complexity(model: Pixel2Pixel, size: int | Sequence[int]) -> Complexity:
    """Counts the cost of `model`, which may be on any device, in any mode and of any dtype.

    Nothing is computed: only shapes pass through a copy of the network on PyTorch's meta device.

    Args:
        model: A network.
        size: Height and width of the images; a single number is a square.

    Returns:
        The counts by several conventions, for one image per input.

    Raises:
        ValueError: the size is not positive, or `model` is not a network of edgeseg.

    Example:
        >>> import edgeseg
        >>> model = edgeseg.create_model("fpn_aspp_regnetx800mf_edgeailite", num_classes=19)
        >>> cost = edgeseg.complexity(model, (384, 768))
        >>> f"{cost.gmacs:.2f} GMACs, {cost.params:,} parameters"
        '8.84 GMACs, 8,310,752 parameters'
    """
    require_network("complexity", model)
    height, width = as_size("size", size)
    shapes = _on_meta(model)
    images = [torch.zeros(1, channels, height, width, device="meta") for channels in model.config.in_channels]
    wiring = trace(shapes, images)
    elements: Counter[str] = Counter()
    for op in wiring.ops:
        elements[_group(op.kind)] += op.results[0].numel() if op.results else 0
    conv = sum(_multiply_accumulates(op) for op in _without_constant_matrices(wiring))
    norm_params = sum(p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    outputs = [wiring.producers[number].results[0].shape for number in wiring.outputs.values()]
    last = sum(math.prod(shape[:2]) * height * width for shape in outputs if shape[-2:] != (height, width))
    all_but_norm = conv + elements["elementwise"] + 4 * elements["upsample"]
    return Complexity(
        gmacs=conv / 1e9,
        torchinfo=(conv + norm_params) / 1e9,
        all_operators=(all_but_norm + elements["norm"] + 4 * last + len(outputs) * height * width) / 1e9,
        all_operators_folded=(all_but_norm + sum(math.prod(shape[-2:]) for shape in outputs)) / 1e9,
        params=sum(p.numel() for p in model.parameters() if p.requires_grad),
        activations=elements["convolution"],
        _counted=(model, (height, width)),
    )


def _group(kind: str) -> str:
    """The group of operators that the conventions count alike."""
    name = kind.removeprefix("aten.")
    if name in ELEMENTWISE:
        return "elementwise"
    return "norm" if "batch_norm" in name else "upsample" if name == "upsample_bilinear2d" else name


def _without_constant_matrices(wiring: Wiring) -> Iterator[Op]:
    """The operators that compute from the images and parameters alone: pooling by a constant matrix is free."""
    computed = set(wiring.images)
    for op in wiring.ops:
        if op.parameters or computed.intersection(op.inputs):
            computed.update(op.outputs)
            if computed.issuperset(op.inputs):
                yield op


def _multiply_accumulates(op: Op) -> int:
    """Of a convolution, a matrix product or attention; 0 for other operators."""
    if op.kind != "aten.convolution":
        count = flop_registry.get(getattr(torch.ops.aten, op.kind.removeprefix("aten."), None))
        return 0 if count is None else count(*op.arguments, out_val=op.results[0]) // 2
    image, weight, *_ = op.arguments
    transposed = op.arguments[6]
    positions = image.shape[2:] if transposed else op.results[0].shape[2:]
    return int(image.shape[0] * weight.numel() * math.prod(positions))


def _on_meta(model: Pixel2Pixel) -> Pixel2Pixel:
    """A copy of the network that has only shapes: float32 tensors on the meta device, which take no memory."""

    def shape(tensor: Tensor) -> Tensor:
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=dtype, device="meta")

    memo: dict[int, Any] = {id(p): nn.Parameter(shape(p), requires_grad=False) for p in model.parameters()}
    memo |= {id(buffer): shape(buffer) for buffer in model.buffers()}
    return copy.deepcopy(model, memo)


def _fvcore(model: nn.Module, size: tuple[int, int]) -> float:
    from fvcore.nn import FlopCountAnalysis

    assert isinstance(model, Pixel2Pixel)
    device = next(model.parameters()).device
    real = model if device.type != "meta" else copy.deepcopy(model).to_empty(device="cpu")
    parameter = next(real.parameters())
    images = tuple(torch.zeros(1, channels, *size).to(parameter) for channels in model.config.in_channels)
    analysis = FlopCountAnalysis(_Outputs(real), images)
    # Operators that no convention counts (pooling, dropout) need no warning.
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.no_grad(), evaluating(real), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript, by which fvcore traces, is deprecated
        return float(analysis.total()) / 1e9


class _Outputs(nn.Module):
    """The network with a tuple as its output: fvcore's tracer does not take a dictionary."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """The images of the model -> its outputs, in the order of the tasks."""
        return tuple(self.model(*images).values())
