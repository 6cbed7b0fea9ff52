"""Networks that were trained for 8 bits, with their roundings as operators that litert-torch knows."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgeseg.deploy.fixed_scales import HIGHEST, LOWEST
from edgeseg.networks.quantized import QuantizedConv2d


class LiteRTConvolution(nn.Module):
    """A convolution with rounded weights and, if it is not a last one, a rounded bias. Last ones compute in float32."""

    weight: Tensor
    scale: Tensor
    zero: Tensor
    bias: Tensor | None

    def __init__(self, module: QuantizedConv2d) -> None:
        super().__init__()
        self.before, self.conv, self.last = module.before, module.conv, module.last
        self.after = dict(module.named_children()).get("after")  # what the hook of the replaced module called
        scale, zero = module.weight_scale()
        levels = (-module.levels, module.levels - 1)
        weight = torch.fake_quantize_per_channel_affine(module.conv.weight.detach(), scale, zero, 0, *levels)
        bias = module.conv.bias
        if bias is not None and not self.last:
            step = module.source[0].scale_and_zero()[0] * scale
            bias = (bias.detach() / step).round() * step
        for name, value in {"weight": weight, "scale": scale, "zero": zero, "bias": bias}.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, h, w]."""
        if self.before is not None:
            x = self.before(x)
        weight = self.weight
        if not self.last:
            grid = (self.scale, self.zero, 0, LOWEST, HIGHEST, torch.int8)
            weight = torch.ops.quantized_decomposed.quantize_per_channel(weight, *grid)
            weight = torch.ops.quantized_decomposed.dequantize_per_channel(weight, *grid)
        y = self.conv._conv_forward(x, weight, self.bias)
        return y if self.after is None else self.after(y)


def with_float_inputs(content: bytes) -> bytes:
    """Lets a LiteRT file whose inputs are int8 take float32, which it rounds itself."""
    from ai_edge_litert.tools import flatbuffer_utils
    from ai_edge_quantizer import qtyping

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    graph, kind = model.subgraphs[0], qtyping.BuiltinOperator.QUANTIZE
    rounded = {index: graph.tensors[index] for index in map(int, graph.inputs)}
    rounded = {index: tensor for index, tensor in rounded.items() if tensor.type == qtyping.TensorType.INT8}
    code = qtyping.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = 1
    model.operatorCodes.append(code)
    places = {}
    for index, tensor in rounded.items():
        given, operator = copy.copy(tensor), qtyping.OperatorT()
        given.type, given.quantization, given.buffer = qtyping.TensorType.FLOAT32, None, len(model.buffers)
        tensor.name += b"_rounded"
        model.buffers.append(qtyping.BufferT())
        places[index] = len(graph.tensors)
        graph.tensors.append(given)
        operator.opcodeIndex, operator.inputs, operator.outputs = len(model.operatorCodes) - 1, [places[index]], [index]
        graph.operators.insert(0, operator)
    graph.inputs = [places.get(index, index) for index in map(int, graph.inputs)]
    for entry in model.signatureDefs[0].inputs:
        entry.tensorIndex = places.get(entry.tensorIndex, entry.tensorIndex)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
