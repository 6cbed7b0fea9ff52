"""Files for devices: they answer as the network does, at every size they claim, and say what they are."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import edgeseg
from edgeseg.cli import main
from edgeseg.deploy import verify
from edgeseg.deploy.graph import Output
from edgeseg.predict.facts import read_facts
from edgeseg.spec import Task
from edgeseg.storage.checkpoint import save_checkpoint

from .conftest import TINY

THREE = {
    "semantic": Task("segmentation", 5),
    "depth": Task("depth", 1, range=(0, 9)),
    "motion": Task("segmentation", 2),
}


@pytest.fixture
def model() -> edgeseg.Pixel2Pixel:
    """A small network, its batch norms as after some training."""
    made = edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=4)
    return _used(made)


def _used(made: edgeseg.Pixel2Pixel) -> edgeseg.Pixel2Pixel:
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            torch.nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
    made.configure(preprocess=edgeseg.Preprocess(size=(64, 96)))
    return made.eval()


def test_sizes_and_names(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    done = edgeseg.export_onnx(model, tmp_path / "model.onnx")
    assert done.sizes == ((2, 3, 64, 96), (1, 3, 37, 51), (1, 3, 85, 123))
    assert done.differences["segmentation"] < 1e-4
    file = onnx.load(done.path)
    assert not [node for node in file.graph.node if node.op_type == "BatchNormalization"]
    assert [d.dim_param or d.dim_value for d in file.graph.input[0].type.tensor_type.shape.dim] == [
        "batch", 3, "height", "width",
    ]  # fmt: skip
    assert str(Path.cwd()) not in str(file)
    segmenter = edgeseg.OnnxSegmenter(done.path)
    for shape in ((1, 3, 64, 96), (3, 3, 33, 47), (2, 3, 128, 64)):
        image = torch.randn(shape)
        with torch.inference_mode():
            expected = model(image)["segmentation"].numpy()
        found = segmenter.run(image.numpy())["segmentation"]
        assert np.abs(found - expected).max() < 1e-4 * expected.std() + 1e-6


def test_photos_of_one_size(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    """From the second of a size on they have a session of their own, with the same answers, also when sizes change."""
    file = edgeseg.export_onnx(model, tmp_path / "model.onnx").path
    segmenter = edgeseg.OnnxSegmenter(file)
    file.unlink()  # what was opened stays
    shapes = [(1, 3, 64, 96)] * 3 + [(1, 3, 33, 47), (1, 3, 64, 96), (2, 3, 33, 47), (2, 3, 33, 47), (1, 3, 33, 47)]
    for number, shape in enumerate(shapes):
        image = torch.randn(shape)
        with torch.inference_mode():
            expected = model(image)["segmentation"].numpy()
        assert verify.difference(expected, segmenter.run(image.numpy())["segmentation"]) < 1e-4, number


def test_padding_of_tensorflow(tmp_path: Path) -> None:
    """It depends on each feature's size, yet one file takes all sizes."""
    model = _used(edgeseg.create_model("fpn", encoder="tf_mobilenetv3_small_minimal_100", channels=8, num_classes=3))
    segmenter = edgeseg.OnnxSegmenter(edgeseg.export_onnx(model, tmp_path / "model.onnx", output="small_logits").path)
    for height, width in ((64, 96), (65, 99), (70, 81)):
        image = torch.randn(1, 3, height, width)
        with torch.inference_mode():
            expected = model.decode(image)["segmentation"].numpy()
        assert verify.difference(expected, segmenter.run(image.numpy())["segmentation"]) < 1e-4


@pytest.mark.parametrize(
    "output",
    ["labels", *(pytest.param(each, marks=pytest.mark.slow) for each in ("logits", "small_logits", "small_labels"))],
)
def test_several_inputs_and_tasks(output: Output, tmp_path: Path) -> None:
    model = _used(edgeseg.create_model("fpn", encoder=TINY, channels=8, in_channels=(3, 3), tasks=THREE))
    done = edgeseg.export_onnx(model, tmp_path / "model.onnx", output=output, preprocess=True)
    segmenter = edgeseg.OnnxSegmenter(done.path)
    assert list(segmenter.inputs) == ["flow", "image"]
    pixels = [np.random.default_rng(i).integers(0, 256, (2, 3, 40, 56), dtype=np.uint8) for i in (0, 1)]
    found = segmenter.run(*pixels)
    assert list(found) == list(THREE)
    size = (10, 14) if output.startswith("small") else (40, 56)
    shapes = {name: each.shape for name, each in found.items()}
    if output.endswith("labels"):
        assert found["semantic"].dtype == np.uint8
        assert shapes == {"semantic": (2, *size), "depth": (2, 1, *size), "motion": (2, *size)}
    else:
        assert shapes == {"semantic": (2, 5, *size), "depth": (2, 1, *size), "motion": (2, 2, *size)}
    flow, photo = (np.random.default_rng(i).integers(0, 256, (64, 96, 3), dtype=np.uint8) for i in (0, 1))
    maps, expected = segmenter.predict_tasks(flow, photo), model.predict_tasks(flow, photo)
    assert np.abs(maps["depth"] - expected["depth"]).max() < (1e-4 if size == (40, 56) else 0.1)
    if output == "small_logits":
        assert all((maps[name] == expected[name]).mean() > 0.999 for name in ("semantic", "motion"))


