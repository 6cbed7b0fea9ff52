"""ExecuTorch programs: they answer as the network does, in whatever order the values of a tensor lie in memory."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import edgeseg
from edgeseg.cli import main
from edgeseg.data import Streets
from edgeseg.deploy import verify
from edgeseg.networks.quantized import quantize_aware
from edgeseg.predict.executorch import ExecuTorchSegmenter
from edgeseg.predict.facts import append_facts, appended_facts, read_facts
from edgeseg.spec import Task

from .conftest import TINY

pytest.importorskip(
    "executorch.runtime", reason="needs executorch: pip install 'edgeseg[executorch]'", exc_type=ImportError
)

THREE = {
    "semantic": Task("segmentation", 5),
    "depth": Task("depth", 1, range=(0, 9)),
    "motion": Task("segmentation", 2),
}


def small(family: str = "fpn", encoder: str = TINY, **options: object) -> edgeseg.Pixel2Pixel:
    torch.manual_seed(0)
    model = edgeseg.create_model(family, encoder=encoder, **{"channels": 8, **(options or {"num_classes": 4})})  # type: ignore[arg-type]
    model.configure(preprocess=edgeseg.Preprocess(size=(64, 96)))
    return model.eval()


def learn(model: edgeseg.Pixel2Pixel, photos: list[np.ndarray]) -> None:
    """Trains a network to tell bright from dark; without training, the least rounding changes its classes."""
    pixels = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2)
    labels = pixels.float().mean(1).div(64).long()
    images, optimizer = model.preprocess.normalize(pixels), torch.optim.Adam(model.parameters(), 1e-3)
    model.train()
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images)["segmentation"], labels).backward()
        optimizer.step()
    model.eval()


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = [torch.from_numpy(rng.random((1, 3, 5, 7), np.float32) * 255) for _ in range(3)]
    smooth = [torch.nn.functional.interpolate(each, (64, 96), mode="bilinear") for each in coarse]
    return [each[0].permute(1, 2, 0).to(torch.uint8).numpy() for each in smooth]


@pytest.fixture(scope="module")
def model() -> edgeseg.Pixel2Pixel:
    return small()


@pytest.fixture(scope="module")
def file(model: edgeseg.Pixel2Pixel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels from pixels, of a network whose weights lie in memory with channels last."""
    path = tmp_path_factory.mktemp("programs") / "model.pte"
    last = small().to(memory_format=torch.channels_last)
    return edgeseg.export(last, path, output="labels", preprocess=True).path


def test_answers_as_the_network(file: Path, model: edgeseg.Pixel2Pixel, photos: list[np.ndarray]) -> None:
    segmenter = edgeseg.load_segmenter(file)
    assert isinstance(segmenter, ExecuTorchSegmenter)
    assert (segmenter.shape, segmenter.output, segmenter.normalizes) == ([1, 3, 64, 96], "labels", True)
    for photo in photos:
        found, expected = segmenter.predict(photo), model.predict(photo)
        assert found.dtype == expected.dtype
        assert (found == expected).mean() > 0.999
    assert segmenter.predict(np.zeros((50, 70, 3), np.uint8)).shape == (50, 70)
    with pytest.raises(
        ValueError, match=r"image is uint8 \[1, 3, 64, 96\] in model\.pte, got float32 \[1, 3, 64, 96\]"
    ):
        segmenter.run(np.zeros((1, 3, 64, 96), np.float32))
    with pytest.raises(ValueError, match=r"got uint8 \[1, 3, 65, 96\]"):
        segmenter.run(np.zeros((1, 3, 65, 96), np.uint8))


def test_order_in_memory_does_not_matter(file: Path, photos: list[np.ndarray]) -> None:
    segmenter = ExecuTorchSegmenter(file)
    first = torch.tensor(photos[0].transpose(2, 0, 1)[None])
    last = first.contiguous(memory_format=torch.channels_last)
    assert (first.stride(1), last.stride(1)) == (64 * 96, 1)
    expected = segmenter.run(first.numpy())["segmentation"]
    assert (segmenter.run(last.numpy())["segmentation"] == expected).all()
    assert len(np.unique(expected)) > 1
    from executorch.exir._serialize._program import deserialize_pte_binary

    program = deserialize_pte_binary(segmenter._content).program.execution_plan[0]
    (tensor,) = (program.values[index].val for index in program.inputs)
    assert list(tensor.dim_order) == [0, 1, 2, 3]


