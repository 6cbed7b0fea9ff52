"""The record of a model: every noun checks itself, and files of earlier formats still rebuild their models."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgeseg
from edgeseg import Input, ModelConfig, ModelSpec, Preprocess, Quantization, Task
from edgeseg.config import as_inputs, read_config
from edgeseg.engine import TrainConfig
from edgeseg.labels import CITYSCAPES
from edgeseg.records import Record
from edgeseg.storage.checkpoint import read_checkpoint_config

from .conftest import ROOT, TINY

DATA = Path(__file__).parent / "data"
FPN = "fpn_aspp_mobilenetv2_tv_edgeailite"


def spec(**values: Any) -> ModelSpec:
    return ModelSpec(**{"decoder": "fpn", "encoder": "mobilenetv2", **values})


WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: Preprocess(channel_order="BGR"), r"Preprocess\.channel_order is one of rgb, bgr; got 'BGR'"),  # type: ignore[arg-type]
    (lambda: Preprocess(size=(0, 5)), r"Preprocess\.size must be a positive height and width"),
    (lambda: Preprocess(size="abc"), r"Preprocess\.size is 2 values, got 'abc'"),  # type: ignore[arg-type]
    (lambda: Preprocess(mean=("x",)), r"Preprocess\.mean\[0\] is a number, got 'x'"),  # type: ignore[arg-type]
    (lambda: Preprocess(mean=()), r"Preprocess\.mean must have at least one value"),
    (lambda: Preprocess(std=(1.0, 0.0)), r"Preprocess\.std .*above 0"),
    (lambda: Preprocess(std=(float("nan"),)), r"Preprocess\.std\[0\] is a finite number"),
    (lambda: Preprocess(std=(1e-4,)), r"Preprocess\.std must be 0\.001 to 1e\+06"),
    (lambda: Preprocess(mean=(1e300,)), r"Preprocess\.mean must be within 1e\+06 of 0"),
    (lambda: Preprocess(mean=(10**400,)), r"Preprocess\.mean\[0\] is a finite number"),
    (lambda: Preprocess(size=(2**20, 2**20)), r"Preprocess\.size must be at most 8388608 pixels"),
    (lambda: Task("segmentation", 2**16 + 1), r"Task\.channels must be 1 to 65536"),
    (lambda: ModelConfig(name="x", tasks={str(n): Task("depth") for n in range(64)}), r"tasks must be at most 64"),
    (lambda: spec(dilations=(1, 2, 257)), r"ModelSpec\.dilations must be at most 256"),
    (lambda: spec(channels=2**63), r"ModelSpec\.channels is an integer of at most 64 bit"),
    (lambda: Task("depth", range=(0, 1e300)), r"Task\.range must be within 1e\+06 of 0"),
    (lambda: Preprocess(keep_aspect=1), r"Preprocess\.keep_aspect is bool, got 1"),  # type: ignore[arg-type]
    (lambda: spec(prediction_stride=3), r"ModelSpec\.prediction_stride must be a power of two, got 3"),
    (lambda: spec(output_stride=0), r"ModelSpec\.output_stride must be a power of two, got 0"),
    (lambda: spec(dilations=(0, 2, 4)), r"ModelSpec\.dilations must be at least 1, got \(0, 2, 4\)"),
    (lambda: spec(dilations=(2, 4)), r"ModelSpec\.dilations is 3 values, got \(2, 4\)"),
    (lambda: spec(channels=0), r"ModelSpec\.channels must be at least 1, got 0"),
    (lambda: spec(channels=True), r"ModelSpec\.channels is an integer, got True"),
    (lambda: spec(channels=64.5), r"ModelSpec\.channels is an integer, got 64\.5"),
    (lambda: spec(shortcut_channels=-1), r"ModelSpec\.shortcut_channels must be at least 1"),
    (lambda: spec(encoder=None), r"ModelSpec\.encoder is text, got None"),
    (lambda: spec(decoder=""), r"ModelSpec\.decoder must be a name, got ''"),
    (lambda: spec(activation="gelu"), r"ModelSpec\.activation is one of relu, relu6; got 'gelu'"),
    (lambda: spec(aspp="yes"), r"ModelSpec\.aspp is bool, got 'yes'"),
    (lambda: Task("depth", range=(5, 5)), r"Task\.range must be a lower and a higher value"),
    (lambda: Task(channels=2, classes=("a", "a")), r"Task\.classes has 'a' more than once"),
    (lambda: Task(channels=1, palette=((0, 0, 256),)), r"Task\.palette must be 0 to 255"),
    (lambda: Task(channels=1, palette=((0, 0),)), r"Task\.palette\[0\] is 3 values"),  # type: ignore[arg-type]
    (lambda: Input(0), r"Input\.channels must be at least 1, got 0"),
    (lambda: Input(3, "radar"), r"Input\.kind is one of image, flow; got 'radar'"),  # type: ignore[arg-type]
    (lambda: Quantization(weight_bits=4), r"Quantization\.weight_bits is one of 7, 8; got 4"),  # type: ignore[arg-type]
    (lambda: TrainConfig(lr="fast"), r"TrainConfig\.lr is a number, got 'fast'"),  # type: ignore[arg-type]
    (lambda: TrainConfig(epochs=0), r"TrainConfig\.epochs must be at least 1, got 0"),
    (lambda: TrainConfig(epochs=2.5), r"TrainConfig\.epochs is an integer, got 2\.5"),  # type: ignore[arg-type]
    (lambda: TrainConfig(lr=-1), r"TrainConfig\.lr must not be negative, got -1"),
    (lambda: TrainConfig(ema=2), r"TrainConfig\.ema must be between 0 and 1, got 2"),
    (lambda: TrainConfig(seed=20261128121304), r"TrainConfig\.seed must be 0 to 2\*\*32 - 1, got 20261128121304"),
    (lambda: TrainConfig(lr=np.array([0.1, 0.2])), r"TrainConfig\.lr is a finite number, got array"),  # type: ignore[arg-type]
    (lambda: TrainConfig(depth_losses=(), depth_factors=()), r"TrainConfig\.depth_losses must have at least one loss"),
    (lambda: Input(1, "flow"), r"Input\.channels must be at least 2 for optical flow; name other inputs.*, got 1"),
    (lambda: TrainConfig(rand_scale=(2, 1)), r"TrainConfig\.rand_scale must be a lowest and a highest factor"),
    (lambda: TrainConfig(img_resize=(480,)), r"TrainConfig\.img_resize is 2 values"),  # type: ignore[arg-type]
    (lambda: TrainConfig(depth_losses=("relative",)), r"TrainConfig\.depth_factors has one factor per depth loss"),
    (lambda: ModelConfig(name="x", tasks="segmentation"), r"ModelConfig\.tasks is a dictionary"),  # type: ignore[arg-type]
    (lambda: ModelConfig(name="x\n"), r"ModelConfig\.name is a name without control characters"),
    (lambda: ModelConfig(name="x", preprocess=Preprocess(std=(1, 2))), r"'image' has 3 channels, and mean and std"),
    (lambda: ModelConfig(name="x", tasks={}), r"ModelConfig\.tasks has at least one task"),
    (lambda: ModelConfig(name=None), r"ModelConfig\.name is text, got None"),  # type: ignore[arg-type]
    (lambda: ModelConfig(name="x", tasks={"image": Task()}), "image names a task and an input"),
    *[
        (lambda name=name: ModelConfig(name="x", tasks={name: Task()}), "cannot be the name of a task or an input")
        for name in ("", " ", "a.b", "x/auxiliary", "a\\b", "new\nline")
    ],
    (lambda: as_inputs((0,)), r"Input\.channels must be at least 1, got 0"),
    (lambda: as_inputs((-1,)), r"Input\.channels must be at least 1, got -1"),
    (lambda: as_inputs({"image": "3"}), r"Input\.channels is an integer, got '3'"),  # type: ignore[dict-item]
    (lambda: as_inputs("image"), r"in_channels has the channels of each input"),  # type: ignore[arg-type]
    (lambda: as_inputs({}), r"in_channels has the channels of each input"),
]


@pytest.mark.parametrize(("make", "problem"), WRONG)
def test_nouns_check_themselves(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make()


def test_json_is_checked_like_python() -> None:
    for kind in (ModelSpec, Task, Input, Preprocess, Quantization, TrainConfig):
        assert issubclass(kind, Record)
        with pytest.raises(ValueError, match=rf"here: {kind.__name__} has unknown keys 'plugin'"):
            kind.from_json({"plugin": "x"}, "here")
        with pytest.raises(ValueError, match=f"here: {kind.__name__} must be a dictionary of its fields"):
            kind.from_json([1], "here")
    with pytest.raises(ValueError, match=r"file: Preprocess\.size is 2 values"):
        Preprocess.from_json({"size": "abc"}, "file")
    assert Preprocess.from_json({"size": [48, 64], "mean": [1]}) == Preprocess(size=(48, 64), mean=(1.0,))


def test_numbers_of_other_libraries() -> None:
    assert spec(channels=np.int64(8)).channels == 8
    assert type(spec(channels=np.int64(8)).channels) is int
    assert Preprocess(mean=(np.float32(1.5),)).mean == (1.5,)  # type: ignore[arg-type]


def test_records_print_what_differs_from_the_defaults() -> None:
    assert repr(TrainConfig(epochs=3, lr=0.1)) == "TrainConfig(epochs=3, lr=0.1)"
    assert repr(Preprocess()) == "Preprocess()"
    spec = ModelSpec(decoder="fpn", encoder="mobilenetv2", output_stride=16)
    assert eval(repr(spec)) == spec
    cityscapes = {"semantic": Task("segmentation", 19, classes=tuple(CITYSCAPES), palette=tuple(CITYSCAPES.values()))}
    text = repr(ModelConfig(name="n", spec=spec, tasks=cityscapes))
    assert "classes=('road', 'sidewalk', 'building', 'wall', ...)" in text
    assert all(len(line) < 120 for line in text.splitlines())


def test_record_round_trip() -> None:
    config = ModelConfig(
        name="fpn",
        spec=spec(channels=8, dilations=(1, 2, 3)),
        tasks={"depth": Task("depth", range=(0, 80)), "b": Task(channels=2, classes=("x", "y"))},
        inputs={"before": Input(2, "flow"), "image": Input(4)},
        preprocess=Preprocess(size=(48, 64)),
        quantization=Quantization(scheme="power_of_two"),
        options={"width": 3},
        notes={"license": "CC0-1.0"},
    )
    assert read_config(json.dumps(config.to_json()), "here") == config
    with pytest.raises(FrozenInstanceError):
        config.name = "other"  # type: ignore[misc]
    for key in ("name", "spec", "tasks", "inputs", "preprocess", "notes"):
        content = config.to_json()
        del content[key]
        with pytest.raises(ValueError, match="missing keys"):
            read_config(json.dumps(content), "here")
    for text, problem in (("{", "not JSON"), ("[" * 100_000, "not JSON"), ("[]", "not the configuration")):
        with pytest.raises(ValueError, match=f"here is {problem}"):
            read_config(text, "here")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"prediction_stride": 3}, "prediction_stride must be a power of two"),
        ({"dilations": (0, 2, 4)}, "dilations must be at least 1"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"in_channels": (0,)}, "channels must be at least 1"),
        ({"tasks": "segmentation"}, "tasks has a Task for each name"),
        ({"tasks": {"a.b": Task()}}, "cannot be the name of a task"),
        ({"tasks": {"": Task()}}, "cannot be the name of a task"),
        ({"tasks": {"type": Task("segmentation", 2)}}, "modules have an attribute of that name"),
        ({"tasks": {"keys": Task("segmentation", 2)}}, "modules have an attribute of that name"),
        ({"tasks": {"depth": Task("depth", 2)}}, r"Task\.channels is 1 for depth"),
        ({"num_classes": 0}, "num_classes must be a number of classes, at least 1, got 0"),
        ({"encoder": None}, r"ModelSpec\.encoder is text"),
    ],
)
def test_create_model_says_what_is_wrong(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        edgeseg.create_model(FPN, **options)


def test_names_that_are_wrong() -> None:
    with pytest.raises(ValueError, match=r"ends with a dot; expected a name, or NAME\.TAG"):
        edgeseg.create_model(f"{FPN}.")
    for name in (3, ""):
        with pytest.raises(ValueError, match="a model has a name"):
            edgeseg.create_model(name)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"did you mean {FPN}"):
        edgeseg.create_model(FPN.upper())
    for decoder in ("unet", "deeplabv3plus"):
        with pytest.raises(ValueError, match=r"ModelSpec\.aspp is True for"):
            edgeseg.create_model(decoder, encoder="mobilenetv2", aspp=False, output_stride=32)
    assert edgeseg.list_models(["fpn128_*", "erf*"]) == ["erfnet", "fpn128_aspp_mobilenetv2_tv_fd_edgeailite"]
    with pytest.raises(ValueError, match="a pattern is text"):
        edgeseg.list_models([3])  # type: ignore[list-item]


def test_odd_task_names_are_trained(tmp_path: Path) -> None:
    """Names that the training loop once used for itself."""
    from edgeseg.data import Streets
    from edgeseg.engine import train

    class Renamed(torch.utils.data.Dataset[Any]):
        def __init__(self) -> None:
            self.data = Streets("train", (64, 96), length=4)
            self.tasks = {"features": self.data.task, "auxiliary": self.data.task}

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            image, labels = self.data[index]
            return image, dict.fromkeys(self.tasks, labels)

    data = Renamed()
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8, tasks=data.tasks)
    before = {name: value.clone() for name, value in model.decoders.state_dict().items()}
    config = TrainConfig(
        epochs=1, batch_size=2, img_resize=(64, 96), rand_crop=(64, 64), workers=0, aux_loss=0.4, ema=0
    )
    train(model, data, None, config, tmp_path)
    for name in data.tasks:
        key = f"{name}.head.1.weight"
        assert not torch.equal(before[key], model.decoders.state_dict()[key])
    (row,) = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert row["features_loss"] > 0 < row["auxiliary_loss"]


def test_what_an_input_is_is_declared() -> None:
    """No name makes an image flow but "flow" itself, and a name of your own can be flow."""
    inputs = as_inputs({"workflow": 3, "motion": Input(2, "flow"), "flower": 3, "image": 3})
    assert [each.kind for each in inputs.values()] == ["image", "flow", "image", "image"]
    assert [each.kind for each in as_inputs((2, 3)).values()] == ["flow", "image"]
    assert list(as_inputs((3, 3, 3))) == ["input1", "input2", "image"]
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8, in_channels={"workflow": 3, "image": 3})
    picture = np.full((20, 30, 3), (200, 60, 30), np.uint8)
    expected = (torch.tensor([200.0, 60.0, 30.0]) - 128) / 64
    for tensor in model.prepare(picture, picture):
        assert torch.allclose(tensor[0, :, 5, 5], expected)


def test_a_folder_called_flow_holds_photos(tmp_path: Path) -> None:
    from PIL import Image

    from edgeseg.data import load_dataset

    root = tmp_path / "workflow" / "flowers"
    for folder in ("images", "masks"):
        (root / folder / "train").mkdir(parents=True)
    Image.new("RGB", (8, 8), (200, 60, 30)).save(root / "images/train/flow.png")
    Image.new("L", (8, 8)).save(root / "masks/train/flow.png")
    (root / "classes.txt").write_text("ground\n")
    image, _ = load_dataset("images_masks", root, "train")[0]
    assert image[:, 3, 3].tolist() == [200, 60, 30]
    mirrored = torch.utils.data.default_collate([image.flip(-1)])
    assert mirrored[0, :, 3, 3].tolist() == [200, 60, 30]


def test_files_of_format_1() -> None:
    """Written by the first landed version: they rebuild the same model and answer as they did then."""
    path = DATA / "format1.safetensors"
    config = read_checkpoint_config(path)
    assert config is not None
    assert config.spec == ModelSpec(decoder="fpn", encoder=TINY, channels=8, dilations=(1, 2, 3), output_stride=32)
    assert config.inputs == {"flow": Input(3, "flow"), "image": Input()}
    assert config.preprocess == Preprocess(
        size=(48, 64), keep_aspect=True, channel_order="bgr", mean=(1, 2, 3), std=(50, 60, 70)
    )
    assert config.notes == {"license": "CC0-1.0", "recipe": {"epochs": 1}}
    model = edgeseg.create_model("fpn", checkpoint_path=path)
    assert model.tasks == {
        "semantic": Task(channels=3, classes=("road", "sky", "car"), palette=((1, 2, 3), (4, 5, 6), (7, 8, 9))),
        "depth": Task("depth", range=(0, 80)),
    }
    flow = np.full((60, 80, 3), 128, np.uint8)
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    photo = np.kron(blocks, np.ones((10, 10, 1), np.uint8))
    maps = model.predict_tasks(flow, photo)
    assert np.abs(np.bincount(maps["semantic"].ravel(), minlength=3) - [592, 4208, 0]).max() <= 10
    assert float(maps["depth"].mean()) == pytest.approx(0.29014, rel=1e-3)
    segmenter = edgeseg.OnnxSegmenter(DATA / "format1.onnx")
    assert segmenter.config.notes["license"] == "CC0-1.0"
    assert segmenter.preprocess.size == (48, 64)
    assert np.abs(np.bincount(segmenter.predict(photo).ravel()) - [44, 376, 4380]).max() <= 10


def test_same_weights_same_bytes(tmp_path: Path) -> None:
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8)
    for name in ("a", "b"):
        edgeseg.save_checkpoint(model, tmp_path / f"{name}.safetensors", license="CC0-1.0")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"inputs": {"image": Input(4)}}, r"was built for inputs of \(3,\) channels, not of \(4,\)"),
        ({"tasks": {"segmentation": Task("segmentation", 5)}}, "was built for the channels"),
        ({"quantization": Quantization()}, "quantization cannot be changed after a model was built"),
        ({"name": "another", "spec": None}, "name, spec cannot be changed after a model was built"),
    ],
)
def test_a_built_model_stays_what_it_is(change: dict[str, Any], problem: str) -> None:
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=3)
    before = model.config
    with pytest.raises(ValueError, match=problem):
        model.configure(**change)
    assert model.config == before


def test_nothing_sets_attributes_of_a_model() -> None:
    """Only `self` has attributes set that the record holds; everyone else asks the model to change its record."""
    held = {"config", "tasks", "inputs", "in_channels"} | {field.name for field in fields(ModelConfig)}
    found = []
    for path in [*(ROOT / "edgeseg").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in (each for outer in targets for each in (ast.walk(outer) if outer is not None else ())):
                if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store) and target.attr in held:
                    owner = target.value.id if isinstance(target.value, ast.Name) else "?"
                    graphs = ("litert_scales.py", "onnx.py")  # which change graphs of LiteRT and ONNX
                    ours = owner != "self" and path.name not in graphs
                    found += [f"{path.name}:{target.lineno} {owner}.{target.attr}"] if ours else []
    assert found == []
