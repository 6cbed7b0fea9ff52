"""Reads ONNX files of TI's zoo back into trainable weights.

In these files every batch norm is folded into its convolution, and the names of tensors mean nothing. A convolution is
therefore identified by its place in the graph: by its kernel, stride, dilation and groups, and by the convolutions that
its input comes from. This works for any order of the nodes, with outputs at full or reduced size, and with the Clip
nodes of quantization-aware training.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.machine.errors import value_errors
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.wiring import trace

Place: TypeAlias = tuple[Any, ...]
"""The place of a convolution: its own geometry and the places of the convolutions before it, down to the images."""

MOST_SOURCES = 200  # convolutions whose outputs are added up or joined without another one between


@dataclass
class Conv:
    """One convolution of a graph.

    Args:
        name: Name of the module in a model, or of the node in a file.
        shape: Shape of the weight, [out_channels, in_channels/groups, height, width].
        geometry: Stride, dilation, and whether it is dense, grouped or depthwise.
        sources: Names of the nearest convolutions that its input comes from; `image i` for input i.
        norm: In a model, the name of the batch norm that follows; "" if there is none.
        weight: In a file, the weight.
        bias: In a file, the bias; None if there is none.
    """

    name: str
    shape: tuple[int, ...]
    geometry: tuple[Any, ...]
    sources: set[str] = field(default_factory=set)
    norm: str = ""
    weight: Tensor | None = None
    bias: Tensor | None = None


def read_onnx(path: str | os.PathLike[str], model: Pixel2Pixel) -> dict[str, Tensor]:
    """Reads the weights of an ONNX file and names them as in `model`; the shapes are those of the file.

    A batch norm becomes the identity plus the folded bias: weight sqrt(1 + eps), mean 0, variance 1. Its outputs are
    correct in evaluation mode; before training, `edgeseg.networks.unfold.unfold_batch_norms` restores its statistics.

    Args:
        path: An ONNX file.
        model: An instance of the same network.

    Raises:
        ValueError: the file is not ONNX, or the file or the model has convolutions that the other one lacks.
    """
    ours, theirs = _of_model(model), _of_file(path)
    pairs, left = _match(ours, theirs)
    if left:
        raise ValueError(
            f"{path} holds another network than this model: {left}; pass the file's own name and num_classes"
        )
    modules = dict(model.named_modules())
    state: dict[str, Tensor] = {}
    for conv, source in pairs:
        assert source.weight is not None
        bias = torch.zeros(source.shape[0]) if source.bias is None else source.bias
        state[f"{conv.name}.weight"] = source.weight
        norm = modules.get(conv.norm)
        if isinstance(norm, nn.BatchNorm2d):
            ones = torch.ones_like(bias)
            state[f"{conv.norm}.weight"] = ones * (1 + norm.eps) ** 0.5
            state[f"{conv.norm}.bias"] = bias
            state[f"{conv.norm}.running_mean"] = torch.zeros_like(bias)
            state[f"{conv.norm}.running_var"] = ones
        elif bool(bias.any()):
            raise ValueError(f"{path} holds another network: {source.name} has a bias and {conv.name} has none")
    return state


def count_classes(path: str | os.PathLike[str]) -> int:
    """Counts the output channels of the last convolution of an ONNX file, which are the classes that it predicts."""
    return list(_of_file(path).values())[-1].shape[0]


def _match(ours: Mapping[str, Conv], theirs: Mapping[str, Conv]) -> tuple[list[tuple[Conv, Conv]], str]:
    """Pairs the convolutions at the same place, and describes those that are left over."""
    waiting: dict[Place, list[Conv]] = {}
    places: dict[Any, int] = {}
    for name, place in _places(theirs, places).items():
        waiting.setdefault(place, []).append(theirs[name])
    pairs, unmatched = [], []
    for name, place in _places(ours, places).items():
        candidates = waiting.get(place, [])
        # Several convolutions at one place differ in shape, or belong to several decoders: then their order decides.
        same_shape = [conv for conv in candidates if conv.shape == ours[name].shape]
        if candidates:
            pick = (same_shape or candidates)[0]
            candidates.remove(pick)
            pairs.append((ours[name], pick))
        else:
            unmatched.append(name)
    unused = [conv.name for convs in waiting.values() for conv in convs]
    left = [
        f"{len(names)} convolutions of the {side} without a counterpart, the first {names[0]}"
        for side, names in (("model", unmatched), ("file", unused))
        if names
    ]
    return pairs, "; ".join(left)


def _places(convs: Mapping[str, Conv], numbers: dict[Any, int]) -> dict[str, Place]:
    """The place of each convolution; `numbers`, which the model and the file share, abbreviates places."""
    places: dict[str, Place] = {}
    for name, conv in convs.items():
        before = sorted(numbers.setdefault(places.get(source, source), len(numbers)) for source in conv.sources)
        places[name] = (conv.shape[2:], *conv.geometry, tuple(before))
    return places


def _kind(groups: int, channels: int) -> str:
    return "dense" if groups == 1 else "depthwise" if groups == channels else "grouped"


def _of_file(path: str | os.PathLike[str]) -> dict[str, Conv]:
    """The convolutions of an ONNX file by node name, in the order of the file, with all batch norms folded."""
    import onnx

    with value_errors(path, f"cannot read {path}: corrupt, truncated or not an ONNX file"):
        graph = onnx.load(os.fspath(path)).graph
        try:
            convs = _convolutions(graph)
        except _AnotherNetwork as error:
            raise ValueError(f"{path} holds another network: {error}") from error
    if not convs:
        raise ValueError(f"{path} holds no convolution")
    return convs


class _AnotherNetwork(ValueError):
    """A graph that no network of TI's zoo has."""


