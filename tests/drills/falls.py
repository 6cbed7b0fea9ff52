"""A drill that falls in every way that there is, by which the program of the drills is tested."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from .drill import NAME, Drill

SIZES = 7  # numbers of bytes that a damaged file has, each with an outcome of its own


def make(folder: Path) -> None:
    (folder / "valid").write_text("valid")


def damage(rng: Random, seeds: Path, work: Path) -> None:
    (work / NAME).write_bytes(bytes(rng.randrange(SIZES)))


def read(work: Path) -> None:
    path = work / NAME
    match path.stat().st_size:
        case 0:
            os.abort()
        case 1:
            time.sleep(99)
        case 2:
            held = bytearray(b"x") * 300_000_000
            time.sleep(99 + held[0])
        case 3:
            raise KeyError(path)
        case 4:
            raise ValueError("somewhere")
        case 5:
            raise ValueError(f"{path} is refused")


def read_elsewhere(work: Path) -> None:
    subprocess.run([sys.executable, "-c", "import time; held = bytearray(b'x') * 300_000_000; time.sleep(99)"])


FALLS = Drill("falls", make, damage, read, 1)
ELSEWHERE = Drill("elsewhere", make, damage, read_elsewhere, 1)
