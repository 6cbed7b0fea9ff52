"""Networks are left as they were: their modes, their copies, the process."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import edgeseg
from edgeseg.data import Streets
from edgeseg.engine import evaluate
from edgeseg.networks.equalize import equalize_channels
from edgeseg.networks.fold import fold_batch_norms
from edgeseg.networks.modes import evaluating
from edgeseg.networks.quantized import quantize_aware
from edgeseg.networks.unfold import unfold_batch_norms
from edgeseg.networks.wiring import trace

from .conftest import TINY
from .test_encoders import randomize

ROWS = [name for name in edgeseg.list_models() if edgeseg.model_info(name).name == name]
PEERS = [name for name in ROWS if edgeseg.model_info(name).spec is None]


def photo(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (60 + seed, 80, 3), dtype=np.uint8)


def test_threads_share_a_network_in_training_mode(tiny: edgeseg.Pixel2Pixel) -> None:
    """As README makes it: nobody called eval()."""
    randomize(tiny).train()
    photos = [photo(seed) for seed in range(24)]
    expected = [tiny.predict(each) for each in photos]
    before = copy.deepcopy(tiny.state_dict())
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(tiny.predict, photos))
    assert all((a == b).all() for a, b in zip(expected, found, strict=True))
    assert all(torch.equal(value, tiny.state_dict()[key]) for key, value in before.items())
    assert all(module.training for module in tiny.modules())


def test_evaluation_mode_nests(tiny: edgeseg.Pixel2Pixel) -> None:
    tiny.train()
    tiny.encoder.eval()
    before = [module.training for module in tiny.modules()]
    with evaluating(tiny):
        with evaluating(tiny):
            assert not any(module.training for module in tiny.modules())
        assert not any(module.training for module in tiny.modules())
    assert [module.training for module in tiny.modules()] == before
    with pytest.raises(ZeroDivisionError), evaluating(tiny):
        _ = 1 // 0
    assert [module.training for module in tiny.modules()] == before


def test_networks_that_share_an_encoder(tiny: edgeseg.Pixel2Pixel) -> None:
    """The mode of the encoder comes back when the last of them is done."""
    other = copy.copy(tiny)
    other._modules = dict(tiny._modules)
    tiny.train()
    first, second = evaluating(tiny), evaluating(other)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not any(module.training for module in other.modules())
    second.__exit__(None, None, None)
    assert all(module.training for module in tiny.modules())


CALLS: dict[str, Callable[[edgeseg.Pixel2Pixel, Path], object]] = {
    "predict": lambda model, folder: model.predict(photo(0)),
    "evaluate": lambda model, folder: evaluate(model, Streets("val", (64, 96), length=1), workers=0),
    "complexity": lambda model, folder: edgeseg.complexity(model, 64),
    "fvcore": lambda model, folder: edgeseg.complexity(model, 64).fvcore,
    "trace": lambda model, folder: trace(model),
    "export_onnx": lambda model, folder: edgeseg.export_onnx(model, folder / "a.onnx", size=(64, 96), dynamic=()),
    "export_program": lambda model, folder: edgeseg.export_program(model, folder / "a.pt2", size=(64, 96)),
    "quantize_aware": lambda model, folder: quantize_aware(model),
    "equalize": lambda model, folder: equalize_channels(model, [model.prepare(photo(0))]),
    "unfold": lambda model, folder: unfold_batch_norms(model, [model.prepare(photo(0))]),
}


@pytest.mark.parametrize("call", CALLS)
def test_frozen_parts_stay_frozen(call: str, tmp_path: Path) -> None:
    """Batch norms that a user has frozen are frozen afterwards, and what trained trains."""
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8).train()
    model.encoder.eval()
    before = {name: module.training for name, module in model.named_modules()}
    CALLS[call](model, tmp_path)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", [*PEERS, "fpn_aspp_regnetx400mf_edgeailite", "fpn_aspp_repvit_m1_0"])
def test_copies_and_pickles_answer_equally(name: str) -> None:
    model = randomize(edgeseg.create_model(name, num_classes=3)).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = model(image)["segmentation"]
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), AveragedModel(model).module):
            assert not any(module.training for module in other.modules())
            assert torch.equal(other(image)["segmentation"], expected)
    assert pickle.loads(pickle.dumps(model)).config == model.config


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_copies_of_every_name(name: str) -> None:
    test_copies_and_pickles_answer_equally(name)


def test_the_process_keeps_its_allocator(tiny: edgeseg.Pixel2Pixel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a call that is named for it, and the command line, tune the allocator."""

    def forbidden() -> bool:
        raise AssertionError("the allocator was changed")

    monkeypatch.setattr("edgeseg.machine.memory.keep_freed_memory", forbidden)
    edgeseg.optimize(tiny).predict(photo(0))


