"""What is asked of an exported file is what it has, or an error before work starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import edgeseg
from edgeseg.cli import main
from edgeseg.deploy.quantize import quantize_onnx
from edgeseg.networks.quantized import quantize_aware
from edgeseg.predict.segmenter import Fit
from edgeseg.spec import Quantization, Task
from edgeseg.storage.checkpoint import save_checkpoint
from edgeseg.vision.visualize import depth_scale

from .conftest import TINY


def network(**options: Any) -> edgeseg.Pixel2Pixel:
    torch.manual_seed(0)
    made = edgeseg.create_model("fpn", encoder=TINY, channels=8, **({"num_classes": 4} | options))
    made.configure(preprocess=edgeseg.Preprocess(size=(32, 64)))
    return made.eval()


@pytest.fixture(scope="module")
def model() -> edgeseg.Pixel2Pixel:
    return network()


@pytest.fixture(scope="module")
def weights(model: edgeseg.Pixel2Pixel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_checkpoint(model, path)
    return path


def opsets(path: Path) -> list[tuple[str, int]]:
    return [(entry.domain, entry.version) for entry in onnx.load(path).opset_import]


@pytest.mark.parametrize(
    ("opset", "ir_version"),
    [(11, 8), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((13, 7), (17, None), (21, 9)))],
)
def test_opset_and_ir_version(
    model: edgeseg.Pixel2Pixel, opset: int, ir_version: int | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = edgeseg.export_onnx(
        model, tmp_path / "m.onnx", output="labels", preprocess=True, opset=opset, ir_version=ir_version
    ).path
    assert capfd.readouterr() == ("", "")
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    assert opsets(path) == [("", opset)]
    assert ir_version in (None, file.ir_version)
    photo = np.random.default_rng(0).integers(0, 256, (33, 71, 3), dtype=np.uint8)
    assert edgeseg.OnnxSegmenter(path).predict(photo).shape == (33, 71)


def test_opset_that_cannot_be_had(tmp_path: Path) -> None:
    """Layer norms exist since opset 17: the message says so, and no file is left."""
    model = edgeseg.create_model("fpn", encoder="test_convnext", channels=8, num_classes=2).eval()
    with pytest.raises(
        ValueError, match=r"cannot be written in opset 11: it has no LayerNormalization; the oldest is 17"
    ):
        edgeseg.export_onnx(model, tmp_path / "m.onnx", size=(64, 64), dynamic=(), opset=11)
    with pytest.raises(ValueError, match="opset is 11 to"):
        edgeseg.export_onnx(model, tmp_path / "m.onnx", opset=10)
    with pytest.raises(ValueError, match="ir_version is 4 to"):
        edgeseg.export_onnx(model, tmp_path / "m.onnx", ir_version=99)
    assert not list(tmp_path.iterdir())


def photos(count: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (30 + 20 * i, 50, 3), dtype=np.uint8) for i in range(count)]


def test_8_bit_files_import_what_they_use(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    options: dict[str, Any] = {"calibration": "minmax", "dynamic": ()}
    plain = quantize_onnx(model, tmp_path / "a.onnx", photos(), opset=13, ir_version=8, **options)
    assert opsets(plain.path) == [("", 13)]
    assert onnx.load(plain.path).ir_version == 8
    shifts = quantize_onnx(model, tmp_path / "b.onnx", photos(), power_of_two=True, opset=11, ir_version=7, **options)
    assert opsets(shifts.path) == [("", 11)]
    assert shifts.agreement["segmentation"] > 0.5
    with pytest.raises(ValueError, match=r"scales per channel need opset 13 or newer, got 11; power_of_two"):
        quantize_onnx(model, tmp_path / "c.onnx", photos(), opset=11)


def test_fixed_files_of_weights_that_keep_the_aspect(tmp_path: Path) -> None:
    """Photos of any aspect are fitted, and the file says how; tiles are refused, since their scale would change."""
    model = network()
    model.configure(preprocess=edgeseg.Preprocess(size=(32, 64), keep_aspect=True))
    fits: tuple[Fit, ...] = ("stretch", "letterbox")
    for fit in fits:
        path = edgeseg.export_onnx(model, tmp_path / f"{fit}.onnx", dynamic=(), fit=fit).path
        segmenter = edgeseg.OnnxSegmenter(path)
        assert segmenter.fit == fit
        for size in [(20, 90), (90, 20), (32, 64), (1, 1), (47, 33)]:
            photo = np.zeros((*size, 3), np.uint8)
            assert segmenter.predict(photo).shape == size
        with pytest.raises(ValueError, match="tiles need a file with dynamic height and width"):
            segmenter.predict(np.zeros((90, 90, 3), np.uint8), tile=(30, 30))
    with pytest.raises(ValueError, match="applies to files of fixed height and width"):
        edgeseg.export_onnx(model, tmp_path / "m.onnx", fit="letterbox")
    with pytest.raises(ValueError, match="no fit named 'crop'"):
        edgeseg.export_onnx(model, tmp_path / "m.onnx", dynamic=(), fit="crop")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "output",
    ["labels", "small_logits", *(pytest.param(each, marks=pytest.mark.slow) for each in ("logits", "small_labels"))],
)
def test_letterbox_borders_are_removed(output: Any, tmp_path: Path) -> None:
    """A tall photo in a wide file: the map is that of the photo within its borders, at the photo's own size."""
    model = network()
    path = edgeseg.export_onnx(model, tmp_path / "m.onnx", dynamic=(), output=output, fit="letterbox").path
    photo = np.random.default_rng(1).integers(0, 256, (32, 16, 3), dtype=np.uint8)
    framed = np.full((32, 64, 3), 128, np.uint8)
    framed[:, 24:40] = photo
    segmenter = edgeseg.OnnxSegmenter(path)
    assert np.array_equal(segmenter.predict(photo), segmenter.predict(framed)[:, 24:40])
    (tensor,) = segmenter.feed(photo).values()
    assert np.array_equal(tensor, segmenter.feed(framed)["image"])
    assert segmenter.predict(np.repeat(photo, 3, axis=0)).shape == (96, 16)


