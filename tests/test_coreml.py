"""Core ML packages: what they contain, since they run on macOS only, and that they are replaced safely."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import edgeseg
from edgeseg.cli import main
from edgeseg.deploy import coreml
from edgeseg.deploy.graph import Ends, Graph, Output, random_inputs
from edgeseg.networks.quantized import quantize_aware
from edgeseg.predict.facts import read_facts
from edgeseg.spec import Task
from edgeseg.storage.checkpoint import save_checkpoint

from .conftest import TINY

tools: Any = pytest.importorskip("coremltools", reason="coremltools is not installed: pip install 'edgeseg[coreml]'")

THREE = {
    "semantic": Task("segmentation", 5),
    "depth": Task("depth", 1, range=(0, 9)),
    "motion": Task("segmentation", 2),
}


def network(family: str = "fpn", encoder: str = TINY, **options: object) -> edgeseg.Pixel2Pixel:
    torch.manual_seed(0)
    made = edgeseg.create_model(family, encoder=encoder, channels=8, **options)  # type: ignore[arg-type]
    made.configure(preprocess=edgeseg.Preprocess(size=(64, 96), channel_order="bgr", std=(64, 60, 58)))
    return made.eval()


@pytest.fixture(scope="module")
def model() -> edgeseg.Pixel2Pixel:
    return network(num_classes=4)


@pytest.fixture(scope="module")
def package(model: edgeseg.Pixel2Pixel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    done = edgeseg.export(model, tmp_path_factory.mktemp("coreml") / "m.mlpackage")
    assert done.was_run == (sys.platform == "darwin")
    assert done.sizes == ((1, 3, 64, 96),)
    return done.path


def computed(path: Path, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Computes the outputs of a package with torch, operation by operation, from the weights that are in it."""
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = tools.utils.load_spec(str(path))
    weights = path / "Data" / "com.apple.CoreML" / "weights"
    function = load(spec, spec.specificationVersion, str(weights)).functions["main"]
    known: dict[str, Any] = dict(inputs)

    def value(given: Any) -> Any:
        if isinstance(given, list | tuple):
            return [value(each) for each in given]
        if given.name in known:
            return known[given.name]
        return torch.from_numpy(np.array(given.val)) if isinstance(given.val, np.ndarray) else given.val

    for operation in function.operations:
        if operation.op_type != "const":
            arguments = {name: value(each) for name, each in operation.inputs.items() if each is not None}
            found = OPERATIONS[operation.op_type](arguments)
            results = found if isinstance(found, list | tuple) else [found]
            known |= {output.name: each for output, each in zip(operation.outputs, results, strict=True)}
    return {output.name: known[output.name] for output in function.outputs}


def _conv(a: dict[str, Any]) -> torch.Tensor:
    assert a["pad_type"] in ("valid", "custom")
    top, bottom, left, right = (int(n) for n in a["pad"]) if a["pad_type"] == "custom" else (0, 0, 0, 0)
    x = functional.pad(a["x"], (left, right, top, bottom))
    strides, dilations = (tuple(int(n) for n in a[name]) for name in ("strides", "dilations"))
    return functional.conv2d(x, a["weight"], a.get("bias"), strides, 0, dilations, int(a["groups"]))


def _resize(a: dict[str, Any]) -> torch.Tensor:
    assert not a["align_corners"]
    scales = [float(a[f"scale_factor_{side}"]) for side in ("height", "width")]
    size = [round(n * scale) for n, scale in zip(a["x"].shape[2:], scales, strict=True)]
    return functional.interpolate(a["x"], size, mode="bilinear", align_corners=False)


def _cast(a: dict[str, Any]) -> torch.Tensor:
    return a["x"].to({"int32": torch.int32, "fp16": torch.float32, "fp32": torch.float32}[a["dtype"]])


# Operations of ML Programs, each from its arguments by name.
OPERATIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "conv": _conv,
    "upsample_bilinear": _resize,
    "cast": _cast,
    "relu": lambda a: a["x"].relu(),
    "sigmoid": lambda a: a["x"].sigmoid(),
    "silu": lambda a: functional.silu(a["x"]),
    "clip": lambda a: a["x"].clamp(float(a["alpha"]), float(a["beta"])),
    "add": lambda a: a["x"] + a["y"],
    "sub": lambda a: a["x"] - a["y"],
    "mul": lambda a: a["x"] * a["y"],
    "real_div": lambda a: a["x"] / a["y"],
    "greater": lambda a: a["x"] > a["y"],
    "concat": lambda a: torch.cat(a["values"], int(a["axis"])),
    "reverse": lambda a: a["x"].flip([int(n) for n in a["axes"]]),
    "reduce_mean": lambda a: a["x"].mean([int(n) for n in a["axes"]], keepdim=bool(a["keep_dims"])),
    "reduce_argmax": lambda a: a["x"].argmax(int(a["axis"]), keepdim=bool(a["keep_dims"])),
    "split": lambda a: a["x"].split([int(n) for n in a["split_sizes"]], int(a["axis"])),
    "max_pool": lambda a: functional.max_pool2d(
        a["x"], [int(n) for n in a["kernel_sizes"]], [int(n) for n in a["strides"]], int(a["pad"][0])
    ),
}


def check(made: edgeseg.Pixel2Pixel, path: Path, output: Output, *, preprocess: bool, tolerance: float = 1e-4) -> None:
    """Compares the outputs that a package's operations give with those of the network."""
    graph = Graph(made, Ends.of(made, (64, 96), (), output, preprocess))
    images = random_inputs(graph, (1, 64, 96))
    found = computed(path, {name: image.float() for name, image in zip(made.inputs, images, strict=True)})
    assert list(found) == list(made.tasks)
    with torch.no_grad():
        for wanted, each in zip(graph(*images), found.values(), strict=True):
            assert each.shape == wanted.shape
            if wanted.is_floating_point():
                assert (each - wanted).abs().max() < tolerance * wanted.std()
            else:
                assert (each == wanted).float().mean() > 1 - tolerance


