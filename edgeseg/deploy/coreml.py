"""Exports Core ML packages, for Apple's devices."""

from __future__ import annotations

import copy
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.deploy.facts import check_fit, facts_of
from edgeseg.deploy.graph import Ends, Graph, Output, random_inputs
from edgeseg.deploy.verify import TOLERANCE_16_BIT, Exported, run_of, verify
from edgeseg.machine.errors import ExportError
from edgeseg.machine.files import check_folder, replacing_folder
from edgeseg.machine.quiet import quiet_python
from edgeseg.machine.random_state import kept_random_state
from edgeseg.networks.fold import fold_batch_norms
from edgeseg.networks.modes import evaluating
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.predict.coreml import CoreMLSegmenter
from edgeseg.predict.facts import read_facts
from edgeseg.predict.segmenter import Fit
from edgeseg.spec import Preprocess
from edgeseg.tasks import kind_of

COLOURS = {1: "GRAYSCALE", 3: "RGB"}


def write(
    model: Pixel2Pixel,
    path: str | os.PathLike[str],
    *,
    precision: str,
    images: object,
    size: Sequence[int] | None = None,
    output: Output = "logits",
    preprocess: bool = False,
    fit: Fit = "stretch",
) -> Exported:
    """Writes a Core ML package (ML Program) for iOS 16, macOS 13 and newer, for one image of one size.

    On macOS the package is run and kept only if it agrees with the network. Elsewhere Core ML does not exist: the
    package is read again and its inputs, outputs, facts and operations are compared with those of the network.

    Args:
        model: Exported as it is in evaluation mode.
        path: The package, `.mlpackage`, a folder. An earlier package there is replaced.
        precision: Of weights and computation: "float32" or "float16". Inputs and values of outputs are float32.
        images: None: there are no 8-bit packages, since the ranges of activations can be measured on macOS only.
        size, output, fit: See `edgeseg.export_onnx`; labels are int32, since Core ML returns no uint8.
        preprocess: Take images (RGB, or grayscale for one channel) and normalize in the package; otherwise tensors.

    Returns:
        The package and, on macOS, the differences; `was_run` is False elsewhere.

    Raises:
        ImportError: coremltools is missing: `pip install 'edgeseg[coreml]'`.
        FileExistsError: something is at the path that is not a Core ML package.
        ValueError: Core ML does not take a name of an input or task, an input has too many channels for an image, the
            network was trained for 8 bits, or an argument of `export_onnx` does not fit.
        RuntimeError: the package differs from the network; it is not kept.
    """
    _check(model, path, preprocess=preprocess)
    graph = Graph(_prepared(model), Ends.of(model, size, (), output, preprocess))
    check_fit(fit, ())
    facts = facts_of(graph, size, fit)
    with replacing_folder(Path(path), content="Manifest.json") as temporary, quiet_python():
        program = _traced(graph)
        _save(program, graph, facts, temporary, half=precision == "float16")
        _compare(program, graph, facts, temporary)
        if sys.platform != "darwin":
            return Exported(Path(path), ((1, model.in_channels[-1], *graph.ends.size),), {}, was_run=False)
        run = run_of(CoreMLSegmenter(temporary))
        return verify(graph, run, Path(path), tolerance=TOLERANCE_16_BIT if precision == "float16" else None)