def test_quantize_fixed_takes_photos_of_any_aspect(tmp_path: Path) -> None:
    model = network()
    model.configure(preprocess=edgeseg.Preprocess(size=(32, 64), keep_aspect=True))
    done = quantize_onnx(model, tmp_path / "q.onnx", photos(3), dynamic=(), calibration="minmax", fit="letterbox")
    segmenter = edgeseg.OnnxSegmenter(done.path)
    assert segmenter.fit == "letterbox"
    assert [segmenter.predict(photo).shape for photo in photos(3)] == [(30, 50), (50, 50), (70, 50)]


def test_more_than_256_classes(tmp_path: Path) -> None:
    """int32 in the file, since ONNX's operators lack uint16; uint16 as a map, and a 16-bit PNG."""
    model = network(num_classes=300)
    weight = next(value for value in model.parameters() if value.shape[0] == 300)
    with torch.no_grad():
        weight[:256] = 0  # the others, of random signs, are higher
    path = edgeseg.export_onnx(model, tmp_path / "m.onnx", output="labels").path
    labels = edgeseg.OnnxSegmenter(path).predict(np.zeros((20, 30, 3), np.uint8))
    assert (labels.dtype, labels.shape) == (np.dtype(np.uint16), (20, 30))
    assert labels.min() > 255
    Image.new("RGB", (30, 20)).save(tmp_path / "photo.png")
    call = ["predict", str(tmp_path / "photo.png"), "--onnx", str(path), "-o", str(tmp_path / "out")]
    assert main([*call, "--outputs", "labels"]) == 0
    with Image.open(tmp_path / "out" / "photo_labels.png") as image:
        assert image.mode.startswith("I")
        assert np.array_equal(np.asarray(image), labels)


