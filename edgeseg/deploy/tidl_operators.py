"""The operators that TI's deep learning library (TIDL) accelerates, and those of a graph that it does not.

From docs/operators.md of https://github.com/TexasInstruments/edgeai-tidl-tools: ONNX 1.14.0, onnxruntime 1.15.0, which
it documents as opset 19 and IR version 8. Other operators would run on the processor, each with a copy of its tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from edgeseg.deploy.quantize import last_products

NEWEST_OPSET = 19
NEWEST_IR = 8

OPERATORS = """
    Abs Acos Add ArgMax ArgMin Asin Asinh Atan AveragePool BatchNormalization Cast Clip Concat Conv ConvTranspose Cos
    Cosh DeformConv DepthToSpace DequantizeLinear Div Dropout Elu Erf Exp Expand Flatten Floor Gather Gemm
    GlobalAveragePool GridSample HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Log
    MatMul Max MaxPool Min Mish Mul Neg PRelu Pad Pow QuantizeLinear ReduceMax ReduceMean ReduceMin ReduceSum Relu
    Reshape Resize ScatterElements ScatterND Sigmoid Sin Sinh Slice Softmax SpaceToDepth Split Sqrt Squeeze Sub Sum Tan
    Tanh TopK Transpose Unsqueeze Upsample
"""
SUPPORTED = frozenset(OPERATORS.split())


def check_operators(file: Any) -> None:
    """Raises a ValueError if TIDL cannot accelerate a part of an ONNX model of fixed size; says which, and what to do.

    Checked are the operators, the ratios and modes of Resize, and the places of Cast.
    """
    import onnx

    nodes = [node for node in file.graph.node if node.op_type != "Constant"]
    others = sorted({node.op_type for node in nodes if node.domain or node.op_type not in SUPPORTED})
    if others:
        raise ValueError(
            f"TI's devices do not accelerate {', '.join(others)}, which this network contains; choose another network, "
            "or output='small_logits' (--file-output small_logits) if the operator is of its last step"
        )
    shapes = _shapes(onnx.shape_inference.infer_shapes(file).graph)
    resizes = [node for node in nodes if node.op_type == "Resize"]
    for node in resizes:
        _check_resize(node, shapes, resizes, shapes[file.graph.input[-1].name])
    inside = [node.name for node in nodes if node.op_type == "Cast" and not _at_an_end(node, file.graph)]
    if inside:
        raise ValueError(
            "TI's devices convert types at the input and the output only, but this network does within "
            f"({', '.join(inside)}); choose another network"
        )


def _check_resize(node: Any, shapes: Mapping[str, list[int]], resizes: list[Any], image: list[int]) -> None:
    """Raises a ValueError unless TIDL has a resize: larger by the same power of two along both sides."""
    before, after = shapes[node.input[0]], shapes[node.output[0]]
    ratios = {new / old for old, new in zip(before[2:], after[2:], strict=True)}
    ratio = ratios.pop()
    if ratios or ratio < 1 or not math.log2(ratio).is_integer():
        raise ValueError(
            f"TI's devices resize by powers of two only, and this network resizes {before[2]}x{before[3]} to "
            f"{after[2]}x{after[3]} for images of {image[2]}x{image[3]}; choose {_better_size(shapes, resizes, image)}"
        )
    attributes = _attributes(node)
    mode = attributes.get("mode", "nearest")
    place = attributes.get("coordinate_transformation_mode", "half_pixel")
    if mode == "linear":
        known = place in ("half_pixel", "pytorch_half_pixel")
    else:
        rounding = "floor" if place == "asymmetric" else "round_prefer_ceil"
        known = mode == "nearest" and attributes.get("nearest_mode", "round_prefer_floor") == rounding
    if not known and ratio != 1:
        raise ValueError(
            f"TI's devices have no {mode} resize with {place} coordinates ({node.name}); choose another network"
        )


def _better_size(shapes: Mapping[str, list[int]], resizes: list[Any], image: list[int]) -> str:
    """Advice for a size whose features halve without a remainder."""
    coarsest = [min(shapes[node.input[0]][axis] for node in resizes) for axis in (2, 3)]
    stride = max(length / least for length, least in zip(image[2:], coarsest, strict=True))
    step = 2 ** math.ceil(math.log2(stride))
    height, width = (math.ceil(length / step) * step for length in image[2:])
    if [height, width] == image[2:]:
        return "another network"
    return f"multiples of {step} as the size, such as {height}x{width} (--img-resize {height} {width})"


def _at_an_end(node: Any, graph: Any) -> bool:
    inputs, outputs = {each.name for each in graph.input}, {each.name for each in graph.output}
    return node.input[0] in inputs or node.output[0] in outputs


def _shapes(graph: Any) -> dict[str, list[int]]:
    values = (*graph.input, *graph.output, *graph.value_info)
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    values = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def keep_channel_of_labels(graph: Any) -> None:
    """Gives class ids [N, H, W] a channel, [N, 1, H, W]: TIDL's ArgMax keeps the dimension."""
    from onnx import helper

    changed = [node for node in graph.node if node.op_type == "ArgMax" and _attributes(node).get("keepdims", 1) == 0]
    for node in changed:
        kept = [each for each in node.attribute if each.name != "keepdims"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("keepdims", 1)])
        names = {node.output[0], *(after.output[0] for after in graph.node if node.output[0] in after.input)}
        for value in (*graph.output, *graph.value_info):
            shape = value.type.tensor_type.shape
            if value.name in names and len(shape.dim) == 3:
                sizes = [dim.dim_value for dim in shape.dim]
                del shape.dim[:]
                for size in (sizes[0], 1, *sizes[1:]):
                    shape.dim.add().dim_value = size


def ends(graph: Any) -> Iterator[str]:
    """Names of the tensors that the first and the last layers give, in the words of TIDL, which merges activations."""
    products = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm")]
    for node in (products[0], *last_products(graph, [output.name for output in graph.output])):
        after = [each for each in graph.node if node.output[0] in each.input]
        merged = len(after) == 1 and after[0].op_type in ("Relu", "Clip", "PRelu", "BatchNormalization")
        yield after[0].output[0] if merged else node.output[0]
