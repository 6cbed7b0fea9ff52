"""ESPNetv2: the published files give the outputs of the original network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgeseg
from edgeseg.labels import segmentation_task
from edgeseg.machine.download import fetch
from edgeseg.zoo.weights import WEIGHTS

from .conftest import SHARED
from .hub_server import HubServer
from .test_encoders import randomize

CITY = [f"espnetv2_s_{scale}_city_1024x512.pth" for scale in ("0.5", "1.0", "1.5", "2.0")]
FILES = [*CITY, *(f"espnetv2_s_{scale}_pascal_384x384.pth" for scale in ("1.0", "2.0"))]
NAMES = {"0.5": "espnetv2_s0p5", "1.0": "espnetv2_s1p0", "1.5": "espnetv2_s1p5", "2.0": "espnetv2_s2p0"}
# Slopes in the files that the original never uses.
UNUSED = {"0.5": 112, "1.0": 224, "1.5": 352, "2.0": 480}


def published(file: str) -> Path:
    path = SHARED / "data/weights/espnetv2" / file
    if not path.is_file():
        pytest.skip(f"needs {path}, a published file that lies beside the checkout")
    return path


def model_of(file: str, classes: int | None = None) -> edgeseg.Pixel2Pixel:
    classes = classes or (20 if "city" in file else 21)
    name = NAMES[file.split("_")[2]]
    return edgeseg.create_model(name, num_classes=classes, checkpoint_path=published(file)).eval()


def photo_input() -> np.ndarray:
    with Image.open(SHARED / "data/camvid/test/0001TP_008550.webp") as file:
        pixels = np.asarray(file.convert("RGB"))[:352, :480] / 255
    normalized = (pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return normalized.astype(np.float32).transpose(2, 0, 1)[None]


SMALL = ("espnetv2_s_0.5_city_1024x512.pth", "espnetv2_s_1.0_pascal_384x384.pth")


@pytest.mark.parametrize("file", [pytest.param(f, marks=() if f in SMALL else pytest.mark.slow) for f in FILES])
def test_outputs_of_the_published_files(file: str, reference: Callable[[str], Any]) -> None:
    facts = reference("espnetv2_fixtures.json")["files"][file]
    model = model_of(file).double()
    assert sum(p.numel() for p in model.parameters()) == facts["parameters"] - UNUSED[str(facts["s"])]
    for case in facts["outputs"]:
        shape = (1, 3, *case["size"])
        noise = np.random.RandomState(1234).standard_normal(shape).astype(np.float32)
        image = torch.from_numpy(photo_input() if case["input"] == "photo" else noise).double()
        with torch.inference_mode():
            logits = model(image)["segmentation"].numpy()
        assert list(logits.shape) == case["shape"]
        assert np.abs(logits.ravel()[case["indices"]] - case["values"]).max() < 1e-9
        assert logits.std() == pytest.approx(case["std"], rel=1e-9)
        assert np.bincount(logits.argmax(axis=1).ravel(), minlength=logits.shape[1]).tolist() == case["argmax"]


@pytest.mark.parametrize(("file", "macs"), zip(CITY, (596248176, 1085283952, 1713255536, 2697742960), strict=True))
def test_costs(file: str, macs: int) -> None:
    model = edgeseg.create_model(NAMES[file.split("_")[2]], num_classes=20)
    cost = edgeseg.complexity(model, (512, 1024))
    assert round(cost.gmacs * 1e9) == macs
    if "0.5" in file:
        assert round(cost.fvcore * 1e9) == 820480624


def test_nineteen_classes_of_twenty_outputs() -> None:
    """The 20th output of the Cityscapes files was never a target."""
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        all_outputs, classes = (model_of(CITY[0], count)(image)["segmentation"] for count in (20, 19))
    assert torch.equal(all_outputs[:, :19], classes)
    with pytest.warns(UserWarning, match=r"2 tensors are not loaded .*head\.1\.bias, .*head\.1\.weight"):
        edgeseg.create_model("espnetv2_s0p5", num_classes=7, checkpoint_path=published(CITY[0]))


@pytest.mark.parametrize("size", [(250, 330), (360, 480), (33, 47), (17, 31), (1, 1), (64, 96)])
def test_any_size(size: tuple[int, int]) -> None:
    model = edgeseg.create_model("espnetv2_s0p5", num_classes=5).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, 3, *size))["segmentation"].shape == (2, 5, *size)


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="takes images of 3 channels, got 1"):
        edgeseg.create_model("espnetv2_s0p5", in_channels=(1,))
    with pytest.raises(ValueError, match="takes a single input"):
        edgeseg.create_model("espnetv2_s0p5", in_channels=(3, 3))
    with pytest.raises(ValueError, match="features at strides 2, 4, 8 and 16"):
        edgeseg.create_model("espnetv2", encoder="mobilenetv2", output_stride=32)
    model = edgeseg.create_model("espnetv2_s0p5", prediction_stride=2, num_classes=4)
    assert model.decode(torch.randn(1, 3, 64, 96))["segmentation"].shape == (1, 4, 32, 48)


def test_from_the_catalog(hub: HubServer, monkeypatch: pytest.MonkeyPatch, photo: Path) -> None:
    """The published file is downloaded, its hash compared, and becomes a network of Cityscapes' 19 classes."""
    name = "espnetv2_s0p5.cityscapes"
    entry, content = WEIGHTS[name], published(CITY[0]).read_bytes()
    hub.files["/espnet.pth"] = content
    monkeypatch.setitem(WEIGHTS, name, replace(entry, addresses=(f"{hub.url}/espnet.pth",)))
    model = edgeseg.create_model(name).eval()
    assert model.tasks["segmentation"].classes == segmentation_task("cityscapes").classes
    assert model.preprocess.size == (512, 1024)
    assert "MIT" in model.config.notes["license"]
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(model(image)["segmentation"], model_of(CITY[0], 19)(image)["segmentation"])
    assert model.predict(photo).shape == (60, 90)
    assert edgeseg.weights_info("espnetv2_s0p5") is WEIGHTS[name]
    monkeypatch.setitem(WEIGHTS, name, replace(entry, addresses=(f"{hub.url}/other.pth",)))
    hub.files["/other.pth"] = content[:-1] + b"x"
    with pytest.raises(ValueError, match="is not the file it should be"):
        fetch(WEIGHTS[name].addresses, "other", sha256=entry.sha256)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [(), ("batch", "height", "width")])
def test_export(dynamic: tuple[str, ...], tmp_path: Path) -> None:
    model = randomize(edgeseg.create_model("espnetv2_s0p5", num_classes=5)).eval()
    edgeseg.export_onnx(model, tmp_path / "a.onnx", size=(64, 96), dynamic=dynamic)
    segmenter = edgeseg.OnnxSegmenter(tmp_path / "a.onnx")
    for size in [(64, 96), (96, 160), (70, 130)][: 3 if dynamic else 1]:
        image = torch.randn(1, 3, *size)
        with torch.inference_mode():
            expected = model(image)["segmentation"].numpy()
        assert np.abs(segmenter.run(image.numpy())["segmentation"] - expected).max() < 1e-3 * expected.std()
