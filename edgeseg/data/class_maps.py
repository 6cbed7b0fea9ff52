"""Which class of one dataset is which class of another, for networks that learn from a network of other classes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from edgeseg.data.classes import read_text
from edgeseg.labels import class_names
from edgeseg.spec import Task

NOTHING = "-"
"""Stands in a map for "no class": where the teacher sees such a class, its opinion does not count."""

# fmt: off
CITYSCAPES_TO_CAMVID = {
    "road": "road", "sidewalk": "pavement", "building": "building", "wall": "building", "fence": "fence",
    "pole": "pole", "traffic light": "sign", "traffic sign": "sign", "vegetation": "tree", "terrain": "tree",
    "sky": "sky", "person": "pedestrian", "rider": "bicyclist", "car": "car", "truck": "car", "bus": "car",
    "train": "car", "motorcycle": "bicyclist", "bicycle": "bicyclist",
}
CITYSCAPES_TO_IDD_LITE = {
    "road": "drivable", "sidewalk": "non-drivable", "building": "far objects", "wall": "roadside objects",
    "fence": "roadside objects", "pole": "roadside objects", "traffic light": "roadside objects",
    "traffic sign": "roadside objects", "vegetation": "far objects", "terrain": "non-drivable", "sky": "sky",
    "person": "living things", "rider": "living things", "car": "vehicles", "truck": "vehicles", "bus": "vehicles",
    "train": "vehicles", "motorcycle": "vehicles", "bicycle": "vehicles",
}
# fmt: on
CLASS_MAPS = (CITYSCAPES_TO_CAMVID, CITYSCAPES_TO_IDD_LITE)
"""Maps from the class names of one dataset to those of another, which are found by the names themselves."""


def class_map(source: Task, target: Task, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the class of `target` for every class of `source`, by their names in lower case; `NOTHING` for none.

    Args:
        source: Task of the network that teaches.
        target: Task of the network that learns.
        own: A map of the user; None takes the classes as they are if both tasks have the same, and otherwise one of
            `CLASS_MAPS`.

    Raises:
        ValueError: a task without class names or with names that differ in case only, no map for these classes, or a
            map that leaves out a class of either task; names the classes.
    """
    names, wanted = ([name.casefold() for name in class_names(task)] for task in (source, target))
    for whose, each in (("teacher's", names), ("student's", wanted)):
        if len(set(each)) < len(each):
            raise ValueError(f"the {whose} classes {', '.join(each)} have the same name twice, or differ in case only")
    if own is None:
        own = _known(names, wanted)
    if own is None:
        raise ValueError(
            f"the teacher has the classes {', '.join(names)}, and there is no map from them to "
            f"{', '.join(wanted)}; pass a class map (--class-map FILE)"
        )
    chosen = {source.casefold(): target.casefold() for source, target in own.items()}
    missing = [name for name in names if name not in chosen]
    if missing:
        raise ValueError(
            f"the class map leaves out the teacher's {', '.join(missing)}; map them to a class, or to {NOTHING!r}"
        )
    unknown = sorted({chosen[name] for name in names} - {*wanted, NOTHING})
    if unknown:
        raise ValueError(f"the class map has {', '.join(unknown)}; the classes to learn are {', '.join(wanted)}")
    never = [name for name in wanted if name not in {chosen[name] for name in names}]
    if never:
        raise ValueError(
            f"the class map has no class of the teacher for {', '.join(never)}, which the network would unlearn"
        )
    return {name: chosen[name] for name in names}


def read_class_map(path: str | os.PathLike[str]) -> dict[str, str]:
    """Reads a class map from a text file.

    A line is "class of the teacher: class to learn", or "class of the teacher: -" for a class that teaches nothing.
    Empty lines and lines that begin with "#" are skipped.

    Args:
        path: The text file.

    Returns:
        The class to learn for each class of the teacher, in lower case; "-" where there is none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line of another form, or a class that occurs twice; has the file and the line.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(read_text(Path(path)).splitlines(), start=1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        source, colon, target = (part.strip().casefold() for part in line.rpartition(":"))
        if not (colon and source and target):
            raise ValueError(f"{path}, line {number}: {line!r} is not 'class of the teacher: class to learn'")
        if source in found:
            raise ValueError(f"{path}, line {number}: {source!r} occurs twice")
        found[source] = target
    return found


def _known(names: list[str], wanted: list[str]) -> Mapping[str, str] | None:
    if set(names) == set(wanted):
        return {name: name for name in names}
    return next((each for each in CLASS_MAPS if set(each) == set(names) and set(each.values()) == set(wanted)), None)
