"""The command line, as a user calls it."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgeseg
from edgeseg.cli import _parser, main
from edgeseg.cli.parser import in_shell_words
from edgeseg.data import Streets
from edgeseg.data.cityscapes import TRAIN_IDS
from edgeseg.engine import TrainConfig
from edgeseg.labels import segmentation_task
from edgeseg.storage.checkpoint import read_weights

from .conftest import SMALL_RUN, TINY

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
    assert "the same name, a.png; pass the folder that holds both" in capsys.readouterr().err
    twice = [str(tmp_path / "x/a.png"), str(tmp_path / "x"), str(tmp_path / "x/../x/a.png")]
    assert main(["predict", *twice, "-o", str(tmp_path / "once"), "--checkpoint", str(checkpoint)]) == 0
    assert "1 of 1 segmented" in capsys.readouterr().out
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
    assert "19 classes; this one has 11" in capsys.readouterr().err


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
    assert main(["train", "--dataset", "camvid", "--model", NAME, "-o", f"{run}2"]) == 2
    assert "--data-path is required for camvid" in capsys.readouterr().err


def test_train_from_weights(camvid: Path, checkpoint: Path, tmp_path: Path) -> None:
    """From a checkpoint of other classes: all but the prediction layer."""
    data = ["--dataset", "camvid", "--data-path", str(camvid), "--model", NAME, "--pretrained", str(checkpoint)]
    sizes = [*SMALL_RUN, "--val-split", "none"]
    with pytest.warns(UserWarning, match="1 tensor is not loaded"):
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
    assert "go on with --resume and the folder" in process.communicate(timeout=60)[1]
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


def call(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own."""
    command = [sys.executable, "-m", "edgeseg", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)


def test_a_reader_that_leaves() -> None:
    """`edgeseg list | head -1` ends silently, with status 0."""
    command = [sys.executable, "-m", "edgeseg", "list"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="locales of Linux")
