"""Networks that were trained for 8 bits, with their roundings as operators of PyTorch's quantized programs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.deploy.fixed_scales import fix_scales
from edgeseg.deploy.graph import Graph, random_inputs, trace_graph
from edgeseg.networks.quantized import QuantizedConv2d

FUSED = ("aten.relu.default", "aten.relu_.default", "aten.hardtanh.default", "aten.hardtanh_.default")


def trace_with_scales(graph: Graph) -> torch.export.ExportedProgram:
    """Traces a quantization-aware network with its roundings as operators with constant scales.

    These are `quantized_decomposed.quantize_per_tensor` and relatives, which backends of torch.export compute in 8 bit
    together with the operator between them. Activations are signed here, so zero points are lower by 128.

    Args:
        graph: Is changed: the modules that round are replaced.
    """
    fix_scales(graph.model, _Convolution)
    module: Any = trace_graph(graph).module()
    for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.cat.default):
        _on_one_grid(node)
    for node in list(module.graph.nodes):
        if str(node.target) == "quantized_decomposed.dequantize_per_tensor.default":
            _one_per_user(node)
        elif str(node.target) == "quantized_decomposed.dequantize_per_channel.default" and not _in_8_bit(node):
            _keep_float(module, node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return torch.export.export(module, tuple(random_inputs(graph, graph.ends.example)))


def _on_one_grid(cat: torch.fx.Node) -> None:
    """Rounds what is concatenated as the result will be, with the same values; XNNPACK takes one scale only."""
    rounding = next(iter(cat.users))
    if len(cat.users) != 1 or not str(rounding.target).startswith("quantized_decomposed.quantize_per_tensor"):
        return
    graph, grid = cat.graph, rounding.args[1:]
    for value in dict.fromkeys(cat.all_input_nodes):
        with graph.inserting_before(cat):
            rounded = graph.call_function(torch.ops.quantized_decomposed.quantize_per_tensor.default, (value, *grid))
            back = graph.call_function(torch.ops.quantized_decomposed.dequantize_per_tensor.default, (rounded, *grid))
        cat.replace_input_with(value, back)


def _one_per_user(node: torch.fx.Node) -> None:
    """Copies an operator for each of its users, so that each can be computed in 8 bit with it."""
    for user in list(node.users)[1:]:
        with node.graph.inserting_after(node):
            user.replace_input_with(node, node.graph.node_copy(node))


def _in_8_bit(weight: torch.fx.Node) -> bool:
    """Whether the input of the convolution with this weight is rounded, and its output, at once or after a ReLU."""
    (node,) = weight.users
    if not str(node.args[0]).startswith("dequantize_per_tensor"):
        return False
    for _ in range(2):
        if len(node.users) != 1:
            return False
        (node,) = node.users
        if str(node.target).startswith("quantized_decomposed.quantize_per_tensor"):
            return True
        if str(node.target) not in FUSED:
            return False
    return False


def _keep_float(module: Any, node: torch.fx.Node) -> None:
    """Stores a weight as float32, for a convolution that is not computed in 8 bit; its values stay rounded."""
    values = [module.get_buffer(each.target) if isinstance(each, torch.fx.Node) else each for each in node.args]
    target: Any = node.target
    name = f"float_{node.name}"
    module.register_buffer(name, target(*values))
    with node.graph.inserting_before(node):
        node.replace_all_uses_with(node.graph.get_attr(name))


class _Convolution(nn.Module):
    """A convolution with constant int8 weights, one scale per channel."""

    weight: Tensor
    scale: Tensor
    zero: Tensor

    def __init__(self, module: QuantizedConv2d) -> None:
        super().__init__()
        self.before, self.conv, self.levels = module.before, module.conv, module.levels
        self.after = getattr(module, "after", None)  # of the output, applied by a hook of the module
        scale, zero = module.weight_scale()
        weight = (module.conv.weight.detach() / scale.view(-1, 1, 1, 1)).round().clamp(-self.levels, self.levels - 1)
        self.register_buffer("weight", weight.to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, h, w]."""
        if self.before is not None:
            x = self.before(x)
        weight = torch.ops.quantized_decomposed.dequantize_per_channel(
            self.weight, self.scale, self.zero, 0, -self.levels, self.levels - 1, torch.int8
        )
        y = self.conv._conv_forward(x, weight, self.conv.bias)
        return y if self.after is None else self.after(y)
