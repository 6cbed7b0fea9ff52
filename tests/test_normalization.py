"""Encoder weights see what they saw in training, whatever the normalization of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

import edgeseg
from edgeseg import Preprocess
from edgeseg.weights.encoder import load_encoder
from edgeseg.weights.normalization import IMAGENET, first_layers

from .conftest import SHARED, TINY
from .test_encoders import randomize, timm_features, torchvision_mobilenet_features

CASES = {
    "mobilenetv2": (torchvision.models.mobilenet_v2, torchvision_mobilenet_features, IMAGENET),
    "regnetx400mf": (lambda: timm.create_model("regnetx_004"), timm_features, IMAGENET),
    TINY: (lambda: timm.create_model(TINY), timm_features, IMAGENET),
    "tf_efficientnet_lite0": (
        lambda: timm.create_model("tf_efficientnet_lite0"),
        timm_features,
        Preprocess(mean=(127.5,) * 3, std=(127.5,) * 3),
    ),
}


def pixels(size: int) -> Tensor:
    return torch.randint(0, 256, (1, 3, size, size)).float()


def normalized(image: Tensor, how: Preprocess) -> Tensor:
    mean, std = (torch.tensor(values).expand(3).view(1, 3, 1, 1) for values in (how.mean, how.std))
    return (image - mean) / std


def saved(library: nn.Module, path: Path) -> Path:
    save_file({key: value.contiguous() for key, value in library.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("encoder", CASES)
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_features_are_those_of_the_library(encoder: str, order: str, tmp_path: Path) -> None:
    """Away from the border, where convolutions pad with zeros: at stride 16, 20 cells."""
    make, features, trained = CASES[encoder]
    library: Any = randomize(make())
    model = edgeseg.create_model("fpn", encoder=encoder, channels=8, activation="relu6")
    if encoder == "regnetx400mf":
        model = edgeseg.create_model("fpn", encoder=encoder, channels=8)
    model.configure(preprocess=Preprocess(channel_order=order))  # type: ignore[arg-type]
    path = saved(library, tmp_path / "library.safetensors")
    load_encoder(model, path, normalization=trained)
    assert model.preprocess == Preprocess(channel_order=order)  # type: ignore[arg-type]
    image = pixels(704)
    ours = normalized(image if order == "rgb" else image.flip(1), model.preprocess)
    with torch.inference_mode():
        pairs = zip(model.eval().encoder([ours]), features(library, normalized(image, trained)), strict=True)
        for a, b in pairs:
            if (stride := 704 // a.shape[-1]) <= 16:
                cells = slice(320 // stride, 384 // stride)
                a, b = a[..., cells, cells], b[..., cells, cells]
                assert float((a - b).abs().max()) < 1e-3 * float(b.std()), stride


def test_timm_tells_its_normalization(tmp_path: Path) -> None:
    """A file for an encoder of timm is taken as timm's weights are trained, here with 127.5."""
    library: Any = timm.create_model("tf_efficientnet_lite0")
    path = saved(library, tmp_path / "library.safetensors")
    model = edgeseg.create_model("fpn", encoder="tf_efficientnet_lite0", channels=8, encoder_weights=path)
    stem = next(module for module in model.encoder.modules() if isinstance(module, nn.Conv2d))
    torch.testing.assert_close(stem.weight, library.conv_stem.weight * 64 / 127.5)


def test_our_own_files_say_their_normalization(tmp_path: Path) -> None:
    source = randomize(edgeseg.create_model("fpn", encoder=TINY, channels=8))
    source.configure(preprocess=Preprocess(mean=(10.0,), std=(20.0,)))
    edgeseg.save_checkpoint(source, tmp_path / "ours.safetensors")
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8, encoder_weights=tmp_path / "ours.safetensors").eval()
    image = pixels(512)
    with torch.inference_mode():
        a = model.encoder([normalized(image, model.preprocess)])[2]
        b = source.eval().encoder([normalized(image, source.preprocess)])[2]
    torch.testing.assert_close(a[..., 28:36, 28:36], b[..., 28:36, 28:36], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(channels: int, tmp_path: Path) -> None:
    source = randomize(edgeseg.create_model("fpn", encoder=TINY, channels=8, in_channels=(channels,)))
    source.configure(preprocess=Preprocess(mean=(10.0,) * channels, std=(20.0,) * channels))
    edgeseg.save_checkpoint(source, tmp_path / "ours.safetensors")
    model = edgeseg.create_model(
        "fpn", encoder=TINY, channels=8, in_channels=(channels,), encoder_weights=tmp_path / "ours.safetensors"
    ).eval()
    image = torch.randint(0, 256, (1, channels, 512, 512), dtype=torch.uint8)
    with torch.inference_mode():
        a, b = (each.eval().encoder([each.preprocess.normalize(image)])[2] for each in (model, source))
    torch.testing.assert_close(a[..., 28:36, 28:36], b[..., 28:36, 28:36], rtol=1e-4, atol=1e-4)


def test_networks_that_cannot_be_folded_take_the_normalization_over() -> None:
    """Where the image does not go into a convolution alone."""

    @edgeseg.register_encoder("pooling")
    class Pooling(nn.Module):
        channels, strides = (8, 16), (2, 4)

        def __init__(self, in_channels: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(in_channels, 5, 3, stride=2, padding=1)
            self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)

        def forward(self, image: Tensor) -> list[Tensor]:
            fine = torch.cat([self.first(image), nn.functional.avg_pool2d(image, 2)], dim=1)
            return [fine, self.second(fine)]

    model = edgeseg.create_model("fpn", encoder="pooling", channels=8, prediction_stride=2)
    assert first_layers(model) is None


def test_real_weights() -> None:
    path = SHARED / "data/weights/mobilenet_v2-b0353104.safetensors"
    if not path.is_file():
        pytest.skip(f"needs {path}, torchvision's MobileNetV2 weights that lie beside the checkout")
    from safetensors.torch import load_file

    library = torchvision.models.mobilenet_v2()
    library.load_state_dict(load_file(path))
    model = edgeseg.create_model("fpn", encoder="mobilenetv2", activation="relu6", encoder_weights=path).eval()
    image = nn.functional.interpolate(pixels(44), 704, mode="bicubic").clamp(0, 255)
    with torch.inference_mode():
        ours = model.encoder([normalized(image, model.preprocess)])[-1]
        theirs = torchvision_mobilenet_features(library.eval(), normalized(image, IMAGENET))[-1]
    middle = slice(9, 13)
    difference = (ours - theirs)[..., middle, middle].norm() / theirs[..., middle, middle].norm()
    assert float(difference) < 1e-3
