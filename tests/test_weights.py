"""Weights files: whole or refused, and what happens when the classes differ."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import edgeseg
from edgeseg import Preprocess, Task
from edgeseg.data import Streets
from edgeseg.data.camvid import CamVid
from edgeseg.engine import evaluate, evaluate_tasks
from edgeseg.storage.checkpoint import read_checkpoint_config, read_weights
from edgeseg.tasks.metrics import ConfusionMatrix
from edgeseg.weights.encoder import load_encoder
from edgeseg.weights.load import load_checkpoint
from edgeseg.zoo.networks import ZOO
from edgeseg.zoo.pretrained import verified_sha256, weights_file
from edgeseg.zoo.weights import WEIGHTS

from .conftest import ROOT, SHARED, TINY

UNET = "unet_aspp_mobilenetv2_tv_edgeailite"


def make(classes: int = 3, **options: Any) -> edgeseg.Pixel2Pixel:
    return edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=classes, **options)


def same(a: torch.nn.Module, b: torch.nn.Module, *, but: tuple[str, ...] = ()) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in mine.items() if key not in but)


def test_round_trip(tmp_path: Path) -> None:
    """A saved model comes back with its tasks and preprocessing, by its path alone."""
    task = Task("segmentation", 2, classes=("no", "yes"), palette=((0, 0, 0), (9, 9, 9)))
    model = edgeseg.create_model("fpn_aspp_regnetx400mf_edgeailite", tasks={"land": task})
    model.configure(preprocess=edgeseg.Preprocess(size=(64, 96), channel_order="bgr"))
    edgeseg.save_checkpoint(model, tmp_path / "land.safetensors", note="by hand")
    loaded = edgeseg.create_model("fpn_aspp_regnetx400mf_edgeailite", checkpoint_path=tmp_path / "land.safetensors")
    assert same(model, loaded)
    assert loaded.tasks == {"land": task}
    assert loaded.preprocess == model.preprocess
    config = read_checkpoint_config(tmp_path / "land.safetensors")
    assert config is not None
    assert config.notes == {"note": "by hand"}
    assert [path.name for path in tmp_path.iterdir()] == ["land.safetensors"]


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = make(), tmp_path / "model.safetensors"
    edgeseg.save_checkpoint(model, path)
    before = path.read_bytes()

    def no_space(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="no space left"):
        edgeseg.save_checkpoint(make(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_corrupt_file(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"broken{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": make().state_dict()}, path)
    else:
        edgeseg.save_checkpoint(make(), path)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "garbage": b"not weights" * 99, "empty": b""}[damage])
    model = make()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"cannot read weights from .*broken\{suffix}"):
        load_checkpoint(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="cannot read weights"):
        edgeseg.create_model(UNET, checkpoint_path=path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no weights file at"):
        edgeseg.create_model(UNET, checkpoint_path=tmp_path / "none.pth")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="cannot read weights"):
        read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("archive", [True, False])
def test_memory_without_data(archive: bool, tmp_path: Path) -> None:
    """A file of a few bytes may not ask for an array of many."""
    torch.save({"a": bytearray(8)}, tmp_path / "bytes.pth", _use_new_zipfile_serialization=archive)
    with pytest.raises(ValueError, match=r"cannot read weights from .*bytes\.pth.*array of bytes"):
        read_weights(tmp_path / "bytes.pth")


def test_not_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "log.pth")
    with pytest.raises(ValueError, match="holds no weights"):
        read_weights(tmp_path / "log.pth")


ODD: dict[str, Any] = {
    "names": lambda state: {i: value for i, value in enumerate(state.values())},
    "sparse": lambda state: state | {last(state): state[last(state)].to_sparse()},
    "nested": lambda state: state | {last(state): torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])},
    "quantized": lambda state: (
        state | {last(state): torch.quantize_per_tensor(state[last(state)], 0.1, 0, torch.quint8)}
    ),
    "complex": lambda state: state | {last(state): state[last(state)].to(torch.complex64)},
    "without data": lambda state: state | {last(state): state[last(state)].to("meta")},
    "larger than the file": lambda state: state | {last(state): torch.zeros(1).expand(10**6, 10**6)},
    "integers": lambda state: state | {last(state): state[last(state)].to(torch.int8)},
    "of another shape": lambda state: state | {last(state): state[last(state)].flatten()},
    "list": lambda state: list(state.values()),
    "number": lambda state: 5,
}


def last(state: dict[str, Any]) -> str:
    """The last weight of the encoder, so that a loader that copies one after another would have changed the others."""
    return [key for key in state if key.startswith("encoder.") and state[key].ndim == 4][-1]


@pytest.mark.parametrize("kind", ODD)
def test_odd_tensors_leave_the_model_as_it_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    torch.save(ODD[kind](make().state_dict()), path)
    model = make()
    before, config = {key: value.clone() for key, value in model.state_dict().items()}, model.config
    for load in (load_checkpoint, load_encoder):
        with pytest.raises(ValueError, match=r"odd\.pth"):
            load(model, path)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert model.config == config


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "root:x:0:0:root:/root:/bin/bash\n", "", "\x80\x02}q\x00."])
def test_texts_are_not_weights(text: str, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"text\.pth"):
        read_weights(tmp_path / "text.pth")


def test_compressed_checkpoint(tmp_path: Path) -> None:
    """torch.save does not compress; 100 MB of zeros in a file of 100 kB are refused before they take memory."""
    torch.save({"x": torch.zeros(25_000_000)}, tmp_path / "plain.pth")
    compressed = zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, compressed as bomb:
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    with pytest.raises(ValueError, match=r"bomb\.pth.*compressed"):
        read_weights(tmp_path / "bomb.pth")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000 + "]" * 100_000, "[]", "5", '{"format": 2}'])
def test_metadata_that_are_no_record(text: str, tmp_path: Path) -> None:
    model, path = make(), tmp_path / "odd.safetensors"
    save_file({key: value + 1 for key, value in model.state_dict().items()}, path, metadata={"edgeseg": text})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for load in (read_checkpoint_config, partial(load_checkpoint, model), partial(load_encoder, model)):
        with pytest.raises(ValueError, match=r"odd\.safetensors"):
            load(path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_data_parallel_prefix(tmp_path: Path) -> None:
    model = make()
    torch.save({"model_state": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "dp.pyth")
    other = make()
    report = load_checkpoint(other, tmp_path / "dp.pyth")
    assert same(model, other)
    assert set(report.matched) == set(model.state_dict())


@pytest.mark.parametrize("name", ["M.SAFETENSORS", "tutorial.pt"])
def test_files_as_people_write_them(name: str, tmp_path: Path) -> None:
    """A suffix in upper case, and the dictionary of PyTorch's tutorial on checkpoints."""
    model, other = (edgeseg.create_model("fpn", encoder=TINY, channels=8, num_classes=3) for _ in range(2))
    if name == "tutorial.pt":
        whole = {"epoch": 1, "model_state_dict": model.state_dict(), "loss": torch.tensor(1.0)}
        torch.save({"optimizer_state_dict": {}, **whole}, tmp_path / name)
    else:
        edgeseg.save_checkpoint(model, tmp_path / name)
    edgeseg.load_checkpoint(other, tmp_path / name)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(other.parameters(), model.parameters(), strict=True))
    with pytest.raises(FileNotFoundError, match=r"nowhere"):
        edgeseg.save_checkpoint(model, tmp_path / "nowhere/m.safetensors")


