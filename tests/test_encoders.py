"""Encoders: ImageNet weights in every library's layout, and any timm network."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

import edgeseg
from edgeseg.networks.encoders import Encoder, build_encoder
from edgeseg.weights.encoder import load_encoder

from .conftest import SHARED, TINY

SWIN = "swin_tiny_patch4_window7_224"
Network = TypeVar("Network", bound=nn.Module)


def randomize(model: Network) -> Network:
    """Batch norms with statistics of their own, so that a mixed-up tensor shows."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def with_relu(model: nn.Module) -> nn.Module:
    """The original's MobileNetV2 of width 1 has ReLU where the libraries have ReLU6."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.ReLU())
    return model


def filled(model: edgeseg.Pixel2Pixel, path: Path) -> edgeseg.Pixel2Pixel:
    """With the weights of a file as they are, whatever their normalization (see test_normalization.py)."""
    load_encoder(model, path, normalization=model.preprocess)
    return model.eval()


def timm_features(model: Any, x: Tensor) -> list[Tensor]:
    return model.forward_intermediates(x, intermediates_only=True)


def torchvision_mobilenet_features(model: Any, x: Tensor) -> list[Tensor]:
    features = []
    for i, layer in enumerate(model.features[:18]):
        x = layer(x)
        features += [x] * (i in (1, 3, 6, 13, 17))
    return features


def torchvision_regnet_features(model: Any, x: Tensor) -> list[Tensor]:
    features = [model.stem(x)]
    for stage in model.trunk_output:
        features.append(stage(features[-1]))
    return features


LIBRARIES = {
    "mobilenetv2-torchvision": (
        "fpn_aspp_mobilenetv2_tv_edgeailite",
        lambda: with_relu(torchvision.models.mobilenet_v2()),
        torchvision_mobilenet_features,
    ),
    "mobilenetv2-timm": (
        "fpn_aspp_mobilenetv2_tv_edgeailite",
        lambda: timm.create_model("mobilenetv2_100", act_layer=nn.ReLU),
        timm_features,
    ),
    "mobilenetv2_1p4-timm": (
        "fpn_aspp_mobilenetv2_1p4_tv_edgeailite",
        lambda: timm.create_model("mobilenetv2_140"),
        timm_features,
    ),
    "regnetx400mf-timm": (
        "fpn_aspp_regnetx400mf_edgeailite",
        lambda: timm.create_model("regnetx_004"),
        timm_features,
    ),
    "regnetx1p6gf-torchvision": (
        "fpn_aspp_regnetx1p6gf_edgeailite",
        torchvision.models.regnet_x_1_6gf,
        torchvision_regnet_features,
    ),
    "resnet50-timm": ("fpn_aspp_resnet50_edgeailite", lambda: timm.create_model("resnet50"), timm_features),
}

# A network that is a row of modules, one with stages in one Sequential, one without a stride-2 feature, one that cannot
# be taken apart. Swin, slower, answers channels last.
TIMM_ENCODERS = [TINY, "resnet18", "mobilenetv3_small_100", "regnetx_002", "convnext_atto", "hrnet_w18_small"]


@pytest.mark.parametrize("case", LIBRARIES)
def test_library_layout(case: str, tmp_path: Path) -> None:
    """The encoder gives the features of the library's own network, from a file of that network's weights."""
    name, build, features = LIBRARIES[case]
    library = randomize(build())
    save_file({k: v.contiguous() for k, v in library.state_dict().items()}, tmp_path / "imagenet.safetensors")
    model = filled(edgeseg.create_model(name), tmp_path / "imagenet.safetensors")
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        ours, theirs = model.encoder([x]), features(library, x)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.std()))


def test_torchvision_resnet50_is_laid_out_as_timm() -> None:
    assert set(torchvision.models.resnet50().state_dict()) == set(timm.create_model("resnet50").state_dict())


def test_pycls_layout(tmp_path: Path) -> None:
    """pycls keeps the weights under model_state and trains on BGR: on RGB the answer must be the same."""
    name = "fpn_aspp_regnetx400mf_edgeailite"
    source = randomize(edgeseg.create_model(name))
    blocks = {}
    for key, value in source.encoder.state_dict().items():
        blocks[key.replace("streams.0.", "").replace("trunk.", "")] = value.clone()
    blocks["stem.conv.weight"] = blocks["stem.conv.weight"].flip(1)
    blocks |= {"head.fc.weight": torch.zeros(1000, 384), "head.fc.bias": torch.zeros(1000)}
    torch.save({"epoch": 100, "model_state": blocks}, tmp_path / "RegNetX-400MF_dds_8gpu.pyth")
    model = filled(edgeseg.create_model(name), tmp_path / "RegNetX-400MF_dds_8gpu.pyth")
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for a, b in zip(model.encoder([x]), source.encoder([x]), strict=True):
            torch.testing.assert_close(a, b)


def test_every_stream_is_filled(tmp_path: Path) -> None:
    torch.save(torchvision.models.mobilenet_v2().state_dict(), tmp_path / "mobilenet_v2.pth")
    model = edgeseg.create_model(
        "deeplabv3plus_mobilenetv2_tv_edgeailite", in_channels=(3, 3), encoder_weights=tmp_path / "mobilenet_v2.pth"
    )
    encoder: Any = model.encoder
    first, second = (stream.state_dict() for stream in encoder.streams)
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("encoder", ["regnetx_004", TINY])
def test_encoder_of_another_network_of_ours(encoder: str, tmp_path: Path) -> None:
    """Whatever its decoders and classes; a further input gets a copy."""
    source = randomize(edgeseg.create_model("fpn", encoder=encoder, num_classes=2))
    edgeseg.save_checkpoint(source, tmp_path / "ours.safetensors")
    model = edgeseg.create_model(
        "unet",
        encoder=encoder,
        in_channels={"gray": 1, "image": 3},
        num_classes=5,
        encoder_weights=tmp_path / "ours.safetensors",
    )
    theirs, ours = source.encoder.state_dict(), model.encoder.state_dict()
    for key, value in ours.items():
        if not key.startswith("fusion.") and value.shape[1:2] != (1,):
            assert torch.equal(value, theirs[key.replace("streams.1.", "streams.0.")]), key
    with pytest.raises(ValueError, match="does not fit this model"):
        edgeseg.create_model("fpn_aspp_resnet50_edgeailite", encoder_weights=tmp_path / "ours.safetensors")


def test_encoder_file_that_does_not_fit(tmp_path: Path) -> None:
    state = torchvision.models.mobilenet_v2().state_dict()
    state["features.99.weight"] = state.pop("features.3.conv.2.weight")
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(
        ValueError, match=r"1 missing \(streams\.0\.3\.conv\.2\.weight\); 1 unexpected \(trunk\.99\.weight"
    ):
        edgeseg.create_model("fpn_aspp_mobilenetv2_tv_edgeailite", encoder_weights=tmp_path / "odd.pth")
    torch.save(torchvision.models.regnet_x_400mf().state_dict(), tmp_path / "regnet_x_400mf.pth")
    with pytest.raises(ValueError, match="of another shape"):  # torchvision's last stage has 400 channels, not 384
        edgeseg.create_model("fpn_aspp_regnetx400mf_edgeailite", encoder_weights=tmp_path / "regnet_x_400mf.pth")


def test_real_imagenet_weights() -> None:
    path = SHARED / "data/weights/mobilenet_v2-b0353104.safetensors"
    if not path.is_file():
        pytest.skip(f"needs {path}, torchvision's MobileNetV2 weights that lie beside the checkout")
    model = edgeseg.create_model("unet_aspp_mobilenetv2_tv_edgeailite", encoder_weights=path)
    encoder: Any = model.encoder
    assert float(encoder.streams[0]["0"][1].running_var.mean()) != 1.0


@pytest.mark.parametrize(
    ("name", "decoder"), [*product(TIMM_ENCODERS, ["fpn", "unet", "bifpn", "deeplabv3plus", "fpnsum"]), (SWIN, "fpn")]
)
def test_timm_encoder(name: str, decoder: str) -> None:
    """Features are those of the timm network itself; every decoder works on them."""
    options: dict[str, Any] = {"output_stride": 32} if decoder == "deeplabv3plus" else {}
    model = edgeseg.create_model(decoder, encoder=name, num_classes=3, channels=16, **options).eval()
    size = (224, 224) if name == SWIN else (64, 96)
    with torch.inference_mode():
        assert model(torch.randn(1, 3, *size))["segmentation"].shape == (1, 3, *size)


@pytest.mark.parametrize("name", [TINY, "resnet18", "mobilenetv3_small_100", "regnetx_002", "convnext_atto"])
def test_timm_weights(name: str, tmp_path: Path) -> None:
    library = randomize(timm.create_model(name))
    save_file({k: v.contiguous() for k, v in library.state_dict().items()}, tmp_path / "w.safetensors")
    model = filled(edgeseg.create_model("fpn", encoder=name, channels=8), tmp_path / "w.safetensors")
    reference = timm.create_model(name, features_only=True)
    state = library.state_dict()
    own = reference.state_dict()
    flat = {k: next(v for n, v in state.items() if n.replace(".", "_") == k.replace(".", "_")) for k in own}
    reference.load_state_dict(flat)
    reference.eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for a, b in zip(model.encoder([x]), reference(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    encoder: Any = model.encoder
    information: Any = reference.feature_info
    assert encoder.channels == information.channels()
    assert encoder.strides == information.reduction()


def test_timm_output_stride() -> None:
    encoder = build_encoder(TINY, (3,), output_stride=16)
    assert encoder.strides == [2, 4, 8, 16]
    assert [f.shape[-1] for f in encoder([torch.randn(1, 3, 64, 64)])] == [32, 16, 8, 4]
    with pytest.raises(ValueError, match="pass output_stride=32"):
        build_encoder("hrnet_w18_small", (3,), output_stride=16)


def test_timm_two_inputs() -> None:
    model = edgeseg.create_model("unet", encoder=TINY, in_channels=(3, 2), num_classes=3).eval()
    with torch.inference_mode():
        output = model(torch.randn(1, 3, 50, 70), torch.randn(1, 2, 50, 70))
    assert output["segmentation"].shape == (1, 3, 50, 70)
    with pytest.raises(ValueError, match="takes a single input"):
        edgeseg.create_model("fpn", encoder="hrnet_w18_small", in_channels=(3, 3))


def test_timm_refusals() -> None:
    with pytest.raises(ValueError, match=r"no encoder named 'resnet1818'.*did you mean .*resnet18"):
        edgeseg.create_model("fpn", encoder="resnet1818")
    with pytest.raises(ValueError, match="not a pyramid"):
        edgeseg.create_model("fpn", encoder="vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="fast_down is an option of the zoo's own encoders"):
        edgeseg.create_model("fpn", encoder="resnet18", fast_down=True)


def test_group_width() -> None:
    assert build_encoder("mobilenetv2", (3,)).group_width == 1
    assert build_encoder("resnet50_p5", (3,)).group_width == 1
    assert build_encoder("regnetx1p6gf", (3,)).group_width == 24
    assert build_encoder("regnetx_002", (3,)).group_width == 8


def test_regnetx_fast_down() -> None:
    encoder = build_encoder("regnetx400mf", (3, 3), fast_down=True, output_stride=64)
    assert isinstance(encoder, Encoder)
    features = encoder([torch.randn(1, 3, 128, 128)] * 2)
    assert encoder.strides == [2, 4, 8, 16, 32, 64]
    assert [128 // f.shape[-1] for f in features] == encoder.strides
    assert [f.shape[1] for f in features] == encoder.channels