def test_names_that_the_locale_lacks(camvid: Path, tmp_path: Path) -> None:
    """With LC_ALL=C and without UTF-8 mode, Python has surrogates in place of the letters of a path."""
    data, output = tmp_path / "straße", tmp_path / "läufe"
    camvid.rename(data)
    size = ["--img-resize", "64", "64", "--rand-crop", "64", "64", "--batch-size", "2", "--workers", "0"]
    words = ["train", "--dataset", "camvid", "--data-path", str(data), "--model", NAME, *size]
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = call(*words, "--epochs", "1", "--val-split", "none", "-o", str(output), **locale)
    assert done.returncode == 0, done.stderr
    assert (output / "last.safetensors").is_file()
    checked = call("data", "check", "--dataset", "camvid", "--data-path", str(data), "--split", "train", **locale)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_closed_streams() -> None:
    def run(words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(f"{sys.executable} -m edgeseg {words}", shell=True, capture_output=True, text=True)

    listed = run("list >&-")
    assert (listed.returncode, listed.stderr) == (0, "")
    failed = run("info nothing 2>&-")
    assert (failed.returncode, failed.stdout) == (2, "")


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")
def test_links_in_a_circle_and_pipes(
    checkpoint: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "good.png").write_bytes(photo.read_bytes())
    (folder / "circle.png").symlink_to("circle.png")
    call = ["predict", str(folder), "-o", str(tmp_path / "out"), "--checkpoint", str(checkpoint)]
    assert main(call) == 1
    assert "circle.png" in capsys.readouterr().err
    assert list((tmp_path / "out").glob("good*"))
    os.mkfifo(tmp_path / "pipe.png")
    assert main([*call[:1], str(tmp_path / "pipe.png"), *call[2:]]) == 1
    assert "pipe.png: it is a pipe" in capsys.readouterr().err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells the processes")
def test_sigterm_leaves_no_processes() -> None:
    words = ["--dataset", "streets", "--inputs", "flow", "image", "--tasks", "semantic", "depth", "motion"]
    words += ["--length", "4000", "--split", "test", "--workers", "1", "--runtime", "torch"]
    words += ["--model", "deeplabv3plus_mobilenetv2_tv_edgeailite.streets"]
    command = [sys.executable, "-m", "edgeseg", "evaluate", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def line_of(number: str | int) -> bytes:
        """The command line of a process; empty of one that has ended."""
        try:
            return Path(f"/proc/{number}/cmdline").read_bytes()
        except FileNotFoundError:
            return b""

    def workers() -> list[str]:
        """The processes that load samples: imports start others, such as ldconfig."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [child for child in children if line_of(child) == line_of(process.pid)]

    while not (started := workers()):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    deadline = time.monotonic() + 20  # a worker notices the end of its parent within 5 s
    while (left := [each for each in started if line_of(each)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


KILL = "os.kill(os.getpid(), number)"
LOST = f"""
class Tries:  # a library that takes any exception for a module that cannot be imported
    def find_spec(self, module, *_):
        if module == "torch":
            try:
                {KILL}
            except BaseException:
                pass

sys.meta_path.insert(0, Tries())
"""
SWALLOWED = f"""
def read(*_, **__):  # such as a destructor
    try:
        {KILL}
    except BaseException:
        pass
    time.sleep(60)
"""
REPLACED = f"""
def read(*_, **__):  # such as a library in C++
    try:
        {KILL}
    except BaseException:
        pass
    raise ValueError("the shape is wrong")
"""
CLEANED = f"""
def read(*_, **__):
    try:
        {KILL}
    finally:
        time.sleep(2.5)
        print("cleaned", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no timer")
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize(
    "library", [LOST, SWALLOWED, REPLACED, CLEANED], ids=["lost", "swallowed", "replaced", "cleaned"]
)
def test_a_signal_that_a_library_takes(library: str, name: str, status: int, tmp_path: Path) -> None:
    """The command ends as stopped, whatever a library makes of the exception, and what ends with it can end."""
    words = ["predict", str(tmp_path / "photo.png"), "-o", str(tmp_path / "out")]
    program = f"""
import os, signal, sys, time
from edgeseg.cli import main
from edgeseg.cli import predict

number = signal.{name}
read = None
{library}
run = predict._predict
predict._predict = lambda options: (read and read(), run(options))[1]
sys.argv = ["edgeseg", *{words!r}]
sys.exit(main())
"""
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    stopped = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert stopped.returncode == status, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert ("cleaned" in stopped.stdout) == (library is CLEANED)
    assert not (tmp_path / "out").exists()


def test_a_word_is_a_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "FPN"]) == 0
    assert capsys.readouterr().out.splitlines() == edgeseg.list_models("*fpn*")
    assert main(["weights", "list", "ade20k"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(edgeseg.list_weights("*ade20k*")) > 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("trian", "no command trian; did you mean train?"),
        ("train --dateset camvid --model x -o run", "no option --dateset; did you mean --dataset?"),
        ("train --dataset camvidd --model x -o run", "--dataset: no choice camvidd; did you mean camvid?"),
        ("train --dataset camvid --model x -o run --lr=-1 --epoch 3", "no option --epoch; did you mean --epochs?"),
        ("weights lst", "no command lst; did you mean list?"),
        ("list --pretraind", "no option --pretraind; did you mean --pretrained?"),
        ("evaluate --pretrained x.safetensors", "no option --pretrained; did you mean --checkpoint?"),
        ("train --weights x.safetensors", "no option --weights; did you mean --pretrained?"),
        ("export -x", "no option -x"),
        ("export", "the following arguments are required: -o/--output"),
        ("train --resume=never", "--resume: no choice never; expected one of auto"),
    ],
)
def test_a_typo_is_two_lines(words: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(words.split())
    assert exit.value.code == 2
    error, usage = capsys.readouterr().err.splitlines()
    assert error.endswith(problem)
    verb = "edgeseg" if "trian" in words else f"edgeseg {words.split()[0]}"
    assert usage.startswith(f"usage: {verb} ")
    assert f"{verb} --help" in usage


def test_an_option_is_named_once() -> None:
    """Errors of the library name both the argument and the option."""
    for error, expected in (
        ("pass mask_values=(0, 255) (--mask-values 0 255)", "pass --mask-values 0 255"),
        ("val_fraction (--val-fraction) divides", "--val-fraction divides"),
        ("a smaller rand_crop (--rand-crop) helps", "a smaller --rand-crop helps"),
    ):
        assert in_shell_words(error, ["mask_values", "val_fraction", "rand_crop"]) == expected


def test_errors_name_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["train", "--dataset", "streets", "--length", "8", "-o", str(tmp_path / "run")]
    for words, problem in (
        (["--model", "fpn"], "'fpn' needs an encoder: --encoder resnet18"),
        (["--model", __file__], f"{__file__} is a file, not the name of a model; pass it as --pretrained"),
        (["--model", NAME, "--lr", "-3"], "--lr must not be negative, got -3.0"),
        (["--model", NAME, "--batch-size", "64", "--img-resize", "32", "48"], "lower --batch-size or --iter-size"),
        (["--model", "nothing_like_it"], "see edgeseg list"),
        (["--model", NAME, "--resume", "--overwrite"], "pass --resume or --overwrite, not both"),
        (["--model", NAME, "--patience", "3", "--val-split", "none"], "--patience watches the score on --val-split"),
        (
            ["--model", "fpn", "--option", "channels"],
            "--option is KEY=VALUE, such as dilations=[6,12,18]; got 'channels'",
        ),
        (["--model", NAME, "--option", "in_channels=1"], "in_channels is not an option of a network"),
    ):
        assert main([*data, *words]) == 2
        assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("evaluate --dataset streets --output none/x.json", "--output none/x.json: there is no folder none"),
        ("evaluate --dataset streets --store-threshold none/x.safetensors", "there is no folder none"),
        ("weights convert none.pth none/x.safetensors --model fpn", "DST none/x.safetensors: there is no folder none"),
        ("demo --output none/x.png", "none/x.png: there is no folder none"),
    ],
)
def test_results_have_a_place_before_work_starts(
    words: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert problem in err
    assert out == ""


def test_offline_is_said_in_a_line(tmp_path: Path) -> None:
    """And without the lines of huggingface_hub's retries before it."""
    words = ["--dataset", "streets", "--model", "fpn", "--encoder", "resnet18", "-o", str(tmp_path / "run")]
    done = call("train", *words, "--encoder-weights", "timm/resnet18.a1_in1k", HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "resnet18.a1_in1k" in done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr
    code = (
        "import sys; sys.argv = ['edgeseg', 'list']; from edgeseg.cli import main; main(); "
        "from huggingface_hub.utils import logging; sys.exit(logging.get_verbosity())"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 40


def test_many_addresses_that_fail_alike_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        OSError, match=r"HF_HUB_OFFLINE is set .* \(so too for 3 more addresses of the file\)$"
    ) as error:
        edgeseg.create_model("fpn_aspp_regnetx800mf_edgeailite.coco21")
    assert "\n" not in str(error.value)


TINY_RUN = ["--img-resize", "32", "48", "--rand-crop", "32", "48", "--batch-size", "4", "--workers", "0"]


def test_runs_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A free combination; a second run is refused before any work; resumed, overwritten, and described."""
    run = tmp_path / "run"
    data = ["train", "--dataset", "streets", "--length", "8", "--model", "fpn", "--encoder", TINY, *TINY_RUN]
    data += ["--option", "channels=16", "--class-weights", "none", "--epochs", "1", "-o", str(run)]
    assert main([*data, "--patience", "2"]) == 0
    assert main(data) == 2
    assert "run holds a run at epoch 1; pass --resume, --overwrite, or another folder" in capsys.readouterr().err
    for resume in (["--resume"], ["--resume", "auto"]):
        assert main([*data, *resume]) == 0
        assert "is finished at epoch 1 of 1, best miou" in capsys.readouterr().out
    assert main([*data, "--resume", "--epochs", "2"]) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert main([*data, "--overwrite"]) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    capsys.readouterr()
    assert main(["info", str(run / "last.safetensors")]) == 0
    out = capsys.readouterr().out
    assert TINY in out
    assert "origin: the file does not say" in out
    assert "epochs 1" in out


def test_export_of_a_free_combination(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.onnx"
    words = ["--model", "unet", "--encoder", TINY, "--option", "channels=16", "--img-resize", "32", "48", "--fixed"]
    assert main(["export", *words, "-o", str(file), "--file-output", "small_labels"]) == 0
    assert "its weights are random" in capsys.readouterr().err
    assert main(["info", str(file)]) == 0
    assert TINY in capsys.readouterr().out
    assert main(["info", "unet", "--encoder", TINY, "--size", "32", "48"]) == 0
    assert "at 48x32" in capsys.readouterr().out
    assert main(["export", *words, "--output", "labels"]) == 2
    assert (
        "no format with the suffix of labels; exported files end in .onnx, .pt2, .tflite, .pte, .xml, .mlpackage"
        in capsys.readouterr().err
    )


def test_control_characters_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = {"segmentation": edgeseg.Task("segmentation", 2, classes=("\x1b[31mred\nfake line", "\u202egnp.exe"))}
    model = edgeseg.create_model("unet", encoder=TINY, channels=8, tasks=tasks)
    model.configure(notes={"weights": "\x1b]0;title\x07", "\x1b[2J": 1})
    path = tmp_path / "\x1b[32mgreen.safetensors"
    edgeseg.save_checkpoint(model, path)
    assert main(["info", str(path)]) == 0
    assert main(["info", str(tmp_path / "\x1b[33mnone.safetensors")]) == 2
    out, err = capsys.readouterr()
    assert all(c.isprintable() for c in (out + err).replace("\n", ""))
    assert r"\x1b[31mred\nfake line, \u202egnp.exe" in out
    assert r"\x1b[33mnone.safetensors" in err


def test_info_of_a_file_that_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx
    import torch

    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])), tmp_path / "a.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"\xff" * 50)
    for name, problem in (
        ("a.pth", "has no record of edgeseg"),
        ("a.onnx", "has no record of edgeseg"),
        ("bad.onnx", "corrupt or truncated"),
        ("none.safetensors", "no weights file at"),
    ):
        assert main(["info", str(tmp_path / name)]) == 2
        assert problem in capsys.readouterr().err


def test_output_is_a_path_in_every_verb() -> None:
    """And no verb has two options that begin so."""
    verbs = next(action for action in _parser()._actions if action.dest == "verb").choices
    assert isinstance(verbs, dict)
    for name, parser in verbs.items():
        options = {text: action for action in parser._actions for text in action.option_strings}
        if "-o" in options:
            assert options["-o"] is options["--output"], name
            assert options["--output"].type is Path, name


class Terminal(io.StringIO):
    """A terminal that keeps what is written."""

    def isatty(self) -> bool:
        return True


def test_bars(tiny: edgeseg.Pixel2Pixel, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate, predict, demo and quantize show bars on a terminal, and nothing in a file."""
    edgeseg.save_checkpoint(tiny, tmp_path / "tiny.safetensors")
    streets = edgeseg.create_model(
        "fpn", encoder=TINY, channels=16, tasks={"semantic": Streets("test", length=4).tasks["semantic"]}
    )
    edgeseg.save_checkpoint(streets, tmp_path / "streets.safetensors")
    (tmp_path / "photos").mkdir()
    shutil.copy(photo, tmp_path / "photos/a.jpg")
    photo.rename(tmp_path / "photos/b.jpg")
    photos = ["--images", str(tmp_path / "photos"), "--img-resize", "32", "48"]
    photos += ["--checkpoint", str(tmp_path / "tiny.safetensors")]
    model = ["--checkpoint", str(tmp_path / "streets.safetensors"), "--model", "fpn"]
    calls = {
        "evaluation": ["evaluate", "--dataset", "streets", "--length", "4", "--split", "test", *model],
        "streets": ["demo", "--sequences", "1", *model, "-o", str(tmp_path / "demo.png")],
        "photos": ["predict", str(tmp_path / "photos"), "-o", str(tmp_path / "out"), *model],
        "calibration": ["quantize", *photos, "--fixed", "-o", str(tmp_path / "int8.onnx")],
    }  # fmt: skip
    for title, words in calls.items():
        streams = ((Terminal(), True), (io.StringIO(), False))[: 1 + (title == "evaluation")]
        for stream, shown in streams:
            monkeypatch.setattr(sys, "stderr", stream)
            assert main(words) == 0, stream.getvalue()
            assert (title in stream.getvalue()) == shown, title
