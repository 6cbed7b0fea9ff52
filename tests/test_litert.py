"""LiteRT files: they answer as the network does, in float and in 8 bit, and say what they are."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgeseg
from edgeseg.cli import main
from edgeseg.deploy import verify
from edgeseg.networks.quantized import Quantizer, quantize_aware
from edgeseg.predict.facts import append_facts, read_facts
from edgeseg.spec import Task

from .conftest import TINY

REASON = "needs the tools of LiteRT: pip install 'edgeseg[litert]'"
pytest.importorskip("ai_edge_litert", reason=REASON)
pytest.importorskip("ai_edge_quantizer", reason=REASON)
pytest.importorskip("litert_torch", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore")  # of the converter's libraries, when they are imported

SIZE = (64, 96)
THREE = {
    "semantic": Task("segmentation", 5),
    "depth": Task("depth", 1, range=(0, 9)),
    "motion": Task("segmentation", 2),
}


def some(family: str, encoder: str = TINY, **options: Any) -> edgeseg.Pixel2Pixel:
    """A small network, its batch norms as after some training."""
    torch.manual_seed(0)
    model = edgeseg.create_model(family, encoder=encoder, channels=8, **options)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            torch.nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
    model.configure(preprocess=edgeseg.Preprocess(size=SIZE))
    return model.eval()


def photos(count: int = 3) -> list[np.ndarray]:
    coarse = torch.rand(count, 3, 8, 12, generator=torch.Generator().manual_seed(1)) * 255
    smooth = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 255).to(torch.uint8)
    return list(smooth.permute(0, 2, 3, 1).numpy())


@pytest.fixture(scope="module")
def network() -> edgeseg.Pixel2Pixel:
    return some("fpn", num_classes=4)


@pytest.fixture(scope="module")
def file(network: edgeseg.Pixel2Pixel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In float32, with logits."""
    before = logging.root.handlers[:], dict(os.environ), {name: p.clone() for name, p in network.state_dict().items()}
    path = tmp_path_factory.mktemp("litert") / "model.tflite"
    done = edgeseg.export(network, path)
    assert done.sizes == ((1, 3, *SIZE),)
    assert done.differences["segmentation"] < 1e-3
    assert (logging.root.handlers, dict(os.environ)) == before[:2]
    assert all(torch.equal(before[2][name], value) for name, value in network.state_dict().items())
    return path


def operators(path: Path) -> list[tuple[str, list[str]]]:
    """Per operator its name and the types of what it reads."""
    segmenter = edgeseg.load_segmenter(path)
    interpreter = vars(segmenter)["interpreter"]
    types = {each["index"]: np.dtype(each["dtype"]).name for each in interpreter.get_tensor_details()}
    found = interpreter._get_ops_details()
    return [(op["op_name"], [types.get(int(index), "") for index in op["inputs"]]) for op in found]


