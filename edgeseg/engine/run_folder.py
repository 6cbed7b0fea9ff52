"""The folder of a training run: what it holds, and that one training at a time writes to it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from edgeseg.data.check import is_report
from edgeseg.engine import distributed
from edgeseg.engine.run_state import FILE, read_state

LOCK = ".run.lock"
EIGHT_BIT = tuple(f"int8{suffix}" for suffix in (".onnx", ".tflite", ".pte", ".xml", ".bin"))
WEIGHTS = ("best.safetensors", "last.safetensors", *EIGHT_BIT)
FILES = (*WEIGHTS, FILE, "metrics.jsonl", "samples.png", "curves.png", "tensorboard")  # what `clear` removes
REPORTS = ("data_training.json", "data_validation.json")  # what is in the datasets, written anew by each run
# Seconds to wait for the lock: the workers of a killed run hold it until they notice, which takes them up to 5.
PATIENCE = 8.0


def contents(folder: Path) -> str:
    """Says what a folder holds of an earlier run, such as "runs/x holds a run at epoch 6".

    It is "" if there is nothing to lose: no file of a run, or those of a run that ended before it was saved once.
    """
    found = [name for name in FILES if (folder / name).exists()]
    if not found:
        return ""
    if FILE not in found:
        return f"{folder} holds files of a run ({', '.join(found)}) without its {FILE}"
    try:
        state = read_state(folder / FILE)
    except ValueError as error:
        return f"{folder} holds a run ({error})"
    if state["step"] == 0 and not any((folder / name).exists() for name in WEIGHTS):
        return ""
    return f"{folder} holds a run at epoch {_epoch(state, folder)}"


def has_state(folder: Path) -> bool:
    """Whether the folder holds a state from which a run can go on, which has at least a step done.

    Raises:
        ValueError: the state is corrupt.
    """
    try:
        return (folder / FILE).is_file() and read_state(folder / FILE)["step"] > 0
    except ValueError as error:
        raise ValueError(f"cannot resume: {error}") from error


def _epoch(state: dict[str, Any], folder: Path) -> int:
    """Number of epochs that are done."""
    if "steps" in state:
        return int(state["step"]) // int(state["steps"])
    log = folder / "metrics.jsonl"  # of an edgeseg that did not store the number of steps
    return len(log.read_text(encoding="utf-8").splitlines()) if log.is_file() else 0


def check(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Raises an error unless a training may write to a folder.

    Raises:
        ValueError: both `resume` and `overwrite`.
        NotADirectoryError: the folder is a file.
        FileExistsError: it holds a run and neither `resume` nor `overwrite` is given, files of a run without the
            state that it is resumed from, or a foreign file with the name of a report.
    """
    if resume and overwrite:
        raise ValueError("pass resume=True or overwrite=True, not both")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; the output of training is a folder")
    for path in (folder / name for name in REPORTS):
        if path.exists() and not is_report(path):
            raise FileExistsError(f"{path} would be overwritten, which edgeseg did not write; pass another folder")
    if overwrite:
        return
    if resume and not (folder / FILE).is_file() and (found := contents(folder)):
        raise FileExistsError(f"cannot resume: {found}; pass overwrite=True, or another folder")
    if not resume and (found := contents(folder)):
        raise FileExistsError(f"{found}; pass resume=True, overwrite=True, or another folder")


def clear(folder: Path) -> None:
    """Removes the files of a run, and nothing else; all processes wait until they are gone."""
    if distributed.rank() == 0:
        for name in FILES:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    distributed.barrier()


@contextmanager
def claimed(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Within this context, this training alone may write to the folder, which is created if it is missing.

    The lock is one of the operating system, which releases it when the process ends in whatever way.

    Raises:
        FileExistsError, NotADirectoryError, ValueError: as in `check`.
        BlockingIOError: another process is training in the folder.
    """
    problem: Exception | None = None
    lock: FileLock | None = None
    if distributed.rank() == 0:
        try:
            check(folder, resume=resume, overwrite=overwrite)
            lock = _lock(folder)
            check(folder, resume=resume, overwrite=overwrite)  # it may have changed while this process waited
        except (OSError, ValueError) as error:
            problem = error
    try:
        failed = bool(distributed.total(torch.tensor([float(problem is not None)])).any())
        if problem is not None:
            raise problem
        if failed:
            raise ValueError("process 0 cannot use the folder of the run; its message says why")
        yield
    finally:
        if lock is not None:
            lock.release()


def _lock(folder: Path) -> FileLock | None:
    """Locks the folder; None on a file system that does not have locks.

    Raises:
        BlockingIOError: another process has locked it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout as error:
        raise BlockingIOError(
            f"another process is training in {folder}; wait until it has ended, or pass another folder"
        ) from error
    except NotImplementedError:
        return None
    return lock
