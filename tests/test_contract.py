"""What the test suites of timm, segmentation_models_pytorch and torchvision ask of their networks, asked of ours."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import edgeseg
from edgeseg.zoo.networks import PEERS, ZOO

from .test_encoders import randomize

# The quickest name for each run of the tests, one per family for what takes long, and all names.
QUICK = "fpnsum_mobilenetv4_conv_small"
FAMILIES = (
    QUICK, "fpn_aspp_mobilenetv2_tv_edgeailite", "unet_aspp_regnetx800mf_edgeailite",
    "bifpn_aspp_regnetx400mf_edgeailite", "deeplabv3plus_mobilenetv2_tv_edgeailite", "fpn_aspp_fastvit_t8",
    "fpn_aspp_repvit_m1_0", "espnetv2_s0p5", "erfnet", "swiftnet_mobilenetv2",
)  # fmt: skip
POOLING = (  # the whole feature to one pixel
    "deeplab_mobilenetv2", "deeplabv3plus_xception65", "deeplabv3_resnet50_tv", "deeplabv3_mobilenetv3_large_tv",
)  # fmt: skip
EVERY = sorted({*ZOO, *PEERS})
NAMES = [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in EVERY]
FEW = [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in FAMILIES]


def logits_of(model: Callable[..., Any], *shape: int) -> torch.Tensor:
    """The logits of smooth noise, which is the same for the same shape."""
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.5
    result: torch.Tensor = model(noise)["segmentation"]
    return result


def test_the_families_are_names() -> None:
    assert set(FAMILIES) <= set(EVERY)


@pytest.mark.parametrize("name", NAMES)
def test_sizes(name: str) -> None:
    """From one pixel on."""
    model = edgeseg.create_model(name, num_classes=2).eval()
    with torch.inference_mode():
        for size in [(1, 1), (1, 7), (2, 3), (31, 33), (65, 129), (256, 64)]:
            logits = logits_of(model, 1, 3, *size)
            assert logits.shape == (1, 2, *size)
            assert logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_channels_and_classes(name: str) -> None:
    for channels, classes in [(1, 1), (2, 2), (4, 300), (6, 3)]:
        if (name in PEERS or name.startswith("espnetv2_")) and channels != 3:
            with pytest.raises(ValueError, match="of 3 channels, got"):
                edgeseg.create_model(name, in_channels=(channels,), num_classes=classes)
            channels = 3
        model = edgeseg.create_model(name, in_channels=(channels,), num_classes=classes).eval()
        with torch.inference_mode():
            assert logits_of(model, 2, channels, 64, 96).shape == (2, classes, 64, 96)


@pytest.mark.parametrize("name", NAMES)
def test_one_photo_in_training(name: str) -> None:
    """Every parameter gets a gradient; where a feature is one pixel, the error of batch norms says so."""
    model = edgeseg.create_model(name, num_classes=3).train()
    count = 1
    if name in POOLING:
        count = 2
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            logits_of(model, 1, 3, 256, 320)
    logits_of(model, count, 3, 256, 320).square().mean().backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters() if parameter.grad is not None)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        logits_of(model, 1, 3, 8, 8)


@pytest.mark.parametrize("name", NAMES)
def test_frozen_encoder(name: str) -> None:
    model = edgeseg.create_model(name, num_classes=3).train()
    model.encoder.requires_grad_(False).eval()
    before = copy.deepcopy(model.encoder.state_dict())
    logits_of(model, 2, 3, 64, 96).square().mean().backward()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert all(parameter.grad is not None for parameter in model.decoders.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.encoder.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_precisions(name: str) -> None:
    model = randomize(edgeseg.create_model(name, num_classes=3)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.mul_(0.5)  # else what deep networks compute without training is beyond float16
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.inference_mode():
        exact = model.double()(image.double())["segmentation"]
        assert exact.dtype == torch.float64
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.2), (torch.float16, 0.05)):
            logits = copy.deepcopy(model).to(dtype)(image.to(dtype))["segmentation"]
            assert logits.dtype == dtype
            assert (logits.double() - exact).abs().max() < tolerance * exact.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_seeds_files_and_the_meta_device(name: str, tmp_path: Path) -> None:
    """A seed gives the same network twice, a file gives it back, and the meta device has all its shapes."""
    networks = []
    for _ in range(2):
        torch.manual_seed(1)
        networks.append(edgeseg.create_model(name, num_classes=3).eval())
    states = [network.state_dict() for network in networks]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    edgeseg.save_checkpoint(networks[0], tmp_path / "m.safetensors")
    torch.manual_seed(2)
    other = edgeseg.create_model(name, num_classes=3, checkpoint_path=tmp_path / "m.safetensors").eval()
    with torch.inference_mode():
        assert torch.equal(logits_of(other, 1, 3, 64, 96), logits_of(networks[0], 1, 3, 64, 96))
    with torch.device("meta"):
        meta = edgeseg.create_model(name, num_classes=3).eval()
        assert meta(torch.empty(1, 3, 64, 96))["segmentation"].shape == (1, 3, 64, 96)
    assert {key: value.shape for key, value in meta.state_dict().items()} == {k: v.shape for k, v in states[0].items()}


@pytest.mark.parametrize("name", FEW)
def test_compiled_without_a_break(name: str) -> None:
    """As one graph, in evaluation and in training."""
    model = edgeseg.create_model(name, num_classes=3).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(logits_of(compiled, 1, 3, 64, 96), logits_of(model, 1, 3, 64, 96))
    model.train()
    logits_of(torch.compile(model, fullgraph=True, backend="eager"), 2, 3, 64, 96).sum().backward()
    torch._dynamo.reset()


@pytest.mark.parametrize("name", FEW)
def test_exported_program_of_any_size(name: str) -> None:
    model = edgeseg.create_model(name, num_classes=3).eval()
    free = torch.export.Dim.DYNAMIC
    example = torch.rand(2, 3, 256, 384)
    program = torch.export.export(model, (example,), dynamic_shapes={"images": ({0: free, 2: free, 3: free},)}).module()
    with torch.no_grad():
        # ERFNet and SwiftNet are traced for multiples of 8, and for images that are wider than high.
        for shape in [(1, 3, 160, 288), (3, 3, 128, 320) if name in PEERS else (3, 3, 200, 131)]:
            torch.testing.assert_close(logits_of(program, *shape), logits_of(model, *shape), rtol=1e-3, atol=1e-4)
