"""The contract of every network: shapes, any size, gradients, several inputs and tasks, clear errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import edgeseg
from edgeseg import Task
from edgeseg.engine import TrainConfig
from edgeseg.networks.layers import conv_groups
from edgeseg.zoo.networks import ZOO

TASKS = {"semantic": Task("segmentation", 5), "depth": Task("depth", 1, range=(0, 80)), "motion": Task(channels=2)}


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ZOO)
def test_any_size(name: str) -> None:
    model = edgeseg.create_model(name, num_classes=4).eval()
    with torch.inference_mode():
        for size in ((70, 130), (64, 96)):
            outputs = model(torch.randn(1, 3, *size))
            assert list(outputs) == ["segmentation"]
            assert outputs["segmentation"].shape == (1, 4, *size)
            assert torch.isfinite(outputs["segmentation"]).all()


# ESPNetv2 adds the image to its features, for which it has to be one image of three channels.
@pytest.mark.parametrize("name", [name for name in ZOO if not name.startswith("espnetv2_")])
def test_two_inputs_three_tasks_train(name: str) -> None:
    """Every name takes several inputs and decoders; in training too, and each parameter gets a gradient."""
    model = edgeseg.create_model(name, in_channels=(2, 3), tasks=TASKS).train()
    outputs = model(torch.randn(2, 2, 64, 64), torch.randn(2, 3, 64, 64))
    assert {task: tuple(logits.shape) for task, logits in outputs.items()} == {
        "semantic": (2, 5, 64, 64),
        "depth": (2, 1, 64, 64),
        "motion": (2, 2, 64, 64),
    }
    assert outputs["depth"].min() >= 0
    # Not through the clamp, which may be shut everywhere in an untrained network.
    features = model.encoder([torch.randn(2, 2, 64, 64), torch.randn(2, 3, 64, 64)])
    losses = [decoder(features).square().sum() for task, decoder in model.decoders.items() if task != "depth"]
    torch.stack(losses).sum().backward()
    lost = [
        key
        for key, parameter in model.named_parameters()
        if not key.startswith("decoders.depth.")
        and (parameter.grad is None or not torch.isfinite(parameter.grad).all())
    ]
    assert lost == []


@pytest.mark.parametrize("name", [name for name in ZOO if not name.endswith("_edgeailite")])
def test_every_tap_is_trained(name: str) -> None:
    """At the crops of the usual recipe, no dilation of a decoder reaches beyond the feature from most of its cells."""
    model, crop, reaches = edgeseg.create_model(name).eval(), TrainConfig().rand_crop, []
    assert crop is not None

    def note(conv: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        taps = [size * dilation for size, dilation in zip(conv.kernel_size, conv.dilation, strict=True) if size > 1]
        reaches.append(max(taps, default=0) / min(inputs[0].shape[-2:]))

    for module in model.decoders.modules():
        if isinstance(module, torch.nn.Conv2d) and max(module.dilation) > 1:
            module.register_forward_pre_hook(note)
    with torch.inference_mode():
        model(torch.zeros(1, 3, *crop))
    assert all(reach < 1 for reach in reaches)
    assert reaches or name.startswith("espnetv2_")


def test_parameter_counts(reference: Callable[[str], Any]) -> None:
    """Every entry of names.json that the original can build has as many parameters here."""
    tasks = {"a": Task(channels=19), "b": Task("depth", 1), "c": Task(channels=2)}
    checked = 0
    for key, entry in reference("names.json").items():
        if not entry["builds"] or entry["overrides"].get("normalize_input"):
            continue  # an encoder that was never public; an option no model of the zoo uses
        wanted = tasks if entry["num_classes"] is None else {"segmentation": Task(channels=entry["num_classes"])}
        with torch.device("meta"):
            model = edgeseg.create_model(entry["registry_name"], tasks=wanted, in_channels=entry["input_channels"])
        assert parameters(model) == entry["params"], key
        checked += 1
    assert checked == 53


def test_all_original_names_are_here(reference: Callable[[str], Any]) -> None:
    originals = {entry["registry_name"] for entry in reference("names.json").values() if entry["builds"]}
    assert originals <= set(edgeseg.list_models())


def test_table_of_sizes() -> None:
    """Some of the original's parameter counts, at 19 classes, for those without the reference files."""
    published = {
        "deeplabv3plus_mobilenetv2_tv_edgeailite": 2_425_024,
        "unet_aspp_regnetx800mf_edgeailite": 8_250_220,
        "fpn_aspp_mobilenetv2_tv_edgeailite": 2_669_376,
        "fpn_mobilenetv2_tv_fd_edgeailite": 2_561_536,
        "fpn_aspp_regnetx3p2gf_edgeailite": 18_060_928,
        "bifpn_aspp_regnetx1p6gf_edgeailite": 12_060_712,
        "deeplabv3plus_resnet50_p5_fd_edgeailite": 7_255_072,
    }
    with torch.device("meta"):
        assert {name: parameters(edgeseg.create_model(name)) for name in published} == published


