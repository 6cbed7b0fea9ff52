"""The command line, as a user calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgeseg
from edgeseg.cli import main
from edgeseg.data.cityscapes import TRAIN_IDS
from edgeseg.engine import TrainConfig
from edgeseg.labels import segmentation_task
from edgeseg.storage.checkpoint import read_weights

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
    assert labels.dtype == np.uint8
    assert labels.shape == (60, 90)
    model = edgeseg.create_model(NAME, checkpoint_path=checkpoint)
    assert (labels == model.predict(photo)).all()
    colors = np.array(Image.open(output / "photo_color.png").convert("RGB"))
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


def test_outputs_and_label_ids(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cityscapes' label ids, and a photo in tiles."""
    model = edgeseg.create_model(NAME, tasks={"segmentation": segmentation_task("cityscapes")})
    edgeseg.save_checkpoint(model, tmp_path / "city.safetensors")
    call = ["predict", str(photo), "-o", str(tmp_path / "out"), "--checkpoint", str(tmp_path / "city.safetensors")]
    assert main([*call, "--outputs", "labels", "label_ids", "--tile", "40", "50"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["photo_label_ids.png", "photo_labels.png"]
    labels, ids = (np.array(Image.open(tmp_path / f"out/photo_{kind}.png")) for kind in ("labels", "label_ids"))
    assert (np.vectorize(TRAIN_IDS.get)(ids) == labels).all()
    few = ["predict", str(photo), "-o", str(tmp_path / "out"), "--outputs", "label_ids"]
    assert main(few) == 2
    assert "19 classes, this one has 11" in capsys.readouterr().err


def test_video(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import av

    rng = np.random.default_rng(0)
    with av.open(str(tmp_path / "clip.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            frame = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    call = ["predict", str(tmp_path / "clip.mp4"), "-o", str(tmp_path / "out"), "--checkpoint", str(checkpoint)]
    assert main(call) == 0
    with av.open(str(tmp_path / "out/clip_overlay.mp4")) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == 5
    assert frames[0].shape == (48, 64, 3)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "bad.mp4"), *call[1:]]) == 1
    out, err = capsys.readouterr()
    assert "cannot segment" in err
    assert "bad.mp4" in err
    assert "1 of 2" in out


def test_module_and_errors(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "edgeseg", "info", "fpn_aspp_regnetx80mf_edgeailite"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean fpn_aspp_regnetx800mf_edgeailite" in done.stderr
    assert "Traceback" not in done.stderr


def test_train_and_evaluate(camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--dataset", "camvid", "--data-path", str(camvid)]
    run = tmp_path / "run"
    sizes = ["--img-resize", "64", "64", "--rand_crop", "64", "64", "--batch_size", "2", "--workers", "0"]
    assert (
        main(["train", *data, "--model", NAME, "--epochs", "1", *sizes, "--class-weights", "none", "-o", str(run)]) == 0
    )
    assert json.loads((run / "metrics.jsonl").read_text())["epoch"] == 1
    with Image.open(run / "samples.png") as page:
        assert page.width == 1200
    assert (run / "curves.png").stat().st_size > 1000
    capsys.readouterr()
    evaluate = ["evaluate", *data, "--split", "test", "--checkpoint", str(run / "last.safetensors"), "--workers", "0"]
    files = [str(tmp_path / "scores.json"), str(tmp_path / "scores.csv")]
    assert main([*evaluate, "-o", *files]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 14
    assert out[0].startswith("sky")
    assert out[11].startswith("mIoU")
    scores = json.loads(Path(files[0]).read_text())["segmentation"]
    assert f"{scores['miou']:.2f}" in out[11]
    assert next(iter(scores["iou"])) == "sky"
    assert f"segmentation,miou,{scores['miou']}\n" in Path(files[1]).read_text()
    for other in (["--img-resize", "32", "32"], ["--flip"], ["--protocol", "original"]):
        assert main([*evaluate, *other]) == 0
        assert capsys.readouterr().out.splitlines() != out, other
    assert main([*evaluate, "-o", "scores.txt"]) == 2


def test_several_inputs_and_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the synthetic streets, without any file: one table with all tasks."""
    data = ["--dataset", "streets", "--inputs", "flow", "image", "--tasks", "semantic", "depth", "motion"]
    sizes = ["--img-resize", "32", "32", "--rand-crop", "32", "32", "--batch-size", "8", "--workers", "0"]
    run = str(tmp_path / "run")
    assert main(["train", *data, "--length", "8", *sizes, "--model", NAME, "--epochs", "1", "-o", run]) == 0
    call = ["evaluate", *data, "--length", "4", "--checkpoint", f"{run}/last.safetensors", "--workers", "0"]
    assert main(call) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line in ("semantic", "depth", "motion")] == [
        "semantic",
        "depth",
        "motion",
    ]
    assert "relative error, 3 to 80 m" in out
    assert "moving" in out
    assert main(["train", "--dataset", "camvid", "--model", NAME, "-o", run]) == 2
    assert "--data-path is required for camvid" in capsys.readouterr().err


def test_train_from_weights(camvid: Path, checkpoint: Path, tmp_path: Path) -> None:
    """From a checkpoint of other classes: all but the prediction layer."""
    data = ["--dataset", "camvid", "--data-path", str(camvid), "--model", NAME, "--pretrained", str(checkpoint)]
    sizes = [
        "--img-resize",
        "32",
        "32",
        "--rand-crop",
        "32",
        "32",
        "--batch-size",
        "2",
        "--workers",
        "0",
        "--val-split",
        "none",
    ]
    with pytest.warns(UserWarning, match="1 tensors start anew"):
        assert main(["train", *data, *sizes, "--epochs", "1", "--lr", "0", "-o", str(tmp_path / "run")]) == 0
    before, after = read_weights(checkpoint), read_weights(tmp_path / "run/last.safetensors")
    key = "encoder.trunk.s4.b1.f.a.weight"
    assert (before[key] == after[key]).all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_the_user(number: int, camvid: Path, tmp_path: Path) -> None:
    """The signal comes to the workers too, as from a terminal or a scheduler; it saves and says how to go on."""
    command = [
        sys.executable,
        "-m",
        "edgeseg",
        "train",
        "--dataset",
        "camvid",
        "--data-path",
        str(camvid),
        "--model",
        NAME,
    ]
    command += ["--img-resize", "64", "64", "--rand-crop", "64", "64", "--batch-size", "2", "--workers", "1"]
    command += ["--epochs", "500", "--save-every", "0", "--val-split", "none", "-o", str(tmp_path / "run")]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
    while not (tmp_path / "run/run.pt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, number)
    assert "go on with resume" in process.communicate(timeout=60)[1]
    assert process.returncode == 130


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
    assert "cannot use device warp" in capsys.readouterr().err


def test_missing_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--dataset", "camvid", "--data-path", str(tmp_path), "--checkpoint", "x.safetensors"]) == 2
    assert "no weights file at x.safetensors" in capsys.readouterr().err
