"""8-bit files: what is quantized, how well they agree, what they are compared with."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

import edgeseg
from edgeseg.cli import main
from edgeseg.data import Streets
from edgeseg.deploy.calibration import Prepared
from edgeseg.deploy.quantize import _quiet, quantize_onnx
from edgeseg.engine import evaluate
from edgeseg.labels import segmentation_task
from edgeseg.spec import Task
from edgeseg.storage.checkpoint import save_checkpoint

from .conftest import TINY


@pytest.fixture(scope="module")
def model() -> edgeseg.Pixel2Pixel:
    """Trained on real streets, at a small size."""
    made = edgeseg.create_model("fpn_aspp_mobilenetv2_tv_edgeailite", pretrained=True).eval()
    made.configure(preprocess=edgeseg.Preprocess(size=(120, 160)))
    return made


@pytest.fixture(scope="module")
def images() -> list[torch.Tensor]:
    streets = Streets("train", (120, 160), length=6)
    return [streets[i][0].as_subclass(torch.Tensor) for i in range(6)]


def scales(file: onnx.ModelProto) -> dict[str, np.ndarray]:
    values = {each.name: numpy_helper.to_array(each) for each in file.graph.initializer}
    kinds = ("QuantizeLinear", "DequantizeLinear")
    return {node.input[0]: values[node.input[1]] for node in file.graph.node if node.op_type in kinds}


def test_quantized_network(model: edgeseg.Pixel2Pixel, images: list[torch.Tensor], tmp_path: Path) -> None:
    done = quantize_onnx(model, tmp_path / "int8.onnx", images, calibration="minmax")
    assert done.agreement["segmentation"] > 0.9
    file = onnx.load(done.path)
    makers = {name: node for node in file.graph.node for name in node.output}
    multiplied = [node for node in file.graph.node if node.op_type in ("Conv", "MatMul")]
    assert all(makers[name].op_type == "DequantizeLinear" for node in multiplied for name in node.input)
    assert not done.kept_float
    (last,) = (node for node in multiplied if node.op_type == "MatMul")
    users = [node.op_type for node in file.graph.node if last.output[0] in node.input]
    assert users == ["Transpose"]  # to the output: the logits are not rounded
    assert max(each.size for each in scales(file).values()) > 100  # a scale for each channel
    assert done.path.stat().st_size < sum(p.numel() for p in model.parameters()) * 1.5
    segmenter = edgeseg.OnnxSegmenter(done.path)
    streets = Streets("test", (120, 160), length=2, labels="camvid")
    assert evaluate(segmenter, streets, task="segmentation").counted == evaluate(model, streets).counted
    same = [segmenter.predict(image) == model.predict(image) for image in images]
    assert np.mean(same) > 0.9
    with pytest.raises(ValueError, match="scored as it predicts"):
        evaluate(segmenter, streets, flip=True)


@pytest.mark.parametrize("order", [pytest.param("rgb", marks=pytest.mark.slow), "bgr"])
def test_pixels_as_they_are(small: edgeseg.Pixel2Pixel, images: list[torch.Tensor], order: str, tmp_path: Path) -> None:
    """The network reads uint8 pixels with a scale; with a mean for each channel they are normalized first."""
    small.configure(preprocess=edgeseg.Preprocess(size=(64, 96), channel_order=order))  # type: ignore[arg-type]
    kinds, scale = _before_the_first_convolution(small, images, tmp_path)
    assert kinds[0] == "DequantizeLinear"
    assert not {"Cast", "Sub", "Div", "QuantizeLinear"} & set(kinds)
    assert scale == (1 / 64, 128)
    small.configure(preprocess=edgeseg.Preprocess(size=(64, 96), mean=(120, 128, 128)))
    kinds, _ = _before_the_first_convolution(small, images, tmp_path)
    assert kinds == ["DequantizeLinear", "QuantizeLinear", "Div", "Sub", "Cast"]


def _before_the_first_convolution(
    model: edgeseg.Pixel2Pixel, images: list[torch.Tensor], folder: Path
) -> tuple[list[str], tuple[float, int]]:
    done = quantize_onnx(model, folder / "int8.onnx", images, calibration="minmax", preprocess=True, dynamic=())
    assert done.agreement["segmentation"] > 0.9
    graph = onnx.load(done.path).graph
    makers = {name: node for node in graph.node for name in node.output}
    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    node = makers[next(node for node in graph.node if node.op_type == "Conv").input[0]]
    scale, kinds = (float(values[node.input[1]]), int(values[node.input[2]])), [node.op_type]
    while node.input[0] in makers:
        node = makers[node.input[0]]
        kinds.append(node.op_type)
    return kinds, scale


@pytest.mark.slow
def test_nothing_is_converted_in_vain(images: list[torch.Tensor], tmp_path: Path) -> None:
    """What is only concatenated has the scale of the result: the branches of the context block, not a feature of the
    encoder that is read elsewhere too. Sizes are those of 8-bit tensors."""
    model = edgeseg.create_model("unet", encoder="mobilenetv2", channels=8, num_classes=5).eval()
    model.configure(preprocess=edgeseg.Preprocess(size=(64, 96)))
    graph = onnx.load(quantize_onnx(model, tmp_path / "int8.onnx", images, calibration="minmax").path).graph
    makers = {name: node for node in graph.node for name in node.output}
    shared = []
    for node in (node for node in graph.node if node.op_type == "Concat"):
        rounding = [each for each in graph.node if node.output[0] in each.input and each.op_type == "QuantizeLinear"]
        scales = [makers[name].input[1] for name in node.input if makers[name].op_type == "DequantizeLinear"]
        if rounding:
            shared.append([scale == rounding[0].input[1] for scale in scales])
    assert shared[0] == [True] * 4
    assert shared[1:] == [[True, False]] * 4
    sizes = [makers.get(node.input[0]) for node in graph.node if node.op_type == "Shape"]
    assert {node.op_type for node in sizes if node is not None} == {"QuantizeLinear"}


@pytest.fixture
def small() -> edgeseg.Pixel2Pixel:
    """A network that is quick to quantize."""
    made = edgeseg.create_model("fpn", encoder=TINY, channels=8, tasks={"segmentation": segmentation_task("camvid")})
    made.configure(preprocess=edgeseg.Preprocess(size=(64, 96)))
    return made.eval()


def test_powers_of_two(small: edgeseg.Pixel2Pixel, images: list[torch.Tensor], tmp_path: Path) -> None:
    """All scales of tensors, weights too; symmetric about zero, or from zero on. Biases have the products."""
    done = quantize_onnx(small, tmp_path / "int8.onnx", images, calibration="minmax", power_of_two=True, dynamic=())
    file = onnx.load(done.path)
    found = scales(file)
    assert len(found) > 50
    assert all(each.size == 1 and float(np.log2(each.item())).is_integer() for each in found.values())
    values = {each.name: numpy_helper.to_array(each) for each in file.graph.initializer}
    zeros = {values[node.input[2]].item() for node in file.graph.node if node.op_type == "QuantizeLinear"}
    assert zeros <= {0, 128}


@pytest.mark.slow
def test_sensitive_convolutions_stay_float(tmp_path: Path) -> None:
    tasks = {"water": Task("segmentation", 3), "depth": Task("depth", 1, range=(0, 9))}
    model = edgeseg.create_model("unet", encoder=TINY, channels=8, in_channels=(3, 3), tasks=tasks).eval()
    model.configure(preprocess=edgeseg.Preprocess(size=(64, 64)))
    rng = np.random.default_rng(0)
    frames = [tuple(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(2)) for _ in range(2)]
    done = quantize_onnx(model, tmp_path / "int8.onnx", frames, calibration="percentile", keep_float=3)
    shares = list(done.sensitivity.values())
    assert shares == sorted(shares, reverse=True)
    assert list(done.sensitivity)[:3] == list(done.kept_float)
    assert set(edgeseg.OnnxSegmenter(done.path).predict_tasks(*frames[0])) == {"water", "depth"}


@pytest.fixture
def weights(small: edgeseg.Pixel2Pixel, tmp_path: Path) -> Path:
    save_checkpoint(small, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.mark.slow
def test_command(weights: Path, images: list[torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(images[:2]):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
    call = ["quantize", "--checkpoint", str(weights), "-o", str(tmp_path / "int8.onnx"), "--calibration", "minmax"]
    assert main([*call, "--images", str(folder), "--fixed", "--img-resize", "120", "160"]) == 0
    out = capsys.readouterr().out
    assert "int8: " in out
    assert "ms at 1x3x120x160" in out
    assert "times as fast" in out
    assert main([*call]) == 2
    assert "pass --calibration-images FOLDER, or --dataset" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([*call, "--images", str(tmp_path / "empty")]) == 2
    assert "no images in" in capsys.readouterr().err
    (folder / "0.png").write_bytes(b"no image")
    assert main([*call, "--images", str(folder)]) == 2
    assert "0.png" in capsys.readouterr().err


def test_command_compares_on_a_dataset(
    camvid: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--dataset", "camvid", "--data-path", str(camvid), "--split", "test"]
    call = ["quantize", "--checkpoint", str(weights), "-o", str(tmp_path / "int8.onnx"), "--calibration", "minmax"]
    assert main([*call, *data]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "on test" in line]
    assert [line.partition(":")[0] for line in lines] == ["float32", "int8"]
    capsys.readouterr()
    assert main(["evaluate", "--onnx", str(tmp_path / "int8.onnx"), *data]) == 0
    miou = next(line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.startswith("mIoU"))
    assert lines[1] == f"int8: segmentation miou {miou} on test"


def test_wrong_calls(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images is empty; an 8-bit file needs typical photos"):
        quantize_onnx(model, tmp_path / "q.onnx", [])
    with pytest.raises(ValueError, match="no calibration named 'guess'; the calibrations are minmax"):
        quantize_onnx(model, tmp_path / "q.onnx", ["x.png"], calibration="guess")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_export_and_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`export` writes logits in all precisions. Depth has no classes, and what 8 bits change is its mean difference."""
    depth = edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks={"depth": Task("depth", range=(0, 9))})
    depth.configure(preprocess=edgeseg.Preprocess(size=(64, 96)))
    photos = [np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8) for seed in range(3)]
    done = edgeseg.export(depth, tmp_path / "depth.onnx", precision="int8", images=photos, dynamic=())
    assert edgeseg.OnnxSegmenter(done.path).output == "logits"
    assert not done.agreement
    assert 0 < done.differences["depth"] < 1
    kept = quantize_onnx(depth, tmp_path / "kept.onnx", photos, dynamic=(), keep_float=1)
    changes = list(kept.sensitivity.values())
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > 0
    assert kept.kept_float[-1] == next(iter(kept.sensitivity))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"ONNX files need onnx, .*pip install 'edgeseg\[onnx\]'"):
        quantize_onnx(depth, tmp_path / "none.onnx", photos)


def test_calibration_reads_photos_when_they_are_needed(tmp_path: Path) -> None:
    """A hundred photos of a phone would take gigabytes."""
    read: list[int] = []

    def prepare(index: int) -> int:
        read.append(index)
        return 10 * index

    items = Prepared(range(6), prepare)
    assert len(items) == 6
    assert not read
    assert list(items[1::2]) == [10, 30, 50]
    assert read == [1, 3, 5]


def test_other_threads_print_and_log_meanwhile(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def other() -> None:
        print("printed")
        logging.getLogger("theirs").warning("logged")

    with _quiet():
        print("dropped")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert capsys.readouterr().out == "printed\n"
    assert [record.message for record in caplog.records] == ["logged"]
