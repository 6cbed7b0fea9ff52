"""A few tries of every drill, and the program of the drills itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from .drills import DRILLS
from .drills.drill import NAME, Drill
from .drills.pool import Limits, Pool, pool

TRIES = 12


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with pool(1, Limits(seconds=60)) as made:
        yield made


@pytest.mark.parametrize("name", DRILLS)
def test_damaged_files_are_read_rightly_or_refused_by_name(name: str, processes: Pool) -> None:
    result = processes.run(DRILLS[name], TRIES)
    assert result.tries == TRIES
    assert not result.falls


def make(folder: Path) -> None:
    (folder / "valid").write_text("valid")


def damage(rng: Random, seeds: Path, work: Path) -> None:
    (work / NAME).write_bytes(rng.randbytes(rng.randrange(1, 99)))


def read(work: Path) -> None:
    """Falls in every way that there is, by the size of the file."""
    path = work / NAME
    match path.stat().st_size % 7:
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


def test_every_fall_is_seen_and_its_smallest_file_kept(tmp_path: Path) -> None:
    with pool(2, Limits(seconds=2, megabytes=150), tmp_path) as processes:
        result = processes.run(Drill("falls", make, damage, read, 1), 24)
    assert result.tries == 24
    assert 0 < result.right < result.tries - result.fell
    wanted = {"the process died with exit code -6", "took longer than 2 s", "took more than 150 MB"}
    wanted |= {"KeyError", "ValueError without the name of the file"}
    assert wanted <= {_without_place(what) for what in result.falls}
    kept = sorted((tmp_path / "falls").iterdir())
    assert len(kept) == len(result.falls)
    assert all((each / NAME).is_file() for each in kept)


def _without_place(what: str) -> str:
    """What fell without the line where it fell."""
    kind, _, rest = what.partition(" at ")
    return kind + "".join(rest.partition(" without")[1:]) if rest else what


def test_damage_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    drill = DRILLS["images"]
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    drill.make(seeds)
    contents = []
    for number in range(2):
        work = tmp_path / str(number)
        work.mkdir()
        drill.damage(Random("0 images 5"), seeds, work)
        contents.append([path.read_bytes() for path in work.iterdir()])
    assert contents[0] == contents[1]
