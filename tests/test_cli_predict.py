"""edgeseg predict and edgeseg flow with what people type: checked where it enters, each bad file named, none half."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgeseg
from edgeseg.cli import main
from edgeseg.labels import CITYSCAPES
from edgeseg.spec import Task

from .conftest import ROOT, TINY

RANDOM = np.random.default_rng(0)


@pytest.fixture
def predict(tmp_path: Path) -> list[str]:
    """The predict command with a small network, but for its files and its output."""
    return ["predict", "--model", "fpn", "--checkpoint", str(saved(tmp_path, 2))]


def saved(folder: Path, classes: int, names: tuple[str, ...] = (), channels: int = 3) -> Path:
    tasks = {"segmentation": edgeseg.Task("segmentation", classes, classes=names)}
    path = folder / f"{classes}_{channels}.safetensors"
    edgeseg.save_checkpoint(
        edgeseg.create_model("fpn", encoder=TINY, channels=8, tasks=tasks, in_channels=(channels,)), path
    )
    return path


def photo(path: Path, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (32, 48, len(mode)), np.uint8), mode).save(path)
    return path


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Calls that are wrong


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--batch-size", "-3"], "--batch-size must be at least 1, got -3"),
        (["--tile", "0", "0"], "--tile is a height and a width of at least 1, got 0 0"),
        (["--tile", "-5", "50"], "--tile is a height and a width of at least 1, got -5 50"),
        (["--max-pixels", "0"], "--max-pixels must be at least 1, got 0"),
        (["--input", "flow"], "--input is NAME=FILE|FOLDER, got 'flow'"),
        (["--input", "flow="], "--input is NAME=FILE|FOLDER, got 'flow='"),
        (["--input", "flow=nowhere"], "--input flow: nowhere: no such file or folder"),
        (["--input", f"flow={ROOT}", "--input", f"flow={ROOT}"], "--input flow is given twice"),
        (["--onnx", "net.onnx", "--device", "cuda"], "--exported runs on the CPU"),
        (["-o", "README.md"], "--output README.md is a file; pass a folder"),
        (["-o", "README.md/deep/out"], "lies below"),
    ],
)
def test_checked_before_a_model_is_loaded(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint does not exist, which is found later."""
    monkeypatch.chdir(ROOT)
    call = ["predict", str(photo(tmp_path / "a.png")), "-o", str(tmp_path / "out"), "--checkpoint", "no.safetensors"]
    if "--onnx" in words:
        call = call[:-2]
    assert main([*call, *words]) == 2
    out, err = capsys.readouterr()
    assert re.match(r"edgeseg predict: error: ", err)
    assert message in err
    assert "no.safetensors" not in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_nothing_to_segment(predict: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    output = ["-o", str(tmp_path / "out")]
    assert main([*predict, "missing.jpg", *output]) == 2
    assert capsys.readouterr() == ("", "edgeseg predict: error: missing.jpg: no such file or folder\n")
    assert main([*predict, "missing.jpg", str(tmp_path / "empty"), *output]) == 2
    assert f"no images in {tmp_path / 'empty'}, and no videos" in capsys.readouterr().err
    assert main([*predict, str(photo(tmp_path / "a.png")), str(tmp_path / "empty"), *output]) == 1
    out, err = capsys.readouterr()
    assert "1 of 2 segmented" in out
    assert "no images in" in err
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert main([*predict, str(tmp_path / "b.png"), *output]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("edgeseg predict: nothing was segmented\n")


def test_label_ids_need_the_classes_of_cityscapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many classes of other names are others."""
    call = ["predict", str(photo(tmp_path / "a.png")), "-o", str(tmp_path / "out"), "--outputs", "label_ids"]
    others = tuple(f"tree {i}" for i in range(19))
    for names, status in ((others, 2), (tuple(CITYSCAPES), 0), ((), 0)):
        path = saved(tmp_path, 19, names)
        assert main([*call, "--model", "fpn", "--checkpoint", str(path)]) == status
    assert (
        "label_ids needs a model of Cityscapes' 19 classes; this one has 19 (tree 0, tree 1," in capsys.readouterr().err
    )


def test_results_do_not_overwrite_the_input(
    predict: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [photo(tmp_path / name) for name in ("a.png", "a_labels.png")]
    before = files[1].read_bytes()
    assert main([*predict, *map(str, files), "-o", str(tmp_path)]) == 2
    assert "a.png would overwrite" in capsys.readouterr().err
    assert files[1].read_bytes() == before
    assert main([*predict, *map(str, files), "-o", str(tmp_path), "--outputs", "color"]) == 0


# Files that are bad


def test_results_do_not_overwrite_one_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = {"lane": Task(channels=3), "left_lane": Task(channels=2)}
    weights = tmp_path / "two.safetensors"
    edgeseg.save_checkpoint(edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks=tasks), weights)
    files = [str(photo(tmp_path / f"{name}.png")) for name in ("img", "img_left")]
    assert main(["predict", *files, "--checkpoint", str(weights), "-o", str(tmp_path / "out")]) == 2
    assert "img_left.png would overwrite those of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_channels_are_not_made_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network of four channels takes RGBA; an RGB photo and a video are named."""
    files = [photo(tmp_path / "rgb.png"), photo(tmp_path / "rgba.png", "RGBA")]
    call = ["predict", *map(str, files), "-o", str(tmp_path / "out"), "--outputs", "labels", "--model", "fpn"]
    assert main([*call, "--checkpoint", str(saved(tmp_path, 2, channels=4))]) == 1
    assert "rgb.png has 3 channels (RGB) and the network takes 4" in capsys.readouterr().err
    assert written(tmp_path / "out") == ["rgba_labels.png"]


def test_control_characters_are_escaped(predict: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = photo(tmp_path / "a.png")
    assert main([*predict, str(good), str(tmp_path / "\x1b[2Jb.png"), "-o", str(tmp_path / "out\x07")]) == 1
    out, err = capsys.readouterr()
    assert r"\x1b[2Jb.png" in err
    assert r"out\x07" in out
    assert main([*predict, "\x1b[2J.png", "-o", str(tmp_path / "out")]) == 2
    assert not {"\x1b", "\x07"} & set(out + err + capsys.readouterr().err)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Lets no file grow beyond a size in bytes; the system reports it as it reports a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk(predict: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        photo(tmp_path / f"photos/{name}.png")
    call = [*predict, str(tmp_path / "photos"), "-o", str(tmp_path / "out"), "--outputs", "overlay"]
    with full_disk(1000):
        assert main(call) == 1
    out, err = capsys.readouterr()
    assert "cannot write" in err
    assert "a_overlay.png: File too large; the files after it were not segmented" in err
    assert out == ""
    assert written(tmp_path / "out") == []
    assert main(call) == 0
    assert len(written(tmp_path / "out")) == 3


def test_a_name_that_is_too_long(predict: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The temporary name of a result is not longer than the result's, and one bad name does not end the run."""
    names = ["a" * 230, "b" * 245, "c", "d"]  # in all, 255 bytes are allowed
    for name in names:
        photo(tmp_path / f"photos/{name}.png")
    (tmp_path / "out/c_labels.png").mkdir(parents=True)
    words = [*predict, str(tmp_path / "photos"), "-o", str(tmp_path / "out"), "--outputs", "labels"]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert f"{'b' * 245}_labels.png: File name too long" in err
    assert "c_labels.png: Is a directory" in err
    assert "2 of 4 segmented" in out
    assert [path.name for path in sorted((tmp_path / "out").glob("*_labels.png")) if path.is_file()] == [
        f"{'a' * 230}_labels.png", "d_labels.png",
    ]  # fmt: skip


def test_interrupted(predict: list[str], tmp_path: Path) -> None:
    """One line, and no half picture."""
    for i in range(300):
        photo(tmp_path / f"photos/{i}.png")
    words = [*predict, str(tmp_path / "photos"), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeseg", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # shells ignore it in the background
    )  # fmt: skip
    while not list(tmp_path.glob("out/*.png")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "edgeseg predict: interrupted\n"
    assert out == ""
    for path in (tmp_path / "out").iterdir():
        Image.open(path).load()


def test_no_bars_outside_terminals(predict: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(photo(tmp_path / f"{name}.png")) for name in "ab"]
    assert main([*predict, *files, "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == ""


# Flow


def test_flow_names_bad_frames_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2")
    folder = tmp_path / "frames"
    for name in ("a", "b", "c", "d", "e", "f"):
        photo(folder / f"{name}.png")
    (folder / "c.png").write_bytes(b"no picture")
    Image.new("RGB", (20, 20)).save(folder / "f.png")
    assert main(["flow", str(folder), "-o", str(tmp_path / "flow")]) == 1
    err = capsys.readouterr().err
    assert written(tmp_path / "flow") == ["b.png", "e.png"]
    for message in (
        r"cannot read .*c\.png",
        r"d\.png gets no flow, since .*c\.png",
        r"f\.png: both frames need one size",
    ):
        assert re.search(message, err)
    assert err.count("\n") == 3


def test_flow_checks_its_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2")
    first, second = str(photo(tmp_path / "a.png")), str(photo(tmp_path / "b.png"))
    (tmp_path / "file").write_text("")
    for words, message in (
        ([first, second, "-o", str(tmp_path / "flow.jpg")], "flow is written as .png"),
        ([first, second, "-o", str(tmp_path / "file/flow.png")], "is a file"),
        ([str(tmp_path), "-o", str(tmp_path / "file")], "is a file; pass a folder"),
        ([str(tmp_path / "none"), "-o", str(tmp_path / "out")], "none: no such file or folder"),
        ([first, str(tmp_path / "none.png"), "-o", str(tmp_path / "flow.png")], "none.png"),
    ):
        assert main(["flow", *words]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    (tmp_path / "out").mkdir()
    assert main(["flow", first, second, "-o", str(tmp_path / "out")]) == 0
    with full_disk(500):
        assert main(["flow", first, second, "-o", str(tmp_path / "flow.png")]) == 1
    assert "flow.png: File too large" in capsys.readouterr().err
    assert written(tmp_path / "out") == ["b.png"]
    assert not list(tmp_path.glob("*flow.png*"))


def test_a_file_beside_the_photo_is_kept(
    predict: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be the ground truth."""
    path, truth = photo(tmp_path / "in/a.png"), tmp_path / "in/a_labels.png"
    Image.new("L", (48, 32), 1).save(truth)
    before = truth.read_bytes()
    assert main([*predict, str(path), "-o", str(tmp_path / "in")]) == 2
    assert "a_labels.png, which edgeseg did not write; choose another --output" in capsys.readouterr().err
    assert truth.read_bytes() == before
    assert written(tmp_path / "in") == ["a.png", "a_labels.png"]
    for _ in range(2):  # results of edgeseg are replaced
        assert main([*predict, str(path), "-o", str(tmp_path / "out")]) == 0
    Image.new("L", (48, 32), 1).save(tmp_path / "out/a_labels.png")
    assert main([*predict, str(path), "-o", str(tmp_path / "out")]) == 2


def test_results_of_two_folders(predict: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [photo(tmp_path / f"in/{name}/x.png") for name in ("one", "two")]
    call = [*predict, "--outputs", "labels", "-o", str(tmp_path / "out")]
    assert main([*call, *map(str, paths)]) == 2
    assert "pass the folder that holds both, whose sub-folders are kept" in capsys.readouterr().err
    assert main([*call, str(tmp_path / "in")]) == 0
    assert written(tmp_path / "out") == ["one/x_labels.png", "two/x_labels.png"]
