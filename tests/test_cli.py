"""The command line, as a user calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgeseg
from edgeseg.cli import main
from edgeseg.engine import TrainConfig

NAME = "fpn_aspp_regnetx400mf_edgeailite"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Untrained weights of a small zoo network for three classes."""
    task = edgeseg.Task(
        "segmentation", 3, classes=("road", "sky", "rest"), palette=((128, 64, 128), (0, 0, 255), (9, 9, 9))
    )
    path = tmp_path / "three.safetensors"
    edgeseg.save_checkpoint(edgeseg.create_model(NAME, tasks={"segmentation": task}), path)
    return path


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "fpn_aspp_regnetx?p*"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["list", "--pretrained"]) == 0
    assert capsys.readouterr().out.splitlines() == edgeseg.list_models(pretrained=True)
    assert main(["list", "nothing*"]) == 1


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "fpn_aspp_mobilenetv2_tv_edgeailite"]) == 0
    out = capsys.readouterr().out
    assert "2,669,376" in out
    assert "3.767 at 768x384" in out
    assert "pedestrian" in out
    assert "CC BY-NC" in out


def test_predict_file_and_folder(
    checkpoint: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    Image.new("RGB", (33, 21)).save(folder / "deep" / "a.png")
    Image.new("RGB", (20, 30)).save(folder / "b.jpg")
    Image.new("RGB", (20, 30)).save(folder / "b.png")
    (folder / "notes.txt").write_text("no image")
    output = tmp_path / "out"
    assert main(["predict", str(photo), str(folder), "-o", str(output), "--checkpoint", str(checkpoint)]) == 0
    assert capsys.readouterr().out == f"4 of 4 segmented into {output}\n"
    written = sorted(str(path.relative_to(output)) for path in output.rglob("*.png"))
    stems = ["b.jpg", "b.png", "deep/a", "photo"]
    assert written == sorted(f"{stem}_{what}.png" for stem in stems for what in ("labels", "color", "overlay"))

    # Pictures that lie in the folder from an earlier run are no input.
    again = ["predict", str(tmp_path), "-o", str(output), "--checkpoint", str(checkpoint)]
    assert main(again) == 0
    assert "4 of 4" in capsys.readouterr().out

    labels = np.array(Image.open(output / "photo_labels.png"))
    assert (labels.shape, labels.dtype) == ((60, 90), np.uint8)
    model = edgeseg.create_model(NAME, checkpoint_path=checkpoint)
    assert (labels == model.predict(photo)).all()
    colors = np.array(Image.open(output / "photo_color.png"))
    assert (colors == np.array(model.tasks["segmentation"].palette, np.uint8)[labels]).all()
    overlay = Image.open(output / "photo_overlay.png")
    assert overlay.width == 90
    assert overlay.height > 60  # the legend


def test_unreadable_file_is_named_and_the_others_go_on(
    checkpoint: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no png")
    truncated = tmp_path / "half.jpg"
    truncated.write_bytes(photo.read_bytes()[:300])
    inputs = [str(broken), str(photo), str(truncated), str(tmp_path / "none.png")]
    output = tmp_path / "out"
    assert main(["predict", *inputs, "-o", str(output), "--checkpoint", str(checkpoint)]) == 1
    out, err = capsys.readouterr()
    assert "1 of 4 segmented" in out
    assert all(name in err for name in ("broken.png", "half.jpg", "none.png: no such file"))
    assert len(list(output.iterdir())) == 3


def test_predict_refuses_to_overwrite_its_own_pictures(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "a.png")
    inputs = [str(tmp_path / "x"), str(tmp_path / "y")]
    assert main(["predict", *inputs, "-o", str(tmp_path / "out"), "--checkpoint", str(checkpoint)]) == 2
    assert "written as a.png" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(tmp_path / "empty"), "-o", str(tmp_path / "out")]) == 2
    assert "no images in" in capsys.readouterr().err


def test_module_and_errors(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "edgeseg", "info", "fpn_aspp_regnetx80mf_edgeailite"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean fpn_aspp_regnetx800mf_edgeailite" in done.stderr
    assert "Traceback" not in done.stderr


def test_train_and_eval(camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--dataset", "camvid", "--data-path", str(camvid)]
    run = tmp_path / "run"
    sizes = ["--size", "64", "64", "--crop", "64", "64", "--batch_size", "2", "--workers", "0", "--no-class-weights"]
    assert main(["train", *data, "--model", NAME, "--epochs", "1", *sizes, "-o", str(run)]) == 0
    assert (run / "log.csv").read_text().startswith("epoch,loss,seconds,miou\n1,")
    capsys.readouterr()
    assert main(["eval", *data, "--checkpoint", str(run / "last.safetensors")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 13
    assert out[0].startswith("sky")
    assert out[11].startswith("mIoU")
    assert main(["eval", *data, "--checkpoint", str(run / "last.safetensors"), "--size", "32", "32"]) == 0
    assert capsys.readouterr().out.splitlines() != out


def test_every_recipe_field_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in text for name in TrainConfig.__dataclass_fields__)


def test_device_that_is_not_there(
    checkpoint: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["predict", str(photo), "-o", str(tmp_path / "out"), "--checkpoint", str(checkpoint), "--device", "warp"]
    assert main(call) == 2
    assert "cannot use --device warp" in capsys.readouterr().err


def test_missing_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--dataset", "camvid", "--data-path", str(tmp_path), "--checkpoint", "x.safetensors"]) == 2
    assert "no weights file at x.safetensors" in capsys.readouterr().err