def test_a_compiled_network_takes_over_the_normalization(tmp_path: Path) -> None:
    model, other = (edgeseg.create_model("fpn", encoder=TINY, channels=8, num_classes=3) for _ in range(2))
    model.configure(preprocess=edgeseg.Preprocess(mean=(10.0,), std=(200.0,)))
    edgeseg.save_checkpoint(model, tmp_path / "m.safetensors")
    edgeseg.load_checkpoint(torch.compile(other, backend="eager"), tmp_path / "m.safetensors")  # type: ignore[arg-type]
    assert (other.preprocess.mean, other.preprocess.std) == ((10.0,), (200.0,))


def test_other_classes(tmp_path: Path) -> None:
    torch.save(make(5).state_dict(), tmp_path / "five.pth")
    source = read_weights(tmp_path / "five.pth")
    model = make(3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"5 classes and this model has 3.*\[5, 16, 1, 1\].*\[3, 16, 1, 1\]"):
        load_checkpoint(model, tmp_path / "five.pth")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    head = "decoders.segmentation.head.1.weight"
    with pytest.warns(UserWarning, match=f"1 tensor is not loaded.*{head}"):
        model = make(3, checkpoint_path=tmp_path / "five.pth")
    assert all(torch.equal(value, source[key]) for key, value in model.state_dict().items() if key != head)
    assert model.state_dict()[head].shape[0] == 3


