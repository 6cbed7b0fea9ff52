"""OpenVINO files: they answer as the network does, in float32, with float16 weights and in 8 bit."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

import edgeseg
from edgeseg.data import Streets
from edgeseg.deploy import verify
from edgeseg.machine.processor import saturates_in_8_bit
from edgeseg.networks.quantized import quantize_aware
from edgeseg.predict.facts import read_facts
from edgeseg.spec import Quantization, Task

from .conftest import TINY

pytest.importorskip("openvino", reason="openvino is not installed: pip install 'edgeseg[openvino]'")

THREE = {
    "semantic": Task("segmentation", 5),
    "depth": Task("depth", 1, range=(0, 9)),
    "motion": Task("segmentation", 2),
}


def network(family: str = "fpn", encoder: str = TINY, **options: object) -> edgeseg.Pixel2Pixel:
    torch.manual_seed(0)
    made = edgeseg.create_model(family, encoder=encoder, channels=8, **options)  # type: ignore[arg-type]
    made.configure(preprocess=edgeseg.Preprocess(size=(64, 96)))
    return made.eval()


@pytest.fixture(scope="module")
def model() -> edgeseg.Pixel2Pixel:
    return network(num_classes=4)


@pytest.fixture(scope="module")
def images() -> list[torch.Tensor]:
    streets = Streets("train", (64, 96), length=4)
    return [streets[i][0].as_subclass(torch.Tensor) for i in range(4)]


@pytest.fixture(scope="module")
def file(model: edgeseg.Pixel2Pixel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of any size with small logits, which takes pixels."""
    path = tmp_path_factory.mktemp("openvino") / "model.xml"
    done = edgeseg.export(model, path, output="small_logits", preprocess=True)
    assert done.sizes == ((2, 3, 64, 96), (1, 3, 37, 51), (1, 3, 85, 123))
    assert done.was_run
    assert done.differences["segmentation"] < 1e-4
    return path


def test_files_and_facts(file: Path, model: edgeseg.Pixel2Pixel) -> None:
    assert sorted(path.name for path in file.parent.iterdir()) == ["model.bin", "model.xml"]
    facts = read_facts(file)
    assert edgeseg.load_segmenter(file).config == model.config
    assert {"edgeseg_file", "classes", "palette"} <= set(facts)
    assert str(Path.home()) not in file.read_text()
    assert file.read_text().count("edgeseg_file") == 1  # not a second time as what ONNX said


