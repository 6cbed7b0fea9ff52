"""A kind of task, a decoder and an encoder of a user's own, through the public way alone."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import edgeseg
from edgeseg import ModelSpec, Task
from edgeseg.cli import main
from edgeseg.data import Streets
from edgeseg.data.transforms import AUGMENTATIONS, Augmented
from edgeseg.engine import TrainConfig, evaluate_tasks, train
from edgeseg.networks.decoders import DECODERS, Decoder, Pyramid
from edgeseg.networks.encoders import Block, Trunk
from edgeseg.networks.layers import ConvNormAct
from edgeseg.tasks import KINDS, Regression
from edgeseg.tasks.table import table
from edgeseg.zoo.networks import FAMILIES

from .conftest import ROOT, TINY


class AngleError:
    """Mean angle between normals, in degrees."""

    higher_is_better = False

    def __init__(self) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        known = target.square().sum(dim=-3) > 0
        cosine = F.cosine_similarity(prediction, target, dim=-3)[known].clamp(-1, 1).double()
        self.sums += torch.stack([torch.rad2deg(cosine.acos()).sum(), known.sum().double()])

    def reduce(self, total: Callable[[Tensor], Tensor]) -> None:
        self.sums = total(self.sums)

    @property
    def counted(self) -> int:
        return int(self.sums[1])

    def headline(self, protocol: str) -> tuple[str, float]:
        return "angle", float(self.sums[0] / self.sums[1])

    def scores(self, task: Task, protocol: str) -> dict[str, Any]:
        return {"protocol": protocol, "angle": self.headline(protocol)[1]}


class Normals(Regression):
    """Surface normals [N, 3, H, W]; a ground truth of length 0 is unknown."""

    def check(self, task: Task) -> None:
        task.require(task.channels == 3, "channels", "is 3 for normals")

    def loss(self, outputs: Tensor, targets: Tensor, recipe: TrainConfig, class_weights: Tensor | None) -> Tensor:
        known = targets.square().sum(dim=1) > 0
        return (1 - F.cosine_similarity(outputs, targets, dim=1))[known].sum() / known.sum().clamp(min=1)

    def metric(self, task: Task) -> AngleError:
        return AngleError()


class Surfaces(torch.utils.data.Dataset[Any]):
    """Streets with classes, and normals that follow from them: up on the ground, towards the camera elsewhere."""

    def __init__(self, length: int, split: str = "train") -> None:
        self.data = Streets(split, (64, 96), length=length)
        self.tasks = {"semantic": self.data.task, "normals": Task("normals", 3, range=(-1, 1))}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        image, labels = self.data[index]
        normals = torch.zeros(3, *labels.shape)
        normals[1] = (labels <= 1).float()
        normals[2] = ((labels > 1) & (labels != 10)).float()  # the sky has none
        return image, {"semantic": labels, "normals": normals}


@pytest.fixture
def model() -> edgeseg.Pixel2Pixel:
    edgeseg.register_kind("normals", Normals())
    return edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks=Surfaces(1).tasks)


def test_a_kind_of_ones_own(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    """It trains, scores, predicts, draws, is saved and exported without a line in the package."""
    config = TrainConfig(
        epochs=12, batch_size=4, img_resize=(64, 96), rand_crop=(64, 96), rand_scale=(1, 1), lr=0.02, workers=0,
        evaluate_every=6, ema=0.9, balancing="uncertainty",
    )  # fmt: skip
    before = evaluate_tasks(model, Surfaces(4, "val"), tasks=["normals"])["normals"].headline("native")[1]
    trained = train(model, Surfaces(8), Surfaces(4, "val"), config, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["normals_loss"] < rows[0]["normals_loss"]
    assert rows[-1]["normals_angle"] < before
    assert (tmp_path / "samples.png").is_file()
    scores = evaluate_tasks(trained, Surfaces(2, "val"), tasks=["normals"])["normals"].scores(
        model.tasks["normals"], "native"
    )
    (name,) = set(scores) - {"protocol"}
    assert table(scores).split() == [name, f"{scores[name]:.2f}"]  # figures that the package does not know are shown
    photo = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    maps = trained.predict_tasks(photo)
    assert maps["normals"].shape == (60, 90, 3)
    assert maps["normals"].dtype == np.float32
    assert np.abs(maps["normals"]).max() <= 1 + 1e-6
    assert trained.predict(photo, task="normals", tile=(40, 40)).shape == (60, 90, 3)
    loaded = edgeseg.create_model("fpn", checkpoint_path=tmp_path / "last.safetensors")
    assert np.abs(loaded.predict(photo, task="normals") - maps["normals"]).max() < 1e-3
    for output in ("labels", "small_logits"):
        path = tmp_path / f"{output}.onnx"
        edgeseg.export_onnx(trained, path, size=(64, 96), output=output, dynamic=())
        segmenter = edgeseg.OnnxSegmenter(path)
        found = segmenter.predict(photo, task="normals")
        assert found.shape == (60, 90, 3)
        assert np.abs(found - maps["normals"]).mean() < 0.05
        angle = evaluate_tasks(segmenter, Surfaces(4, "val"), tasks=["normals"])["normals"].headline("native")[1]
        assert angle == pytest.approx(rows[-1]["normals_angle"], rel=0.1)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_padding_is_unknown(name: str, model: edgeseg.Pixel2Pixel) -> None:
    augment = AUGMENTATIONS[name]((64, 96), (64, 96), (0.5, 0.5) if name == "modern" else (1, 1), rotation=30)
    data = Augmented(Surfaces(8), augment, model.tasks, seed=0, cache=False, inputs=model.inputs)
    for index in range(8):
        _, targets, _ = data[index]
        length = targets["normals"].square().sum(dim=0)
        assert set(length.unique().tolist()) <= {0.0, 1.0}
        assert bool((length[targets["semantic"] == 255] == 0).all())


def test_pictures_on_the_command_line(model: edgeseg.Pixel2Pixel, photo: Path, tmp_path: Path) -> None:
    edgeseg.save_checkpoint(model, tmp_path / "normals.safetensors")
    command = [
        "predict",
        str(photo),
        "--checkpoint",
        str(tmp_path / "normals.safetensors"),
        "-o",
        str(tmp_path / "out"),
    ]
    assert main(command) == 0
    with Image.open(tmp_path / "out/photo_normals_color.png") as picture:
        assert picture.size == (90, 60)


def test_logits_of_classes_are_not_clamped() -> None:
    with pytest.raises(ValueError, match=r"Task\.range is for regressed maps"):
        edgeseg.create_model("fpn", encoder=TINY, tasks={"s": edgeseg.Task("segmentation", 3, range=(0, 1))})


def test_kinds_are_checked() -> None:
    with pytest.raises(ValueError, match="unknown task kind 'normals'; the kinds are binary, depth, segmentation"):
        Task("normals", 3)
    with pytest.raises(ValueError, match="named 'depth' is registered already"):
        edgeseg.register_kind("depth", Normals())
    with pytest.raises(ValueError, match="an instance of a subclass"):
        edgeseg.register_kind("normals", Normals)  # type: ignore[arg-type]
    edgeseg.register_kind("normals", Normals())
    with pytest.raises(ValueError, match=r"Task\.channels is 3 for normals, got 2"):
        edgeseg.create_model("fpn", encoder=TINY, tasks={"normals": Task("normals", 2)})


def test_no_comparison_of_kinds_outside_the_table() -> None:
    """The package asks a kind what it does, never which it is."""
    found = []
    for path in (ROOT / "edgeseg").rglob("*.py"):
        if path.parent.name == "tasks":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                words = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)}
                if words & set(KINDS) and "kind" in ast.unparse(node):
                    found.append(f"{path}:{node.lineno} {ast.unparse(node)}")
    assert found == []


def test_a_decoder_of_ones_own(tmp_path: Path) -> None:
    @edgeseg.register_decoder("mine", channels=24, prediction_stride=8)
    class Mine(Decoder):
        def __init__(self, pyramid: Pyramid, task: Task, spec: ModelSpec) -> None:
            super().__init__(pyramid)
            self.narrow = pyramid.conv(pyramid.channels[0], spec.channels)
            self.head = pyramid.head(spec.channels, task)

        def decode(self, *features: Tensor) -> Tensor:
            assert len(features) == 3  # strides 8, 16 and 32
            return self.head(self.narrow(features[0]))

    model = edgeseg.create_model("mine", encoder="mobilenetv2", num_classes=4).eval()
    image = torch.randn(1, 3, 50, 70)
    assert model.decode(image)["segmentation"].shape == (1, 4, 7, 9)
    assert model.config.spec == ModelSpec(decoder="mine", encoder="mobilenetv2", channels=24, prediction_stride=8)
    model.save_pretrained(tmp_path)
    loaded = edgeseg.create_model(f"local-dir:{tmp_path}").eval()
    assert torch.equal(loaded(image)["segmentation"], model(image)["segmentation"])
    assert edgeseg.create_model("mine", encoder=TINY, channels=8).config.spec == ModelSpec(
        decoder="mine", encoder=TINY, channels=8, prediction_stride=8
    )
    for name in ("mine", "fpn", "erfnet"):
        with pytest.raises(ValueError, match=f"named '{name}' is registered already"):
            edgeseg.register_decoder(name)(Mine)
    with pytest.raises(ValueError, match="a dot"):
        edgeseg.register_decoder("a.b")(Mine)
    with pytest.raises(ValueError, match=r"ModelSpec\.channels must be at least 1"):
        edgeseg.register_decoder("other", channels=0)(Mine)
    with pytest.raises(ValueError, match="needs an encoder"):
        edgeseg.create_model("mine")


def test_a_decoder_of_another_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeseg.networks.decoders.DECODERS", {**DECODERS})
    monkeypatch.setattr("edgeseg.zoo.networks.FAMILIES", {**FAMILIES})

    @edgeseg.register_decoder("seven_channels", prediction_stride=4)
    class Seven(Decoder):
        def __init__(self, pyramid: Pyramid, task: Task, spec: ModelSpec) -> None:
            super().__init__(pyramid)
            self.head = nn.Conv2d(pyramid.channels[0], 7, 1)

        def decode(self, *features: Tensor) -> Tensor:
            return self.head(features[0])

    model = edgeseg.create_model("seven_channels", encoder="mobilenetv2", num_classes=3)
    with pytest.raises(ValueError, match="the decoder of 'segmentation' returned 7 channels, and the task has 3"):
        model(torch.zeros(1, 3, 64, 64))


def test_an_encoder_of_ones_own(tmp_path: Path) -> None:
    @edgeseg.register_encoder("two_steps")
    class TwoSteps(nn.Module):
        channels, strides = (16, 32), (2, 4)

        def __init__(self, in_channels: int) -> None:
            super().__init__()
            self.first = ConvNormAct(in_channels, 16, 3, stride=2)
            self.second = ConvNormAct(16, 32, 3, stride=2)

        def forward(self, image: Tensor) -> list[Tensor]:
            fine = self.first(image)
            return [fine, self.second(fine)]

    @edgeseg.register_encoder("row_of_blocks")
    def row_of_blocks(in_channels: int) -> Trunk:
        first, second = ConvNormAct(in_channels, 16, 3, stride=2), ConvNormAct(16, 32, 3, stride=2)
        return Trunk([Block("first", first, 16, 2), Block("second", second, 32, 4)], stem=1)

    options: dict[str, Any] = {"num_classes": 3, "prediction_stride": 2}
    for encoder in ("two_steps", "row_of_blocks"):
        model = edgeseg.create_model("fpn", encoder=encoder, **options).eval()
        model.save_pretrained(tmp_path / encoder)
        image = torch.randn(1, 3, 50, 70)
        loaded = edgeseg.create_model(f"local-dir:{tmp_path / encoder}").eval()
        assert torch.equal(loaded(image)["segmentation"], model(image)["segmentation"])
    two = edgeseg.create_model("fpn", encoder="row_of_blocks", in_channels=(2, 3), **options)
    assert two(torch.randn(1, 2, 32, 32), image[..., :32, :32])["segmentation"].shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match="'two_steps' takes a single input"):
        edgeseg.create_model("fpn", encoder="two_steps", in_channels=(3, 3), **options)
    with pytest.raises(ValueError, match="fast_down is an option of the zoo's own encoders"):
        edgeseg.create_model("fpn", encoder="two_steps", fast_down=True, **options)
    with pytest.raises(ValueError, match="ends at stride 4; pass output_stride=4"):
        edgeseg.create_model("fpn", encoder="two_steps", output_stride=2, **options)
    for name in ("two_steps", "mobilenetv2"):
        with pytest.raises(ValueError, match=f"an encoder named '{name}' is registered already"):
            edgeseg.register_encoder(name)(TwoSteps)
    edgeseg.register_encoder("wrong")(lambda channels: nn.Conv2d(channels, 8, 3))
    with pytest.raises(ValueError, match=r"'wrong' has channels \[\] and strides \[\]"):
        edgeseg.create_model("fpn", encoder="wrong", num_classes=3)


def test_a_builder_keeps_its_options(tmp_path: Path) -> None:
    @edgeseg.register_model
    def wide(config: edgeseg.ModelConfig, *, width: int = 8) -> edgeseg.Pixel2Pixel:
        parts = edgeseg.create_model("fpn", encoder=TINY, channels=width, tasks=config.tasks)
        return edgeseg.Pixel2Pixel(parts.encoder, dict(parts.decoders.items()), config)

    edgeseg.create_model("wide", num_classes=2, width=24).save_pretrained(tmp_path)
    loaded = edgeseg.create_model(f"local-dir:{tmp_path}")
    assert loaded.config.options == {"width": 24}
    assert re.search(r"'width': 24", repr(loaded.config))