def test_other_classes_unasked(tmp_path: Path) -> None:
    """Without num_classes the model has 19 classes; a file for others is an error that names both shapes."""
    name = "fpn_aspp_regnetx400mf_edgeailite"
    torch.save({"state_dict": edgeseg.create_model(name, num_classes=21).state_dict()}, tmp_path / "coco.pth")
    with pytest.raises(ValueError, match=r"21 classes and this model has 19.*pass num_classes=21"):
        edgeseg.create_model(name, checkpoint_path=tmp_path / "coco.pth")
    edgeseg.create_model(name, num_classes=21, checkpoint_path=tmp_path / "coco.pth")


def test_other_classes_in_a_unet(tmp_path: Path) -> None:
    """There the width of the fine levels follows the classes: all that fits is loaded."""
    source = edgeseg.create_model(UNET, num_classes=32)
    torch.save(source.state_dict(), tmp_path / "ade.pth")
    with pytest.warns(UserWarning, match="(is|are) not loaded"):
        model = edgeseg.create_model(UNET, num_classes=19, checkpoint_path=tmp_path / "ade.pth")
    fits = [key for key, value in model.state_dict().items() if value.shape == source.state_dict()[key].shape]
    assert all(torch.equal(model.state_dict()[key], source.state_dict()[key]) for key in fits)
    assert any(key.startswith("decoders.segmentation.smooths.0") for key in fits)


def test_other_network(tmp_path: Path) -> None:
    """Another decoder width is no question of classes: an error, even with num_classes."""
    torch.save(make(3).state_dict(), tmp_path / "narrow.pth")
    with pytest.raises(ValueError, match="of another shape"):
        edgeseg.create_model("fpn", encoder=TINY, channels=24, num_classes=3, checkpoint_path=tmp_path / "narrow.pth")
    with pytest.raises(ValueError, match=r"does not fit this model: \d+ missing .*; \d+ unexpected "):
        edgeseg.create_model("unet", encoder=TINY, channels=16, num_classes=3, checkpoint_path=tmp_path / "narrow.pth")


def test_classes_of_other_names(tmp_path: Path) -> None:
    """As many classes of other names, or another kind of task, are other classes."""
    head = "decoders.segmentation.head.1.weight"
    animals = {"segmentation": Task("segmentation", 3, classes=("cat", "dog", "cow"))}
    build = partial(edgeseg.create_model, "fpn", encoder=TINY, channels=16)
    edgeseg.save_checkpoint(build(tasks=animals), tmp_path / "a.safetensors")
    file = read_weights(tmp_path / "a.safetensors")
    for classes, anew in ((("Cat", "dog ", "cow"), False), (("cow", "dog", "cat"), True), ((), False)):
        tasks = {"segmentation": Task("segmentation", 3, classes=classes)}
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model = edgeseg.create_model("fpn", checkpoint_path=tmp_path / "a.safetensors", tasks=tasks)
        assert any(head in str(each.message) for each in said) == anew
        assert torch.equal(model.state_dict()[head], file[head]) != anew
    with pytest.raises(ValueError, match="trained for another task than 'plants': for segmentation of cat, dog"):
        load_checkpoint(
            build(tasks={"plants": Task("segmentation", 3, classes=("a", "b", "c"))}), tmp_path / "a.safetensors"
        )
    edgeseg.save_checkpoint(make(1), tmp_path / "binary.safetensors")
    depth = build(tasks={"segmentation": Task("depth")})
    with pytest.raises(ValueError, match="for binary of background, foreground, and this model is for depth"):
        load_checkpoint(depth, tmp_path / "binary.safetensors")


def test_networks_whose_tensors_are_alike(tmp_path: Path) -> None:
    """Strides, dilations and activations are no tensors."""
    path = tmp_path / "fpn.safetensors"
    edgeseg.save_checkpoint(edgeseg.create_model("fpn_aspp_mobilenetv2_tv_edgeailite"), path)
    with pytest.raises(ValueError, match="whose fast_down is False in the file and True here"):
        edgeseg.create_model("fpn_aspp_mobilenetv2_tv_fd_edgeailite", checkpoint_path=path)
    with pytest.raises(ValueError, match="has a network with the decoder 'fpn', not a 'unet'"):
        edgeseg.create_model("unet", checkpoint_path=path)
    edgeseg.create_model("fpn", checkpoint_path=path)
    with pytest.warns(UserWarning, match="has weights of another network"):
        edgeseg.create_model("fpn_aspp_mobilenetv2_tv_fd_edgeailite", checkpoint_path=path, num_classes=19)
    asked = edgeseg.create_model("fpn_aspp_mobilenetv2_tv_edgeailite", checkpoint_path=path, dilations=(1, 2, 3))
    assert asked.config.spec == replace(ZOO["fpn_aspp_mobilenetv2_tv_edgeailite"], dilations=(1, 2, 3))


