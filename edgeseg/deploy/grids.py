"""Removes needless conversions between float and 8 bit from ONNX files.

Pixels have 8 bits already, and normalization is only their scale. The inputs of a concatenation can have the scale of
its result, so that onnxruntime merely copies them. The size of a tensor can be read from its 8-bit form.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def normalized(graph: Any) -> dict[str, str]:
    """For each normalized tensor of an ONNX graph, by name, the uint8 tensor that it is computed from."""
    producers = {name: node for node in graph.node for name in node.output}
    sources = {}
    for node in graph.node:
        chain = [node]
        for kind in ("Div", "Sub", "Cast"):
            if chain[-1] is None or chain[-1].op_type != kind:
                break
            chain.append(producers.get(chain[-1].input[0]))
        else:
            sources[node.output[0]] = chain[-2].input[0]
    return sources


def simplify(graph: Any) -> None:
    """Removes needless nodes from an ONNX graph with QuantizeLinear and DequantizeLinear, in place."""
    _take_pixels(graph)
    _share_scales(graph)
    _read_sizes_of_rounded(graph)
    prune(graph)


def _take_pixels(graph: Any) -> None:
    """Takes the pixels themselves where normalized pixels are rounded to the grid that they are already on."""
    from onnx import numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    for name, pixels in normalized(graph).items():
        divide = producers[name]
        subtract = producers[divide.input[0]]
        for node in [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == name]:
            scale, zero = (constants[constant] for constant in node.input[1:])
            same = zero.dtype == np.uint8 and np.all(constants[subtract.input[1]] == zero)
            if same and np.allclose(scale * constants[divide.input[1]], 1, rtol=1e-6, atol=0):
                for consumer in graph.node:
                    consumer.input[:] = [pixels if source == node.output[0] else source for source in consumer.input]


def _share_scales(graph: Any) -> None:
    """Gives tensors that are only concatenated the scale of the result."""
    producers = {name: node for node in graph.node for name in node.output}
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    for node in graph.node:
        after = consumers.get(node.output[0], [])
        if node.op_type != "Concat" or [consumer.op_type for consumer in after] != ["QuantizeLinear"]:
            continue
        for dequantize in [producers[name] for name in node.input if name in producers]:
            quantize = producers.get(dequantize.input[0]) if dequantize.op_type == "DequantizeLinear" else None
            if quantize is None or quantize.op_type != "QuantizeLinear":
                continue
            if len(consumers[dequantize.output[0]]) == len(consumers[quantize.output[0]]) == 1:
                quantize.input[1:] = after[0].input[1:]
                dequantize.input[1:] = after[0].input[1:]


def _read_sizes_of_rounded(graph: Any) -> None:
    """Reads sizes from 8-bit tensors: onnxruntime would compute their float form for its size alone."""
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        source = producers.get(node.input[0]) if node.op_type == "Shape" else None
        if source is not None and source.op_type == "DequantizeLinear":
            node.input[0] = source.input[0]


def prune(graph: Any) -> None:
    """Removes nodes, constants and descriptions of tensors that no output needs."""
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if needed & set(node.output):
            needed |= set(node.input)
        else:
            graph.node.remove(node)
    for entries in (graph.initializer, graph.value_info):
        for entry in [entry for entry in entries if entry.name not in needed]:
            entries.remove(entry)