def test_fixed_file(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    segmenter = edgeseg.OnnxSegmenter(edgeseg.export_onnx(model, tmp_path / "m.onnx", dynamic=(), size=(32, 64)).path)
    assert segmenter.predict(np.zeros((50, 50, 3), np.uint8)).shape == (50, 50)
    with pytest.raises(ValueError, match=r"image is float32 \[1, 3, 32, 64\] in m\.onnx, got float32 \[1, 3, 64, 64\]"):
        segmenter.run(np.zeros((1, 3, 64, 64), np.float32))
    with pytest.raises(ValueError, match=r"got uint8 \[1, 3, 32, 64\]"):
        segmenter.run(np.zeros((1, 3, 32, 64), np.uint8))
    model.configure(preprocess=edgeseg.Preprocess(size=(32, 64), keep_aspect=True))
    kept = edgeseg.OnnxSegmenter(edgeseg.export_onnx(model, tmp_path / "kept.onnx", dynamic=()).path)
    assert kept.predict(np.zeros((50, 50, 3), np.uint8)).shape == (50, 50)  # more in test_requests.py


def test_as_the_network_predicts_and_without_torch(model: edgeseg.Pixel2Pixel, photo: Path, tmp_path: Path) -> None:
    edgeseg.export_onnx(model, tmp_path / "model.onnx", output="small_logits", preprocess=True)
    found, expected = edgeseg.OnnxSegmenter(tmp_path / "model.onnx").predict(photo), model.predict(photo)
    assert found.dtype == expected.dtype
    assert (found == expected).mean() > 0.98  # Pillow's resize rounds differently than torch's
    code = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        f"import edgeseg; labels = edgeseg.OnnxSegmenter({str(tmp_path / 'model.onnx')!r}).predict({str(photo)!r})\n"
        "print(labels.shape, labels.dtype)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with Image.open(photo) as image:
        assert done.stdout == f"({image.height}, {image.width}) uint8\n"


def test_difference_is_an_error_and_nothing_is_left(
    model: edgeseg.Pixel2Pixel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"before")
    monkeypatch.setitem(verify.TOLERANCE, "values", 1e-12)
    with pytest.raises(
        RuntimeError, match=r"segmentation in the exported file differs from the network by .*, more than 1e-12"
    ):
        edgeseg.export_onnx(model, tmp_path / "model.onnx", dynamic=())
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("model.onnx", b"before")]


def test_other_threads_use_the_network_meanwhile(model: edgeseg.Pixel2Pixel, photo: Path, tmp_path: Path) -> None:
    """torch.export puts stand-ins in place of the weights of what it traces, which would be another thread's too."""
    expected, done, wrong = model.predict(photo), threading.Event(), []

    def predict() -> None:
        while not done.is_set():
            wrong.extend([] if (model.predict(photo) == expected).mean() > 0.999 else ["other labels"])

    with ThreadPoolExecutor(3) as pool:
        predicting = pool.submit(predict)
        try:
            exports = [pool.submit(edgeseg.export, model, tmp_path / f"{n}.onnx", dynamic=()) for n in range(2)]
            assert all(export.result().differences for export in exports)
        finally:
            done.set()
        predicting.result()
    assert not wrong


