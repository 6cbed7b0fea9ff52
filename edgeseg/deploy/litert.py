"""Exports LiteRT files (.tflite) for phones and boards."""

from __future__ import annotations

import copy
import importlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.deploy.calibration import Frame, calibration_inputs, suit_8_bit
from edgeseg.deploy.facts import check_fit, facts_of
from edgeseg.deploy.fixed_scales import fix_scales
from edgeseg.deploy.graph import Ends, Graph, Output, random_inputs
from edgeseg.deploy.litert_scales import LiteRTConvolution, with_float_inputs
from edgeseg.deploy.verify import TOLERANCE_16_BIT, Exported, run_of, verify, verify_8_bit
from edgeseg.machine.errors import ExportError
from edgeseg.machine.files import check_file, replacing
from edgeseg.machine.quiet import captured_stderr, quiet_python
from edgeseg.machine.random_state import kept_random_state
from edgeseg.networks.fold import fold_batch_norms
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.predict.facts import append_facts, content_fact
from edgeseg.predict.litert import LiteRTSegmenter
from edgeseg.predict.segmenter import Fit

TOOLS = ("litert_torch", "ai_edge_quantizer", "ai_edge_litert")
# Variables by which the converter is told to be quiet, and not to change the loggers of torch.
SETTINGS = {"LITERT_TORCH_SHOW_PROGRESS": "n", "LITERT_TORCH_SILENCE_TORCH_LOGS": "n"}


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
    """Writes a LiteRT file for one image of one size, runs it against the network, and keeps it only if they agree.

    Its tensors are NHWC: float32 or, with `preprocess`, uint8 [1, H, W, C] in, and [1, H, W, classes] or labels
    [1, H, W] out. They are named like the model's inputs and tasks.

    Args:
        model: Exported as it is in evaluation mode. A network that was trained for 8 bits keeps its scales, with
            "float32" as with "int8".
        path: The file, `.tflite`.
        precision: "float32"; "float16" stores the weights of convolutions in float16; "int8" quantizes after training,
            with one scale per channel of the weights. Last convolutions and what follows them stay in float32.
        images: Typical photos for "int8", given as for `predict`.
        size, output, preprocess, fit: See `edgeseg.export_onnx`.

    Returns:
        The file, the size at which it was compared, the differences, and for "int8" the share of pixels that keep their
        class.

    Raises:
        ImportError: litert-torch or ai-edge-quantizer is missing: `pip install 'edgeseg[litert]'`.
        FileNotFoundError: the folder of `path` does not exist.
        OSError: a photo cannot be read.
        ValueError: an argument does not fit, or a network that was trained for 8 bits shall be written in float16.
        RuntimeError: the network cannot be converted, or the outputs of the file differ from those of the network; the
            file is not kept.
    """
    check_file(path)
    check_fit(fit, ())
    if precision == "float16" and model.config.quantization is not None:
        raise ValueError(f"{model.name} was trained for 8 bits; it has no form in float16")
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    graph = Graph(model, Ends.of(model, size, (), output, preprocess)).eval()
    inputs = calibration_inputs(graph, images, size=size, fit=fit) if len(images) else []
    with _quiet():
        _check_tools()
        content = _content(graph, precision, inputs)
    facts = {**facts_of(graph, size, fit), **content_fact(content)}
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(content)
        append_facts(temporary, facts)
        run = run_of(LiteRTSegmenter(temporary))
        if inputs:
            return verify_8_bit(graph, run, Path(path), inputs)
        return verify(graph, run, Path(path), tolerance=TOLERANCE_16_BIT if precision == "float16" else None)


def _content(graph: Graph, precision: str, inputs: Sequence[Sequence[Tensor]]) -> bytes:
    """The file without its facts."""
    network = copy.deepcopy(graph.model)
    if network.config.quantization is not None:
        fix_scales(network, LiteRTConvolution)
        return with_float_inputs(_converted(Graph(network, graph.ends), eight_bit=True))
    if precision == "int8":
        suit_8_bit(network, inputs, pixels=graph.ends.preprocess)
    fold_batch_norms(network)
    content = _converted(Graph(network, graph.ends))
    if precision == "float32":
        return content
    from edgeseg.deploy.litert_quantize import float16, int8

    if precision == "float16":
        return float16(content)
    return int8(content, [dict(zip(graph.model.inputs, map(_channels_last, each), strict=True)) for each in inputs])


class _Named(nn.Module):
    """A graph with NHWC tensors by name."""

    def __init__(self, network: Graph) -> None:
        super().__init__()
        self.network = network

    def forward(self, **images: Tensor) -> dict[str, Tensor]:
        """[1, H, W, C] per input -> [1, h, w, channels] or labels [1, h, w] per task."""
        outputs = self.network(*(image.permute(0, 3, 1, 2) for image in images.values()))
        last = [tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor for tensor in outputs]
        return dict(zip(self.network.model.tasks, last, strict=True))


def _converted(graph: Graph, *, eight_bit: bool = False) -> bytes:
    """The LiteRT model of a graph; `eight_bit` for one that has roundings, which become 8-bit operators."""
    with kept_random_state():  # which the import changes
        import litert_torch

    options: dict[str, Any] = {}
    if eight_bit:
        from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
        from litert_torch.quantize.quant_config import QuantConfig

        settings = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
        options["quant_config"] = QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(settings))
    samples = {
        name: torch.from_numpy(_channels_last(image))
        for name, image in zip(graph.model.inputs, random_inputs(graph, graph.ends.example), strict=True)
    }
    try:
        with torch.no_grad():
            content: bytes = litert_torch.convert(
                _Named(graph).eval(), sample_kwargs=samples, **options
            ).model_content()
    except Exception as error:  # of many kinds, none of them documented
        raise ExportError(f"litert-torch cannot convert {graph.model.name or 'the network'}: {error}") from error
    return content


def _channels_last(image: Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(0, 2, 3, 1).numpy())


def _check_tools() -> None:
    """Raises an ImportError if one of the libraries that write LiteRT files is missing."""
    for name in TOOLS:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"LiteRT files need {name.replace('_', '-')}: pip install 'edgeseg[litert]' ({error})"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the converter and the quantizer, and restores what they change in the process."""
    before, handlers = dict(os.environ), list(logging.root.handlers)
    os.environ.update(SETTINGS)
    try:
        with quiet_python(), captured_stderr():
            yield
    finally:
        logging.root.handlers[:] = handlers
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
