"""What a drill is, and how the outcome of one try is judged."""

from __future__ import annotations

import re
import shutil
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

RIGHT, REFUSED = "right", "refused"
HELD = (RIGHT, REFUSED)
NAME = "damaged"
"""What the names of damaged files begin with, by which a message is known to name them."""
PLAN = f"{NAME}.json"
"""The file that says what is to happen in a try, where no file is damaged."""


class Wrong(Exception):
    """A file was read without an error, and the result cannot be right."""


@dataclass(frozen=True)
class Drill:
    """Valid files, a way to damage them, and the code that reads them.

    What is damaged may also be the run itself: then the files say when it is killed, or in which surroundings it runs.

    Args:
        name: Name on the command line and in the table.
        make: Writes valid files into an empty folder, once per run of the program.
        damage: Called with a random generator, the folder of the valid files and an empty folder. Writes damaged files
            whose names begin with `NAME` into the empty folder.
        read: Reads the damaged files in that folder. Raises a ValueError or an OSError that names one of them if they
            are refused, and `Wrong` if what it read cannot be right.
        tries: Number of tries of the long form.
        needs: A module without which the drill is left out.
        sample: Number of tries in the tests.
        commands: Number of commands that a try runs one after the other, each of which may take the time of a try.
    """

    name: str
    make: Callable[[Path], object]
    damage: Callable[[Random, Path, Path], object]
    read: Callable[[Path], object]
    tries: int
    needs: str = ""
    sample: int = 12
    commands: int = 1


def no_files(_: Path) -> None:
    """The `make` of drills that need no valid files."""


def outcome(drill: Drill, seeds: Path, work: Path, number: int, seed: int) -> str:
    """Makes one try.

    Args:
        drill: The drill.
        seeds: Folder of the valid files.
        work: Folder of the damaged files, which is emptied before.
        number: Number of the try; the same number and seed damage the files in the same way.
        seed: Seed of the run.

    Returns:
        `RIGHT`, `REFUSED`, or what fell.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            drill.damage(Random(f"{seed} {drill.name} {number}"), seeds, work)
        except Exception as error:
            return f"the drill itself: {type(error).__name__} in try {number}"
        return judged(drill.read, work)


def judged(read: Callable[[Path], object], work: Path) -> str:
    """Reads the damaged files and says how that ended."""
    try:
        read(work)
    except (ValueError, OSError) as error:
        return REFUSED if names_a_file(str(error), work) else f"{_place(error)} without the name of the file"
    except Wrong as error:
        return f"wrong: {error}"
    except Exception as error:
        return _place(error)
    return RIGHT


def names_a_file(message: str, work: Path) -> bool:
    """Whether a message names a damaged file, or, of a damaged folder, a file or folder inside."""
    inside = [path.name for path in (work / NAME).rglob("*")] if (work / NAME).is_dir() else []
    return NAME in message and (not inside or any(re.search(rf"{re.escape(name)}\b", message) for name in inside))


def all_hold(work: Path, *readers: Callable[[Path], object]) -> None:
    """Reads the same files in several ways; raises an error if all of them refuse them, or one does not name them."""
    refusals: list[Exception] = []
    for read in readers:
        try:
            read(work)
        except (ValueError, OSError) as error:
            if NAME not in str(error):
                raise
            refusals.append(error)
    if len(refusals) == len(readers):
        raise refusals[0]


def expect(fulfilled: bool, what: str) -> None:
    """Raises `Wrong` unless what a result must fulfil is fulfilled."""
    if not fulfilled:
        raise Wrong(what)


def _place(error: Exception) -> str:
    """The type of an error and the line of edgeseg that it passed last."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "edgeseg/" in frame.filename]
    place = f" at {frames[-1].filename.rpartition('edgeseg/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
