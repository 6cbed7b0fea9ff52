"""Commands in odd surroundings: homes, locales, clocks, folders and devices that are missing or strange."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

import edgeseg

from .drill import NAME, PLAN, Drill, expect
from .models import ENCODER, PHOTO, small

DAY = 86_400.0
NOWHERE = "/proc/edgeseg"  # a folder that not even root can make
TRAIN = [
    "train", "--dataset", "images_masks", "--data-path", "{data}", "--model", "fpn", "--encoder", ENCODER, "--option",
    "channels=8", "--img-resize", "32", "64", "--rand-crop", "32", "64", "--epochs", "1", "--batch-size", "2",
    "--val-split", "none", "-o", "{out}",
]  # fmt: skip
CODE = """
import multiprocessing, sys, edgeseg
from pathlib import Path
from PIL import Image
def saved(paths):
    options = {"encoder": "test_efficientnet", "channels": 8, "num_classes": 3}
    model = edgeseg.create_model("fpn", checkpoint_path=paths[0], **options).eval()
    Path(paths[2]).mkdir(exist_ok=True)
    Image.fromarray(model.predict(paths[1])).save(Path(paths[2]) / "photo.png")
if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        pool.map(saved, [sys.argv[2:]])
"""
PREDICT = ["predict", "{photo}", "--checkpoint", "{weights}", "--outputs", "labels", "-o", "{out}"]
COMMANDS: dict[str, list[str]] = {
    "predict": PREDICT,
    "predict by onnxruntime": [*PREDICT, "--runtime", "onnxruntime"],
    "predict on a GPU": [*PREDICT, "--device", "cuda"],
    "info": ["info", "{weights}"],
    "list": ["list"],
    "doctor": ["doctor"],
    "check": ["data", "check", "--dataset", "images_masks", "--data-path", "{data}", "--split", "train"],
    "evaluate": [
        "evaluate", "--dataset", "images_masks", "--data-path", "{data}", "--split", "train", "--checkpoint",
        "{weights}",
    ],
    "train": [*TRAIN, "--workers", "0"],
    "train with workers": [*TRAIN, "--workers", "1"],
    "train twice": [*TRAIN, "--workers", "0"],
    "spawn": ["spawn", "{weights}", "{photo}", "{out}"],
    "forkserver": ["forkserver", "{weights}", "{photo}", "{out}"],
}  # fmt: skip
ENVIRONMENTS: tuple[dict[str, str | None], ...] = (
    {"HOME": None, "XDG_CACHE_HOME": None, "HF_HOME": None},
    {"HOME": NOWHERE, "XDG_CACHE_HOME": None, "HF_HOME": None},
    {"HF_HOME": NOWHERE, "HF_HUB_OFFLINE": "1"},
    {"HOME": "/tmp/hôme 猫"},
    {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "xx_YY.nothing"},
    {"TZ": "Nowhere/At_All"},
    {"TMPDIR": NOWHERE},
    {"CUDA_VISIBLE_DEVICES": "7"},
    {"COLUMNS": "1", "TERM": "dumb"},
    {"PATH": ""},
)
FOLDERS = (
    "plain",
    "with spaces 'and' \"quotes\"",
    "ünï çodé 猫",
    "new\nline",
    "%s {x} $HOME",
    "-o",
    "/".join(["d" * 200] * 15),
)


def make(folder: Path) -> None:
    model = small()
    model.configure(tasks={"segmentation": edgeseg.Task("segmentation", 3, classes=("road", "sky", "çat_猫"))})
    edgeseg.save_checkpoint(model, folder / "weights.safetensors")
    Image.fromarray(PHOTO).save(folder / "photo.png")
    labels = (np.arange(PHOTO[..., 0].size).reshape(PHOTO.shape[:2]) // 99 % 3).astype(np.uint8)
    for kind, pixels in (("images", PHOTO), ("masks", labels)):
        (folder / f"data/{kind}/train").mkdir(parents=True)
        for number in range(2):
            Image.fromarray(pixels).save(folder / f"data/{kind}/train/{number}.png")
    (folder / "data/classes.txt").write_text(
        "0 road 128 64 128\n1 sky 70 130 180\n2 çat_猫 250 170 30\n", encoding="utf-8"
    )
    Image.fromarray(small().predict(PHOTO)).save(folder / "expected.png")


def plan(rng: Random, seeds: Path, work: Path) -> None:
    place = work / rng.choice(FOLDERS)
    place.mkdir(parents=True)
    for name in ("photo.png", "weights.safetensors"):
        shutil.copy(seeds / name, place)
    shutil.copy(seeds / "expected.png", work)
    shutil.copytree(seeds / "data", place / NAME)
    clock = rng.choice((0.0, 0.0, -20_000 * DAY, 365 * DAY))
    for path in place.rglob("*"):  # written before 1970, or after a clock was set back
        os.utime(path, (time.time() + clock, time.time() + clock))
    variables: dict[str, str | None] = {}
    for each in rng.sample(ENVIRONMENTS, rng.randrange(1, 4)):
        variables |= each
    name = rng.choice(sorted(COMMANDS))
    (work / PLAN).write_text(json.dumps([name, variables, str(place), rng.choice(("", "/proc"))]))


def _start(command: Sequence[str], environment: dict[str, str], folder: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(work: Path) -> None:
    name, variables, place, folder = json.loads((work / PLAN).read_text())
    root = Path(edgeseg.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), **variables}
    environment = {key: value for key, value in environment.items() if value is not None}
    paths = {
        "photo": f"{place}/photo.png", "weights": f"{place}/weights.safetensors", "data": f"{place}/{NAME}",
        "out": f"{place}/out",
    }  # fmt: skip
    arguments = [part.format(**paths) if part.startswith("{") else part for part in COMMANDS[name]]
    start = [sys.executable, "-m", "edgeseg"]
    if name in ("spawn", "forkserver"):  # which import the program, and so cannot start one of `python -c`
        (work / "code.py").write_text(CODE)
        start = [sys.executable, str(work / "code.py")]
    processes = [_start([*start, *arguments], environment, folder or place) for _ in range(1 + (name == "train twice"))]
    said = [b"\n".join(process.communicate()).decode("utf-8", "replace") for process in processes]
    statuses = sorted(process.returncode for process in processes)
    for text in said:
        expect("Traceback" not in text, f"{name} ends with a traceback: {text[-200:]}")
    if name == "predict on a GPU":
        expect(statuses == [2] and "cuda" in said[0], f"{name} ends with {statuses}")
        raise ValueError(f"{NAME}: there is no GPU")
    expected = [0] if len(processes) == 1 else [0, 2]
    expect(statuses == expected, f"{name} ends with {statuses}: {said[-1][-300:]}")
    if "{photo}" in COMMANDS[name]:
        written = next(Path(paths["out"]).rglob("photo*.png"))
        labels, expected_labels = (np.asarray(Image.open(path)) for path in (written, work / "expected.png"))
        expect(np.array_equal(labels, expected_labels), f"{name} predicts other labels")
    if name.startswith("train"):
        expect(Path(paths["out"], "last.safetensors").is_file(), f"{name} writes no weights")


DRILLS = (Drill("surroundings", make, plan, run, 100, sample=1),)
