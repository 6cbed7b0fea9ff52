"""Rewrites ONNX files for an opset, for an IR version, and without what they do not use.

torch's exporter writes opset 18 and newer ones. onnx's own converter stops at operators that networks here use, such as
Shape and ReduceMean, so the way down to opset 11 is here: what an operator needs in an older opset, for those that
networks use, and an error for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from edgeseg.deploy.grids import prune

ONNX_TOOLS = ("onnx", "onnxruntime", "onnxscript")
"""Modules that write and run ONNX files; torch's exporter needs the last."""
OLDEST = 11
BASE = 18
"""The oldest opset of torch's exporter."""
NEWEST_OF_EXPORTER = 20
OLDEST_IR = 4
"""Before it, constants had to be inputs."""


def check_versions(opset: int | None, ir_version: int | None) -> None:
    """Raises a ValueError, or a TypeError, unless files of this opset and this IR version can be written."""
    import onnx

    for name, value in {"opset": opset, "ir_version": ir_version}.items():
        if not isinstance(value, Integral | None):
            raise TypeError(f"{name} is a whole number, got {value!r}")
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not OLDEST <= opset <= newest:
        raise ValueError(f"opset is {OLDEST} to {newest}, got {opset}")
    if ir_version is not None and not OLDEST_IR <= ir_version <= onnx.IR_VERSION:
        raise ValueError(f"ir_version is {OLDEST_IR} to {onnx.IR_VERSION}, got {ir_version}")


def exporter_opset(opset: int | None) -> int | None:
    """The opset that torch's exporter should write for an opset that is asked for; None is its default."""
    return opset if opset is None else min(max(opset, BASE), NEWEST_OF_EXPORTER)


def opset_of(file: Any) -> int:
    """The opset of ONNX's own operators in a file."""
    return next(entry.version for entry in file.opset_import if entry.domain in ("", "ai.onnx"))


def as_asked(file: Any, opset: int | None, ir_version: int | None) -> Any:
    """Returns an ONNX model in an opset and an IR version, which imports only the operators that it uses.

    Raises:
        ValueError: the network needs operators of a newer opset; the message has the oldest possible one.
    """
    import onnx

    if opset is not None and opset < opset_of(file):
        lowered = _lowered(file, opset)
        if isinstance(lowered, str):
            later = range(opset + 1, opset_of(file) + 1)
            oldest = next(each for each in later if not isinstance(_lowered(file, each), str))
            raise ValueError(f"this network cannot be written in opset {opset}: {lowered}; the oldest is {oldest}")
        file = lowered
    if opset is not None and opset > opset_of(file):
        file = onnx.version_converter.convert_version(file, opset)
    if ir_version is not None:
        file.ir_version = ir_version
    _drop_unused_domains(file)
    return file


def _drop_unused_domains(file: Any) -> None:
    """Removes the opsets whose operators no node uses, such as those that onnxruntime's quantizer leaves."""
    nodes = [*_all_nodes(file.graph), *(node for function in file.functions for node in function.node)]
    used = {node.domain for node in nodes} | {"", "ai.onnx"}
    for entry in [entry for entry in file.opset_import if entry.domain not in used]:
        file.opset_import.remove(entry)


def _all_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for part in (attribute.g, *attribute.graphs):
                yield from _all_nodes(part)


