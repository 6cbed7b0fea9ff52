"""The inference form answers as the network does, for every name."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

import edgeseg
from edgeseg.networks import optimize as module
from edgeseg.networks.quantized import quantize_aware

from .conftest import TINY
from .test_encoders import randomize

NAMES = [name for name in edgeseg.list_models() if edgeseg.model_info(name).name == name]


def error(model: edgeseg.Pixel2Pixel, optimized: edgeseg.Pixel2Pixel, *images: torch.Tensor) -> float:
    """Largest difference of the logits, in their standard deviations."""
    with torch.inference_mode():
        expected, found = model(*images), optimized(*images)
    assert list(expected) == list(found)
    pairs = [(expected[name], found[name]) for name in expected]
    assert all(a.dtype == b.dtype == torch.float32 for a, b in pairs)
    return max(float((a - b).abs().max() / a.std()) for a, b in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_same_logits(name: str) -> None:
    model = randomize(edgeseg.create_model(name))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimized = edgeseg.optimize(model)
    # Some batch norms, which nothing takes: they stand before a convolution, or after a concatenation in ESPNetv2.
    before_convolutions = name in ("erfnet", "swiftnet_mobilenetv2") or name.startswith("espnetv2_")
    assert before_convolutions or not any(isinstance(each, nn.BatchNorm2d) for each in optimized.modules())
    assert error(model, optimized, torch.randn(2, 3, 72, 100)) < 1e-4
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert optimized.config.notes["optimized"].endswith("batch norms folded, channels_last")


def test_several_inputs_and_tasks() -> None:
    tasks = {"semantic": edgeseg.Task("segmentation", 5), "depth": edgeseg.Task("depth", 1, range=(0, 128))}
    model = randomize(edgeseg.create_model("unet", encoder=TINY, in_channels=(2, 3), tasks=tasks))
    images = torch.randn(1, 2, 64, 96), torch.randn(1, 3, 64, 96)
    assert error(model, edgeseg.optimize(model), *images) < 1e-4


def test_bfloat16(tiny: edgeseg.Pixel2Pixel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "computes_bf16", lambda device: True)
    optimized = edgeseg.optimize(tiny, dtype=torch.bfloat16)
    assert {p.dtype for p in optimized.parameters()} == {torch.bfloat16}
    assert 0 < error(tiny, optimized, torch.randn(1, 3, 64, 96)) < 0.5
    photo = torch.randint(0, 256, (3, 60, 90), dtype=torch.uint8)
    assert (optimized.predict(photo) == tiny.predict(photo)).mean() > 0.9


def test_bfloat16_on_a_processor_without_it(tiny: edgeseg.Pixel2Pixel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    with pytest.warns(UserWarning, match="emulates it: expect about a sixth"):
        edgeseg.optimize(tiny, dtype=torch.bfloat16)


@pytest.mark.slow
def test_compiled(tiny: edgeseg.Pixel2Pixel, caplog: pytest.LogCaptureFixture) -> None:
    optimized = edgeseg.optimize(tiny, compile=True)
    with caplog.at_level(logging.WARNING):
        for size in ((64, 96), (64, 96), (96, 64)):
            assert error(tiny, optimized, torch.randn(1, 3, *size)) < 1e-4
    assert [record.getMessage() for record in caplog.records if record.name == module.__name__] == [
        "compiling for images of [1, 3, 64, 96]",
        "compiling for images of [1, 3, 96, 64]",
    ]


def test_what_cannot_be_optimized(tiny: edgeseg.Pixel2Pixel) -> None:
    with pytest.raises(ValueError, match=r"on cpu dtype is .*bfloat16, got"):
        edgeseg.optimize(tiny, dtype=torch.float16)
    with pytest.raises(ValueError, match="quantization-aware"):
        edgeseg.optimize(quantize_aware(tiny))
    with pytest.raises(ValueError, match=r"training mode; call eval\(\)"):
        edgeseg.optimize(edgeseg.create_model("fpn", encoder=TINY, channels=16))
    tiny.decoders.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="decoders has hooks"):
        edgeseg.optimize(tiny)
