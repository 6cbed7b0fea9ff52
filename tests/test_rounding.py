"""Weights that are rounded together change the outputs less than weights that are rounded one by one."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgeseg
from edgeseg.deploy.quantize import quantize_onnx
from edgeseg.networks.equalize import equalize_channels
from edgeseg.networks.pixelwise import last_convolutions
from edgeseg.networks.rounding import round_weights

from .conftest import TINY

IMAGES = [[torch.rand(1, 3, 96, 128) + 0.5] for _ in range(4)]
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("fpn", {"encoder": "mobilenetv2"}),  # depthwise
    ("unet", {"encoder": "regnetx400mf"}),  # groups
    ("fpnsum", {"encoder": TINY, "channels": 32}),  # dilations, padding of TensorFlow
]


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in model.named_modules() if type(module) is nn.Conv2d}


def error(conv: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor) -> float:
    changed = copy.deepcopy(conv)
    changed.weight.data = weight
    return float((changed(x) - conv(x)).square().mean())


@torch.no_grad()
@pytest.mark.parametrize(("name", "options"), NETWORKS)
@pytest.mark.parametrize("levels", [64, 127])
def test_outputs_change_less(name: str, options: dict[str, Any], levels: int) -> None:
    model = edgeseg.create_model(name, num_classes=4, **options).eval()
    before, inputs = convolutions(copy.deepcopy(model)), OrderedDict[str, torch.Tensor]()
    for path in before:
        model.get_submodule(path).register_forward_pre_hook(lambda _, x, path=path: inputs.update({path: x[0]}))
    model.decode(*IMAGES[0])
    round_weights(model, IMAGES, levels)
    better, last = [], last_convolutions(model)
    for path, conv in convolutions(model).items():
        weight = before[path].weight
        if path in last:
            assert torch.equal(conv.weight, weight)
            continue
        highest = weight.abs().amax((1, 2, 3), keepdim=True)
        steps = conv.weight / highest * levels
        assert float((steps - steps.round()).abs().max()) < 1e-3
        assert torch.equal(conv.weight.abs().amax((1, 2, 3), keepdim=True), highest)
        nearest = (weight / highest * levels).round() * highest / levels
        better.append(error(before[path], inputs[path], conv.weight) < error(before[path], inputs[path], nearest))
    assert sum(better) > 0.9 * len(better) > 9


def test_files_have_these_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime finds the same scales, and rounds nothing anew."""
    onnx = pytest.importorskip("onnx")
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=3).eval()
    photos = [np.random.default_rng(i).integers(0, 256, (64, 96, 3), np.uint8) for i in range(2)]
    rounded: dict[str, np.ndarray] = {}

    def spy(model: edgeseg.Pixel2Pixel, images: Any, levels: int) -> None:
        round_weights(model, images, levels)
        for name, conv in convolutions(model).items():
            steps = conv.weight * levels / conv.weight.abs().amax((1, 2, 3), keepdim=True)
            rounded[f"model.{name}.weight_quantized"] = steps.round().detach().numpy()

    monkeypatch.setattr("edgeseg.deploy.quantize.round_weights", spy)
    for reduced in (True, False):
        quantize_onnx(model, tmp_path / "a.onnx", photos, size=(64, 96), dynamic=(), reduce_range=reduced)
        file = onnx.load(tmp_path / "a.onnx")
        found = {each.name: onnx.numpy_helper.to_array(each) for each in file.graph.initializer}
        names = sorted(found.keys() & rounded)
        assert len(names) > 10
        for name in names:
            assert (found[name] == rounded[name]).all(), name


def test_memory_format_does_not_matter() -> None:
    """Training leaves networks in channels-last memory."""
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=3).eval()
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    for each in (model, other):
        round_weights(each, IMAGES[:1], 127)
    for one, two in zip(convolutions(model).values(), convolutions(other).values(), strict=True):
        assert float((one.weight - two.weight).abs().gt(1e-6).float().mean()) < 0.05  # but for ties


@pytest.mark.parametrize("prepare", [equalize_channels, partial(round_weights, levels=127)])
def test_values_that_are_not_finite_are_named(prepare: Callable[..., object]) -> None:
    model = edgeseg.create_model("fpn", encoder="mobilenetv2", num_classes=4)
    next(model.encoder.parameters()).data[0] = math.nan
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"^encoder\S+ has infinite values or NaN for the images"):
        prepare(model, IMAGES)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0, equal_nan=True)
