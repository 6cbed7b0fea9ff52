"""Smaller forms of LiteRT files, by ai-edge-quantizer: weights in float16, or everything in 8 bit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeseg.machine.terminal import progress_bar

SIGNATURE = "serving_default"
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "FULLY_CONNECTED")
PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL")
# What normalizes pixels before the first convolution.
NORMALIZING = ("CAST", "SUB", "MUL", "ADD", "DIV")


def float16(content: bytes) -> bytes:
    """Stores the weights of convolutions in float16; they are computed with in float32 where a kernel needs it."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.quantizer import Quantizer

    quantizer = Quantizer(bytearray(content))
    settings = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    for name in WEIGHTED:
        quantizer.update_quantization_recipe(".*", qtyping.TFLOperationName(name), settings, "float_casting")
    return _quantized(quantizer, None)


def int8(content: bytes, feeds: Sequence[Mapping[str, np.ndarray]]) -> bytes:
    """Quantizes a file after training.

    Weights have one scale per channel, activations one per tensor, whose range is the mean of the ranges on the feeds.
    What normalizes pixels, last convolutions and what follows them stay in float32, since 8-bit logits have ties.

    Args:
        content: A file in float32.
        feeds: Its input tensors by name, one mapping per typical photo.
    """
    from ai_edge_quantizer import qtyping, recipe
    from ai_edge_quantizer.quantizer import Quantizer

    quantizer = Quantizer(bytearray(content))
    quantizer.load_quantization_recipe(recipe.static_wi8_ai8())
    plain = "no_quantize"
    for name in dict.fromkeys(_in_float(content)):
        every = qtyping.TFLOperationName.ALL_SUPPORTED
        quantizer.update_quantization_recipe(f"^{re.escape(name)}(;|$)", every, algorithm_key=plain)
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        quantizer.update_quantization_recipe(".*", end, algorithm_key=plain)
    return _quantized(quantizer, _ranges(content, quantizer.get_quantization_recipe(), feeds))


def _quantized(quantizer: Any, ranges: Mapping[str, Any] | None) -> bytes:
    done = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(done.quantized_model)


def _ranges(content: bytes, recipe: Any, feeds: Sequence[Mapping[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """The mean of the lowest and of the highest value per tensor; the quantizer's own mean favours the first photos."""
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.recipe_manager import RecipeManager

    manager = RecipeManager()
    manager.load_quantization_recipe(recipe)
    calibrator = Calibrator(content, num_threads=1)
    sums: dict[str, dict[str, np.ndarray]] = {}
    for feed in progress_bar(feeds, "calibration", "image"):
        calibrator.reset_model_qsvs()
        calibrator.calibrate({SIGNATURE: [feed]}, manager)
        for name, limits in calibrator.get_model_qsvs().items():
            known = sums.setdefault(name, {limit: np.zeros_like(value) for limit, value in limits.items()})
            for limit, value in limits.items():
                known[limit] = known[limit] + value
    return {name: {limit: value / len(feeds) for limit, value in limits.items()} for name, limits in sums.items()}


def _in_float(content: bytes) -> Iterator[str]:
    """Names of the results of the operators that stay in float32."""
    from ai_edge_litert.tools import flatbuffer_utils
    from ai_edge_quantizer import qtyping

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    kinds = {value: name for name, value in vars(qtyping.BuiltinOperator).items() if isinstance(value, int)}
    graph = model.subgraphs[0]
    operators = [
        (kinds[model.operatorCodes[each.opcodeIndex].builtinCode], [*map(int, each.inputs)], [*map(int, each.outputs)])
        for each in graph.operators
    ]
    for result in (*_head(operators, graph.inputs), *_tail(operators, graph.outputs)):
        yield graph.tensors[result].name.decode()


def _head(operators: Sequence[tuple[str, list[int], list[int]]], inputs: Sequence[int]) -> Iterator[int]:
    """Results of the operators that normalize pixels."""
    reached = {int(each) for each in inputs}
    for kind, sources, results in operators:
        if kind in NORMALIZING and reached & set(sources):
            reached |= set(results)
            yield from results


def _tail(operators: Sequence[tuple[str, list[int], list[int]]], outputs: Sequence[int]) -> Iterator[int]:
    """Results of the last products and of the operators after them."""
    wanted = {int(each) for each in outputs}
    for kind, sources, results in reversed(operators):
        if wanted & set(results):
            yield from results
            if kind not in PRODUCTS:
                wanted |= set(sources)
