"""A few tries of every drill, and the program of the drills itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from .drills.drill import NAME
from .drills.falls import ELSEWHERE, FALLS
from .drills.pool import Limits, Pool, pool
from .drills.table import DRILLS


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with pool(1, Limits(seconds=60)) as made:
        yield made


@pytest.mark.parametrize("name", DRILLS)
def test_damaged_files_are_read_rightly_or_refused_by_name(name: str, processes: Pool) -> None:
    drill = DRILLS[name]
    result = processes.run(drill, drill.sample)
    assert result.tries == drill.sample
    assert not result.falls


def test_every_fall_is_seen_and_its_smallest_file_kept(tmp_path: Path) -> None:
    with pool(2, Limits(seconds=1, megabytes=150), tmp_path, modules=()) as processes:
        result = processes.run(FALLS, 16)
    assert result.tries == 16
    assert 0 < result.right < result.tries - result.fell
    assert {re.sub(r" at \S+", "", what) for what in result.falls} == {
        "the process died with exit code -6", "took longer than 1 s", "took more than 150 MB", "KeyError",
        "ValueError without the name of the file",
    }  # fmt: skip
    assert sorted((each / NAME).stat().st_size for each in (tmp_path / "falls").iterdir()) == [0, 1, 2, 3, 4]


def test_memory_of_processes_that_a_try_starts_counts() -> None:
    with pool(1, Limits(seconds=60, megabytes=150), modules=()) as processes:
        assert processes.run(ELSEWHERE, 1).falls == {"took more than 150 MB": 1}


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
