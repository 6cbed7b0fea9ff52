"""What the command line prints: bars on terminals only, --quiet, --json, completion, and `edgeseg doctor`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edgeseg
from edgeseg.cli import main
from edgeseg.data import Streets
from edgeseg.zoo.weights import WEIGHTS

from .conftest import TINY
from .test_cli import Terminal

STREETS = ["--dataset", "streets", "--length", "4"]


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    """Options of a small network for the classes of streets."""
    tasks = {"semantic": Streets("test", length=4).tasks["semantic"]}
    path = tmp_path / "streets.safetensors"
    edgeseg.save_checkpoint(edgeseg.create_model("fpn", encoder=TINY, channels=8, tasks=tasks), path)
    return ["--model", "fpn", "--checkpoint", str(path)]


@pytest.fixture
def photos(photo: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "ab":
        shutil.copy(photo, folder / f"{name}.jpg")
    return folder


def training(folder: Path) -> list[str]:
    data = ["--dataset", "streets", "--length", "8", "--model", "fpn", "--encoder", TINY, "--option", "channels=8"]
    sizes = ["--img-resize", "32", "48", "--rand-crop", "32", "48", "--batch-size", "4", "--workers", "0"]
    return ["train", *data, *sizes, "--class-weights", "none", "--epochs", "2", "-o", str(folder / "run")]


def called(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own whose output is no terminal."""
    command = [sys.executable, "-m", "edgeseg", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=300)


