"""timm networks as encoders: each one that is accepted takes images of any size, the others are refused when built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import edgeseg
from edgeseg.networks.encoders import build_encoder

from .conftest import TINY

# Networks of different kinds; those in the first list are small enough to be tried each time.
QUICK = [
    TINY, "test_resnet", "test_convnext", "mobilenetv4_conv_small", "ghostnet_100", "repvit_m0_9", "hrnet_w18_small",
    "dla46_c", "selecsls42b", "efficientvit_m0", "swin_tiny_patch4_window7_224", "mobilevit_xxs",
]  # fmt: skip
OTHERS = [
    "resnet18", "resnet34", "resnet50d", "resnext50_32x4d", "res2net50_26w_4s", "skresnet18", "densenet121",
    "inception_v3", "legacy_xception", "xception41", "vgg11", "regnety_002", "tresnet_m", "cspresnet50", "dla34",
    "hrnet_w18", "vovnet39a", "rexnet_100", "tf_efficientnet_b0", "mixnet_s", "lcnet_050", "mobileone_s0",
    "starnet_s1", "hgnet_tiny", "csatv2", "convnext_atto", "edgenext_xx_small", "fastvit_t8", "repvgg_a0",
    "efficientvit_b0", "mobilenetv4_hybrid_medium", "swinv2_tiny_window8_256", "swinv2_cr_tiny_ns_224",
    "maxvit_tiny_tf_224", "pvt_v2_b0", "tiny_vit_5m_224", "mvitv2_tiny", "davit_tiny", "focalnet_tiny_srf",
    "poolformer_s12", "twins_pcpvt_small", "mambaout_femto", "shvit_s1", "halonet26t", "lambda_resnet26t",
]  # fmt: skip
FIXED = ["coat_lite_tiny", "coatnet_0_rw_224", "efficientformer_l1", "hiera_tiny_224", "crossvit_tiny_240"]


def check(encoder: str, decoder: str) -> None:
    """Odd sizes, also below the network's largest stride, with outputs of the images' size."""
    stride = build_encoder(encoder, (3,)).strides[-1]
    options: dict[str, Any] = {"output_stride": stride} if decoder == "deeplabv3plus" else {}
    model = edgeseg.create_model(decoder, encoder=encoder, num_classes=2, channels=8, **options).eval()
    for size in [(75, 107), (7, 1)]:
        with torch.inference_mode():
            logits = model(torch.randn(1, 3, *size))["segmentation"]
        assert logits.shape == (1, 2, *size)
        assert bool(logits.isfinite().all())


@pytest.mark.parametrize("encoder", QUICK)
def test_any_size(encoder: str) -> None:
    check(encoder, "fpn")


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [*QUICK, *OTHERS])
@pytest.mark.parametrize("decoder", ["fpn", "unet", "bifpn", "deeplabv3plus", "fpnsum"])
def test_any_size_with_every_decoder(encoder: str, decoder: str) -> None:
    check(encoder, decoder)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [*QUICK, *OTHERS])
def test_any_size_with_the_decoder_of_espnetv2(encoder: str) -> None:
    """It needs features at four strides; an encoder without them is refused when the network is built."""
    try:
        edgeseg.create_model("espnetv2", encoder=encoder, num_classes=2)
    except ValueError as error:
        assert re.search(r"strides 2, 4, 8 and 16|ends at stride", str(error))  # noqa: PT017 (others are tried below)
    else:
        check(encoder, "espnetv2")


@pytest.mark.parametrize("encoder", FIXED)
def test_fixed_sizes_are_refused_when_built(encoder: str) -> None:
    with pytest.raises(ValueError, match=rf"{encoder}' does not take images of any size.* built for 2\d\dx2"):
        edgeseg.create_model("fpn", encoder=encoder)


def test_padding_changes_nothing_where_it_is_not_needed() -> None:
    """At a size that suits the network the features are its own; beyond it they are those of the padded image."""
    encoder = build_encoder("hrnet_w18_small", (3,)).eval()
    assert (encoder.multiple, encoder.minimum) == (32, 0)
    network: Any = encoder.get_submodule("network")
    image = torch.randn(1, 3, 64, 96)
    padded = torch.nn.functional.pad(image[:, :, :51, :70], (0, 26, 0, 13))
    with torch.inference_mode():
        for ours, theirs in zip(encoder([image]), network(image), strict=True):
            assert torch.equal(ours, theirs)
        for ours, theirs, stride in zip(
            encoder([image[:, :, :51, :70]]), network(padded), encoder.strides, strict=True
        ):
            assert torch.equal(ours, theirs[:, :, : -(-51 // stride), : -(-70 // stride)])


@pytest.mark.parametrize(
    "name", [TINY, "swin_tiny_patch4_window7_224", "twins_svt_small", "selecsls42b", "hrnet_w18_small"]
)
def test_weights_of_timm(name: str, tmp_path: Path) -> None:
    """timm renames parts of some networks to get their features; its weights fit all the same."""
    network = timm.create_model(name)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, tmp_path / "timm.safetensors")
    encoder = edgeseg.create_model(
        "fpn", encoder=name, channels=8, num_classes=2, encoder_weights=tmp_path / "timm.safetensors"
    ).encoder
    theirs = {value.double().sum().item() for value in network.state_dict().values() if value.ndim > 1}
    ours = [value.double().sum().item() for value in encoder.state_dict().values() if value.ndim > 1]
    fold = 1  # the first convolution has another normalization folded in
    assert sum(each not in theirs for each in ours) <= fold


def test_padding_with_two_inputs() -> None:
    model = edgeseg.create_model("unet", encoder="dla46_c", in_channels=(3, 2), num_classes=2, channels=8).eval()
    with torch.inference_mode():
        logits = model(torch.randn(1, 3, 50, 70), torch.randn(1, 2, 50, 70))["segmentation"]
    assert logits.shape == (1, 2, 50, 70)
    with pytest.raises(ValueError, match="takes a single input"):
        edgeseg.create_model("fpn", encoder="selecsls42b", in_channels=(3, 3))


@pytest.mark.slow
def test_export_of_a_padded_encoder(tmp_path: Path) -> None:
    """The file takes any size, beyond those at which it was traced and compared too."""
    ort = pytest.importorskip("onnxruntime")
    model = edgeseg.create_model("fpn", encoder="dla46_c", num_classes=2, channels=8).eval()
    edgeseg.export_onnx(model, tmp_path / "m.onnx", size=(64, 96))
    session = ort.InferenceSession(tmp_path / "m.onnx")
    for size in [(75, 131), (160, 129), (31, 33)]:
        image = torch.randn(1, 3, *size)
        with torch.inference_mode():
            expected = model(image)["segmentation"]
        (output,) = session.run(None, {"image": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(output), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("encoder", "dilated"),
    [("resnet18", False), ("ghostnet_100", False), ("fastvit_t8", False), ("test_resnet", None), ("resnet50d", True)],
)
def test_stride_16(encoder: str, dilated: bool | None) -> None:
    """`deeplabv3plus` ends at stride 16, without dilation; where pooling halves the size, by timm's own dilation."""
    model = edgeseg.create_model("deeplabv3plus", encoder=encoder, num_classes=2, channels=8).eval()
    network: Any = model.encoder
    assert network.strides[-1] == 16
    with torch.inference_mode():
        features = network([torch.randn(1, 3, 64, 96)])
        assert model(torch.randn(1, 3, 75, 107))["segmentation"].shape == (1, 2, 75, 107)
    assert features[-1].shape[1:] == (network.channels[-1], 4, 6)
    dilations = {m.dilation for m in network.modules() if isinstance(m, torch.nn.Conv2d)}
    assert dilated is None or (len(dilations) > 1) == dilated


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["resnet34", "resnext50_32x4d", "convnext_atto", "xception41", "ghostnetv2_100"])
def test_stride_16_of_others(encoder: str) -> None:
    test_stride_16(encoder, None)