def test_wrong_calls(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no dimension named depth; the dimensions are batch, height, width"):
        edgeseg.export_onnx(model, tmp_path / "m.onnx", dynamic=("depth",))
    with pytest.raises(ValueError, match="no output named 'softmax'; the outputs are logits"):
        edgeseg.export_onnx(model, tmp_path / "m.onnx", output="softmax")  # type: ignore[arg-type]


def test_sizes_and_places_that_are_none(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    """They are refused before anything is computed, and a number is a square."""
    for options, problem in (
        ({"size": (64.0, 96.0)}, "size must be a positive height and width, .*got"),
        ({"size": (64, 0)}, "size must be a positive height and width, .*got"),
        ({"dynamic": "height"}, "dynamic is a list of dimensions"),
        ({"dynamic": True}, "dynamic is a list of dimensions"),
    ):
        with pytest.raises(ValueError, match=problem):
            edgeseg.export_onnx(model, tmp_path / "x.onnx", **options)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(IsADirectoryError, match=r"cannot write .*folder\.onnx: it is a folder"):
        edgeseg.export_onnx(model, tmp_path / "folder.onnx")
    with pytest.raises(ValueError, match=r"images is a list of photos, got str; for a single one pass \[photo\]"):
        edgeseg.export(model, tmp_path / "x.onnx", precision="int8", images="photo.jpg")
    done = edgeseg.export_onnx(model, tmp_path / "square.onnx", size=64, dynamic=())  # type: ignore[arg-type]
    assert onnx.load(done.path).graph.input[0].type.tensor_type.shape.dim[3].dim_value == 64


def test_tasks_in_another_order(tmp_path: Path) -> None:
    task = Task("segmentation", 3)
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks={"a": task, "b": task}).eval()
    model.configure(tasks={"b": task, "a": task})
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    expected = model.predict_tasks(photo)
    assert list(expected) == ["b", "a"]
    assert not np.array_equal(expected["a"], expected["b"])
    edgeseg.export_onnx(model, tmp_path / "x.onnx", size=(64, 96), dynamic=())
    for name, labels in edgeseg.OnnxSegmenter(tmp_path / "x.onnx").predict_tasks(photo).items():
        assert (labels == expected[name]).mean() > 0.99


def test_wrong_files(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.onnx"):
        edgeseg.OnnxSegmenter(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not onnx")
    with pytest.raises(ValueError, match=r"onnxruntime cannot load .*bad\.onnx"):
        edgeseg.OnnxSegmenter(tmp_path / "bad.onnx")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([node], "other", values[:1], values[1:])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "other.onnx",
    )
    with pytest.raises(ValueError, match="was not written by edgeseg"):
        edgeseg.OnnxSegmenter(tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"does not have NoSuchProvider, only .*CPUExecutionProvider"):
        edgeseg.OnnxSegmenter(tmp_path / "other.onnx", providers=["NoSuchProvider"])


def test_weights_of_another_file(model: edgeseg.Pixel2Pixel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file cannot have files of the current folder, or of its own, read as its weights."""
    path = edgeseg.export_onnx(model, tmp_path / "model.onnx", size=(32, 64), dynamic=()).path
    file = onnx.load(path)
    onnx.external_data_helper.convert_model_to_external_data(file, location="others", size_threshold=100)
    onnx.save(file, path)
    assert (tmp_path / "others").is_file()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"onnxruntime cannot load .*model\.onnx.*[Ee]xternal"):
        edgeseg.load_segmenter(path)


def test_program(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    done = edgeseg.export_program(model, tmp_path / "model.pt2", output="labels", preprocess=True)
    loaded = torch.export.load(done.path).module()
    image = torch.randint(0, 256, (1, 3, 70, 50), dtype=torch.uint8)
    (labels,) = loaded(image)
    expected = model((image.float() - 128) / 64)["segmentation"].argmax(dim=1)
    assert labels.dtype == torch.uint8
    assert (labels == expected).float().mean() > 0.999


def test_program_for_the_size_that_was_asked_for(tmp_path: Path) -> None:
    """A program of any size is traced at two cells of the coarsest feature, and may not take one."""
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8, num_classes=2).eval()
    with pytest.raises(RuntimeError, match=r"does not take images of 32x64.*--fixed"):
        edgeseg.export_program(model, tmp_path / "model.pt2", size=(32, 64))
    assert not list(tmp_path.glob("*.pt2"))
    fixed = edgeseg.export_program(model, tmp_path / "model.pt2", size=(32, 64), dynamic=())
    assert fixed.sizes == ((1, 3, 32, 64),)


@pytest.mark.slow
def test_program_that_does_not_take_all_sizes(tmp_path: Path) -> None:
    """The levels that BiFPN adds have one cell at small sizes, for which torch.export makes another program."""
    model = edgeseg.create_model("bifpn", encoder=TINY, channels=8, num_classes=2).eval()
    with pytest.raises(RuntimeError, match=r"does not take images of 69x8\d.*--fixed"):
        edgeseg.export_program(model, tmp_path / "model.pt2", size=(128, 160))
    assert not list(tmp_path.glob("*.pt2"))
    edgeseg.export_program(model, tmp_path / "model.pt2", size=(128, 160), dynamic=())


def test_command_and_metadata(
    model: edgeseg.Pixel2Pixel, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, file, out = tmp_path / "w.safetensors", tmp_path / "model.onnx", tmp_path / "out"
    model.configure(tasks={"segmentation": Task("segmentation", 4, classes=("a", "b", "c", "d"))})
    save_checkpoint(model, weights, license="CC0", recipe={"epochs": 3})
    call = ["export", "--checkpoint", str(weights), "--model", "fpn", "-o", str(file), "--file-output", "labels"]
    assert main([*call, "--preprocess", "--fixed", "--img-resize", "64", "96"]) == 0
    out_text = capsys.readouterr().out
    assert "segmentation: differs from the network by" in out_text
    assert "of the pixels at 1x3x64x96" in out_text
    facts = {each.key: each.value for each in onnx.load(file).metadata_props}
    assert json.loads(facts["classes"]) == {"segmentation": ["a", "b", "c", "d"]}
    assert facts["license"] == "CC0"
    assert json.loads(facts["edgeseg"])["notes"]["recipe"] == {"epochs": 3}
    assert main(["predict", str(photo), "--onnx", str(file), "-o", str(out)]) == 0
    labels = np.asarray(Image.open(out / "photo_labels.png"))
    assert (labels == edgeseg.OnnxSegmenter(file).predict(photo)).all()
    assert main(["export", "--checkpoint", str(weights), "-o", str(tmp_path / "model.caffe")]) == 2
    assert "exported files end in .onnx, .pt2, .tflite" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", edgeseg.list_models())
def test_every_name_exports(name: str, tmp_path: Path) -> None:
    model = _used(edgeseg.create_model(name, num_classes=3))
    done = edgeseg.export_onnx(model, tmp_path / "model.onnx", size=(128, 192))
    assert done.differences["segmentation"] < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("family", ["fpn", "unet", "deeplabv3plus", "bifpn", "fpnsum"])
@pytest.mark.parametrize("encoder", ["mobilenetv2", "regnetx400mf", "resnet50"])
def test_every_family_exports_with_two_inputs(family: str, encoder: str, tmp_path: Path) -> None:
    model = _used(edgeseg.create_model(family, encoder=encoder, in_channels=(3, 3), tasks=THREE))
    edgeseg.export_onnx(model, tmp_path / "model.onnx", size=(128, 192))


def test_tasks_called_like_operators(tmp_path: Path) -> None:
    """The exporter names its tensors after operators: the names of tasks and inputs come first."""
    tasks = {"cat": Task(channels=3), "relu": Task(channels=2)}
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks=tasks, in_channels={"add": 3})
    done = edgeseg.export_onnx(_used(model), tmp_path / "model.onnx", dynamic=())
    assert max(done.differences.values()) < 1e-3
    graph = onnx.load(done.path).graph
    assert [[each.name for each in ends] for ends in (graph.input, graph.output)] == [["add"], ["cat", "relu"]]


def test_optimized_networks_take_any_size(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    done = edgeseg.export(edgeseg.optimize(model), tmp_path / "model.pt2", size=(33, 40))
    assert len(done.sizes) > 2


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_files_order_channels_as_the_network_does(channels: int, order: Literal["rgb", "bgr"], tmp_path: Path) -> None:
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8, num_classes=2, in_channels=channels)
    mean = tuple(range(10, 10 + 10 * channels, 10))
    model.configure(preprocess=edgeseg.Preprocess(mean=mean, std=(1,), channel_order=order, size=(64, 64)))
    done = edgeseg.export_onnx(model, tmp_path / "model.onnx", dynamic=())
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, channels), dtype=np.uint8)
    [fed] = edgeseg.OnnxSegmenter(done.path).feed(pixels).values()
    [prepared] = model.prepare(pixels)
    np.testing.assert_allclose(fed, prepared.numpy())


def test_facts_without_the_library_of_the_format(
    model: edgeseg.Pixel2Pixel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = edgeseg.export_onnx(model, tmp_path / "model.onnx", dynamic=())
    expected = {entry.key: entry.value for entry in onnx.load(done.path).metadata_props}
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert read_facts(done.path) == expected