class _FloatPixels(nn.Module):
    """The network from pixels of 0 to 255 as float32, as which Core ML passes an image on."""

    def __init__(self, graph: Graph, preprocess: Preprocess) -> None:
        super().__init__()
        self.inner, self.flip = graph, preprocess.channel_order == "bgr"
        for name, values in (("mean", preprocess.mean), ("std", preprocess.std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """One tensor per input -> one tensor per task."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return self.inner(*(((image.flip(1) if self.flip else image) - mean) / std for image in images))


def _check(model: Pixel2Pixel, path: str | os.PathLike[str], *, preprocess: bool) -> None:
    """Raises the errors that are known before work starts."""
    try:
        with kept_random_state(), quiet_python():
            import coremltools  # noqa: F401
    except ImportError as error:
        raise ImportError("Core ML packages need coremltools: pip install 'edgeseg[coreml]'") from error
    check_folder(path)
    if Path(path).suffix.lower() != ".mlpackage":
        raise ValueError(f"Core ML packages end in .mlpackage, got {path}")
    if model.config.quantization is not None:
        raise ValueError(
            f"{model.name} was trained for 8 bits, and Core ML packages cannot take its scales; "
            "export the float network"
        )
    unsuited = [name for name in (*model.inputs, *model.tasks) if not name.isidentifier() or not name.isascii()]
    if unsuited:
        raise ValueError(
            "names in Core ML consist of letters, digits and _, and do not begin with a digit; got "
            + ", ".join(unsuited)
        )
    if preprocess and not set(model.in_channels) <= set(COLOURS):
        raise ValueError(
            f"images in Core ML have 1 or 3 channels, and the inputs {', '.join(model.inputs)} have "
            f"{', '.join(map(str, model.in_channels))}: preprocess (--preprocess) does not apply"
        )


def _prepared(model: Pixel2Pixel) -> Pixel2Pixel:
    """A copy on the CPU in contiguous memory, with batch norms folded."""
    model = copy.deepcopy(model).cpu().eval().to(memory_format=torch.contiguous_format)
    fold_batch_norms(model)
    return model


def _traced(graph: Graph) -> torch.export.ExportedProgram:
    module: nn.Module = graph
    if graph.ends.preprocess:
        inner = Graph(graph.model, Ends(graph.ends.size, (), graph.ends.output, False, graph.ends.smallest))
        module = _FloatPixels(inner, graph.model.preprocess)
    images = tuple(image.float().contiguous() for image in random_inputs(graph, graph.ends.example))
    with torch.no_grad(), evaluating(module):
        return torch.export.export(module, images).run_decompositions({})


def _save(
    program: torch.export.ExportedProgram, graph: Graph, facts: Mapping[str, str], path: Path, *, half: bool
) -> None:
    """Converts a program and saves the package with the names of the model, and with what it says of itself."""
    import coremltools

    tools: Any = coremltools
    converted = tools.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=tools.target.iOS16,
        compute_precision=tools.precision.FLOAT16 if half else tools.precision.FLOAT32,
        outputs=[tools.TensorType(name=name, dtype=_dtype(graph, name)) for name in graph.model.tasks],
        skip_model_load=True,
    )
    spec = converted.get_spec()
    for name, feature in zip(graph.model.inputs, list(spec.description.input), strict=True):
        tools.utils.rename_feature(spec, feature.name, name, rename_outputs=False)
    if graph.ends.preprocess:
        for feature, channels in zip(spec.description.input, graph.model.in_channels, strict=True):
            image = feature.type.imageType  # replaces the tensor; the program takes the same tensor as before
            image.height, image.width = graph.ends.size
            image.colorSpace = image.ColorSpace.Value(COLOURS[channels])
    package = tools.models.MLModel(spec, weights_dir=converted.weights_dir, skip_model_load=True)
    package.short_description = f"{graph.model.name}: {', '.join(graph.model.tasks)}, by edgeseg"
    package.author = facts.get("source", facts.get("weights", ""))
    package.license = facts.get("license", "")
    package.user_defined_metadata.update(facts)
    package.save(str(path))


def _dtype(graph: Graph, task: str) -> Any:
    """The type of the values of an output in the package."""
    classes = graph.ends.output.endswith("labels") and kind_of(graph.model.tasks[task]).has_classes
    return np.int32 if classes else np.float32


def _compare(program: torch.export.ExportedProgram, graph: Graph, facts: Mapping[str, str], path: Path) -> None:
    """Reads a package again; raises a RuntimeError if it does not have what the network has."""
    import coremltools

    spec = coremltools.utils.load_spec(str(path))
    values = [node.meta["val"] for node in next(iter(reversed(program.graph.nodes))).args[0]]
    size = graph.ends.size
    expected: dict[str, Any] = {
        "inputs": {
            name: ("image", *size) if graph.ends.preprocess else ("FLOAT32", 1, channels, *size)
            for name, channels in zip(graph.model.inputs, graph.model.in_channels, strict=True)
        },
        "outputs": {
            name: (np.dtype(_dtype(graph, name)).name.upper(), *value.shape)
            for name, value in zip(graph.model.tasks, values, strict=True)
        },
        "facts": dict(facts),
        **_operations_of_torch(program),
    }
    found: dict[str, Any] = {
        "inputs": {feature.name: _type(feature) for feature in spec.description.input},
        "outputs": {feature.name: _type(feature) for feature in spec.description.output},
        "facts": {name: fact for name, fact in read_facts(path).items() if name in facts},
        **_operations_of_core_ml(spec),
    }
    for what, wanted in expected.items():
        if found[what] != wanted:
            raise ExportError(f"the {what} of the Core ML package are {found[what]}, and of the network {wanted}")


def _type(feature: Any) -> tuple[Any, ...]:
    if feature.type.WhichOneof("Type") == "imageType":
        return "image", feature.type.imageType.height, feature.type.imageType.width
    array = feature.type.multiArrayType
    return array.ArrayDataType.Name(array.dataType), *array.shape


def _operations_of_torch(program: torch.export.ExportedProgram) -> dict[str, Any]:
    """Shapes of the weights of convolutions, and the number of resizes that change a size."""
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    named = [(str(node.target), node) for node in calls]
    return {
        "convolutions": Counter(
            tuple(node.args[1].meta["val"].shape) for name, node in named if name.startswith("aten.conv2d.")
        ),
        "resizes": sum(
            name.startswith("aten.upsample_bilinear2d.") and node.meta["val"].shape != node.args[0].meta["val"].shape
            for name, node in named
        ),
    }


def _operations_of_core_ml(spec: Any) -> dict[str, Any]:
    """As `_operations_of_torch`."""
    function = spec.mlProgram.functions["main"]
    operations = list(function.block_specializations[function.opset].operations)
    shapes = {
        output.name: tuple(dim.constant.size for dim in output.type.tensorType.dimensions)
        for operation in operations
        for output in operation.outputs
    }
    return {
        "convolutions": Counter(
            shapes[operation.inputs["weight"].arguments[0].name] for operation in operations if operation.type == "conv"
        ),
        "resizes": sum(operation.type in ("upsample_bilinear", "resize_bilinear") for operation in operations),
    }
