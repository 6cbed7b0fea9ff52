"""Networks in the fastest runtime at hand: exported into the cache, with the same labels as in PyTorch."""

from __future__ import annotations

import importlib
import linecache
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import edgeseg
from edgeseg.cli import main
from edgeseg.deploy import fast
from edgeseg.machine.download import cache_folder, make_in_cache
from edgeseg.machine.errors import ExportError
from edgeseg.machine.versions import version_of
from edgeseg.networks.network_bytes import network_bytes
from edgeseg.predict.segmenter import FileSegmenter

from .conftest import TINY


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    return cache_folder() / "exported"


@pytest.fixture
def network() -> edgeseg.Pixel2Pixel:
    torch.manual_seed(0)
    return edgeseg.create_model("fpn", encoder=TINY, num_classes=19, channels=16).eval()


@pytest.fixture
def saved(network: edgeseg.Pixel2Pixel, tmp_path: Path) -> str:
    edgeseg.save_checkpoint(network, tmp_path / "network.safetensors")
    return str(tmp_path / "network.safetensors")


def test_same_labels(network: edgeseg.Pixel2Pixel, photo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exported once; another network or other preprocessing is another file."""
    segmenter = edgeseg.optimize(network, runtime="onnxruntime")
    assert isinstance(segmenter, FileSegmenter)
    assert (segmenter.predict(photo) == network.predict(photo)).mean() > 0.999
    (first,) = cache.glob("*.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(fast, "export", None)  # not called
        edgeseg.optimize(network, runtime="onnxruntime")
    network.configure(preprocess=edgeseg.Preprocess(size=(48, 64)))
    changed = edgeseg.optimize(network, runtime="onnxruntime")
    assert (changed.predict(photo) == network.predict(photo)).mean() > 0.99  # resized by Pillow, rounded otherwise
    assert len(list(cache.glob("*.onnx"))) == 2
    monkeypatch.setattr(fast, "KEPT", 1)
    with torch.no_grad():
        next(network.parameters()).mul_(1.5)
    changed = edgeseg.optimize(network, runtime="onnxruntime")
    assert (changed.predict(photo) == network.predict(photo)).mean() > 0.99
    (last,) = cache.glob("*.onnx")
    assert last != first


def test_requests_that_cannot_be_met(network: edgeseg.Pixel2Pixel) -> None:
    with pytest.raises(ValueError, match="the runtimes are torch, onnxruntime, openvino"):
        edgeseg.optimize(network, runtime="tensorrt")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="cannot be combined with another runtime"):
        edgeseg.optimize(network, runtime="onnxruntime", compile=True)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="training mode"):
        edgeseg.optimize(network.train(), runtime="onnxruntime")


def test_another_network_of_the_same_weights(network: edgeseg.Pixel2Pixel, photo: Path, cache: Path) -> None:
    edgeseg.optimize(network, runtime="onnxruntime")
    for name, module in list(network.named_modules()):
        if isinstance(module, torch.nn.ReLU):
            network.set_submodule(name, torch.nn.Hardswish())
    other = edgeseg.optimize(network, runtime="onnxruntime")
    assert (other.predict(photo) == network.predict(photo)).mean() > 0.99
    assert len(list(cache.glob("*.onnx"))) == 2
    network.decoders.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="decoders has hooks, which an exported file would lose"):
        edgeseg.optimize(network, runtime="onnxruntime")


def test_an_edited_encoder_is_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of parts that users register is part of the key, and so are their settings."""
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "edited_encoder.py"
    code = (
        "from torch import nn\n"
        "class Edited(nn.Module):\n"
        "    def __init__(self, channels, factor=1.0):\n"
        "        super().__init__()\n"
        "        self.channels, self.strides, self.factor = (8, 8), (4, 8), factor\n"
        "        self.a, self.b = nn.Conv2d(channels, 8, 3, 4, 1), nn.Conv2d(8, 8, 3, 2, 1)\n"
        "    def forward(self, image):\n"
        "        first = self.a(image).relu()\n"
        "        return [first, self.factor * self.b(first).relu()]\n"
    )
    keys = []
    for text, factor in ((code, 1.0), (code, 1.0), (code, 2.0), (code.replace(".relu()]", ".sigmoid()]"), 1.0)):
        source.write_text(text)
        sys.modules.pop("edited_encoder", None)
        importlib.invalidate_caches()
        linecache.clearcache()
        torch.manual_seed(0)
        network = importlib.import_module("edited_encoder").Edited(3, factor)
        keys.append(b"".join(network_bytes(network)))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    settings: list[dict[str, Any]] = [
        {},
        {"_gain": 1.0},
        {"_gain": 5.0},
        {"gains": [1.0]},
        {"gains": [7.0]},
        {"gains": np.array([1.0])},
    ]
    settings += [{"gains": torch.tensor([1.0])}, {"gains": {"a": [1]}}, {"act": torch.relu}, {"act": torch.tanh}]
    keys = []
    for attributes in settings * 2:
        torch.manual_seed(0)
        network = importlib.import_module("edited_encoder").Edited(3)
        vars(network).update(attributes)
        keys.append(b"".join(network_bytes(network)))
    assert keys[: len(settings)] == keys[len(settings) :]
    assert len(set(keys)) == len(settings)
    network.anything = object()
    assert b"".join(network_bytes(network)) != b"".join(network_bytes(network))


def test_a_runtime_from_another_package(
    network: edgeseg.Pixel2Pixel, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime-gpu has no distribution of the name onnxruntime."""

    def version(name: str) -> str:
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr("edgeseg.machine.versions.version", version)
    assert version_of("onnxruntime") == onnxruntime.__version__
    assert edgeseg.optimize(network, runtime="onnxruntime").predict(photo).dtype == np.uint8


def test_predict_takes_what_is_faster_in_all(
    saved: str, photo: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an export for two photos; with the file of an earlier call, or when asked."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        (folder / f"{i}.jpg").write_bytes(photo.read_bytes())
    call = ["predict", str(folder), "--checkpoint", saved, "--outputs", "labels"]
    assert main([*call, "-o", str(tmp_path / "torch")]) == 0
    assert not cache.exists()
    assert main([*call, "-o", str(tmp_path / "ort"), "--runtime", "onnxruntime"]) == 0
    (file,) = cache.glob("*.onnx")
    before = file.stat().st_mtime_ns
    assert main([*call, "-o", str(tmp_path / "auto")]) == 0
    assert file.stat().st_mtime_ns > before  # it was used
    one, other, third = (np.asarray(Image.open(tmp_path / name / "0_labels.png")) for name in ("torch", "ort", "auto"))
    assert (one == other).mean() > 0.999
    assert (third == other).all()
    assert main([*call, "-o", str(tmp_path / "x"), "--runtime", "onnxruntime", "--device", "meta"]) == 2
    assert "--runtime onnxruntime runs on the CPU" in capsys.readouterr().err
    with mock.patch("os.utime", side_effect=OSError("Read-only file system")):  # a cache that was filled before
        assert main(["predict", str(folder), "--checkpoint", saved, "-o", str(tmp_path / "y")]) == 0
    words = ["predict", str(folder), "--exported", str(file), "--runtime", "torch", "-o", str(tmp_path / "x")]
    assert main(words) == 2
    assert "--runtime cannot be combined with --exported" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_flipped_bit_in_the_cache(
    runtime: Literal["onnxruntime", "openvino"], network: edgeseg.Pixel2Pixel, cache: Path, photo: Path
) -> None:
    """The network is exported again."""
    pytest.importorskip(runtime)
    labels = edgeseg.optimize(network, runtime=runtime).predict(photo)
    names = {path.name for path in cache.iterdir()}
    for record in cache.glob("*.sha256"):
        path = record.with_suffix("")
        broken = bytearray(path.read_bytes())
        broken[len(broken) // 2] ^= 64
        path.write_bytes(broken)
        assert (edgeseg.optimize(network, runtime=runtime).predict(photo) == labels).all()
        assert path.read_bytes() != broken
    assert {path.name for path in cache.iterdir()} == names


def test_evaluate(saved: str, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same table; with other views, PyTorch runs the network."""
    tables = []
    for options in (["--runtime", "torch"], ["--runtime", "onnxruntime"], ["--flip"]):
        assert main(["evaluate", "--dataset", "streets", "--length", "3", "--checkpoint", saved, *options]) == 0
        lines = capsys.readouterr().out.splitlines()
        tables.append([float(line.split()[-1]) for line in lines if line[-1].isdigit()])
    assert len(tables[0]) > 2
    np.testing.assert_allclose(tables[0], tables[1], atol=0.1)
    assert len(list(cache.glob("*.onnx"))) == 1


def test_without_a_cache(
    network: edgeseg.Pixel2Pixel, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home that cannot be written to costs an export per process."""
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "file/home"))
    segmenter = edgeseg.optimize(network, runtime="onnxruntime")
    assert (segmenter.predict(photo) == network.predict(photo)).mean() > 0.999
    with pytest.raises(OSError, match=r"cannot be created .*; set HF_HOME to a folder that can be written to"):
        make_in_cache(cache_folder() / "drill")


def test_networks_that_cannot_be_exported(
    saved: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyTorch runs them, unless the user asks for another runtime."""

    def refuse(*_: object, **__: object) -> None:
        raise ExportError("the network cannot be converted")

    monkeypatch.setattr(fast, "WORTHWHILE", 1)
    monkeypatch.setattr(fast, "export", refuse)
    call = ["predict", str(photo), "--checkpoint", saved, "-o", str(tmp_path / "out")]
    assert main(call) == 0
    assert "so PyTorch runs it: the network cannot be converted" in capsys.readouterr().out
    assert main([*call, "--runtime", "onnxruntime"]) == 2
    assert capsys.readouterr().err == "edgeseg predict: error: the network cannot be converted\n"
