"""Names: listing, finding, registering, and what is said to a wrong call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgeseg
from edgeseg import ModelConfig, Task
from edgeseg.networks.encoders import ENCODERS, Block, Trunk
from edgeseg.spec import ModelSpec
from edgeseg.zoo.networks import ALIASES, PEERS, ZOO
from edgeseg.zoo.weights import WEIGHTS

from .conftest import TINY

FPN = "fpn_aspp_mobilenetv2_tv_edgeailite"


def test_list_models() -> None:
    names = edgeseg.list_models()
    assert names == sorted({*ZOO, *ALIASES, *PEERS})
    assert edgeseg.list_models("fpn128_*") == ["fpn128_aspp_mobilenetv2_tv_fd_edgeailite"]
    assert edgeseg.list_models("nothing*") == []
    assert edgeseg.list_models(pretrained=True) == sorted(WEIGHTS)
    assert all(edgeseg.is_model(name) for name in names)
    assert not edgeseg.is_model("resnet9000")


def test_lists_of_weights_take_names_without_tags() -> None:
    assert edgeseg.list_models("espnetv2_s2p0", pretrained=True) == edgeseg.list_weights("espnetv2_s2p0.*")
    assert edgeseg.list_models("espnetv2_s2p0.voc", pretrained=True) == ["espnetv2_s2p0.voc"]


def test_pretrained_is_no_tag() -> None:
    with pytest.raises(ValueError, match=r"pretrained is True or False, got 'street_photos'; .*lenetv2\.str"):
        edgeseg.create_model("fpnsum_mobilenetv2", pretrained="street_photos")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="drop in_chans; in_chans is called in_channels here"):
        edgeseg.create_model("fpnsum_mobilenetv2", pretrained=True, in_chans=1)


def test_model_info() -> None:
    info = edgeseg.model_info("fpn_aspp_regnetx1p6gf_bgr_edgeailite")
    assert info.name == "fpn_aspp_regnetx1p6gf_edgeailite"
    assert info.spec == ModelSpec(decoder="fpn", encoder="regnetx1p6gf", channels=264)
    assert list(edgeseg.model_info(f"{FPN}.camvid").weights) == ["camvid"]


def test_name_tells_decoder_and_encoder() -> None:
    for name, spec in ZOO.items():
        assert name.startswith(spec.decoder), name
        assert ("_fd_" in name) == spec.fast_down, name
        if name.endswith("_edgeailite"):
            encoder, _, width = spec.encoder.partition("_")
            assert encoder in name, name
            assert width in name, name
            assert spec.encoder in ENCODERS, name
        else:
            assert name.endswith(spec.encoder), name
        if spec.decoder != "deeplabv3plus":
            assert ("aspp" in name) == spec.aspp, name


def test_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(ValueError, match=r"fpn_aspp_regnetx80mf_edgeailite.*did you mean .*fpn_aspp_regnetx800mf"):
        edgeseg.create_model("fpn_aspp_regnetx80mf_edgeailite")
    with pytest.raises(ValueError, match=r"no weights 'mars'.*tags are: .*camvid"):
        edgeseg.create_model(f"{FPN}.mars")
    with pytest.raises(ValueError, match=r"unet_aspp_resnet50.* has no trained weights.*unet_.*imagenet"):
        edgeseg.create_model("unet_aspp_resnet50_edgeailite", pretrained=True)


def test_register_model() -> None:
    @edgeseg.register_model
    def my_net(config: ModelConfig, *, width: int = 4) -> nn.Module:
        return nn.Conv2d(config.in_channels[0], config.tasks["segmentation"].channels, width - 1)

    @edgeseg.register_model("other")
    def builder(config: ModelConfig) -> nn.Module:
        return my_net(config, width=6)

    model = edgeseg.create_model("my_net", num_classes=5, in_channels=(2,))
    assert isinstance(model, nn.Conv2d)
    assert model.weight.shape == (5, 2, 3, 3)
    assert edgeseg.create_model("other").weight.shape == (19, 3, 5, 5)
    assert "my_net" in edgeseg.list_models("my_*")
    with pytest.raises(ValueError, match="registered already"):
        edgeseg.register_model("my_net")(builder)
    with pytest.raises(ValueError, match="weights tag"):
        edgeseg.register_model("my.net")(builder)


def test_options_that_leave_no_trace_in_weights_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, dilations=(1, 2, 3), activation="relu6").eval()
    edgeseg.save_checkpoint(model, path)
    loaded = edgeseg.create_model("fpn", encoder=TINY, channels=16, checkpoint_path=path).eval()
    image = torch.randn(1, 3, 64, 96)
    assert torch.equal(model(image)["segmentation"], loaded(image)["segmentation"])
    other = edgeseg.create_model("fpn", encoder=TINY, channels=16, dilations=(1, 1, 1), checkpoint_path=path)
    assert other.config.spec is not None
    assert (other.config.spec.dilations, other.config.spec.activation) == ((1, 1, 1), "relu6")


def test_contradictions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_classes or tasks"):
        edgeseg.create_model(FPN, num_classes=3, tasks={"a": Task("segmentation", 3)})
    for nothing in ({}, {"a": 5}):
        with pytest.raises(ValueError, match="a Task for each name"):
            edgeseg.create_model(FPN, tasks=nothing)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"such as \(3,\) or \(2, 3\); got"):
        edgeseg.create_model(FPN, in_channels=())
    assert edgeseg.create_model(FPN, in_channels=4).in_channels == (4,)
    with pytest.raises(ValueError, match="drop channels"):
        edgeseg.create_model(FPN, pretrained=True, channels=64)
    with pytest.raises(ValueError, match="not both"):
        edgeseg.create_model(FPN, pretrained=True, checkpoint_path=tmp_path / "x.pth")
    with pytest.raises(ValueError, match="would be overwritten"):
        edgeseg.create_model(FPN, pretrained=True, encoder_weights=tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"no option chanels; the options are decoder, encoder, channels"):
        edgeseg.create_model(FPN, chanels=64)
    with pytest.raises(ValueError, match="needs an encoder"):
        edgeseg.create_model("fpn")
    with pytest.raises(ValueError, match="no decoder named 'pan'"):
        edgeseg.create_model(FPN, decoder="pan")
    with pytest.raises(ValueError, match="activation is one of relu, relu6; got 'gelu'"):
        edgeseg.create_model(FPN, activation="gelu")
    with pytest.raises(ValueError, match="output_stride=8"):
        edgeseg.create_model(FPN, output_stride=8)


def test_task_checks() -> None:
    with pytest.raises(ValueError, match="unknown task kind"):
        Task("panoptic", 3)
    with pytest.raises(ValueError, match="2 class names for a task of 3 classes; give one per class"):
        Task("segmentation", 3, classes=("a", "b"))
    with pytest.raises(ValueError, match=r"Task.channels must be 1 to 65536, got 0"):
        Task("segmentation", 0)


def test_short_forms() -> None:
    """What users of other libraries write."""
    assert Task(classes=("a", "b")).channels == 2
    assert Task(classes=("a", "b"), palette=np.array([(1, 2, 3), (4, 5, 6)])).palette == ((1, 2, 3), (4, 5, 6))  # type: ignore[arg-type]
    assert edgeseg.is_model("fpnsum_mobilenetv2.camvid")
    assert not edgeseg.is_model("fpnsum_mobilenetv2.cityscapes")
    with pytest.raises(ValueError, match="num_classes must be a number of classes, at least 1, got 0"):
        edgeseg.create_model(FPN, num_classes=0)
    with pytest.raises(ValueError, match=r"features_only is called model\.encoder\(images\) here"):
        edgeseg.create_model(FPN, features_only=True)
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8)
    image = torch.zeros(1, 3, 64, 64)
    shapes = [feature.shape for feature in model.encoder(image)]
    assert shapes == [feature.shape for feature in model.encoder([image])]


def test_paths_for_names(tmp_path: Path) -> None:
    edgeseg.create_model("fpn", encoder=TINY, channels=8).save_pretrained(tmp_path / "saved")
    for name, problem in (
        (tmp_path / "none.safetensors", "there is no file .*; a file of weights is passed as checkpoint_path"),
        (tmp_path / "saved/model.safetensors", "is a file, not the name of a model; pass it as checkpoint_path"),
        (tmp_path / "saved", "for a saved model pass local-dir:"),
    ):
        with pytest.raises(ValueError, match=problem):
            edgeseg.create_model(str(name))


def test_decorators_need_a_name() -> None:
    """Without parentheses they would replace the class by a function and register nothing."""
    for decorator in (edgeseg.register_decoder, edgeseg.register_encoder):
        with pytest.raises(TypeError, match=r"takes a name: @edgeseg\.register_"):
            decorator(nn.Identity)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="'mine' stands for a class or a function, got 3"):
            decorator("mine")(3)  # type: ignore[type-var]
    for default in ({"foo": 3}, {"decoder": "fpn"}, {"encoder": "resnet18"}):
        with pytest.raises(ValueError, match=r"no default (foo|decoder|encoder); the defaults are channels"):
            edgeseg.register_decoder("mine", **default)
    with pytest.raises(ValueError, match="an encoder named 'espnetv2_s0p5' is registered already"):
        edgeseg.register_encoder("espnetv2_s0p5")(nn.Identity)
    with pytest.raises(ValueError, match="'fpn' is a decoder; leave out decoder, or pass 'unet' as the name"):
        edgeseg.create_model("fpn", decoder="unet", encoder=TINY)


def test_options_of_a_builder_that_leave_no_trace_in_weights(tmp_path: Path) -> None:
    @edgeseg.register_model("mine")
    def build(config: ModelConfig, *, dilation: int = 1, mode: str = "a") -> edgeseg.Pixel2Pixel:
        model = edgeseg.create_model("fpn", encoder=TINY, channels=8, tasks=config.tasks)
        return edgeseg.Pixel2Pixel(model.encoder, dict(model.decoders.items()), config)

    path = tmp_path / "mine.safetensors"
    edgeseg.save_checkpoint(edgeseg.create_model("mine", dilation=4), path)
    found = edgeseg.create_model("mine", checkpoint_path=path, mode="b")
    assert found.config.options == {"dilation": 4, "mode": "b"}
    edgeseg.load_checkpoint(edgeseg.create_model("mine", dilation=4), path)
    with pytest.raises(ValueError, match="mine, whose dilation is 4 in the file and None here"):
        edgeseg.load_checkpoint(edgeseg.create_model("mine"), path)


@pytest.mark.parametrize(
    ("names", "stem", "message"),
    [
        (("a", "a"), 1, "need names of their own"),
        (("a", "b.c"), 1, "need names of their own"),
        (("a", "keys"), 1, "need names of their own"),
        (("a", "b"), 0, "cannot have 0 first blocks"),
        (("a", "b"), 3, "cannot have 3 first blocks"),
        ((), 0, "cannot have 0 first blocks"),
    ],
)
def test_blocks_of_a_trunk(names: tuple[str, ...], stem: int, message: str) -> None:
    @edgeseg.register_encoder("mine")
    def build(in_channels: int) -> Trunk:
        return Trunk([Block(name, nn.Conv2d(in_channels, 3, 3, 2, 1), 3, 2) for name in names], stem)

    with pytest.raises(ValueError, match=message):
        edgeseg.create_model("fpn", encoder="mine", in_channels=(3, 3), prediction_stride=2)