@pytest.mark.parametrize("width", [1, 5, 40, 65, 66, 400])
def test_depth_is_drawn_at_any_width(width: int) -> None:
    drawn = max(width, 160)  # narrower ones would not be legible
    assert depth_scale(width).width == drawn
    task = Task("depth", 1, range=(0, 80))
    from edgeseg.tasks import kind_of

    key = kind_of(task).key(np.ones((4, width), np.float32), task, width)
    assert key is not None
    assert key.width == drawn


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--formats", "onnx"], "--formats applies to 8-bit files, which --quantize writes"),
        (["--opset", "13"], "--opset applies to 8-bit files, which --quantize writes"),
        (["--quantize", "per_channel", "--formats", "torch"], "--formats torch: the formats of 8-bit files are onnx"),
        (["--quantize", "per_channel", "--formats", "litert", "--opset", "13"], "which --formats leaves out"),
        (["--quantize", "per_channel", "--opset", "12"], "scales per channel need opset 13"),
        (["--teacher-task", "semantic"], "--teacher-task needs --teacher"),
    ],
)
def test_files_of_a_training_that_cannot_be_written(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["train", "--dataset", "streets", "--model", "fpn", "--encoder", TINY, "-o", str(tmp_path / "run")]
    assert main([*call, *options]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "-o", "{}/nodir/x.onnx"], "there is no folder"),
        (["export", "-o", "{}/x.onnx", "--img-resize", "0", "0"], "--img-resize must be a positive height and width"),
        (["export", "-o", "{}/x.onnx", "--opset", "10"], "opset is 11 to"),
        (["export", "-o", "{}/x.onnx", "--ir-version", "2"], "--ir-version is 4 to"),
        (["export", "-o", "{}/x.onnx", "--fit", "letterbox"], "add --fixed"),
        (["export", "-o", "{}/x.pt2", "--ir-version", "8"], "--ir-version does not apply to torch.export files"),
        (["export", "-o", "{}/nodir/x.pt2"], "there is no folder"),
        (["quantize", "--images", "{}", "-o", "{}/nodir/x.onnx"], "there is no folder"),
        (["quantize", "--images", "{}", "-o", "{}/x.tflite"], "--output is a .onnx file"),
        (
            ["quantize", "--images", "{}", "-o", "{}/x.onnx", "--img-resize", "-1", "5"],
            "--img-resize must be a positive",
        ),
        (["quantize", "--images", "{}", "-o", "{}/x.onnx", "--opset", "12"], "scales per channel need opset 13"),
        (["quantize", "--images", "{}", "-o", "{}/x.onnx", "--keep-float", "-1"], "--keep-float must be at least 0"),
    ],
)
def test_wrong_calls_end_before_work_starts(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("export", "quantize"):
        monkeypatch.setattr(f"edgeseg.cli.{verb}.load_model", lambda *_: pytest.fail("work has started"))
    assert main([word.format(tmp_path) for word in words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_commands_pass_what_is_asked(weights: Path, tmp_path: Path) -> None:
    call = ["export", "--checkpoint", str(weights), "-o", str(tmp_path / "m.onnx"), "--fixed", "--fit", "letterbox"]
    assert main([*call, "--opset", "12", "--ir-version", "8"]) == 0
    assert opsets(tmp_path / "m.onnx") == [("", 12)]
    assert onnx.load(tmp_path / "m.onnx").ir_version == 8
    assert edgeseg.OnnxSegmenter(tmp_path / "m.onnx").fit == "letterbox"


def test_train_quantize_passes_what_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = [
        "train", "--dataset", "streets", "--length", "2", "--val-split", "none", "--model",
        "fpn_aspp_mobilenetv2_tv_edgeailite", "-o", str(tmp_path / "run"), "--epochs", "1", "--batch-size", "2",
    ]  # fmt: skip
    assert main([*call, "--opset", "13"]) == 2
    assert "--quantize" in capsys.readouterr().err
    assert main([*call, "--opset", "9", "--quantize", "per_channel"]) == 2
    assert "opset is 11 to" in capsys.readouterr().err


def test_costs_are_counted_without_warnings() -> None:
    """In a process of its own, since pytest's settings hide warnings."""
    code = "from edgeseg.cli import main; raise SystemExit(main(['info', 'fpn_aspp_mobilenetv2_tv_edgeailite']))"
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, check=True)
    assert "GMACs" in done.stdout
    assert done.stderr == ""


def test_quantized_training_writes_what_is_asked(tmp_path: Path) -> None:
    """The file of a network that was trained in 8 bit, as `edgeseg train --quantize` writes it."""
    model = quantize_aware(network(), Quantization(scheme="power_of_two"))
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 32, 64))
    path = edgeseg.export_onnx(
        model.eval(), tmp_path / "int8.onnx", output="small_logits", preprocess=True, opset=13, ir_version=8
    ).path
    assert opsets(path) == [("", 13)]
    assert onnx.load(path).ir_version == 8


