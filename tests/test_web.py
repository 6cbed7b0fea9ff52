"""Pages for browsers: what is in the folder, what is refused, and the numbers of the page against those of Python."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgeseg
from edgeseg.cli import main
from edgeseg.deploy import web
from edgeseg.deploy.web import PAGE, RUNTIME, Runtime, copy_runtime, export_web, integrity
from edgeseg.spec import Preprocess, Task
from edgeseg.tasks import kind_of
from edgeseg.vision.upsample import upsampled_argmax

from .conftest import TINY
from .hub_server import HubServer


@pytest.fixture
def small(tiny: edgeseg.Pixel2Pixel) -> edgeseg.Pixel2Pixel:
    """`tiny` with a size, as trained weights have."""
    tiny.configure(preprocess=replace(tiny.preprocess, size=(64, 96)))
    return tiny


def test_folder(small: edgeseg.Pixel2Pixel, photo: Path, tmp_path: Path) -> None:
    small.configure(
        notes={"weights": "mine", "license": "CC BY 4.0"},
        preprocess=Preprocess(size=(64, 96), mean=(123.0, 117.0, 104.0), std=(58.0, 57.0, 57.5), channel_order="bgr"),
    )
    done = edgeseg.export_web(small, tmp_path / "page")
    assert done.path == tmp_path / "page"
    assert done.differences["segmentation"] < 1e-3
    names = {path.name for path in done.path.iterdir()}
    assert names == {path.name for path in PAGE.iterdir()} | {"model.onnx", "model.json"}
    facts = json.loads((done.path / "model.json").read_text())
    assert facts["origin"] == {"weights": "mine", "licence": "CC BY 4.0"}
    assert facts["classes"] == ["class 0", "class 1", "class 2"]
    assert len(facts["palette"]) == 3
    assert facts["preprocess"] == {
        "size": [64, 96], "keep_aspect": False, "mean": [123, 117, 104], "std": [58, 57, 57.5], "channel_order": "bgr"
    }  # fmt: skip
    assert (facts["model"], facts["input"], facts["output"]) == ("model.onnx", "image", "segmentation")
    assert facts["precision"] == "float32"
    assert facts["limit"] is None
    assert facts["bytes"] == (done.path / "model.onnx").stat().st_size
    assert facts["runtime"]["address"] == f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{RUNTIME.version}/dist/"
    assert list(facts["runtime"]["files"]) == ["webgpu", "wasm"]
    assert all(len(files) == 3 for files in facts["runtime"]["files"].values())
    labels = edgeseg.load_segmenter(done.path / "model.onnx").predict(photo)
    assert (labels == small.predict(photo)).mean() > 0.999


def test_links_of_the_page_lead_somewhere() -> None:
    """What the page names is there, and what it stores for the time without a connection is all of it."""
    code = {path.name: path.read_text() for path in PAGE.iterdir()}
    for name in ("app.js", "style.css"):
        assert f'"{name}"' in code["index.html"]
    for name in set(code) - {"offline.js"}:
        assert f'"{name}"' in code["app.js"] or name == "app.js"
    assert '"offline.js"' in code["app.js"]


def test_another_export_takes_its_place(small: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    export_web(small, tmp_path / "page")
    export_web(small, tmp_path / "page", size=(32, 32))
    assert json.loads((tmp_path / "page/model.json").read_text())["preprocess"]["size"] == [32, 32]
    (tmp_path / "page/mine.txt").write_text("")
    with pytest.raises(FileExistsError, match="not an earlier export"):
        export_web(small, tmp_path / "page")
    assert (tmp_path / "page/mine.txt").exists()


def test_what_the_page_cannot_show_is_refused(small: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    def network(**options: Any) -> edgeseg.Pixel2Pixel:
        model = edgeseg.create_model("fpn", encoder=TINY, channels=16, **options)
        model.configure(preprocess=Preprocess(size=(64, 96)))
        return model

    page = tmp_path / "page"
    with pytest.raises(ValueError, match=r"one photo in RGB.*takes flow.*image"):
        export_web(network(num_classes=3, in_channels=(3, 3)), page)
    with pytest.raises(ValueError, match=r"one photo in RGB.*image \(1 channels\)"):
        export_web(network(num_classes=3, in_channels=(1,)), page)
    with pytest.raises(ValueError, match=r"segmentation or binary, and this network has depth \(depth\)"):
        export_web(network(tasks={"depth": Task("depth")}), page)
    with pytest.raises(ValueError, match=r"this network has one .*, two"):
        export_web(network(tasks={"one": Task("segmentation", 3), "two": Task("segmentation", 2)}), page)
    with pytest.raises(ValueError, match="float32 or int8, got float16"):
        export_web(small, page, precision="float16")
    with pytest.raises(ValueError, match="needs images"):
        export_web(small, page, precision="int8")
    with pytest.raises(FileNotFoundError, match="no folder"):
        export_web(small, tmp_path / "nowhere" / "page")
    small.configure(preprocess=Preprocess())
    with pytest.raises(ValueError, match="pass size"):
        export_web(small, page)
    assert list(tmp_path.iterdir()) == []


def test_command(small: edgeseg.Pixel2Pixel, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edgeseg.save_checkpoint(small, tmp_path / "w.safetensors")
    (tmp_path / "photos").mkdir()
    photo.rename(tmp_path / "photos" / photo.name)
    command = ["export", "--checkpoint", str(tmp_path / "w.safetensors"), "-o", str(tmp_path / "page")]
    int8 = ["--int8", "--calibration-images", str(tmp_path / "photos")]
    assert main([*command, "--target", "web", "--img-resize", "32", "64", *int8]) == 0
    said = capsys.readouterr().out
    assert "keep their float32 class" in said
    assert f"http.server -d {tmp_path / 'page'}" in said
    facts = json.loads((tmp_path / "page/model.json").read_text())
    assert facts["precision"] == "int8"
    assert facts["preprocess"]["size"] == [32, 64]
    assert list(facts["runtime"]["files"]) == ["wasm"]  # WebGPU does not have the operators of 8 bit
    assert main(["info", str(tmp_path / "page/model.onnx")]) == 0
    for wrong, reason in (
        (["--target", "web", "--fp16"], "--fp16 does not apply to --target web"),
        (["--target", "web", "--fixed", "--opset", "17"], "--fixed, --opset does not apply"),
        (["--target", "web", "--int8"], "--calibration-images"),
        (["--target", "web", "--calibration-images", "."], "add --int8"),
        (["--bundle"], "add --target web"),
        (["--format", "web", "--fp16"], "--fp16 does not apply to --target web"),
        (["--format", "tidl", "--target", "web"], "--format does not apply to --target web"),
    ):
        capsys.readouterr()
        assert main([*command, *wrong]) != 0
        assert reason in capsys.readouterr().err


CONTENT = {"ort.min.mjs": b"export {}", "ort.mjs": b"export default 1", "ort.wasm": b"\0asm"}


def package(content: dict[str, bytes]) -> bytes:
    """A package as npm's registry has it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, each in {f"dist/{name}": each for name, each in content.items()}.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(each)
            archive.addfile(entry, io.BytesIO(each))
        for name in ("package.json", "README.md"):
            archive.addfile(tarfile.TarInfo(f"package/{name}"), io.BytesIO())
    return file.getvalue()


