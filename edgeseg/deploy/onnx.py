"""Exports ONNX files, for onnxruntime and for the compilers of devices."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeseg.deploy.facts import check_fit, facts_of
from edgeseg.deploy.graph import AXES, DIMENSIONS, Ends, Graph, Output, one_at_a_time, trace_graph
from edgeseg.deploy.grids import simplify
from edgeseg.deploy.opset import ONNX_TOOLS, as_asked, check_versions, exporter_opset, opset_of
from edgeseg.deploy.same_padding import same_padding_as_attribute
from edgeseg.deploy.verify import Exported, verify
from edgeseg.machine.files import check_file, replacing
from edgeseg.machine.quiet import quiet_python
from edgeseg.machine.versions import require_modules
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.quantized import exporting
from edgeseg.predict.segmenter import Fit


@one_at_a_time
def export_onnx(
    model: Pixel2Pixel,
    path: str | os.PathLike[str],
    *,
    size: Sequence[int] | None = None,
    dynamic: Sequence[str] = DIMENSIONS,
    output: Output = "logits",
    preprocess: bool = False,
    opset: int | None = None,
    ir_version: int | None = None,
    fit: Fit = "stretch",
) -> Exported:
    """Writes an ONNX file, runs it in onnxruntime against the network, and keeps it only if they agree.

    Inputs and outputs are named like the model's inputs and tasks. Batch norms are folded. The file contains its
    classes, colours, preprocessing, weights' name and licence, which `edgeseg.OnnxSegmenter` reads.

    Args:
        model: Exported as it is in evaluation mode.
        path: The file, `.onnx`.
        size: Height and width that photos are resized to, and the only ones if they are fixed; by default those that
            the weights were trained for, or 384x768 if these are not known.
        dynamic: Which of "batch", "height" and "width" may change from call to call; () for a file of fixed size.
        output: "logits" float32 [N, classes, H, W] at the size of the input; "labels" uint8 [N, H, W] (int32 beyond 256
            classes); "small_logits" and "small_labels" at the stride of the decoder (`outby4` and `outby2` in TI's
            zoo), which the caller upsamples. A depth task is float32 [N, 1, H, W].
        preprocess: Take uint8 [N, C, H, W] of 0 to 255, RGB, and normalize in the graph (in an 8-bit file that is only
            a scale, if all channels are normalized alike); else take normalized float32.
        opset: Opset of ONNX, from 11 on; by default that of torch's exporter.
        ir_version: IR version of the file; by default that of torch's exporter. Older runtimes need 8 or 9.
        fit: How `OnnxSegmenter` fits photos to a file of fixed height and width: "stretch" to that size, as TI's zoo
            does, or "letterbox", which keeps their aspect ratio and fills the rest with the mean of the weights.

    Returns:
        The file, the sizes at which it was compared, and the differences.

    Raises:
        ImportError: onnxruntime or onnxscript is missing: `pip install 'edgeseg[onnx]'`.
        FileNotFoundError: the folder of `path` does not exist.
        ValueError: a dimension or the output is unknown, the model is not in float32, or it cannot be written in this
            opset.
        RuntimeError: the outputs of the file differ from those of the network; the file is not kept.

    Example:
        >>> import edgeseg
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", channels=32, num_classes=5)
        >>> done = edgeseg.export_onnx(model, "labels.onnx", size=(64, 96), output="labels", preprocess=True)
        >>> edgeseg.OnnxSegmenter("labels.onnx").predict("photo.jpg").shape
        (60, 90)
    """
    require_modules("ONNX files need", ONNX_TOOLS, "onnx")
    check_file(path)
    check_versions(opset, ir_version)
    graph = Graph(copy.deepcopy(model).eval(), Ends.of(model, size, dynamic, output, preprocess))
    check_fit(fit, graph.ends.dynamic)
    import onnx
    import onnxruntime

    file = as_asked(_converted(graph, opset), opset, ir_version)
    for name, fact in facts_of(graph, size, fit).items():
        file.metadata_props.add(key=name, value=fact)
    onnx.checker.check_model(file, full_check=True)
    with replacing(Path(path)) as temporary:
        onnx.save(file, temporary)
        try:
            session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        except Exception as error:  # of many kinds, none of them documented
            versions = f"opset {opset_of(file)}, IR version {file.ir_version}"
            raise ValueError(f"onnxruntime cannot load the file in {versions}: {error}") from error

        def run(inputs: Sequence[Tensor]) -> list[np.ndarray]:
            feed = {name: image.numpy() for name, image in zip(model.inputs, inputs, strict=True)}
            return list(session.run(list(model.tasks), feed))

        return verify(graph, run, Path(path))


def _converted(graph: Graph, opset: int | None) -> Any:
    """The ONNX model of a graph, without traces of this machine."""
    model = graph.model
    any_size = bool(set(graph.ends.dynamic) - {"batch"})
    with exporting(model), same_padding_as_attribute(model) if any_size else nullcontext():
        program = trace_graph(graph)
    with quiet_python():  # what the exporter says about its own libraries
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=exporter_opset(opset),
            verbose=False,
        )
    assert converted is not None
    file = converted.model_proto
    _name_ends(file.graph, list(model.inputs), list(model.tasks))
    _tidy(file.graph)
    if model.config.quantization is not None:
        simplify(file.graph)
    return file


def _name_ends(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Names the inputs and outputs; what has one of these names inside, such as the result of a "cat", gets another."""
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    ends = [*zip(graph.input, inputs, strict=True), *zip(graph.output, outputs, strict=True)]
    names = {name: f"{name}_inside" for name in (*inputs, *outputs)} | {end.name: name for end, name in ends}
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]
    for value in values:
        value.name = names.get(value.name, value.name)


def _tidy(graph: Any) -> None:
    """Removes the traces of this machine, and names the dimensions that may change."""
    names: dict[str, str] = {}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        names |= {dims[axis].dim_param: name for axis, name in AXES.items() if dims[axis].dim_param}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
    for entry in (*graph.node, *graph.input, *graph.output, *graph.value_info):
        del entry.metadata_props[:]