def test_class_counts_that_the_original_cannot_build() -> None:
    for classes in (25, 34, 151):
        model = edgeseg.create_model("unet_aspp_regnetx800mf_edgeailite", num_classes=classes).eval()
        with torch.inference_mode():
            assert model(torch.randn(1, 3, 32, 32))["segmentation"].shape == (1, classes, 32, 32)
    assert conv_groups(50, 16) == 2
    assert conv_groups(38, 16) == 2
    assert conv_groups(8, 16) == 1
    assert conv_groups(7, 1) == 7


def test_inputs_are_all_seen() -> None:
    model = edgeseg.create_model("unet_aspp_mobilenetv2_tv_edgeailite", in_channels=(3, 3), num_classes=3).eval()
    a, b, other = torch.randn(3, 1, 3, 64, 64)
    with torch.inference_mode():
        base = model(a, b)["segmentation"]
        assert not torch.allclose(base, model(other, b)["segmentation"])
        assert not torch.allclose(base, model(a, other)["segmentation"])


def test_depth_is_clamped_to_its_range() -> None:
    task = Task("depth", 1, range=(-0.01, 0.01))
    model = edgeseg.create_model("fpn_aspp_regnetx400mf_edgeailite", tasks={"depth": task}).eval()
    with torch.inference_mode():
        depth = model(10 * torch.randn(1, 3, 64, 64))["depth"]
    assert depth.min() >= -0.01
    assert depth.max() <= 0.01


def test_training_and_evaluation_answer_alike(tiny: edgeseg.Pixel2Pixel) -> None:
    x = torch.randn(2, 3, 40, 56)
    assert {k: v.shape for k, v in tiny.train()(x).items()} == {k: v.shape for k, v in tiny.eval()(x).items()}


def test_wrong_input(tiny: edgeseg.Pixel2Pixel) -> None:
    image = torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"image is \[N,3,H,W\], got a tensor of shape \[3, 32, 32\]"):
        tiny(image[0])
    with pytest.raises(ValueError, match=r"shape \[1, 4, 32, 32\]"):
        tiny(torch.randn(1, 4, 32, 32))
    with pytest.raises(ValueError, match=r"takes image \(3 channels\), got 2 inputs"):
        tiny(image, image)
    with pytest.raises(ValueError, match=r"takes image \(3 channels\), got 0 inputs"):
        tiny()
    with pytest.raises(TypeError, match=r"got torch\.uint8: pass model\.preprocess"):
        tiny(image.byte())
    two = edgeseg.create_model("fpn", encoder="test_efficientnet", in_channels=(2, 3))
    with pytest.raises(ValueError, match=r"all inputs need one size, got flow \[32, 64\], image \[32, 32\]"):
        two(torch.randn(1, 2, 32, 64), image)
    with pytest.raises(ValueError, match=r"flow is \[N,2,H,W\], got a tensor of shape \[1, 3, 32, 32\]"):
        two(image, image)
    named = edgeseg.create_model("fpn", encoder="test_efficientnet", in_channels={"previous": 3, "image": 3})
    with pytest.raises(ValueError, match=r"takes previous \(3 channels\), image \(3 channels\), got 1 inputs"):
        named(image)