@pytest.fixture
def document(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command with --json and reads the document that it prints."""

    def run(*words: str, status: int = 0) -> Any:
        capsys.readouterr()
        assert main([*words, "--json"]) == status
        return json.loads(capsys.readouterr().out)

    return run


# Bars and remarks


def test_a_log_file_has_a_line_per_epoch(tmp_path: Path) -> None:
    """And neither bars nor commands to a terminal."""
    done = called(*training(tmp_path), TERM="xterm-256color")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines() if line.startswith("epoch ")] == [
        ["epoch", "1"],
        ["epoch", "2"],
    ]
    assert not {"\r", "\x1b"} & set(done.stdout + done.stderr)
    assert "it/s" not in done.stderr


def test_bars_of_export(model: list[str], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that goes over photos has one, unless --quiet is given."""
    pytest.importorskip("openvino")
    words = ["export", *model, "--int8", "--images", str(photos), "--img-resize", "32", "48", "--fixed"]
    for option, shown in (([], True), (["--quiet"], False)):
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        assert main([*words, *option, "-o", str(tmp_path / "int8.xml")]) == 0
        for title in ("equalization", "calibration", "comparison"):
            assert (f"{title}: " in stream.getvalue()) == shown, title


def test_nothing_in_a_pipe_commands_a_terminal() -> None:
    for words in (["--help"], ["train", "--help"], ["list"], ["doctor"], ["trian"]):
        done = called(*words, TERM="xterm-256color")
        assert not {"\r", "\x1b"} & set(done.stdout + done.stderr), words


def test_quiet(model: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Remarks are left out; what was asked for and errors are not."""
    calls = {
        "predict": [str(photos), "-o", str(tmp_path / "out"), *model],
        "export": ["-o", str(tmp_path / "model.onnx"), "--img-resize", "32", "48", "--fixed", *model],
        "train": training(tmp_path)[1:],
    }
    for verb, words in calls.items():
        assert main([verb, *words, "--quiet"]) == 0, verb
        assert capsys.readouterr().out == "", verb
    assert (tmp_path / "out/a_labels.png").is_file()
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 2
    assert main(["evaluate", *STREETS, "--split", "test", *model, "--quiet"]) == 0
    assert "mIoU" in capsys.readouterr().out
    (photos / "c.jpg").write_bytes(b"no photo")
    assert main(["predict", *calls["predict"], "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "not segmented" in err


# JSON


def test_json_of_the_zoo(document: Callable[..., Any], model: list[str]) -> None:
    name = "fpn_aspp_mobilenetv2_tv_edgeailite"
    assert document("list", "fpn") == edgeseg.list_models("*fpn*")
    assert document("list", "nothing_like_it", status=1) == []
    rows = {row["name"]: row for row in document("weights", "list", "camvid")}
    assert rows.keys() == set(edgeseg.list_weights("*camvid*"))
    assert rows[f"{name}.camvid"]["measured_miou"] == WEIGHTS[f"{name}.camvid"].measured_miou
    info = document("info", name)
    assert info["parameters"] == 2_669_376
    assert info["spec"]["decoder"] == "fpn"
    assert info["weights"]["camvid"]["tasks"]["segmentation"]["channels"] == 11
    entry = document("weights", "info", f"{name}.camvid")
    assert entry["sha256"] == WEIGHTS[f"{name}.camvid"].sha256
    record = document("info", model[-1])
    assert record["spec"]["encoder"] == TINY


def test_json_of_scores(document: Callable[..., Any], model: list[str], tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    scores = document("evaluate", *STREETS, "--split", "test", *model, "-o", str(file))
    assert scores == json.loads(file.read_text())
    assert 0 <= scores["semantic"]["miou"] <= 100


def test_json_of_data_check(document: Callable[..., Any], tmp_path: Path) -> None:
    reports = document("data", "check", *STREETS, "--split", "val", "-o", str(tmp_path / "page.png"))
    assert reports["val"]["samples"] == 4
    assert (tmp_path / "page.png").is_file()


def test_json_of_an_export(document: Callable[..., Any], model: list[str], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    words = ["-o", str(path), "--file-output", "labels", "--img-resize", "32", "48", "--fixed", *model]
    report = document("export", *words)
    assert report["bytes"] == path.stat().st_size
    assert report["unit"] == "share of pixels"
    assert report["differences"].keys() == {"semantic"}
    assert report["was_run"]
    assert report["scores"] == {}


def test_json_of_a_quantization(document: Callable[..., Any], model: list[str], tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    words = ["-o", str(path), "--calibration-count", "2", *STREETS, "--split", "val", "--keep-float", "1", *model]
    report = document("quantize", *words, "--img-resize", "32", "48")
    assert report["int8"]["bytes"] == path.stat().st_size
    assert report["int8"]["scores"]["semantic"].keys() == report["float32"]["scores"]["semantic"].keys() == {"miou"}
    assert set(report["kept_float"]) <= report["sensitivity"].keys()
    assert report["agreement"].keys() == {"semantic"}


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_verbs_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as exit:
        main(["--print-completion", shell])
    assert exit.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert all(word in out for word in ("quantize", "--calibration-images", "onnxruntime"))


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photo.jpg").touch()
    done = called("--print-completion", "bash")
    ask = 'COMP_WORDS=({}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _shtab_edgeseg; echo "${{COMPREPLY[@]}}"'

    def completed(words: str) -> list[str]:
        script = f"{done.stdout}\n{ask.format(words)}"
        run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path)
        return run.stdout.split()

    assert completed("edgeseg qu") == ["quantize"]
    assert completed("edgeseg weights ver") == ["verify"]
    assert completed("edgeseg predict --runt") == ["--runtime"]
    assert completed("edgeseg predict --runtime open") == ["openvino"]
    assert completed("edgeseg evaluate --model unet_aspp_resnet50_e") == ["unet_aspp_resnet50_edgeailite"]
    assert set(completed("edgeseg predict pho")) == {"photos", "photo.jpg"}


def test_completion_without_shtab(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as exit:
        main(["--print-completion", "bash"])
    assert exit.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--print-completion needs shtab: pip install 'edgeseg[completion]'" in err


# Doctor


def test_doctor(
    document: Callable[..., Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "hf-home/edgeseg"
    (cache / "exported").mkdir(parents=True)
    (cache / "exported/model.onnx").write_bytes(bytes(2_000_000))
    name = "unet_aspp_mobilenetv2_tv_edgeailite.camvid"
    monkeypatch.setitem(WEIGHTS, name, replace(WEIGHTS[name], sha256="0" * 64))
    facts = document("doctor")
    assert facts["installation"]["edgeseg"].startswith(edgeseg.__version__)
    assert facts["libraries"]["torch"]
    assert facts["optional libraries"]["onnxscript"]
    assert facts["processor"]["cores"] >= 1
    assert facts["PyTorch"]["threads"] >= 1
    assert facts["cache"] == {"folder": str(cache), "exported (MB)": 2.0}
    weights = facts["weights of the package"]
    assert "has changed" in weights.pop(name)
    assert set(weights.values()) == {"intact"}
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert all(f"{part}\n" in out for part in facts)
    assert "error" not in out


def test_doctor_of_a_broken_installation() -> None:
    """A part that is broken says so, and the others answer; nothing is imported without need."""
    code = (
        "import sys; sys.modules['torch'] = None; from edgeseg.cli import main; status = main(['doctor', '--json']); "
        "print([name for name in ('timm', 'torchvision', 'onnx', 'PIL', 'numpy') if name in sys.modules], "
        "file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    facts = json.loads(done.stdout)
    assert "torch" in facts["PyTorch"]["error"]
    assert not any("error" in found for part, found in facts.items() if part != "PyTorch")
