"""The systems that the table compares with: what they cost, that they train as the zoo's networks, what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import get_model

import edgeseg
from edgeseg.networks.quantized import quantize_aware
from edgeseg.spec import Quantization, Task
from edgeseg.zoo.networks import PEERS


@pytest.mark.parametrize("name", PEERS)
def test_trains_and_answers(name: str) -> None:
    tasks = {"semantic": Task("segmentation", 5), "motion": Task("segmentation", 2)}
    model = edgeseg.create_model(name, tasks=tasks)
    answers = model(torch.randn(2, 3, 72, 100))
    assert {key: list(value.shape) for key, value in answers.items()} == {
        "semantic": [2, 5, 72, 100],
        "motion": [2, 2, 72, 100],
    }
    sum(value.square().mean() for value in answers.values()).backward()
    assert [key for key, value in model.named_parameters() if value.grad is None] == []
    encoder: Any = model.encoder
    features = encoder([torch.zeros(1, 3, 128, 64)])
    assert [feature.shape[1] for feature in features] == list(encoder.channels)
    assert [128 // feature.shape[2] for feature in features] == list(encoder.strides)


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.module == "torchvision"])
def test_torchvision_logits(name: str) -> None:
    theirs = get_model(PEERS[name].options["name"], weights=None, weights_backbone=None, num_classes=19).eval()
    model = edgeseg.create_model(name).eval()
    encoder: Any = model.encoder
    decoder: Any = model.decoders["segmentation"]
    encoder.network.load_state_dict(theirs.backbone.state_dict())
    decoder.head.load_state_dict(theirs.classifier.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(model(image)["segmentation"], theirs(image)["out"])


# Parameters and multiply-accumulates of the papers; TensorFlow's zoo counts at the size of whole images, 2049x1025.
@pytest.mark.parametrize(
    ("name", "classes", "size", "params", "gmacs", "tolerance"),
    [
        ("erfnet", 20, (512, 1024), 2.1e6, 27.705, 0.05),
        ("swiftnet_mobilenetv2", 19, (1024, 2048), 2.4e6, 41.0, 0.07),
        ("deeplab_mobilenetv2", 19, (1025, 2049), 2.11e6, 21.27, 0.002),
        ("lraspp_mobilenetv3_large_tv", 19, (1025, 2049), 3.22e6, 15.95, 0.01),
        pytest.param("deeplabv3plus_xception65", 19, (1025, 2049), 41.05e6, 418.64, 0.001, marks=pytest.mark.slow),
    ],
)
def test_as_large_as_published(
    name: str, classes: int, size: tuple[int, int], params: float, gmacs: float, tolerance: float
) -> None:
    cost = edgeseg.complexity(edgeseg.create_model(name, num_classes=classes), size)
    assert cost.params == pytest.approx(params, rel=0.03)
    assert cost.gmacs == pytest.approx(gmacs, rel=tolerance)


def test_quantization_aware_files_load(tmp_path: Path) -> None:
    """They round in training like the networks that have a spec, so their files have to be read like those."""
    model = edgeseg.create_model("erfnet", num_classes=3).eval()
    quantized = quantize_aware(model, Quantization(), [[torch.rand(1, 3, 64, 64)]]).eval()
    edgeseg.save_checkpoint(quantized, tmp_path / "int8.safetensors")
    found = edgeseg.create_model(checkpoint_path=tmp_path / "int8.safetensors").eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(found(image)["segmentation"], quantized(image)["segmentation"])


def test_to_a_folder_and_back(tmp_path: Path) -> None:
    model = edgeseg.create_model("erfnet", num_classes=3).eval()
    model.save_pretrained(tmp_path)
    again = edgeseg.create_model(f"local-dir:{tmp_path}").eval()
    image = torch.randn(1, 3, 32, 48)
    with torch.inference_mode():
        torch.testing.assert_close(again(image)["segmentation"], model(image)["segmentation"])


def test_what_they_do_not_have() -> None:
    with pytest.raises(ValueError, match=r"takes one image of 3 channels, got in_channels=\(3, 3\)"):
        edgeseg.create_model("erfnet", in_channels=(3, 3))
    with pytest.raises(ValueError, match="no option channels"):
        edgeseg.create_model("lraspp_mobilenetv3_large_tv", channels=64)
