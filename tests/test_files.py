"""Files that appear whole or not at all: with a full disk, with killed writers, and with many writers at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import edgeseg
from edgeseg.data.camvid import CamVid
from edgeseg.machine.files import NotWritten, replacing, replacing_folder

from .conftest import TINY
from .hub_server import HubServer

# In a process that may write no more than 100000 bytes to a file, which is as if the disk were full.
LIMITED = f"""
import resource
from pathlib import Path
import torch, edgeseg
from edgeseg.machine.files import replacing

model = edgeseg.create_model("fpn", encoder="{TINY}").eval()

def save_run(model, path):
    with replacing(path) as temporary:
        torch.save(model.state_dict(), temporary)

def save_bytes(model, path):
    with replacing(path) as temporary:
        temporary.write_bytes(bytes(200000))

resource.setrlimit(resource.RLIMIT_FSIZE, (100000, resource.RLIM_INFINITY))
for name, write in (("run.pt", save_run), ("net.safetensors", edgeseg.save_checkpoint), ("net.pte", save_bytes)):
    try:
        write(model, Path(name))
    except OSError as error:
        print(error)
"""
NAMES = ("run.pt", "net.safetensors", "net.pte")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_full_disk(tmp_path: Path) -> None:
    """Whatever library writes, the error names the file and says why; the file that was there stays."""
    for name in NAMES:
        (tmp_path / name).write_bytes(b"the good file")
    process = subprocess.run([sys.executable, "-c", LIMITED], cwd=tmp_path, capture_output=True, text=True, check=False)
    for name, line in zip(NAMES, process.stdout.splitlines(), strict=True):
        assert line == f"cannot write {name}: File too large", process.stderr
        assert (tmp_path / name).read_bytes() == b"the good file"
    assert {path.name for path in tmp_path.iterdir()} == set(NAMES)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_weights_reach_the_disk_before_they_have_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, flushed = tmp_path / "model.safetensors", []

    def flush(number: int) -> None:
        flushed.append((os.fstat(number).st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", flush)
    edgeseg.save_checkpoint(edgeseg.create_model("fpn", encoder=TINY, channels=8), path)
    assert flushed[0] == (path.stat().st_size, False)
    assert flushed[1][1]  # the folder, which has the name


def test_others_can_read_weights(tmp_path: Path) -> None:
    """Weights have the permissions that any new file gets, and those of the file that they replace."""
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8)
    plain, saved = tmp_path / "plain", tmp_path / "net.safetensors"
    plain.touch()
    edgeseg.save_checkpoint(model, saved)
    assert saved.stat().st_mode == plain.stat().st_mode
    saved.chmod(0o640)
    edgeseg.save_checkpoint(model, saved)
    assert saved.stat().st_mode & 0o777 == 0o640


def fill_file(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_text("a")


def fill_folder(path: Path) -> None:
    with replacing_folder(path, content="a.txt") as temporary:
        temporary.mkdir()
        fill_file(temporary / "a.txt")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the file /dev/full")
@pytest.mark.parametrize(("write", "place"), [(fill_file, "net"), (fill_folder, "a.txt")])
def test_no_space_left(write: Callable[[Path], None], place: str, tmp_path: Path) -> None:
    with pytest.raises(NotWritten, match=rf"cannot write .*{place}: No space left on device \(the disk is full\)"):
        write(tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def fail(path: Path, error: Exception) -> None:
    with replacing(path) as temporary:
        temporary.write_text("a")
        raise error


def test_other_errors_stay(tmp_path: Path) -> None:
    for error in (ValueError("no"), FileNotFoundError(2, "no"), RuntimeError("no")):
        with pytest.raises(type(error), match="no"):
            fail(tmp_path / "a.txt", error)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from edgeseg.machine.files import replacing, replacing_folder
path = Path(sys.argv[1])
with replacing(path / "run.pt") as temporary, replacing_folder(path / "net.mlpackage", content="a") as folder:
    temporary.write_text("half")
    folder.mkdir()
    (folder / "a").write_text("half")
    {then}
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
WAIT = "print('here', flush=True); sys.stdin.read()"


def start(then: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KILLED.format(then=then), str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def write(folder: Path) -> None:
    """Writes a file of another name, as the next process."""
    code = "import sys; from pathlib import Path; from edgeseg.machine.files import replacing\n"
    code += "with replacing(Path(sys.argv[1]) / 'log.csv') as temporary: temporary.write_text('whole')"
    subprocess.run([sys.executable, "-c", code, folder], check=True)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere no process can be asked for")
def test_killed_writers(tmp_path: Path) -> None:
    """What they leave is removed by the next process that writes to the folder; files of living ones stay."""
    living = start(WAIT, tmp_path)
    assert living.stdout is not None
    living.stdout.readline()
    theirs = set(tmp_path.iterdir())
    assert len(theirs) == 2
    for _ in range(3):
        start(KILL, tmp_path).wait()
        assert len(set(tmp_path.iterdir())) == 4
    write(tmp_path)
    assert set(tmp_path.iterdir()) == {*theirs, tmp_path / "log.csv"}
    living.communicate("")
    assert {path.name for path in tmp_path.iterdir()} == {"run.pt", "net.mlpackage", "log.csv"}


@pytest.mark.skipif(os.name != "posix", reason="elsewhere no process can be asked for")
def test_killed_between_two_renames(tmp_path: Path) -> None:
    """The earlier folder returns if the new one had not taken its place."""
    start(KILL, tmp_path).wait()
    (left,) = tmp_path.glob("*.mlpackage")
    earlier = left.with_name(left.name.replace(".tmp.", ".old."))
    earlier.mkdir()
    (earlier / "a").write_text("whole")
    write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"net.mlpackage", "log.csv"}
    assert (tmp_path / "net.mlpackage/a").read_text() == "whole"


def test_files_of_others_stay(tmp_path: Path) -> None:
    """Of another machine or container, whose processes cannot be asked for, and what has only a similar name."""
    start(KILL, tmp_path).wait()
    (left,) = tmp_path.glob("*.tmp")
    others = [
        re.sub(r"\.[0-9a-f]{8}-", ".00000000-", left.name), ".notes.tmp", "run.pt.1.tmp", left.name.removeprefix(".")
    ]  # fmt: skip
    for name in others:
        (tmp_path / name).write_text("theirs")
    write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*others, "log.csv"}


def by_threads(action: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(action, range(64)))


def test_threads_write_one_file(tmp_path: Path) -> None:
    def action(number: int) -> None:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text(str(number) * 10000)

    by_threads(action)
    content = (tmp_path / "a.txt").read_text()
    assert content == str(int(content[:2])) * 10000 or content == content[0] * 10000
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


# A dataset of many files


def test_killed_while_camvid_is_unpacked(
    hub: HubServer, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list that tells that all is there comes last, and the next call replaces what was left."""
    shutil.copytree(camvid, tmp_path / "SegNet/CamVid")
    hub.files["/camvid.zip"] = Path(
        shutil.make_archive(str(tmp_path / "camvid"), "zip", tmp_path, "SegNet")
    ).read_bytes()
    monkeypatch.setattr("edgeseg.data.camvid.ADDRESS", f"{hub.url}/camvid.zip")
    root = tmp_path / "got"

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr("edgeseg.data.camvid.shutil.move", kill)
        with pytest.raises(KeyboardInterrupt):
            CamVid(root, download=True)
    assert not (root / "train.txt").exists()
    (root / "train/000.png").write_bytes(b"half a ph")
    (root / "train/mine.png").write_bytes(b"of the user")
    for split in CamVid.splits:
        assert len(CamVid(root, split, download=True)) == len(CamVid(camvid, split))
    assert (root / "train/000.png").read_bytes() == (camvid / "train/000.png").read_bytes()
    assert (root / "train/mine.png").exists()
    assert not list(tmp_path.glob(".got*"))


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links of POSIX")
def test_what_is_no_file_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8)
    with pytest.raises(OSError, match=r"pipe\.safetensors: it is a device or a pipe"):
        edgeseg.save_checkpoint(model, tmp_path / "pipe.safetensors")
    (tmp_path / "latest.safetensors").symlink_to("run1.safetensors")
    edgeseg.save_checkpoint(model, tmp_path / "latest.safetensors")
    assert (tmp_path / "latest.safetensors").is_symlink()
    assert (tmp_path / "run1.safetensors").is_file()


def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page").mkdir()
    monkeypatch.chdir(tmp_path / "page")
    for folder in (".", ".."):
        with (
            pytest.raises(FileExistsError, match="is the current folder, or contains it"),
            replacing_folder(Path(folder), content="x"),
        ):
            pass