def _convolutions(graph: Any) -> dict[str, Conv]:
    from onnx import helper, numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    images = [value.name for value in graph.input if value.name not in constants]
    sources: dict[str, set[str]] = {name: {f"image {i}"} for i, name in enumerate(images)}
    convs: dict[str, Conv] = {}
    for i, node in enumerate(graph.node):
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
        elif node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
        elif node.op_type == "Conv":
            conv = _convolution(node, node.name or f"node {i}", attributes, constants)
            conv.sources |= sources.get(node.input[0], set())
            convs[conv.name] = conv
            sources[node.output[0]] = {conv.name}
        else:
            _refuse_other_weights(node, constants)
            before = {name for value in node.input for name in sources.get(value, set())}
            if len(before) > MOST_SOURCES:
                raise _AnotherNetwork(f"{node.name or f'node {i}'} adds up more than {MOST_SOURCES} convolutions")
            if node.op_type == "BatchNormalization":
                (name,) = before
                _fold(convs[name], [constants[value] for value in node.input[1:]], attributes.get("epsilon", 1e-5))
            # A value that is computed from a shape is a size, not a feature.
            sources.update({value: set() if node.op_type == "Shape" else before for value in node.output})
    return convs


def _convolution(node: Any, name: str, attributes: Mapping[str, Any], constants: Mapping[str, np.ndarray]) -> Conv:
    """One convolution of a file, without its sources."""
    if node.input[1] not in constants:
        raise _AnotherNetwork(f"the weights of {name} are computed in the graph")
    arrays = [constants[value] for value in node.input[1:]]
    shape = arrays[0].shape
    if len(shape) != 4 or not arrays[0].size or any(values.shape != shape[:1] for values in arrays[1:]):
        raise _AnotherNetwork(f"the weights of {name} have the shape {list(shape)}")
    if any(values.dtype.kind != "f" for values in arrays):
        raise _AnotherNetwork(f"the weights of {name} are {arrays[0].dtype}")
    groups = int(attributes.get("group", 1))
    weight, *bias = (torch.from_numpy(values.astype(np.float32)) for values in arrays)
    return Conv(
        name=name,
        shape=shape,
        geometry=(
            tuple(map(int, attributes.get("strides", (1, 1)))),
            tuple(map(int, attributes.get("dilations", (1, 1)))),
            _kind(groups, shape[1] * groups),
        ),
        weight=weight,
        bias=bias[0] if bias else None,
    )


def _refuse_other_weights(node: Any, constants: Mapping[str, np.ndarray]) -> None:
    if any(name in constants and constants[name].ndim > 1 and constants[name].size > 1 for name in node.input):
        raise _AnotherNetwork(f"{node.op_type} node {node.name!r} has weights of its own")


def _fold(conv: Conv, statistics: Iterable[np.ndarray], eps: float) -> None:
    """Folds a batch norm of the file into the convolution before it."""
    assert conv.weight is not None
    scale, shift, mean, var = (torch.from_numpy(np.array(value)).double() for value in statistics)
    factor = scale / (var + eps).sqrt()
    bias = torch.zeros_like(mean) if conv.bias is None else conv.bias.double()
    conv.weight = (conv.weight.double() * factor.view(-1, 1, 1, 1)).float()
    conv.bias = ((bias - mean) * factor + shift).float()


def _of_model(model: Pixel2Pixel) -> dict[str, Conv]:
    """The convolutions of a network by module name, in the order of their calls."""
    wiring, modules = trace(model), dict(model.named_modules())
    convs: dict[str, Conv] = {}
    sources: dict[int, set[str]] = {value: {f"image {i}"} for i, value in enumerate(wiring.images)}
    for op in wiring.ops:
        before = {name for value in op.inputs for name in sources.get(value, set())}
        if op.kind == "aten.convolution":
            module = modules[op.module]
            assert isinstance(module, nn.Conv2d)
            geometry = (tuple(module.stride), tuple(module.dilation), _kind(module.groups, module.in_channels))
            convs[op.module] = Conv(op.module, tuple(module.weight.shape), geometry, before)
            before = {op.module}
        elif "batch_norm" in op.kind:
            (name,) = before
            convs[name].norm = op.module
        sources.update(dict.fromkeys(op.outputs, before))
    return convs