def test_tensors_without_values() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="the model is on the meta device"):
        edgeseg.create_model("fpnsum_mobilenetv2.camvid")


def test_the_normalization_comes_with_the_weights(tmp_path: Path) -> None:
    model = make()
    model.configure(preprocess=Preprocess(mean=(1, 2, 3), std=(4, 5, 6), channel_order="bgr"))
    edgeseg.save_checkpoint(model, tmp_path / "bgr.safetensors")
    other = make()
    other.configure(preprocess=Preprocess(size=(64, 96)))
    load_checkpoint(other, tmp_path / "bgr.safetensors")
    assert other.preprocess == replace(model.preprocess, size=(64, 96))


def test_missing_and_unexpected_are_named(tmp_path: Path) -> None:
    state = make().state_dict()
    state["extra.weight"] = state.pop("decoders.segmentation.head.1.weight")
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(
        ValueError, match=r"1 missing \(decoders.segmentation.head.1.weight\); 1 unexpected \(extra.weight"
    ):
        load_checkpoint(make(), tmp_path / "x.pth")


def test_foreign_safetensors_have_no_metadata(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert read_checkpoint_config(tmp_path / "a.safetensors") is None


@pytest.mark.parametrize("name", [name for name, entry in WEIGHTS.items() if entry.format == "edgeseg"])
def test_shipped(name: str) -> None:
    """Our own weights: the file is the one that was measured, fits, and says the same of itself."""
    entry = WEIGHTS[name]
    architecture, _, tag = name.partition(".")
    path = weights_file(name)
    assert path.stat().st_size < 12e6
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256 == verified_sha256(name)
    config = read_checkpoint_config(path)
    assert config is not None
    assert config.name == architecture
    # The files say the stride that the encoder has anyway.
    assert config.spec in (ZOO[architecture], replace(ZOO[architecture], output_stride=32))
    assert entry.tasks in (config.tasks, None)
    assert config.preprocess == entry.preprocess
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = edgeseg.create_model(name)
    assert model.tasks == config.tasks
    for document in (f"docs/weights/{tag}.md", "MODEL_ZOO.md"):
        assert f"{entry.measured_miou:.2f}" in (ROOT / document).read_text(), document


def test_same_bytes(tmp_path: Path) -> None:
    """The same weights give the same file, in any process."""
    code = "import sys, torch, edgeseg; torch.manual_seed(0)\n"
    code += "model = edgeseg.create_model('fpn_aspp_mobilenetv2_tv_edgeailite', num_classes=3)\n"
    code += "edgeseg.save_checkpoint(model, sys.argv[1], license='MIT', source='x', metrics={'a': 1, 'b': 2})"
    other = code.replace("license='MIT', source='x'", "source='x', license='MIT'")
    for name, program in (("a", code), ("b", code), ("c", other)):
        subprocess.run([sys.executable, "-c", program, tmp_path / f"{name}.safetensors"], check=True)
    assert len({path.read_bytes() for path in tmp_path.glob("*.safetensors")}) == 1


@pytest.mark.slow
def test_measured_on_streets() -> None:
    name = "deeplabv3plus_mobilenetv2_tv_edgeailite.streets"
    model = edgeseg.create_model(name)
    metrics = evaluate_tasks(model, Streets("test", length=200, inputs=tuple(model.inputs), targets=tuple(model.tasks)))
    semantic = metrics["semantic"]
    assert isinstance(semantic, ConfusionMatrix)
    assert 100 * semantic.miou == pytest.approx(WEIGHTS[name].measured_miou, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in WEIGHTS if name.endswith(".camvid")])
def test_measured_on_camvid(name: str, tmp_path: Path) -> None:
    """The figure that is claimed is what the shipped weights score on the real set."""
    if not (SHARED / "data/camvid.py").is_file():
        pytest.skip(f"needs {SHARED / 'data/camvid.py'}, the CamVid set that lies beside the checkout")
    subprocess.run([sys.executable, SHARED / "data/camvid.py", tmp_path], check=True)
    matrix = evaluate(edgeseg.create_model(name), CamVid(tmp_path, "test"))
    assert 100 * matrix.miou == pytest.approx(WEIGHTS[name].measured_miou, abs=0.05)


def test_pretrained_with_other_classes() -> None:
    name = "fpn_aspp_mobilenetv2_tv_edgeailite"
    pretrained = edgeseg.create_model(name, pretrained=True)
    with pytest.warns(UserWarning, match="1 tensor is not loaded"):
        model = edgeseg.create_model(name, pretrained=True, num_classes=4)
    assert model.tasks["segmentation"] == Task("segmentation", 4)
    assert same(model.encoder, pretrained.encoder)
    assert model.preprocess == pretrained.preprocess


