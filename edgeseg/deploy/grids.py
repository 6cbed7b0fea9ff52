"""8-bit files convert between float and 8 bit no more often than they need to.

Pixels are 8 bit already, normalization is only their scale. What is concatenated can have the scale of the result, so
that onnxruntime copies it. Sizes to resize to are those of 8-bit tensors too.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def normalized(graph: Any) -> dict[str, str]:
    """In an ONNX graph, the normalized tensors by name, and the uint8 ones that they are made of."""
    makers = {name: node for node in graph.node for name in node.output}
    found = {}
    for node in graph.node:
        chain = [node]
        for kind in ("Div", "Sub", "Cast"):
            if chain[-1] is None or chain[-1].op_type != kind:
                break
            chain.append(makers.get(chain[-1].input[0]))
        else:
            found[node.output[0]] = chain[-2].input[0]
    return found


def simplify(graph: Any) -> None:
    """Leaves out what an ONNX graph with QuantizeLinear and DequantizeLinear does in vain, in place."""
    _take_pixels(graph)
    _share_scales(graph)
    _read_sizes_of_rounded(graph)
    _prune(graph)


def _take_pixels(graph: Any) -> None:
    """Where normalized pixels are rounded to the grid that they are on, leaves out the normalization."""
    from onnx import numpy_helper

    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for tensor, pixels in normalized(graph).items():
        divide = makers[tensor]
        subtract = makers[divide.input[0]]
        for node in [each for each in graph.node if each.op_type == "QuantizeLinear" and each.input[0] == tensor]:
            scale, zero = (constants[name] for name in node.input[1:])
            same = zero.dtype == np.uint8 and np.all(constants[subtract.input[1]] == zero)
            if same and np.allclose(scale * constants[divide.input[1]], 1, rtol=1e-6, atol=0):
                for user in graph.node:
                    user.input[:] = [pixels if name == node.output[0] else name for name in user.input]


def _share_scales(graph: Any) -> None:
    """Gives what is only there to be concatenated the scale of the result."""
    makers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for node in graph.node:
        after = users.get(node.output[0], [])
        if node.op_type != "Concat" or [each.op_type for each in after] != ["QuantizeLinear"]:
            continue
        for leave in [makers[name] for name in node.input if name in makers]:
            enter = makers.get(leave.input[0]) if leave.op_type == "DequantizeLinear" else None
            if enter is None or enter.op_type != "QuantizeLinear":
                continue
            if len(users[leave.output[0]]) == len(users[enter.output[0]]) == 1:
                enter.input[1:] = after[0].input[1:]
                leave.input[1:] = after[0].input[1:]


def _read_sizes_of_rounded(graph: Any) -> None:
    """Of what was rounded, not of what it is as float: onnxruntime would compute that for its size alone."""
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        source = makers.get(node.input[0]) if node.op_type == "Shape" else None
        if source is not None and source.op_type == "DequantizeLinear":
            node.input[0] = source.input[0]


def _prune(graph: Any) -> None:
    """Removes what nothing needs."""
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if needed & set(node.output):
            needed |= set(node.input)
        else:
            graph.node.remove(node)
    for kind in (graph.initializer, graph.value_info):
        for each in [each for each in kind if each.name not in needed]:
            kind.remove(each)
