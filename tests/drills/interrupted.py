"""Commands that are stopped leave nothing behind; killed trainings and cut downloads end as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from types import SimpleNamespace
from unittest import mock

from huggingface_hub import constants
from PIL import Image

import edgeseg
from edgeseg.machine import transfer
from edgeseg.machine.download import fetch, file_sha256

from ..hub_server import serve
from .drill import NAME, PLAN, Drill, expect, no_files
from .models import ENCODER, PHOTO, small

EDGESEG = [sys.executable, "-m", "edgeseg"]
RUN = [
    *EDGESEG, "train", "--quiet", "--dataset", "streets", "--length", "8", "--model", "fpn",
    "--encoder", ENCODER, "--option", "channels=8", "--img-resize", "32", "64", "--rand-crop", "32", "64",
    "--epochs", "4", "--batch-size", "2", "--workers", "0", "--save-every", "0", "--resume", "auto", "-o",
]  # fmt: skip
STOPPED = {
    "predict": ["predict", "{seeds}/photo.png", "--checkpoint", "{seeds}/weights.safetensors", "-o", "{out}"],
    "export": ["export", "--checkpoint", "{seeds}/weights.safetensors", "-o", "{out}/network.onnx"],
    # This takes hours: no signal may come too late to stop it.
    "evaluate": [
        "evaluate", "--dataset", "streets", "--length", "100000", "--split", "test", "--inputs", "flow", "image",
        "--tasks", "semantic", "depth", "motion", "--model", "deeplabv3plus_mobilenetv2_tv_edgeailite.streets",
        "--runtime", "torch", "--workers", "{workers}",
    ],
}  # fmt: skip
CONTENT = Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PAGE = b"<!DOCTYPE html><title>Sign in</title>"
FILE = f"/{NAME}.bin"


def train_once(folder: Path) -> None:
    """A run that nothing disturbs, and how long it takes."""
    start = time.monotonic()
    subprocess.run([*RUN, folder / "run"], check=True, capture_output=True)
    (folder / "seconds").write_text(str(time.monotonic() - start))


def plan_kills(rng: Random, seeds: Path, work: Path) -> None:
    seconds = float((seeds / "seconds").read_text())
    shutil.copytree(seeds / "run", work / "whole")
    # Most of the time goes to imports, before which there is nothing to lose.
    kills = [(rng.uniform(0.3, 1.0) * seconds, rng.choice(("SIGKILL", "SIGKILL", "SIGTERM"))) for _ in range(2)]
    (work / PLAN).write_text(json.dumps(kills))


def kill_and_resume(work: Path) -> None:
    run = work / NAME
    for seconds, name in json.loads((work / PLAN).read_text()):
        with subprocess.Popen([*RUN, run], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(getattr(signal, name))
    last = subprocess.run([*RUN, run], capture_output=True, text=True, check=False)
    expect(last.returncode == 0, f"the run is not resumed: {last.stderr[-300:]}")
    for name in ("last.safetensors", "best.safetensors"):
        expect(file_sha256(run / name) == file_sha256(work / "whole" / name), f"{name} differs")
    files = [sorted(path.name for path in folder.iterdir()) for folder in (run, work / "whole")]
    expect(files[0] == files[1], f"the folder has {files[0]} and not {files[1]}")


def files_of_commands(folder: Path) -> None:
    """Weights and a photo, and what the commands that end make of them in how many seconds."""
    edgeseg.save_checkpoint(small(), folder / "weights.safetensors")
    Image.fromarray(PHOTO).save(folder / "photo.png")
    seconds = {}
    for name in ("predict", "export"):
        (folder / name).mkdir()
        start = time.monotonic()
        words = [word.format(seeds=folder, out=folder / name) for word in STOPPED[name]]
        subprocess.run([*EDGESEG, *words], check=True, capture_output=True)
        seconds[name] = time.monotonic() - start
    (folder / "seconds").write_text(json.dumps(seconds | {"evaluate": max(seconds.values())}))


def plan_stop(rng: Random, seeds: Path, work: Path) -> None:
    name = rng.choice(tuple(STOPPED))
    seconds = rng.uniform(0, 1.1) * json.loads((seeds / "seconds").read_text())[name]
    words = [word.format(seeds=seeds, out=work / "out", workers=rng.randrange(2)) for word in STOPPED[name]]
    plan = {"name": name, "words": words, "seconds": seconds, "signal": rng.choice(("SIGINT", "SIGTERM"))}
    (work / PLAN).write_text(json.dumps(plan | {"whole": str(seeds / name)}))


def stop(work: Path) -> None:
    plan = json.loads((work / PLAN).read_text())
    number, whole, out = getattr(signal, plan["signal"]), Path(plan["whole"]), work / "out"
    out.mkdir()
    command = [*EDGESEG, *plan["words"]]
    with (
        (work / "stderr").open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True) as process,
    ):
        try:
            process.wait(plan["seconds"])
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                expect(False, f"{plan['name']} goes on after {plan['signal']}")
        group, status = process.pid, process.returncode
    expect(_ends(group), f"a process of {plan['name']} goes on after {plan['signal']}")
    # Before edgeseg is imported, Python or the system ends the process.
    ended = status in (128 + number, -number)
    said = (work / "stderr").read_text(errors="replace")[-300:]
    expect(
        ended or (status == 0 and whole.exists()),
        f"{plan['name']} has status {status} after {plan['signal']}: {said}",
    )
    written = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    expected = {path.name: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    expect(written.items() <= expected.items(), f"{plan['name']} leaves {sorted(written)} after {plan['signal']}")
    expect(ended or written == expected, f"{plan['name']} has status 0 without all of its files")


def _ends(group: int) -> bool:
    """Whether no process of a group is there any more, at the latest after ten seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def plan_cuts(rng: Random, _: Path, work: Path) -> None:
    plan = {
        "cuts": [rng.randrange(len(CONTENT) // 2) for _ in range(rng.randrange(5))],
        "statuses": [rng.choice((429, 500, 502, 503, 504)) for _ in range(rng.randrange(4))],
        "gone": rng.choice((0, 0, 0, 403, 404)),
        "page": rng.random() < 0.2,
        "known": rng.random() < 0.5,
        "before": rng.choice(("", "", "damaged", "part", "damaged part")),
    }
    (work / PLAN).write_text(json.dumps(plan))


def _check(path: Path) -> None:
    """The content is checked as that of weights is, if its hash is not known."""
    if path.read_bytes() != CONTENT:
        raise ValueError(f"{path} is not the file")


def cut_and_fetch(work: Path) -> None:
    plan, home = json.loads((work / PLAN).read_text()), work / "home"
    hub = serve()
    address = hub.url + FILE
    hub.files[FILE] = PAGE if plan["page"] else CONTENT
    hub.cut[FILE] = plan["cuts"]
    hub.statuses[FILE] = [(status, {}) for status in plan["statuses"] + ([plan["gone"]] if plan["gone"] else [])]
    folder = home / "edgeseg/drill"
    folder.mkdir(parents=True)
    if "part" in plan["before"]:  # what an earlier process has left
        (folder / f".{NAME}.bin.partial.version").write_text(f'"{SHA256}"')
    if plan["before"]:
        name = f".{NAME}.bin.partial" if "part" in plan["before"] else f"{NAME}.bin"
        (folder / name).write_bytes(CONTENT[:1000] + b"?" * ("damaged" in plan["before"]))
    sha256 = SHA256 if plan["known"] else None
    without_pauses = mock.patch.object(transfer, "time", SimpleNamespace(sleep=lambda _: None))
    with mock.patch.object(constants, "HF_HOME", str(home)), without_pauses:
        try:
            path = fetch([address], "drill", sha256=sha256, check=_check)
        except (ValueError, OSError) as error:
            if plan["page"] or NAME not in str(error):
                raise
            path = fetch([address], "drill", sha256=sha256, check=_check)  # without what was damaged
    expect(not plan["page"], "a page for a browser was accepted")
    expect(path.read_bytes() == CONTENT, "the download differs")
    left = [file.name for file in folder.iterdir() if file.suffix not in (".bin", ".sha256", ".lock")]
    expect(not left, f"{left} is left")


DRILLS = (
    Drill("kills", train_once, plan_kills, kill_and_resume, 50, sample=1, commands=3),
    Drill("stops", files_of_commands, plan_stop, stop, 50, sample=1),
    Drill("cuts", no_files, plan_cuts, cut_and_fetch, 50),
)