def test_says_what_it_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = read_facts(file)
    assert json.loads(facts["edgeseg_file"])["output"] == "labels"
    assert {"classes", "palette", "sha256"} <= set(facts)
    assert main(["info", str(file)]) == 0
    assert "fpn" in capsys.readouterr().out


def test_threads_and_pickle(file: Path, photos: list[np.ndarray]) -> None:
    from executorch.extension.pybindings import portable_lib

    first = ExecuTorchSegmenter(file, threads=2)
    expected = [first.predict(photo) for photo in photos]
    second = pickle.loads(pickle.dumps(ExecuTorchSegmenter(file, threads=1)))
    assert portable_lib._threadpool_get_thread_count() == 1
    with ThreadPoolExecutor(4) as pool:
        for segmenter in (first, second):
            found = list(pool.map(segmenter.predict, photos * 4))
            assert all((a == b).all() for a, b in zip(found, expected * 4, strict=True))
    with pytest.raises(ValueError, match="threads is a positive number"):
        ExecuTorchSegmenter(file, threads=0)
    with pytest.raises(ValueError, match="run on the cpu"):
        ExecuTorchSegmenter(file, device="cuda")


def test_wrong_files(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    end = content.rindex(b"PK\x03\x04")
    bad = tmp_path / "bad.pte"
    for part in (b"", b"ET12", b"not a program at all" * 9, content[:40], content[:70], content[: end // 2]):
        bad.write_bytes(part)
        for read in (ExecuTorchSegmenter, read_facts):
            with pytest.raises(ValueError, match=r"bad\.pte is (not an ExecuTorch program|truncated)"):
                read(bad)
    bad.write_bytes(content[:end])
    with pytest.raises(ValueError, match=r"bad\.pte was not written by edgeseg"):
        ExecuTorchSegmenter(bad)
    for place in (0, 16, 80, end // 2, end - 100):
        bad.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        with pytest.raises(ValueError, match=r"bad\.pte"):
            ExecuTorchSegmenter(bad)
    with pytest.raises(FileNotFoundError, match=r"none\.pte"):
        ExecuTorchSegmenter(tmp_path / "none.pte")


def test_other_versions(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    facts = {name: fact for name, fact in appended_facts(file).items() if name != "sha256"}
    other = tmp_path / "other.pte"
    other.write_bytes(content[:4] + b"ET99" + content[8 : content.rindex(b"PK\x03\x04")])
    append_facts(other, facts)
    with pytest.raises(ValueError, match=r"ExecuTorch \S+ cannot load .*other\.pte, which ExecuTorch \d\S+ wrote"):
        ExecuTorchSegmenter(other)


def test_without_executorch(file: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['executorch'] = None\nimport edgeseg\n"
        "model = edgeseg.create_model('fpn', encoder='test_efficientnet')\n"
        f"for call in (lambda: edgeseg.load_segmenter({str(file)!r}),\n"
        f"             lambda: edgeseg.export(model, {str(tmp_path / 'a.pte')!r}, size=(64, 96))):\n"
        "    try: call()\n    except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.rsplit(": ", 1)[1] for line in done.stdout.splitlines()] == ["pip install 'edgeseg[executorch]'"] * 2
    assert not list(tmp_path.iterdir())


def test_8_bit(photos: list[np.ndarray], tmp_path: Path) -> None:
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    done = edgeseg.export(model, tmp_path / "int8.pte", precision="int8", images=photos, output="small_logits")
    assert done.agreement["segmentation"] > 0.85
    assert done.path.stat().st_size < 2.5 * sum(each.numel() for each in model.parameters())
    assert all((value == before[name]).all() for name, value in model.state_dict().items())
    segmenter = edgeseg.load_segmenter(done.path)
    assert np.mean([segmenter.predict(photo) == model.predict(photo) for photo in photos]) > 0.85


@pytest.mark.slow
def test_8_bit_of_trained_weights(tmp_path: Path) -> None:
    """A quarter of the size of float32, and nearly the same answers."""
    model = edgeseg.create_model("fpn_aspp_mobilenetv2_tv_edgeailite", pretrained=True).eval()
    streets = Streets("train", (120, 160), length=6)
    images = [streets[i][0].as_subclass(torch.Tensor) for i in range(6)]
    done = edgeseg.export(model, tmp_path / "int8.pte", precision="int8", images=images, size=(120, 160))
    assert done.agreement["segmentation"] > 0.95
    assert done.path.stat().st_size < 1.4 * sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("encoder", [pytest.param(name, marks=pytest.mark.slow) for name in (TINY, "mobilenetv2")])
def test_trained_for_8_bit(encoder: str, photos: list[np.ndarray], tmp_path: Path) -> None:
    """The file has the scales of the network, so it rounds as the network does."""
    model = quantize_aware(small(encoder=encoder)).train()
    with torch.no_grad():
        for photo in photos * 3:
            model(model.preprocess.normalize(torch.tensor(photo).permute(2, 0, 1)[None]))
    done = edgeseg.export(model.eval(), tmp_path / "trained.pte")
    assert done.differences["segmentation"] < 0.05
    segmenter = edgeseg.load_segmenter(done.path)
    assert np.mean([segmenter.predict(photo) == model.predict(photo) for photo in photos]) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_several_inputs_and_tasks(precision: str, photos: list[np.ndarray], tmp_path: Path) -> None:
    model = small(in_channels=(3, 3), tasks=THREE)
    frames = [(photos[0], photos[1]), (photos[1], photos[2])]
    images = frames if precision == "int8" else []
    file = edgeseg.export(model, tmp_path / "m.pte", precision=precision, images=images, output="small_logits").path  # type: ignore[arg-type]
    segmenter = edgeseg.load_segmenter(file)
    maps, expected = segmenter.predict_tasks(*frames[0]), model.predict_tasks(*frames[0])
    assert list(maps) == list(THREE)
    share = 0.999 if precision == "float32" else 0.8
    assert all((maps[name] == expected[name]).mean() > share for name in ("semantic", "motion"))
    assert np.abs(maps["depth"] - expected["depth"]).max() < (0.1 if precision == "float32" else 2)


@pytest.mark.parametrize(
    ("family", "encoder", "precision"),
    [
        ("unet", TINY, "float32"),
        pytest.param("deeplabv3plus", TINY, "float32", marks=pytest.mark.slow),
        pytest.param("bifpn", TINY, "float32", marks=pytest.mark.slow),
        *(
            pytest.param(family, encoder, precision, marks=pytest.mark.slow)
            for family in ("fpn", "unet", "deeplabv3plus", "bifpn", "fpnsum")
            for encoder in ("mobilenetv2", "regnetx400mf")
            for precision in ("float32", "int8")
        ),
    ],
)
def test_decoders(
    family: str, encoder: str, precision: str, photos: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = small(family, encoder), photos if precision == "int8" else []
    if precision == "int8":
        learn(model, photos)
        if family == "bifpn":  # which learns nothing in seconds; benchmarks/formats.py trains it for a minute
            monkeypatch.setattr(verify, "KEPT", 0.5)
    done = edgeseg.export(model, tmp_path / "m.pte", precision=precision, images=images)  # type: ignore[arg-type]
    assert done.agreement or done.differences["segmentation"] < 1e-3
    assert edgeseg.load_segmenter(done.path).predict(photos[0]).shape == (64, 96)


def test_nothing_is_left(
    model: edgeseg.Pixel2Pixel, photos: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(verify.TOLERANCE, "values", 1e-12)
    with pytest.raises(RuntimeError, match="differs from the network"):
        edgeseg.export(model, tmp_path / "m.pte")
    with pytest.raises(ValueError, match=r"ExecuTorch files have no option dynamic; they have size"):
        edgeseg.export(model, tmp_path / "m.pte", dynamic=())
    with pytest.raises(ValueError, match=r"ExecuTorch files have no float16"):
        edgeseg.export(model, tmp_path / "m.pte", precision="float16")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.png").write_bytes(b"no image")
    with pytest.raises(OSError, match=r"bad\.png"):
        edgeseg.export(model, tmp_path / "m.pte", precision="int8", images=[tmp_path / "photos" / "bad.png"])
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