def test_bundle(small: edgeseg.Pixel2Pixel, tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = package(CONTENT)
    files = {name: integrity(each) for name, each in CONTENT.items()}
    runtime = Runtime("9.9.9", hashlib.sha256(archive).hexdigest(), {"wasm": files, "webgpu": files})
    monkeypatch.setattr(web, "RUNTIME", runtime)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"{hub.url}/npm/")
    page = tmp_path / "page"
    with pytest.raises(OSError, match=r"onnxruntime-web-9\.9\.9\.tgz"):
        export_web(small, page, bundle=True)
    hub.files["/npm/onnxruntime-web/-/onnxruntime-web-9.9.9.tgz"] = package({**CONTENT, "ort.wasm": b"other"})
    with pytest.raises(ValueError, match="sha256"):
        export_web(small, page, bundle=True)
    assert not page.exists()
    hub.files["/npm/onnxruntime-web/-/onnxruntime-web-9.9.9.tgz"] = archive
    export_web(small, page, bundle=True)
    assert {path.name for path in (page / "ort").iterdir()} == {*CONTENT, "package.json", "README.md"}
    assert all((page / "ort" / name).read_bytes() == each for name, each in CONTENT.items())
    assert json.loads((page / "model.json").read_text())["runtime"]["address"] == "ort/"
    export_web(small, page)  # in its place, without a copy
    assert not (page / "ort").exists()


