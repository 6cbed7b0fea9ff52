"""Exports ExecuTorch programs (.pte), whose convolutions XNNPACK computes on the processors of phones and boards."""

from __future__ import annotations

import copy
import hashlib
import importlib
import os
from collections.abc import Callable, Sequence, Set
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.deploy.calibration import Frame, calibration_inputs, suit_8_bit
from edgeseg.deploy.facts import check_fit, facts_of
from edgeseg.deploy.graph import Ends, Graph, Output, random_inputs, trace_graph
from edgeseg.deploy.program_scales import trace_with_scales
from edgeseg.deploy.verify import Exported, run_of, verify, verify_8_bit
from edgeseg.machine.files import check_file, replacing
from edgeseg.machine.quiet import quiet_python
from edgeseg.machine.random_state import kept_random_state
from edgeseg.machine.terminal import progress_bar
from edgeseg.networks.fold import fold_batch_norms
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.pixelwise import last_convolutions
from edgeseg.predict.executorch import DIGEST, INSTALL, VERSION, ExecuTorchSegmenter
from edgeseg.predict.facts import append_facts
from edgeseg.predict.segmenter import Fit


def write(
    model: Pixel2Pixel,
    path: str | os.PathLike[str],
    *,
    precision: str,
    images: Sequence[Frame],
    size: Sequence[int] | None = None,
    output: Output = "logits",
    preprocess: bool = False,
    fit: Fit = "stretch",
) -> Exported:
    """Writes a .pte file for one image of one size, runs it in ExecuTorch, and keeps it only if it agrees.

    The inputs and outputs of a program have no names; they stand in the order of the model's inputs and tasks. Inputs
    are contiguous [1, C, H, W].

    Args:
        model: Exported as it is in evaluation mode. One that was trained for 8 bits keeps its scales, and its file
            computes in 8 bit whatever the precision.
        path: The file, `.pte`.
        precision: "float32" or "int8": by torchao's PT2E quantization with one scale per channel of the weights, after
            channels were equalized. The last convolutions stay in float32, since 8-bit logits have ties.
        images: For "int8", the photos on which ranges are measured.
        size, output, preprocess, fit: See `edgeseg.export_onnx`.

    Returns:
        The file, the sizes at which it was compared, and the differences.

    Raises:
        ImportError: executorch is missing, or it lacks XNNPACK: `pip install 'edgeseg[executorch]'`.
        FileNotFoundError: the folder of `path` does not exist.
        OSError: a photo cannot be read; names the file.
        ValueError: the output or fit is unknown, the model is not in float32, or ExecuTorch cannot take it.
        RuntimeError: the outputs of the file differ from those of the network; the file is not kept.
    """
    check_file(path)
    check_fit(fit, ())
    graph = Graph(copy.deepcopy(model).cpu().eval(), Ends.of(model, size, (), output, preprocess))
    with kept_random_state(), quiet_python():
        _import_tools()
        inputs = calibration_inputs(graph, images, size=size, fit=fit) if len(images) else []
        program = _lowered(_traced(graph, inputs), model.name)
    facts = {
        **facts_of(graph, size, fit),
        VERSION: version("executorch"),
        DIGEST: hashlib.sha256(program).hexdigest(),
    }
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(program)
        append_facts(temporary, facts)
        run = run_of(ExecuTorchSegmenter(temporary))
        return verify_8_bit(graph, run, Path(path), inputs) if inputs else verify(graph, run, Path(path))


def _import_tools() -> None:
    """Imports what writes programs.

    Raises:
        ImportError: it is not installed.
    """
    try:
        importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
        importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    except ImportError as error:
        raise ImportError(f"ExecuTorch files need executorch ({error}): {INSTALL}") from error


def _traced(graph: Graph, inputs: Sequence[Sequence[Tensor]]) -> torch.export.ExportedProgram:
    """Traces a copy of the graph that is prepared for inference, in 8 bit if there are calibration images."""
    graph = copy.deepcopy(graph)
    model = graph.model
    model.to(memory_format=torch.contiguous_format)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            model.set_submodule(name, nn.Identity())  # it would stand between what is computed together
    if model.config.quantization is not None:
        return trace_with_scales(graph)
    if inputs:
        suit_8_bit(model, inputs, pixels=graph.ends.preprocess)
    fold_batch_norms(model)
    return _quantized(graph, inputs) if inputs else trace_graph(graph)


def _quantized(graph: Graph, inputs: Sequence[Sequence[Tensor]]) -> torch.export.ExportedProgram:
    """Traces a graph and quantizes what is between its images and its last convolutions."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    quantizer.set_filter_function(_inner(set(last_convolutions(graph.model))))
    prepared = prepare_pt2e(trace_graph(graph).module(), quantizer)
    with torch.no_grad():
        for images in progress_bar(inputs, "calibration", "image"):
            prepared(*images)
        example = random_inputs(graph, graph.ends.example)  # contiguous, unlike an array after numpy's [None]
        return torch.export.export(convert_pt2e(prepared), tuple(example))


def _inner(last: Set[str]) -> Callable[[torch.fx.Node], bool]:
    """Whether a node belongs to the encoder or to a decoder, but not to a last convolution or a sum of their scores."""
    sums = {path.rpartition(".")[0] for path in last}
    sums = {path for path in sums if path.count(".") > 1}  # below the decoder itself, which has other sums

    def inner(node: torch.fx.Node) -> bool:
        if node.op != "call_function":
            return True  # weights, which name no module
        paths = [path.removeprefix("L['self'].") for path, _ in node.meta.get("nn_module_stack", {}).values()]
        inside = any(path.startswith(("model.encoder", "model.decoders")) for path in paths)
        paths = [path.removeprefix("model.") for path in paths]
        return inside and not (set(paths) & last or paths[-1] in sums)

    return inner


def _lowered(program: torch.export.ExportedProgram, name: str) -> bytes:
    """The content of a .pte file.

    Raises:
        ValueError: ExecuTorch cannot take an operator; says which.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    try:
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        return bytes(lowered.to_executorch().buffer)
    except Exception as error:  # of many kinds, none of them documented
        raise ValueError(f"ExecuTorch cannot take {name}: {error}") from error