@pytest.mark.parametrize("images", [None, iter(["photo.jpg"]), "photo.jpg", ["photo.jpg"]])
def test_images_of_a_file(images: Any, tmp_path: Path) -> None:
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8, num_classes=3)
    message = "other precisions need none" if images in (None, ["photo.jpg"]) else "images is a list of photos, got"
    precision: Any = "float32" if images == ["photo.jpg"] else "int8"
    with pytest.raises(ValueError, match=message):
        edgeseg.export(model, tmp_path / "model.onnx", precision=precision, images=images)
    with pytest.raises(ValueError, match=message):
        edgeseg.export_web(model, tmp_path / "page", size=(64, 96), precision=precision, images=images)
    assert not list(tmp_path.iterdir())


def test_arguments_of_other_types(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    calls: list[tuple[Any, type[Exception], str]] = [
        (lambda: edgeseg.complexity("fpn", 64), ValueError, "complexity takes an edgeseg model, got a str"),  # type: ignore[arg-type]
        (lambda: edgeseg.list_models(None), ValueError, "a pattern is text"),  # type: ignore[arg-type]
        (lambda: edgeseg.load_checkpoint("fpn", "a.pth"), TypeError, "the model must be a network, got str"),  # type: ignore[arg-type]
        (lambda: edgeseg.create_model("fpn", encoder=TINY, encoder_weights=True), TypeError, "encoder_weights is "),  # type: ignore[arg-type]
    ]
    for call, kind, message in calls:
        with pytest.raises(kind, match=message):
            call()
    assert not edgeseg.is_model(None)  # type: ignore[arg-type]
    assert edgeseg.create_model("fpn", encoder=TINY, num_classes=np.int64(5)).tasks["segmentation"].channels == 5  # type: ignore[arg-type]


def test_options_of_onnxruntime(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    path = edgeseg.export_onnx(model, tmp_path / "m.onnx", size=(32, 32), dynamic=()).path
    with_options = edgeseg.OnnxSegmenter(path, providers=[("CPUExecutionProvider", {"use_arena": "1"})])
    photo = np.zeros((32, 32, 3), np.uint8)
    assert (with_options.predict(photo) == edgeseg.OnnxSegmenter(path).predict(photo)).all()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"providers": "CPUExecutionProvider"}, "providers is a list of names"),
        ({"threads": "2"}, "threads is a number of threads, got '2'"),
        ({"threads": -1}, "threads is a number of threads, got -1"),
        ({"device": torch.device("cpu")}, "device is the name of a device"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            edgeseg.OnnxSegmenter(path, **options)
    with pytest.raises(ValueError, match="image must be a NumPy array, got list"):
        with_options.run([1])  # type: ignore[arg-type]