def test_segmenter(file: Path, model: edgeseg.Pixel2Pixel, photo: Path) -> None:
    segmenter = edgeseg.load_segmenter(file, threads=1)
    assert segmenter.shape == ["batch", 3, "height", "width"]
    expected = model.predict(photo)
    found = segmenter.predict(photo)
    assert found.dtype == expected.dtype
    assert (found == expected).mean() > 0.98  # Pillow's resize rounds differently than torch's
    pixels = [np.random.default_rng(i).integers(0, 256, (1 + i % 2, 3, 40, 56), dtype=np.uint8) for i in range(6)]
    alone = [segmenter.run(each)["segmentation"] for each in pixels]
    copy = pickle.loads(pickle.dumps(segmenter))
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda each: copy.run(each)["segmentation"], pixels * 3))
    for one, other in zip(alone * 3, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    with pytest.raises(ValueError, match=r"image is uint8 .* in model\.xml, got float32"):
        segmenter.run(np.zeros((1, 3, 64, 96), np.float32))


def test_precision_is_float32(file: Path) -> None:
    """Also on processors on which OpenVINO would choose bfloat16."""
    compiled = edgeseg.load_segmenter(file).compiled  # type: ignore[attr-defined]
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_without_torch(file: Path, photo: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        f"import edgeseg; labels = edgeseg.load_segmenter({str(file)!r}).predict({str(photo)!r})\n"
        "print(labels.shape, labels.dtype)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with Image.open(photo) as image:
        assert done.stdout == f"({image.height}, {image.width}) uint8\n"


def test_devices(file: Path) -> None:
    assert edgeseg.load_segmenter(file, device="auto").device == "AUTO"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="OpenVINO finds no device 'TPU' on this machine, only CPU"):
        edgeseg.load_segmenter(file, device="TPU")
    with pytest.raises(ValueError, match="threads must be at least 1"):
        edgeseg.load_segmenter(file, threads=-1)


def test_wrong_files(file: Path, tmp_path: Path) -> None:
    def put(xml: bytes, weights: bytes | None) -> Path:
        (tmp_path / "m.xml").write_bytes(xml)
        (tmp_path / "m.bin").unlink(missing_ok=True)
        if weights is not None:
            (tmp_path / "m.bin").write_bytes(weights)
        return tmp_path / "m.xml"

    xml, weights = file.read_bytes(), file.with_suffix(".bin").read_bytes()
    with pytest.raises(FileNotFoundError, match=r"no file .*m\.bin, in which"):
        edgeseg.load_segmenter(put(xml, None))
    with pytest.raises(ValueError, match=r"cannot read .*m\.xml: corrupt or truncated"):
        edgeseg.load_segmenter(put(xml[: len(xml) // 2], weights))
    with pytest.raises(ValueError, match=r"m\.bin is corrupt, or does not belong to .*m\.xml"):
        edgeseg.load_segmenter(put(xml, weights[:-9]))
    with pytest.raises(ValueError, match=r"m\.xml was not written by edgeseg"):
        edgeseg.load_segmenter(put(xml.replace(b"edgeseg", b"another"), weights))
    with pytest.raises(ValueError, match=r"m\.xml: corrupt or truncated"):
        read_facts(put(b"no xml", weights))


def test_wrong_calls(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"OpenVINO files end in \.xml"):
        edgeseg.export(model, tmp_path / "m.ov", format="openvino")
    (tmp_path / "m.xml").mkdir()
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        edgeseg.export(model, tmp_path / "m.xml")
    (tmp_path / "m.xml").rmdir()
    (tmp_path / "m.bin").write_bytes(b"of another program")
    with pytest.raises(FileExistsError, match=r"m\.bin, which would become the weights of .*m\.xml, is there without"):
        edgeseg.export(model, tmp_path / "m.xml")
    assert (tmp_path / "m.bin").read_bytes() == b"of another program"
    (tmp_path / "m.bin").unlink()
    with pytest.raises(ValueError, match="no output named 'softmax'"):
        edgeseg.export(model, tmp_path / "m.xml", output="softmax")
    with pytest.raises(OSError, match=r"none\.png"):
        edgeseg.export(model, tmp_path / "m.xml", precision="int8", images=[tmp_path / "none.png"])
    assert not list(tmp_path.iterdir())


def test_difference_is_an_error_and_nothing_is_left(
    model: edgeseg.Pixel2Pixel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in (".xml", ".bin"):
        (tmp_path / f"m{suffix}").write_bytes(b"before")
    monkeypatch.setitem(verify.TOLERANCE_16_BIT, "values", 1e-12)
    with pytest.raises(RuntimeError, match="differs from the network by"):
        edgeseg.export(model, tmp_path / "m.xml", precision="float16", dynamic=())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(("m.bin", "m.xml"), b"before")


def test_float16_halves_the_weights(file: Path, model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    done = edgeseg.export(model, tmp_path / "m.xml", precision="float16", dynamic=())
    assert done.differences["segmentation"] < 0.02
    assert (tmp_path / "m.bin").stat().st_size < 0.6 * file.with_suffix(".bin").stat().st_size


@pytest.mark.parametrize("dynamic", [(), pytest.param(("batch", "height", "width"), marks=pytest.mark.slow)])
def test_int8_of_two_inputs_and_three_tasks(
    dynamic: tuple[str, ...], images: list[torch.Tensor], tmp_path: Path
) -> None:
    model = network(in_channels=(3, 3), tasks=THREE)
    frames = [(images[i - 1], images[i]) for i in range(4)]
    done = edgeseg.export(model, tmp_path / "m.xml", precision="int8", images=frames, dynamic=dynamic, preprocess=True)
    assert min(done.agreement.values()) > 0.85
    segmenter = edgeseg.load_segmenter(done.path)
    assert list(segmenter.inputs) == ["flow", "image"]
    found, expected = segmenter.predict_tasks(*frames[0]), model.predict_tasks(*frames[0])
    assert list(found) == list(THREE)
    assert (found["semantic"] == expected["semantic"]).mean() > 0.85
    assert b'"U8"' in done.path.read_bytes()


def rounded(model: edgeseg.Pixel2Pixel, images: list[torch.Tensor], quantization: Quantization) -> edgeseg.Pixel2Pixel:
    """The network with the rounding of 8 bit, whose ranges are those of the images."""
    trained = quantize_aware(model.train(), quantization)
    model.eval()
    with torch.no_grad():
        trained(trained.preprocess.normalize(torch.stack(images)))
    return trained.eval()


@pytest.mark.parametrize("bits", [7, 8])
def test_a_difference_that_the_processor_makes_is_named(
    bits: Literal[7, 8],
    model: edgeseg.Pixel2Pixel,
    images: list[torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify, "saturates_in_8_bit", lambda: True)
    monkeypatch.setattr(verify, "TOLERANCE_8_BIT", {"values": 1e-9, "labels": 1e-9})
    with pytest.raises(RuntimeError, match="differs from the network") as error:
        edgeseg.export(rounded(model, images, Quantization(weight_bits=bits)), tmp_path / "m.onnx", dynamic=())
    assert ("train with weight_bits=7 (--weight-bits 7)" in str(error.value)) == (bits == 8)


def test_network_trained_for_8_bit_keeps_its_scales(
    model: edgeseg.Pixel2Pixel, images: list[torch.Tensor], tmp_path: Path
) -> None:
    trained = rounded(model, images, Quantization(weight_bits=7 if saturates_in_8_bit() else 8))
    done = edgeseg.export(trained, tmp_path / "m.xml", precision="int8", images=images, dynamic=())
    assert done.agreement["segmentation"] > 0.9
    same = [edgeseg.load_segmenter(done.path).predict(image) == trained.predict(image) for image in images]
    assert np.mean(same) > 0.9
    with pytest.raises(ValueError, match="trained for 8 bits is written with its scales: float32 or int8"):
        edgeseg.export(trained, tmp_path / "h.xml", precision="float16")


@pytest.mark.parametrize(
    "family", ["deeplabv3plus", *(pytest.param(name, marks=pytest.mark.slow) for name in ("unet", "bifpn", "fpnsum"))]
)
def test_families(family: str, images: list[torch.Tensor], tmp_path: Path) -> None:
    made = network(family, num_classes=3)
    done = edgeseg.export(made, tmp_path / "m.xml", dynamic=(), output="labels")
    segmenter = edgeseg.load_segmenter(done.path)
    assert (segmenter.predict(images[0]) == made.predict(images[0])).mean() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("family", ["fpn", "unet", "deeplabv3plus", "bifpn", "fpnsum"])
@pytest.mark.parametrize("encoder", ["mobilenetv2", "regnetx400mf", "resnet50"])
@pytest.mark.parametrize("dynamic", [(), ("batch", "height", "width")])
def test_int8_of_every_family(
    family: str, encoder: str, dynamic: tuple[str, ...], images: list[torch.Tensor], tmp_path: Path
) -> None:
    made = network(family, encoder, num_classes=3)
    done = edgeseg.export(made, tmp_path / "m.xml", precision="int8", images=images, dynamic=dynamic)
    assert done.agreement["segmentation"] > 0.8


@pytest.mark.slow
def test_a_file_on_which_openvino_crashes(tmp_path: Path) -> None:
    """OpenVINO 2026.4 ends the process that opens the 8-bit file of ESPNetv2; that of the user goes on."""
    model = edgeseg.create_model("espnetv2_s0p5", num_classes=3).eval()
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    with pytest.raises(RuntimeError, match="OpenVINO cannot open the 8-bit file of this network"):
        edgeseg.export(model, tmp_path / "model.xml", precision="int8", images=[photo] * 2, size=(64, 96), dynamic=())
    assert not list(tmp_path.glob("*.xml"))