def test_package(package: Path, model: edgeseg.Pixel2Pixel) -> None:
    check(model, package, "logits", preprocess=False)
    spec = tools.utils.load_spec(str(package))
    assert spec.specificationVersion == 7  # iOS 16, macOS 13
    stored = spec.description.metadata.userDefined
    facts = read_facts(package)
    assert dict(stored) == facts
    assert {"edgeseg", "edgeseg_file", "classes", "palette"} <= set(facts)


@pytest.mark.parametrize(
    ("output", "preprocess"), [("labels", True), pytest.param("small_logits", False, marks=pytest.mark.slow)]
)
def test_two_inputs_and_three_tasks(output: Output, preprocess: bool, tmp_path: Path) -> None:
    made = network(in_channels=(3, 3), tasks=THREE)
    done = edgeseg.export(made, tmp_path / "m.mlpackage", output=output, preprocess=preprocess)
    check(made, done.path, output, preprocess=preprocess)
    spec = tools.utils.load_spec(str(done.path))
    kinds = [(each.name, each.type.WhichOneof("Type")) for each in spec.description.input]
    kind = "imageType" if preprocess else "multiArrayType"
    assert kinds == [("flow", kind), ("image", kind)]


def test_float16(model: edgeseg.Pixel2Pixel, package: Path, tmp_path: Path) -> None:
    done = edgeseg.export(model, tmp_path / "m.mlpackage", precision="float16")
    large, small = (sum(file.stat().st_size for file in path.rglob("weight.bin")) for path in (package, done.path))
    assert small < 0.7 * large


@pytest.mark.parametrize(
    "family", ["unet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("deeplabv3plus", "bifpn", "fpnsum"))]
)
def test_families(family: str, tmp_path: Path) -> None:
    made = network(family, num_classes=3)
    done = edgeseg.export(made, tmp_path / "m.mlpackage", output="small_logits")
    check(made, done.path, "small_logits", preprocess=False)


def test_missing_operation_is_an_error_and_nothing_is_left(
    model: edgeseg.Pixel2Pixel, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.mlpackage"
    shutil.copytree(package, path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    monkeypatch.setattr(coreml, "_operations_of_core_ml", lambda spec: {"convolutions": {}, "resizes": 0})
    with pytest.raises(RuntimeError, match="the convolutions of the Core ML package are"):
        edgeseg.export(model, path)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    edgeseg.export(model, path, output="small_logits")  # replaces the earlier package
    assert list(tmp_path.iterdir()) == [path]
    assert '"small_logits"' in read_facts(path)["edgeseg_file"]


def test_wrong_calls(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    path = tmp_path / "m.mlpackage"
    with pytest.raises(ValueError, match=r"have no int8; .*: ranges of 8-bit activations can be measured on"):
        edgeseg.export(model, path, precision="int8", images=["photo.png"])
    with pytest.raises(ValueError, match="have no option dynamic"):
        edgeseg.export(model, path, dynamic=())
    with pytest.raises(ValueError, match="was trained for 8 bits, and Core ML packages cannot take its scales"):
        edgeseg.export(quantize_aware(model), path)
    five = edgeseg.create_model("fpn", encoder=TINY, channels=8, in_channels=(5,), num_classes=2).eval()
    five.configure(preprocess=edgeseg.Preprocess(size=(64, 96)))
    with pytest.raises(ValueError, match=r"images in Core ML have 1 or 3 channels.*have 5"):
        edgeseg.export(five, path, preprocess=True)
    with pytest.raises(ValueError, match=r"names in Core ML consist of letters, digits and _.*; got sea-ice"):
        edgeseg.export(network(tasks={"sea-ice": Task("segmentation", 2)}), path)
    assert not list(tmp_path.iterdir())
    path.mkdir()
    (path / "mine.txt").write_text("not a package")
    with pytest.raises(FileExistsError, match=r"m\.mlpackage is not a folder with a file Manifest\.json"):
        edgeseg.export(model, path)
    assert [file.name for file in path.iterdir()] == ["mine.txt"]


def test_wrong_packages(package: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.mlpackage"
    shutil.copytree(package, path)
    file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    content = file.read_bytes()
    for cut in (0, 1, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"m\.mlpackage: corrupt or truncated"):
            read_facts(path)
    file.unlink()
    with pytest.raises(ValueError, match="no whole Core ML package, since it has no Data"):
        read_facts(path)
    with pytest.raises(ValueError, match="Core ML chooses its threads itself"):
        edgeseg.load_segmenter(package, threads=2)
    with pytest.raises(ValueError, match="no device 'tpu' of Core ML; the devices are cpu, gpu"):
        edgeseg.load_segmenter(package, device="tpu")
    if sys.platform != "darwin":
        with pytest.raises(OSError, match="runs on macOS and iOS only"):
            edgeseg.load_segmenter(package)


def test_command(model: edgeseg.Pixel2Pixel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(model, tmp_path / "w.safetensors")
    call = ["export", "--checkpoint", str(tmp_path / "w.safetensors"), "-o", str(tmp_path / "m.mlpackage")]
    assert main([*call, "--int8"]) == 2
    assert "Core ML files have no int8" in capsys.readouterr().err
    assert main([*call, "--img-resize", "64", "96", "--preprocess", "--fp16"]) == 0
    out = capsys.readouterr().out
    assert f"wrote {tmp_path / 'm.mlpackage'}" in out
    assert ("not run here" in out) == (sys.platform != "darwin")