def test_half_precision(tiny: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    """Costs of any dtype; exporting says what to do."""
    cost = edgeseg.complexity(tiny, (64, 96))
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        other = copy.deepcopy(tiny).to(dtype)
        assert edgeseg.complexity(other, (64, 96)).gmacs == cost.gmacs
        for export, suffix in ((edgeseg.export_onnx, "onnx"), (edgeseg.export_program, "pt2")):
            with pytest.raises(ValueError, match=rf"in {dtype}; .*model\.float\(\)"):
                export(other, tmp_path / f"a.{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_costs_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = edgeseg.create_model("fpn_aspp_mobilenetv2_tv_edgeailite")
    cost = edgeseg.complexity(model, 64)
    assert cost.gmacs == edgeseg.complexity(edgeseg.create_model(model.name), (64, 64)).gmacs > 0
    assert cost.fvcore > cost.gmacs
    assert "gmacs=" in repr(cost)
    with pytest.raises(ValueError, match=r"positive height and width, .*, got 0"):
        edgeseg.complexity(model, 0)


def test_segmenters_are_pickled(tiny: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    edgeseg.export_onnx(tiny, tmp_path / "tiny.onnx", size=(64, 96), dynamic=())
    segmenter = edgeseg.OnnxSegmenter(tmp_path / "tiny.onnx")
    content = pickle.dumps(segmenter)
    (tmp_path / "tiny.onnx").unlink()  # it opens anew from its own bytes
    assert (pickle.loads(content).predict(photo(1)) == segmenter.predict(photo(1))).all()


def test_folding_leaves_what_others_read() -> None:
    """A convolution whose output something else reads too keeps its batch norm."""

    class Reader(nn.Module):
        channels, strides = (4, 4), (2, 4)

        def __init__(self, in_channels: int) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(in_channels, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4)
            self.second, self.second_norm = nn.Conv2d(4, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4)

        def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
            x = self.conv(image)
            x = self.norm(x) + x
            return [x, self.second_norm(self.second(x))]

    edgeseg.register_encoder("reader")(Reader)
    model = randomize(
        edgeseg.create_model("fpn", encoder="reader", channels=8, num_classes=2, prediction_stride=2)
    ).eval()
    image = torch.randn(1, 3, 32, 48)
    with torch.inference_mode():
        expected = model(image)["segmentation"]
        fold_batch_norms(model)
        torch.testing.assert_close(model(image)["segmentation"], expected, atol=1e-4, rtol=1e-4)
    wrapper: Any = model.encoder
    encoder = wrapper.network
    assert isinstance(encoder, Reader)
    assert isinstance(encoder.norm, nn.BatchNorm2d)
    assert isinstance(encoder.second_norm, nn.Identity)


def test_what_depends_on_weights_is_forgotten(tmp_path: Path) -> None:
    """timm's TinyViT keeps attention biases in evaluation mode, and forgets them in its own `train`."""
    model = edgeseg.create_model("fpnsum", encoder="tiny_vit_5m_224", channels=16, num_classes=3)
    frozen = next(module for module in model.encoder.modules() if isinstance(module, torch.nn.BatchNorm2d))
    frozen.eval()
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    model.predict(image)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attention_bias" in name:
                parameter.add_(5 * torch.randn_like(parameter))
    fresh = edgeseg.create_model("fpnsum", encoder="tiny_vit_5m_224", channels=16, num_classes=3)
    fresh.load_state_dict(model.state_dict())
    assert (model.predict(image) == fresh.predict(image)).all()
    edgeseg.save_checkpoint(model, tmp_path / "weights.safetensors")
    other = edgeseg.create_model("fpnsum", encoder="tiny_vit_5m_224", channels=16, num_classes=3).eval()
    other.predict(image)
    edgeseg.load_checkpoint(other, tmp_path / "weights.safetensors")
    assert (model.predict(image) == other.predict(image)).all()
    assert not other.training
    assert not frozen.training
    assert all(module.training for module in model.modules() if module is not frozen)


def test_train_is_obeyed_after_a_prediction(tiny: edgeseg.Pixel2Pixel) -> None:
    """A thread trains while another one predicts: the mode that was asked for last holds in the end."""
    tiny.eval()
    with evaluating(tiny):
        tiny.train()
        assert not any(module.training for module in tiny.modules())
    assert all(module.training for module in tiny.modules())
    with evaluating(tiny):
        tiny.eval()
    assert not any(module.training for module in tiny.modules())


def test_weights_that_are_loaded_are_used() -> None:
    """The attention of TinyViT keeps what it computed from its weights."""
    model = edgeseg.create_model("fpn", encoder="tiny_vit_5m_224", channels=16, num_classes=3).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = model(image)["segmentation"]
    other = {key: torch.randn_like(value) if "bias" in key else value for key, value in model.state_dict().items()}
    model.load_state_dict(other)
    fresh = edgeseg.create_model("fpn", encoder="tiny_vit_5m_224", channels=16, num_classes=3).eval()
    fresh.load_state_dict(other)
    with torch.inference_mode():
        after, expected = model(image)["segmentation"], fresh(image)["segmentation"]
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, expected)