@pytest.mark.parametrize("encoder", ["resnet18", "resnet50d"])
def test_stride_16_takes_timm_weights(encoder: str, tmp_path: Path) -> None:
    library = timm.create_model(encoder)
    save_file({k: v.contiguous() for k, v in library.state_dict().items()}, tmp_path / "w.safetensors")
    model = edgeseg.create_model(
        "deeplabv3plus", encoder=encoder, channels=8, encoder_weights=tmp_path / "w.safetensors"
    )
    own = {value.data_ptr(): value for value in model.encoder.state_dict().values()}
    last = library.state_dict()["layer4.1.conv2.weight"]
    assert any(value.shape == last.shape and torch.equal(value, last) for value in own.values())


def test_strides_that_cannot_be_had() -> None:
    with pytest.raises(ValueError, match="'selecsls42b' ends at stride 32; pass output_stride=32"):
        edgeseg.create_model("deeplabv3plus", encoder="selecsls42b")
    with pytest.raises(ValueError, match="'efficientvit_m0' ends at stride 64; pass output_stride=64"):
        edgeseg.create_model("fpn", encoder="efficientvit_m0", output_stride=16)
    assert build_encoder("efficientvit_m0", (3,)).strides == [16, 32, 64]
    assert edgeseg.create_model("fpn", encoder="efficientvit_m0", channels=8, output_stride=64)


def test_trying_costs_no_random_numbers_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """The weights of an untrained network depend on the seed alone, not on whether its encoder was tried before."""
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        states.append(edgeseg.create_model("fpn", encoder="test_resnet", channels=8).state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert capfd.readouterr() == ("", "")
