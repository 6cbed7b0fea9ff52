"""A network as one file: ONNX for onnxruntime and device compilers, .pt2 for torch.export."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.deploy.grids import simplify
from edgeseg.deploy.same_padding import same_padding_as_attribute
from edgeseg.labels import class_names, palette_of
from edgeseg.machine.files import replacing
from edgeseg.networks.modes import evaluating
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.quantized import exporting
from edgeseg.tasks import kind_of
from edgeseg.vision.preprocess import normalize

Output = Literal["logits", "labels", "small_logits", "small_labels"]
AXES = {0: "batch", 2: "height", 3: "width"}
DIMENSIONS = tuple(AXES.values())
DEFAULT_SIZE = (384, 768)
# Largest difference from the network in torch: of values in their standard deviations, of labels in share of pixels.
TOLERANCE = {"values": 1e-3, "labels": 1e-3}
# The same for 8 bit, of values the mean difference: one on the edge between two steps may fall on either.
TOLERANCE_8_BIT = {"values": 0.05, "labels": 0.15}


@dataclass(frozen=True)
class Exported:
    """What was written and how it compares with the network in torch.

    Args:
        path: The file.
        sizes: Shapes [N,C,H,W] of the photo that it was run at.
        differences: Of each task the difference: of logits and depth the largest (of 8 bit the mean) in standard
            deviations of the output, of labels the share of the pixels whose class differs.
    """

    path: Path
    sizes: tuple[tuple[int, ...], ...]
    differences: Mapping[str, float]


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
    """Writes an ONNX file, runs it in onnxruntime against the network, and keeps it only where they agree.

    Inputs and outputs have the names of the model's inputs and tasks. Batch norms are folded. The file knows its
    classes, colours, preprocessing, weights and licence, which is what `edgeseg.OnnxSegmenter` goes by.

    Args:
        model: Its weights are exported as they are in evaluation mode.
        path: `.onnx`.
        size: Height and width that photos are resized to, and the only ones where they are fixed; default those that
            the weights were trained for.
        dynamic: Which of "batch", "height" and "width" may change from call to call; () for a fixed file.
        output: "logits" float32 [N,classes,H,W] at the input's size, "labels" uint8 [N,H,W] (int32 beyond 256 classes);
            "small_logits" and "small_labels" at the decoder's stride (the original's `outby4` and `outby2`), to be
            upsampled by who uses them. A depth task gives float32 [N,1,H,W].
        preprocess: Take uint8 [N,C,H,W] of 0 to 255, RGB, and normalize in the graph (of 8 bit that is only a scale,
            where channels are normalized alike); else normalized float32.
        opset: Of ONNX; default the exporter's.

    Raises:
        ImportError: without onnxruntime and onnxscript: `pip install edgeseg[onnx]`.
        ValueError: an unknown dimension or output.
        RuntimeError: the file's answers differ from the network's; it is not kept.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (of torch's exporter)
    except ImportError as error:
        raise ImportError(f"exporting ONNX needs {error.name}: pip install edgeseg[onnx]") from error
    with exporting(model), same_padding_as_attribute(model) if set(dynamic) - {"batch"} else nullcontext():
        program, images = _traced(model, size, dynamic, output, preprocess)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its libraries
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
    for name, fact in _facts(model, size, output, preprocess).items():
        file.metadata_props.add(key=name, value=fact)
    onnx.checker.check_model(file, full_check=True)
    with replacing(Path(path)) as temporary:
        onnx.save(file, temporary)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        graph = Graph(model, output, preprocess)

        def run(inputs: Sequence[Tensor]) -> list[np.ndarray]:
            feed = {name: image.numpy() for name, image in zip(model.inputs, inputs, strict=True)}
            return list(session.run(list(model.tasks), feed))

        shapes = _shapes(images[-1].shape, dynamic)
        differences = _compare(model, graph, run, shapes)
    return Exported(Path(path), shapes, differences)


def export_program(
    model: Pixel2Pixel,
    path: str | os.PathLike[str],
    *,
    size: Sequence[int] | None = None,
    dynamic: Sequence[str] = DIMENSIONS,
    output: Output = "logits",
    preprocess: bool = False,
) -> Exported:
    """Writes a .pt2 file for `torch.export.load`, without edgeseg or TorchScript; arguments as of `export_onnx`.

    Its module answers a tuple, one tensor a task.
    """
    program, images = _traced(model, size, dynamic, output, preprocess)
    with replacing(Path(path)) as temporary:
        content = BytesIO()  # torch insists on the suffix of a path
        torch.export.save(program, content)
        temporary.write_bytes(content.getvalue())
        loaded = torch.export.load(BytesIO(temporary.read_bytes())).module()

        def run(inputs: Sequence[Tensor]) -> list[np.ndarray]:
            with torch.inference_mode():
                return [each.numpy() for each in loaded(*inputs)]

        shapes = _shapes(images[-1].shape, dynamic)
        differences = _compare(model, Graph(model, output, preprocess), run, shapes)
    return Exported(Path(path), shapes, differences)


class Graph(nn.Module):
    """What is in the file: the network between the chosen ends. Answers a tuple, one tensor a task."""

    def __init__(self, model: Pixel2Pixel, output: Output, preprocess: bool) -> None:
        super().__init__()
        self.model, self.output, self.preprocess = model, output, preprocess

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """One tensor an input."""
        size = images[-1].shape[-2:]
        inputs = [normalize(image, self.model.preprocess) for image in images] if self.preprocess else images
        answers = []
        for name, logits in self.model.decode(*inputs).items():
            if not self.output.startswith("small"):
                # Not `resize`: whether it has anything to do is settled when it is traced, for all sizes.
                logits = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
            if self.output.endswith("labels"):
                logits = kind_of(self.model.tasks[name]).in_graph(logits)
            answers.append(logits)
        return tuple(answers)


def _traced(
    model: Pixel2Pixel, size: Sequence[int] | None, dynamic: Sequence[str], output: str, preprocess: bool
) -> tuple[torch.export.ExportedProgram, list[Tensor]]:
    """The graph as torch.export sees it, and the inputs that it was traced with."""
    unknown = [name for name in dynamic if name not in DIMENSIONS]
    if unknown:
        raise ValueError(f"no dimension named {', '.join(unknown)}; there are {', '.join(DIMENSIONS)}")
    if output not in get_args(Output):
        raise ValueError(f"no output named {output!r}; there are {', '.join(get_args(Output))}")
    height, width = size or model.preprocess.size or DEFAULT_SIZE
    # Two images, since torch.export takes a dimension of 1 for fixed.
    images = _random_inputs(model, (2 if "batch" in dynamic else 1, 0, height, width), preprocess)
    dims = {axis: torch.export.Dim.DYNAMIC for axis, name in AXES.items() if name in dynamic}
    graph = Graph(model, output, preprocess)  # type: ignore[arg-type]
    with torch.no_grad(), evaluating(graph):
        program = torch.export.export(graph, tuple(images), dynamic_shapes={"images": tuple(dims for _ in images)})
    return program, images


def _random_inputs(model: Pixel2Pixel, shape: Sequence[int], preprocess: bool) -> list[Tensor]:
    """Smooth noise, since plain noise leaves little of itself at a network's end."""
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    inputs = []
    for channels in model.in_channels:
        coarse = torch.rand(shape[0], channels, 8, 8, generator=generator) * 255
        pixels = nn.functional.interpolate(coarse, size=shape[-2:], mode="bicubic").clamp(0, 255).to(torch.uint8)
        inputs.append((pixels if preprocess else normalize(pixels, model.preprocess)).to(device))
    return inputs


def _shapes(shape: Sequence[int], dynamic: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Where to compare: as traced, and where dimensions may change, with one image of an odd size too."""
    batch, channels, height, width = shape
    other = (
        1 if "batch" in dynamic else batch,
        channels,
        height // 2 + 5 if "height" in dynamic else height,
        width // 2 + 3 if "width" in dynamic else width,
    )
    return tuple(dict.fromkeys([tuple(shape), other]))


@torch.inference_mode()
def _compare(model: Pixel2Pixel, graph: Graph, run: Any, shapes: Sequence[Sequence[int]]) -> dict[str, float]:
    """The largest difference of each task over all shapes; raises where one is beyond tolerance."""
    worst, quantized = dict.fromkeys(model.tasks, 0.0), model.config.quantization is not None
    for shape in shapes:
        inputs = _random_inputs(model, shape, graph.preprocess)
        with evaluating(model):
            outputs = graph(*inputs)
        for name, expected, output in zip(worst, outputs, run([x.cpu() for x in inputs]), strict=True):
            labels = not expected.is_floating_point()
            value = difference(expected.cpu().numpy(), output, np.mean if quantized else np.max)
            worst[name] = max(worst[name], value)
            limit = (TOLERANCE_8_BIT if quantized else TOLERANCE)["labels" if labels else "values"]
            if not value <= limit:
                raise RuntimeError(
                    f"{name} in the exported file differs from the network by {value:.2g}, more than {limit:.0e}"
                )
    return worst


def difference(expected: np.ndarray, found: np.ndarray, overall: Callable[[np.ndarray], Any] = np.max) -> float:
    """Of labels the share of pixels that differ; of values the largest (or mean) difference in standard deviations."""
    if expected.shape != found.shape:
        return float("inf")
    if expected.dtype.kind in "iu":
        return float((expected != found).mean())
    return float(overall(np.abs(expected - found)) / max(float(expected.std()), 1e-12))


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
    for each in (*graph.node, *graph.input, *graph.output, *graph.value_info):
        del each.metadata_props[:]


def _facts(model: Pixel2Pixel, size: Sequence[int] | None, output: str, preprocess: bool) -> dict[str, str]:
    """The file's metadata: what edgeseg reads, then the same for people and other programs."""
    config = model.config
    if size is not None:
        config = replace(config, preprocess=replace(config.preprocess, size=(size[0], size[1])))
    tasks = {name: task for name, task in model.tasks.items() if kind_of(task).has_classes}
    facts: dict[str, Any] = {
        "edgeseg": config.to_json(),
        "edgeseg_file": {"output": output, "preprocess": preprocess},
        "classes": {name: class_names(task) for name, task in tasks.items()},
        "palette": {name: palette_of(task) for name, task in tasks.items()},
        **{key: config.notes[key] for key in ("weights", "license") if key in config.notes},
    }
    return {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()}