def test_every_file_of_a_bundle_is_checked(tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = package(CONTENT)
    runtime = Runtime("9.9.9", hashlib.sha256(archive).hexdigest(), {"wasm": {"ort.wasm": integrity(b"other")}})
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", hub.url)
    hub.files["/onnxruntime-web/-/onnxruntime-web-9.9.9.tgz"] = archive
    with pytest.raises(ValueError, match=r"dist/ort.wasm in .* has the hash sha384-"):
        copy_runtime(tmp_path / "ort", runtime)


def in_node(tmp_path: Path, call: str, *arrays: np.ndarray) -> np.ndarray:
    """The values that an expression of maps.js has; `a`, `b`, ... are the arrays, without their shapes."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node, which runs the page's functions outside a browser (Debian's package nodejs)")
    shutil.copy(PAGE / "maps.js", tmp_path / "maps.mjs")
    lines = ['import * as maps from "./maps.mjs";', 'import { readFileSync, writeFileSync } from "node:fs";']
    for name, array in zip("abc", arrays, strict=False):
        (tmp_path / name).write_bytes(array.tobytes())
        kind = {"uint8": "Uint8Array", "float32": "Float32Array"}[str(array.dtype)]
        lines.append(f'const {name} = new {kind}(new Uint8Array(readFileSync("{name}")).buffer);')
    lines.append(f'const found = {call}; writeFileSync("found", Float64Array.from(found));')
    (tmp_path / "call.mjs").write_text("\n".join(lines))
    subprocess.run([node, "call.mjs"], cwd=tmp_path, check=True, timeout=120)
    return np.fromfile(tmp_path / "found")


@pytest.mark.parametrize("size", [(24, 31), (37, 200), (61, 90), (60, 90), (1, 1)])
def test_resize_is_that_of_pillow(size: tuple[int, int], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 4), np.uint8)
    height, width = size
    photo = Image.fromarray(pixels[:, :, :3].copy())
    found = in_node(tmp_path, f"maps.resized(a, [60, 90], [{height}, {width}])", pixels).reshape(height, width, 3)
    in_turn = photo.resize((width, 60), Image.Resampling.BILINEAR).resize((width, height), Image.Resampling.BILINEAR)
    assert (found == np.asarray(in_turn)).all()
    # Newer versions of Pillow begin with the height for some sizes, and then round other values.
    assert np.abs(found - np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR))).max() <= 1


def test_input_is_that_of_python(small: edgeseg.Pixel2Pixel, photo: Path, tmp_path: Path) -> None:
    preprocess = Preprocess(
        size=(40, 64),
        keep_aspect=True,
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        channel_order="bgr",
    )
    small.configure(preprocess=preprocess)
    export_web(small, tmp_path / "page")
    facts = json.loads((tmp_path / "page/model.json").read_text())["preprocess"]
    [expected] = edgeseg.OnnxSegmenter(tmp_path / "page/model.onnx").feed(photo).values()
    pixels = np.asarray(Image.open(photo).convert("RGBA"))
    size = in_node(tmp_path, f"maps.inputSize([60, 90], {json.dumps(facts)})")
    assert tuple(size) == preprocess.input_size((60, 90)) == expected.shape[2:]
    call = f"maps.normalized(maps.resized(a, [60, 90], [{size[0]}, {size[1]}]), {json.dumps(facts)})"
    found = in_node(tmp_path, call, pixels)
    assert (found.astype(np.float32).reshape(expected.shape) == expected).all()


@pytest.mark.parametrize("size", [(60, 90), (13, 17), (15, 22), (200, 31)])
def test_classes_are_those_of_python(size: tuple[int, int], tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(5, 15, 22)).astype(np.float32)
    found = in_node(tmp_path, f"maps.classesOf(a, [5, 15, 22], [{size[0]}, {size[1]}])", logits)
    assert (found.reshape(size) == upsampled_argmax(logits, size)).mean() > 0.9999


def test_binary_classes_are_those_of_python(tmp_path: Path) -> None:
    task = Task("binary", threshold=0.4)
    logits = np.random.default_rng(0).normal(size=(1, 15, 22)).astype(np.float32)
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks={"road": task})
    export_web(model, tmp_path / "page", size=(64, 64))
    facts = json.loads((tmp_path / "page/model.json").read_text())
    assert facts["classes"] == ["background", "foreground"]
    found = in_node(tmp_path, f"maps.classesOf(a, [1, 15, 22], [60, 90], {facts['limit']})", logits)
    assert (found.reshape(60, 90) == kind_of(task).map(logits, (60, 90))).mean() > 0.9999
    assert 0.2 < found.mean() < 0.8


def test_legend(tmp_path: Path) -> None:
    ids = np.array([2, 2, 0, 2], np.uint8)
    found = in_node(tmp_path, "maps.shares(a, 4).flatMap(({ id, share }) => [id, share])", ids)
    assert found.tolist() == [2, 0.75, 0, 0.25]
    colors = in_node(tmp_path, "maps.colored(a, [[1, 2, 3], [4, 5, 6], [7, 8, 9]])", ids[1:3])
    assert colors.tolist() == [7, 8, 9, 255, 1, 2, 3, 255]
