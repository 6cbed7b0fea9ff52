"""The decoder that adds the class scores of its levels: all of them count as the prediction layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import edgeseg
from edgeseg.deploy.quantize import quantize_onnx
from edgeseg.networks.pixelwise import last_convolutions
from edgeseg.networks.quantized import QuantizedConv2d, quantize_aware
from edgeseg.spec import Task

from .conftest import TINY

HEAD = "decoders.segmentation.head."
LEVELS = ("0", "1", "2")


def network(classes: int = 5) -> edgeseg.Pixel2Pixel:
    return edgeseg.create_model("fpnsum", encoder=TINY, channels=16, num_classes=classes).eval()


def test_scores_of_three_levels_are_added() -> None:
    """Each adds what it gives alone, at its own stride: constant scores within the cells of coarse levels."""
    model, image = network(), torch.randn(1, 3, 64, 96)
    whole = model.decode(image)["segmentation"]
    convs = [model.get_submodule(HEAD + level) for level in LEVELS]
    parts = []
    for kept in convs:
        before = {conv: [p.clone() for p in conv.parameters()] for conv in convs}
        with torch.no_grad():
            for conv in convs:
                if conv is not kept:
                    for parameter in conv.parameters():
                        parameter.zero_()
            parts.append(model.decode(image)["segmentation"])
            for conv, values in before.items():
                for parameter, value in zip(conv.parameters(), values, strict=True):
                    parameter.copy_(value)
    assert all(float(part.std()) > 0 for part in parts)
    assert torch.allclose(torch.stack(parts).sum(0), whole, atol=1e-5)


def test_other_classes_start_all_levels_anew(tmp_path: Path) -> None:
    edgeseg.save_checkpoint(network(5), tmp_path / "five.safetensors")
    with pytest.warns(UserWarning, match="6 tensors are not loaded"):
        model = edgeseg.create_model("fpnsum", checkpoint_path=tmp_path / "five.safetensors", num_classes=3)
    assert model.eval()(torch.zeros(1, 3, 64, 64))["segmentation"].shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match="was trained for 5 classes and this model has 3"):
        edgeseg.load_checkpoint(network(3), tmp_path / "five.safetensors")


def test_no_score_is_rounded() -> None:
    model = network()
    assert list(last_convolutions(model)) == [HEAD + level for level in LEVELS]
    quantized = quantize_aware(model)
    last = [quantized.get_submodule(HEAD + level) for level in LEVELS]
    assert all(isinstance(conv, QuantizedConv2d) and conv.last and not hasattr(conv, "after") for conv in last)
    assert not hasattr(quantized.get_submodule(HEAD.removesuffix(".")), "after")


def test_values_stay_in_the_range_of_the_task() -> None:
    tasks = {"depth": Task("depth", 1, range=(0, 3))}
    model = edgeseg.create_model("fpnsum", encoder=TINY, channels=16, tasks=tasks).eval()
    with torch.no_grad():
        model.get_parameter("decoders.depth.head.2.bias").fill_(100.0)
    assert float(model(torch.zeros(1, 3, 64, 64))["depth"].detach().max()) == 3


@pytest.mark.parametrize("stride", [2, 4, 8, 16])
def test_from_any_stride(stride: int) -> None:
    model = edgeseg.create_model("fpnsum", encoder=TINY, channels=16, num_classes=2, prediction_stride=stride).eval()
    assert model.decode(torch.zeros(1, 3, 64, 96))["segmentation"].shape[-2:] == (64 // stride, 96 // stride)


def test_all_convolutions_compute_in_8_bit(tmp_path: Path) -> None:
    """The three products of scores too: a float32 product would keep the convolutions before it in float32."""
    onnx = pytest.importorskip("onnx")
    photos = [np.random.default_rng(i).integers(0, 256, (64, 96, 3), dtype=np.uint8) for i in range(2)]
    quantize_onnx(network(), tmp_path / "int8.onnx", photos, size=(64, 96), dynamic=(), calibration="minmax")
    graph = onnx.load(tmp_path / "int8.onnx").graph
    rounded = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    products = [node for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    assert sum(node.op_type == "MatMul" for node in products) == 3
    assert all(set(node.input[:2]) <= rounded for node in products)
