"""Exports ONNX files, for onnxruntime and for the compilers of devices."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeseg.config import ORIGIN
from edgeseg.deploy.graph import AXES, DIMENSIONS, Ends, Graph, Output, trace_graph
from edgeseg.deploy.grids import simplify
from edgeseg.deploy.same_padding import same_padding_as_attribute
from edgeseg.deploy.verify import Exported, verify
from edgeseg.labels import class_names, palette_of
from edgeseg.machine.files import replacing
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.quantized import exporting
from edgeseg.tasks import kind_of


def export_onnx(
    model: Pixel2Pixel,
    path: str | os.PathLike[str],
    *,
    size: Sequence[int] | None = None,
    dynamic: Sequence[str] = DIMENSIONS,
    output: Output = "logits",
    preprocess: bool = False,
    opset: int | None = None,
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
        opset: Opset of ONNX; by default that of torch's exporter.

    Returns:
        The file, the sizes at which it was compared, and the differences.

    Raises:
        ImportError: onnxruntime or onnxscript is missing: `pip install edgeseg[onnx]`.
        ValueError: a dimension or the output is unknown, or the model is not in float32.
        RuntimeError: the outputs of the file differ from those of the network; the file is not kept.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        raise ImportError(f"exporting ONNX needs {error.name}: pip install edgeseg[onnx]") from error
    graph = Graph(model, Ends.of(model, size, dynamic, output, preprocess))
    file = _converted(graph, opset)
    for name, fact in _facts(graph, size).items():
        file.metadata_props.add(key=name, value=fact)
    onnx.checker.check_model(file, full_check=True)
    with replacing(Path(path)) as temporary:
        onnx.save(file, temporary)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of the exporter about its own libraries
        converted = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(model.inputs),
            output_names=list(model.tasks),
            opset_version=opset,
            verbose=False,
        )
    assert converted is not None
    file = converted.model_proto
    _tidy(file.graph)
    if model.config.quantization is not None:
        simplify(file.graph)
    return file


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


def _facts(graph: Graph, size: Sequence[int] | None) -> dict[str, str]:
    """The metadata of the file: what edgeseg reads, then the same for people and other programs."""
    config = graph.model.config
    if size is not None:
        config = replace(config, preprocess=replace(config.preprocess, size=graph.ends.size))
    tasks = {name: task for name, task in config.tasks.items() if kind_of(task).has_classes}
    facts: dict[str, Any] = {
        "edgeseg": config.to_json(),
        "edgeseg_file": {"output": graph.ends.output, "preprocess": graph.ends.preprocess},
        "classes": {name: class_names(task) for name, task in tasks.items()},
        "palette": {name: palette_of(task) for name, task in tasks.items()},
        **{key: config.notes[key] for key in ORIGIN if key in config.notes},
    }
    return {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()}