THREE = {
    "semantic": Task("segmentation", 5),
    "depth": Task("depth", 1, range=(0, 128)),
    "motion": Task("segmentation", 2),
}


@pytest.mark.parametrize(
    "name",
    [
        "fpn_aspp_mobilenetv2_tv_edgeailite",
        "deeplabv3plus_mobilenetv2_tv_edgeailite",
        "fpn_aspp_regnetx400mf_edgeailite",
        "unet_aspp_resnet50_edgeailite",
        "bifpn_aspp_mobilenetv2_tv_edgeailite",
        "timm",
    ],
)
def test_single_input_and_task_into_several(name: str, tmp_path: Path) -> None:
    """One input's blocks fill all inputs, flow of two channels too, and one decoder all tasks but their predictions."""
    options: dict[str, Any] = {"encoder": TINY, "channels": 16} if name == "timm" else {}
    family = "fpn" if name == "timm" else name
    source = edgeseg.create_model(family, num_classes=19, **options)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "single.pth")
    with pytest.warns(UserWarning, match="for other tasks, classes or inputs"):
        model = edgeseg.create_model(
            family, in_channels=(2, 3), tasks=THREE, checkpoint_path=tmp_path / "single.pth", **options
        )
    theirs, ours = source.state_dict(), model.state_dict()
    filled = 0
    for key, value in ours.items():
        kind, part, *rest = key.split(".")
        if key.startswith("encoder.fusion."):
            continue
        origin = ".".join([kind, part, "0", *rest[1:]] if part == "streams" else [kind, part, *rest])
        if kind == "decoders":
            origin = ".".join([kind, "segmentation", *rest])
        if value.shape == theirs[origin].shape:
            assert torch.equal(value, theirs[origin]), key
            filled += 1
    assert filled > 0.9 * (len(ours) - sum(key.startswith("encoder.fusion.") for key in ours)) or "unet" in name
    stem = next(key for key in ours if key.startswith("encoder.streams.0.") and ours[key].ndim == 4)
    assert ours[stem].shape[1] == 2
    # Two of three channels, made stronger by half: a grey input keeps its response.
    expected = theirs[stem][:, :2] * 1.5
    torch.testing.assert_close(ours[stem], expected)
    outputs = model.eval()(torch.randn(1, 2, 64, 64), torch.randn(1, 3, 64, 64))
    assert {key: value.shape[1] for key, value in outputs.items()} == {"semantic": 5, "depth": 1, "motion": 2}


def test_published_weights_into_several(tmp_path: Path) -> None:
    """The shipped weights, by their name."""
    name = "fpn_aspp_mobilenetv2_tv_edgeailite"
    single = edgeseg.create_model(name, pretrained=True)
    with pytest.warns(UserWarning, match="(is|are) not loaded"):
        model = edgeseg.create_model(name, pretrained=True, in_channels=(3, 3), tasks=THREE)
    ours: Any = model.encoder
    theirs: Any = single.encoder
    assert same(ours.trunk, theirs.trunk)
    assert same(ours.streams[1], theirs.streams[0])
    depth: Any = model.decoders["depth"]
    segmentation: Any = single.decoders["segmentation"]
    assert same(depth.context, segmentation.context)


def test_a_file_names_its_network(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    edgeseg.save_checkpoint(make(5), path)
    assert same(edgeseg.create_model(checkpoint_path=path), make(5, checkpoint_path=path))
    with pytest.raises(ValueError, match=r"pass the name of a model, such as .*, or checkpoint_path"):
        edgeseg.create_model()
    with pytest.raises(
        ValueError, match=r"which has weights of fpn, whose decoder is .*, does not fit this model: \d+ missing"
    ):
        edgeseg.create_model("fpnsum_mobilenetv2", checkpoint_path=path)
    with pytest.raises(TypeError, match=r"path must be a file, got OrderedDict; model\.load_state_dict"):
        load_checkpoint(make(5), make(5).state_dict())  # type: ignore[arg-type]


@pytest.mark.parametrize("encoder", ["mobilenetv2", "regnetx400mf", "resnet18"])
def test_weights_of_an_encoder_by_its_own_names(encoder: str, tmp_path: Path) -> None:
    source, target = (edgeseg.create_model("fpn", encoder=encoder, channels=16) for _ in range(2))
    torch.save(source.encoder.state_dict(), tmp_path / "encoder.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_encoder(target, tmp_path / "encoder.pth", normalization=target.preprocess)
    assert same(source.encoder, target.encoder)