def _lowered(file: Any, opset: int) -> Any:
    """A copy of a model in an older opset; or what stands against it."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(file)
    graph = _Graph(copy.graph, opset_of(file), opset)
    try:
        nodes = [new for node in copy.graph.node for new in graph.lower(node)]
    except _NotInOpset as error:
        return str(error)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    del copy.graph.value_info[:]
    prune(copy.graph)
    for entry in copy.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset
    try:
        onnx.checker.check_model(copy, full_check=True)
    except Exception as error:  # of several kinds, some of C++
        return " ".join(str(error).split())[:200]
    return copy


class _NotInOpset(Exception):
    pass


class _Graph:
    """A graph whose nodes become those of an older opset.

    Args:
        graph: Gets further constants.
        source: Its opset.
        target: The older opset.
    """

    def __init__(self, graph: Any, source: int, target: int) -> None:
        from onnx import numpy_helper

        self.graph, self.source, self.target = graph, source, target
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)

    def lower(self, node: Any) -> Sequence[Any]:
        """The nodes that do in the older opset what a node does.

        Raises:
            _NotInOpset: nothing does.
        """
        if node.domain not in ("", "ai.onnx"):
            return [node]
        nodes: Sequence[Any] = [node]
        for operators, before, rule in RULES:
            if node.op_type in operators and self.target < before:
                nodes = rule(self, node)
        for each in nodes:
            self._drop_attributes(each)
        return nodes

    def constant(self, values: Any) -> str:
        """The name of a new constant."""
        from onnx import numpy_helper

        name = f"constant_{self.target}_{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def _drop_attributes(self, node: Any) -> None:
        """Drops attributes that the older operator lacks, where they say what it does anyway."""
        import onnx

        try:
            old = onnx.defs.get_schema(node.op_type, self.target)
        except onnx.defs.SchemaError:
            raise _NotInOpset(f"it has no {node.op_type}") from None
        new = onnx.defs.get_schema(node.op_type, self.source)
        for attribute in [each for each in node.attribute if each.name not in old.attributes]:
            value, usual = onnx.helper.get_attribute_value(attribute), None
            if attribute.name in new.attributes:
                usual = onnx.helper.get_attribute_value(new.attributes[attribute.name].default_value)
            harmless = (node.op_type, attribute.name) in HARMLESS or self._is_per_tensor(node, attribute.name)
            if value != usual and not harmless and value != [1, 1]:  # dilations
                raise _NotInOpset(f"its {node.op_type} has no {attribute.name}")
            node.attribute.remove(attribute)

    def _is_per_tensor(self, node: Any, attribute: str) -> bool:
        """Whether an axis of scales says nothing, since there is a single scale."""
        scale = (
            self.constants.get(node.input[1]) if attribute == "axis" and "quantize" in node.op_type.lower() else None
        )
        return scale is not None and scale.size == 1


# Shapes here have no zeros, and nothing is cast to floats of 8 bit.
HARMLESS = {("Reshape", "allowzero"), ("Cast", "saturate"), ("QuantizeLinear", "saturate")}


def _axes_as_attribute(graph: _Graph, node: Any) -> Sequence[Any]:
    from onnx import helper

    if len(node.input) > 1 and node.input[1]:
        axes = graph.constants.get(node.input[1])
        if axes is None:
            raise _NotInOpset(f"its {node.op_type} has constant axes only")
        name = "split" if node.op_type == "Split" else "axes"
        node.attribute.append(helper.make_attribute(name, [int(axis) for axis in axes.reshape(-1)]))
    del node.input[1:]
    if node.op_type == "Split":
        _remove(node, "num_outputs")
    return [node]


def _sliced_shape(graph: _Graph, node: Any) -> Sequence[Any]:
    from onnx import helper

    start, end = (_remove(node, name) for name in ("start", "end"))
    if not start and end is None:
        return [node]
    result, whole = node.output[0], f"{node.output[0]}_whole"
    node.output[0] = whole
    limits = [graph.constant(np.array([limit], np.int64)) for limit in (start or 0, 2**31 - 1 if end is None else end)]
    return [node, helper.make_node("Slice", [whole, *limits], [result], name=f"{node.name}_part")]


def _resize_with_all_inputs(graph: _Graph, node: Any) -> Sequence[Any]:
    inputs = [*node.input, *[""] * 4][:4]
    for place in (1, 2):
        inputs[place] = inputs[place] or graph.constant(np.empty(0, np.float32))
    node.input[:] = inputs if inputs[3] else inputs[:3]
    return [node]


def _without_axes_input(graph: _Graph, node: Any) -> Sequence[Any]:
    if len(node.input) > 3:
        raise _NotInOpset("its Pad pads all axes")
    return [node]


def _hard_swish(graph: _Graph, node: Any) -> Sequence[Any]:
    from onnx import helper

    gate = f"{node.output[0]}_gate"
    return [
        helper.make_node("HardSigmoid", [node.input[0]], [gate], name=f"{node.name}_gate", alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", [node.input[0], gate], [node.output[0]], name=node.name),
    ]


def _remove(node: Any, name: str) -> Any:
    """Removes an attribute; returns its value, or None."""
    from onnx import helper

    for attribute in node.attribute:
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            node.attribute.remove(attribute)
            return value
    return None


REDUCTIONS = {"ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare"}

Rule = Callable[[_Graph, Any], Sequence[Any]]
# Operators, the opset since which they are as torch writes them, and what they are before.
RULES: list[tuple[set[str], int, Rule]] = [
    (REDUCTIONS, 18, _axes_as_attribute),
    ({"Squeeze", "Unsqueeze", "ReduceSum", "Split"}, 13, _axes_as_attribute),
    ({"Shape"}, 15, _sliced_shape),
    ({"Resize"}, 13, _resize_with_all_inputs),
    ({"Pad"}, 18, _without_axes_input),
    ({"HardSwish"}, 14, _hard_swish),
]