def test_same_as_the_network(network: edgeseg.Pixel2Pixel, file: Path) -> None:
    segmenter = edgeseg.load_segmenter(file, threads=1)
    assert segmenter.shape == [1, 3, *SIZE]
    image = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        expected = network(image)["segmentation"].numpy()
    assert verify.difference(expected, segmenter.run(image.numpy())["segmentation"]) < 1e-3
    strided = np.ascontiguousarray(image.numpy().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert verify.difference(expected, segmenter.run(strided)["segmentation"]) < 1e-3  # another layout in memory
    for photo in photos():
        assert (segmenter.predict(photo) == network.predict(photo)).mean() > 0.999
    with pytest.raises(
        ValueError, match=r"image is float32 \[1, 3, 64, 96\] in model\.tflite, got float32 \[1, 3, 64, 64"
    ):
        segmenter.run(np.zeros((1, 3, 64, 64), np.float32))


def test_threads_and_pickle(file: Path) -> None:
    segmenter = edgeseg.load_segmenter(file)
    expected = [segmenter.predict(photo) for photo in photos(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(segmenter.predict, photos(8)))
    again = pickle.loads(pickle.dumps(segmenter))
    for one, two, photo in zip(expected, found, photos(8), strict=True):
        assert (one == two).all()
        assert (one == again.predict(photo)).all()


def test_without_torch(file: Path, photo: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        f"import edgeseg; print(edgeseg.load_segmenter({str(file)!r}).predict({str(photo)!r}).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(60, 90)\n"
    assert not done.stderr


def test_names_and_facts(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = read_facts(file)
    assert json.loads(facts["edgeseg_file"]) == {"output": "logits", "preprocess": False, "fit": "stretch"}
    assert list(json.loads(facts["classes"])) == ["segmentation"]
    from ai_edge_litert.interpreter import Interpreter

    plain = Interpreter(model_path=str(file))  # what is behind the content does not disturb it
    assert plain.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["segmentation"]}}
    assert main(["info", str(file)]) == 0
    assert "segmentation" in capsys.readouterr().out


@pytest.mark.slow
def test_float16(network: edgeseg.Pixel2Pixel, file: Path, tmp_path: Path) -> None:
    done = edgeseg.export(network, tmp_path / "half.tflite", precision="float16")
    assert done.path.stat().st_size < 0.7 * file.stat().st_size
    segmenter = edgeseg.load_segmenter(done.path)
    for photo in photos():
        assert (segmenter.predict(photo) == network.predict(photo)).mean() > 0.98


def test_8_bit(tmp_path: Path) -> None:
    network = some("fpn", "mobilenetv2", num_classes=4)
    done = edgeseg.export(
        network, tmp_path / "int8.tflite", precision="int8", images=photos(), output="small_logits", preprocess=True
    )
    assert done.agreement["segmentation"] > 0.9
    computed = [(name, types[0]) for name, types in operators(done.path) if "CONV" in name]
    assert [types for _, types in computed] == ["int8"] * (len(computed) - 1) + ["float32"]  # the last one
    segmenter = edgeseg.load_segmenter(done.path)
    same = [(segmenter.predict(photo) == network.predict(photo)).mean() for photo in photos()]
    assert np.mean(same) > 0.9


@pytest.mark.slow
def test_trained_for_8_bit(tmp_path: Path) -> None:
    network = some("fpn", "mobilenetv2", num_classes=4)
    prepared = [network.prepare(photo) for photo in photos()]
    trained = quantize_aware(network, images=prepared).train()
    with torch.no_grad():
        for images in prepared:
            trained.decode(*images)
    trained.eval()
    with pytest.raises(ValueError, match="was trained for 8 bits; it has no form in float16"):
        edgeseg.export(trained, tmp_path / "half.tflite", precision="float16")
    done = edgeseg.export(trained, tmp_path / "qat.tflite", output="small_logits")
    assert done.differences["segmentation"] < 0.05
    assert [types[0] for name, types in operators(done.path) if "CONV" in name].count("float32") == 1
    segmenter = edgeseg.load_segmenter(done.path)
    assert np.mean([(segmenter.predict(photo) == trained.predict(photo)).mean() for photo in photos()]) > 0.85
    details = vars(segmenter)["interpreter"].get_tensor_details()
    scales = {float(np.float32(each["quantization"][0])) for each in details if each["dtype"] is np.int8}
    grids = [m.scale_and_zero()[0] for m in trained.modules() if isinstance(m, Quantizer)]
    kept = [any(abs(float(scale) - found) <= 1e-6 * found for found in scales if found) for scale in grids]
    assert np.mean(kept) > 0.9  # before a concatenation or resize the file rounds once, to the scale after it


@pytest.mark.slow
def test_several_inputs_and_tasks(tmp_path: Path) -> None:
    network = some("fpn", in_channels=(3, 3), tasks=THREE)
    done = edgeseg.export(network, tmp_path / "model.tflite", output="labels", preprocess=True, size=SIZE)
    segmenter = edgeseg.load_segmenter(done.path)
    assert list(segmenter.inputs) == ["flow", "image"]
    flow, photo = photos(2)
    found = segmenter.run(*(each.transpose(2, 0, 1)[None] for each in (flow, photo)))
    assert {name: (str(each.dtype), each.shape) for name, each in found.items()} == {
        "semantic": ("uint8", (1, *SIZE)), "depth": ("float32", (1, 1, *SIZE)), "motion": ("uint8", (1, *SIZE)),
    }  # fmt: skip
    maps, expected = segmenter.predict_tasks(flow, photo), network.predict_tasks(flow, photo)
    assert np.abs(maps["depth"] - expected["depth"]).max() < 1e-3
    assert all((maps[name] == expected[name]).mean() > 0.99 for name in ("semantic", "motion"))


@pytest.mark.parametrize(
    ("family", "encoder"),
    [
        ("unet", TINY),
        pytest.param("bifpn", TINY, marks=pytest.mark.slow),
        pytest.param("fpnsum", TINY, marks=pytest.mark.slow),
        pytest.param("deeplabv3plus", TINY, marks=pytest.mark.slow),
        pytest.param("fpn", "resnet50", marks=pytest.mark.slow),
        pytest.param("unet", "regnetx400mf", marks=pytest.mark.slow),
        pytest.param("fpn", "mobilenetv3_small_050", marks=pytest.mark.slow),
        pytest.param("fpn", "tf_mobilenetv3_small_minimal_100", marks=pytest.mark.slow),
    ],
)
def test_every_family(family: str, encoder: str, tmp_path: Path) -> None:
    network = some(family, encoder, num_classes=3)
    done = edgeseg.export(network, tmp_path / "model.tflite", output="small_labels", fit="letterbox")
    assert done.differences["segmentation"] <= 1e-3
    photo = photos(1)[0][:, :60]
    assert edgeseg.load_segmenter(done.path).predict(photo).shape == photo.shape[:2]


def test_damaged_files(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    bad = tmp_path / "bad.tflite"
    damaged = bytearray(content)
    damaged[2000:3000] = bytes(1000)
    for wrong, message in (
        (b"", "not a LiteRT file"),
        (b"no LiteRT file at all", "not a LiteRT file"),
        (content[:-30], "was not written by edgeseg"),
        (content[: len(content) // 2], "was not written by edgeseg"),
        (bytes(damaged), "corrupt"),
    ):
        bad.write_bytes(wrong)
        with pytest.raises(ValueError, match=rf"bad\.tflite.*{message}"):
            edgeseg.load_segmenter(bad)
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.tflite"):
        edgeseg.load_segmenter(tmp_path / "none.tflite")
    with pytest.raises(ValueError, match="LiteRT files run on the CPU here, not on 'GPU'"):
        edgeseg.load_segmenter(file, device="GPU")


def test_content_that_the_runtime_refuses(file: Path, tmp_path: Path) -> None:
    from edgeseg.predict.facts import content_fact

    facts: Mapping[str, str] = read_facts(file)
    content = b"\x10\0\0\0TFL3" + bytes(100)
    (tmp_path / "other.tflite").write_bytes(content)
    append_facts(tmp_path / "other.tflite", {**facts, **content_fact(content)})
    with pytest.raises(ValueError, match=r"LiteRT cannot load .*other\.tflite"):
        edgeseg.load_segmenter(tmp_path / "other.tflite")


def test_wrong_calls(network: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    with pytest.raises(
        ValueError, match=r"LiteRT files have no option dynamic; they have size, output, preprocess, fit"
    ):
        edgeseg.export(network, path, dynamic=())
    with pytest.raises(ValueError, match="needs images"):
        edgeseg.export(network, path, precision="int8")
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        edgeseg.export(network, path, precision="int8", images=["none.jpg"])
    with pytest.raises(ValueError, match="no fit named 'crop'"):
        edgeseg.export(network, path, fit="crop")
    assert not list(tmp_path.iterdir())


def test_difference_is_an_error_and_nothing_is_left(
    network: edgeseg.Pixel2Pixel, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeseg.deploy import litert
    from edgeseg.predict.facts import litert_content

    monkeypatch.setattr(litert, "_content", lambda *_: litert_content(file)[0])
    monkeypatch.setitem(verify.TOLERANCE, "values", 1e-12)
    with pytest.raises(RuntimeError, match="segmentation in the exported file differs from the network by"):
        edgeseg.export(network, tmp_path / "model.tflite")
    monkeypatch.setattr(litert, "TOOLS", ("no_such_tool",))
    with pytest.raises(ImportError, match=r"LiteRT files need no-such-tool: pip install 'edgeseg\[litert\]'"):
        edgeseg.export(network, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())
