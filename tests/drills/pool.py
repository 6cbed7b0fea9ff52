"""Child processes that make tries within a time and a memory limit, and are started again when they die."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import re
import shutil
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .drill import HELD, RIGHT, Drill, outcome

CONTEXT = multiprocessing.get_context("spawn")
START = 300.0  # seconds that a process may take to import its libraries, or to make the valid files of a drill


@dataclass(frozen=True)
class Limits:
    """What one try may take.

    Args:
        seconds: Time, or that of each command in drills whose tries run several.
        megabytes: Memory beyond that of the process before the try, with that of processes that the try starts, where
            the system tells (Linux).
    """

    seconds: float = 60.0
    megabytes: int = 3000


@dataclass
class Result:
    """How the tries of a drill ended: their number, how many files were read, and the falls by what fell."""

    name: str
    tries: int = 0
    right: int = 0
    falls: Counter[str] = field(default_factory=Counter)

    @property
    def fell(self) -> int:
        return sum(self.falls.values())


class Worker:
    """A process that makes one try at a time.

    Args:
        root: Folder in which it works.
        limits: Of a try.
        modules: What the process imports when it starts.
    """

    def __init__(self, root: Path, limits: Limits, modules: Sequence[str]) -> None:
        self.work, self.limits, self.modules, self.busy = root, limits, modules, False
        self._start()

    def _start(self) -> None:
        self.connection, other = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(other, self.work, self.modules), daemon=True)
        self.process.start()
        other.close()
        if not self.connection.poll(START) or self.connection.recv() != "ready":
            raise RuntimeError("a process for drills does not start")

    def give(self, job: tuple[Any, ...]) -> None:
        """Starts a try."""
        self.base, self.since, self.busy = _resident(self.process.pid), time.monotonic(), True
        self.connection.send(job)

    def answer(self, seconds: float) -> str | None:
        """The outcome of the try; None while it goes on. A process that exceeds this time or its memory is killed."""
        fall = None
        if self.connection.poll():
            try:
                said = str(self.connection.recv())
                self.busy = False
                return said
            except (EOFError, OSError):
                self.process.join()
                fall = f"the process died with exit code {self.process.exitcode}"
        elif time.monotonic() - self.since > seconds:
            fall = f"took longer than {seconds:g} s"
        elif _resident(self.process.pid) - self.base > self.limits.megabytes * 1e6:
            fall = f"took more than {self.limits.megabytes} MB"
        if fall is not None:
            self.stop()
            self.busy = False
            self._start()
        return fall

    def stop(self) -> None:
        """Ends the process: at its own time if it waits for work, else at once."""
        if not self.busy:
            self.connection.send(None)
            self.process.join(10)
        if self.process.pid:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # what it has started too
        self.process.kill()
        self.process.join()
        self.connection.close()


class Pool:
    """Processes that make the tries of drills; see `pool`."""

    def __init__(self, root: Path, processes: int, limits: Limits, fallen: Path | None, modules: Sequence[str]) -> None:
        self.root, self.fallen = root, fallen
        self.workers = [Worker(root / str(number), limits, modules) for number in range(processes)]

    def run(self, drill: Drill, tries: int, seed: int = 0) -> Result:
        """Makes a number of tries of a drill, and keeps the smallest damaged files of each fall."""
        seeds = self.root / "seeds" / drill.name
        if not seeds.is_dir():
            self._make(drill, seeds)
        result, waiting = Result(drill.name), deque(range(tries))
        while waiting or any(worker.busy for worker in self.workers):
            for worker in self.workers:
                if waiting and not worker.busy:
                    worker.give((drill, seeds, waiting.popleft(), seed))
            wait([worker.connection for worker in self.workers if worker.busy], timeout=0.05)
            for worker in self.workers:
                said = worker.answer(drill.commands * worker.limits.seconds) if worker.busy else None
                if said is not None:
                    result.tries += 1
                    result.right += said == RIGHT
                    if said not in HELD:
                        result.falls[said] += 1
                        self._keep(drill, said, worker.work)
        return result

    def _make(self, drill: Drill, seeds: Path) -> None:
        """Lets a process write the valid files of a drill, and checks that they are read without an error."""
        worker = self.workers[0]
        worker.give((drill, seeds, None, 0))
        while (said := worker.answer(START)) is None:
            wait([worker.connection], timeout=0.5)
        if said != "made":
            raise RuntimeError(f"the valid files of the drill {drill.name} cannot be made: {said}")

    def _keep(self, drill: Drill, said: str, work: Path) -> None:
        """Keeps damaged files if they are the smallest that fell in this way."""
        if self.fallen is None:
            return
        kept = self.fallen / drill.name / re.sub(r"[^\w.-]+", "-", said)[:100]
        if kept.is_dir() and _size(kept) <= _size(work):
            return
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(work, kept)


@contextmanager
def pool(
    processes: int = 1,
    limits: Limits | None = None,
    fallen: Path | None = None,
    modules: Sequence[str] = ("torch", "edgeseg"),
) -> Iterator[Pool]:
    """Starts processes for drills, and ends them after the block.

    Args:
        processes: Their number.
        limits: Of a try.
        fallen: Folder for the smallest damaged files of each fall; None keeps none.
        modules: What the processes import when they start, so that it does not count as time of a try.
    """
    with TemporaryDirectory() as root:
        made = Pool(Path(root), processes, limits or Limits(), fallen, modules)
        try:
            yield made
        finally:
            for worker in made.workers:
                worker.stop()


def _serve(connection: Connection, work: Path, modules: Sequence[str]) -> None:
    """What a process does: one job after another until there are none."""
    os.setsid()  # so that what a try starts ends with it
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads this when it is imported
    for name in modules:
        importlib.import_module(name)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # native code of runtimes writes there
        os.dup2(nowhere, stream)
    connection.send("ready")
    while (job := connection.recv()) is not None:
        drill, seeds, number, seed = job
        if number is None:
            seeds.mkdir(parents=True)
            drill.make(seeds)
            connection.send("made")
        else:
            connection.send(outcome(drill, seeds, work, number, seed))


def _resident(pid: int | str | None) -> int:
    """Bytes of memory that a process and those that it has started occupy; 0 where the system does not tell."""
    try:
        own = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return own + sum(map(_resident, (child for task in tasks for child in task.read_text().split())))
    except (OSError, IndexError, ValueError):
        return 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
