"""Files that list the classes of a dataset, in the forms in which people write them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from edgeseg.labels import IGNORE, distinct_palette, task_of_classes
from edgeseg.machine.errors import value_errors
from edgeseg.spec import Color, Task

HEADINGS = {
    "name",
    "names",
    "class",
    "classes",
    "label",
    "labels",
    "id",
    "index",
    "r",
    "g",
    "b",
    "red",
    "green",
    "blue",
}
HEADINGS |= {"color", "colour", "color_rgb", "parts", "actions", "category", "rgb"}
COLOR = re.compile(
    r"^(?P<name>.*?)(?:[\s,;:]+)(?P<r>[0-9]{1,9})[\s,;]+(?P<g>[0-9]{1,9})[\s,;]+(?P<b>[0-9]{1,9})[\s,;:]*$"
)
OPAQUE = re.compile(r"^(?P<name>.*[^\s,;:0-9].*?)(?:[\s,;:]+[0-9]{1,3}){3}[\s,;:]+255$")  # red, green, blue, alpha
CVAT = re.compile(r"^(?P<line>[^:]+:[0-9]+,[0-9]+,[0-9]+):[^:]*:[^:]*$")  # name:color_rgb:parts:actions
NUMBERED = re.compile(r"^(?P<id>[0-9]{1,9})[\s,;:.)=]+(?P<name>\S.*)$")
ENDING = re.compile(r"^(?P<name>.*?)[\s,;:=]+(?P<id>[0-9]{1,9})$")
LONGEST = 1000  # characters of a line
CLASS_FILES = ("classes.txt", "labelmap.txt", "labels.txt")
IGNORED = "__ignore__"
"""The line of labelme's labels.txt for ignored pixels."""
NUMBERS = re.compile(r"^[0-9\s,;]+$")


@dataclass(frozen=True)
class ClassList:
    """Classes and the colours that colour masks have.

    Args:
        task: The segmentation task, with a palette for all classes.
        colors: Class ids by colours, and 255 for those of ignored pixels; empty unless every class has its own colour.
    """

    task: Task
    colors: Mapping[Color, int]


def class_file(root: Path) -> Path:
    """Returns the file of a folder that lists the classes: classes.txt, CVAT's labelmap.txt or labelme's labels.txt."""
    return next((root / name for name in CLASS_FILES if (root / name).is_file()), root / CLASS_FILES[0])


def find_classes(classes: Sequence[str] | None, path: Path) -> ClassList:
    """Returns the classes that an argument gives, or those of a file if there is no argument.

    Args:
        classes: One item per class, each as a line of `path`; None for the file.
        path: See `read_class_list`.

    Raises:
        ValueError: an item or line is not understood.
        FileNotFoundError: no argument and no file.
    """
    if classes is None:
        return read_class_list(path)
    if (
        isinstance(classes, str)
        or not isinstance(classes, Sequence)
        or not all(isinstance(name, str) for name in classes)
    ):
        raise ValueError(f"classes is a list of names such as ('ground', 'vine'), got {classes!r}")
    return _parse(list(enumerate(classes, start=1)), "classes (--classes), item")


def read_classes(path: Path) -> Task:
    """Reads the segmentation task of a file of classes; see `read_class_list`."""
    return read_class_list(path).task


def read_class_list(path: Path) -> ClassList:
    """Reads the classes of a file, one class per line in the order of the ids.

    A line is "name" or "name R G B", with spaces, commas or colons between them (as in CVAT's labelmap.txt), and may
    begin with its own id, if all lines do; then lines with the id 255 give the colours of ignored pixels. Empty lines
    and lines that begin with "#" are skipped, and labelme's `__ignore__`. The file is UTF-8, or UTF-16 with a byte
    order mark. A .yaml file is YOLO's data.yaml, of which the names are read.

    Raises:
        ValueError: another encoding, a heading, ids that are not 0, 1, 2, ..., a colour out of range, a class that
            occurs twice, or no classes; the message has the file and the line.
    """
    text = read_text(path)
    if path.suffix == ".yaml":
        names = _yaml_names(path, text)
        return _class_list([(number, name, None) for number, name in enumerate(names, start=1)], f"{path}, name")
    return _parse(list(enumerate(text.splitlines(), start=1)), f"{path}, line")


def _yaml_names(path: Path, text: str) -> list[str]:
    """The classes in `names` of a data.yaml, a list or names by ids."""
    with value_errors(path, f"{path} has no list of names that is understood; pass classes (--classes)"):
        try:
            names = yaml.load(text, yaml.BaseLoader)["names"]  # which leaves all values text, also the name "no"
        except yaml.YAMLError as error:
            raise ValueError(str(error).partition("\n")[0]) from error
        if isinstance(names, dict):
            names = [names[str(i)] for i in range(len(names))]
        if not names or not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise ValueError(repr(names))
        return names


def _parse(numbered: list[tuple[int, str]], place: str) -> ClassList:
    """Reads numbered lines; `place` is what stands before their numbers in error messages."""
    source = place.rpartition(", ")[0]
    stripped = [(number, line.strip()) for number, line in numbered if line.strip() != IGNORED]
    lines = [(number, line) for number, line in stripped if line and not line.startswith("#")]
    if not lines:
        raise ValueError(f"{source} has no classes; write one name per line")
    for number, line in lines:
        if len(line) > LONGEST:
            raise ValueError(f"{place} {number}: {len(line)} characters are too many for a class")
    _check_form(place, lines)
    lines, ignored = _without_ids(place, [(number, _without_parts(line)) for number, line in lines])
    void = [_name_and_color(place, number, line)[1] for number, line in ignored]
    return _class_list([(number, *_name_and_color(place, number, line)) for number, line in lines], place, void)


def _class_list(
    classes: list[tuple[int, str, Color | None]], place: str, void: Sequence[Color | None] = ()
) -> ClassList:
    """The classes, each with its line, name and colour; `void` are the colours of ignored pixels."""
    source = place.rpartition(", ")[0]
    names: dict[str, int] = {}
    for number, name, _ in classes:
        if name in names:
            raise ValueError(f"{place} {number}: class {name!r} stands in line {names[name]} already")
        names[name] = number
    colors = [color for *_, color in classes]
    if not 1 <= len(names) <= IGNORE:
        raise ValueError(f"{source} has {len(names)} classes; there are 1 to {IGNORE}, since {IGNORE} means ignored")
    # A single class is the foreground of a binary task, with id 1.
    single = len(names) == 1
    fallback = distinct_palette(len(names))
    palette = tuple(color or fallback[i] for i, color in enumerate(colors))
    known = {color: IGNORE for color in void if color}
    known |= {color: i for i, color in enumerate(colors, start=int(single)) if color}
    if single and known:
        known = {(0, 0, 0): 0} | known
    # Masks can be decoded if every class has a colour of its own; those of ids do not need the colours.
    decodes = None not in colors and len(known) >= len(colors) + len({color for color in void if color})
    return ClassList(task_of_classes(tuple(names), palette), known if decodes else {})


def read_text(path: Path) -> str:
    """Reads a text file of UTF-8, or of UTF-16 with a byte order mark; raises a ValueError for another encoding."""
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{path} is not UTF-8 text; save it as UTF-8")
    return text


def _check_form(place: str, lines: list[tuple[int, str]]) -> None:
    """Refuses headings, ids after the names, and several classes in one line, which would all become names."""
    number, line = lines[0]
    words = [word.lower() for word in re.split(r"[\s,;:]+", line) if word]
    ids = [int(match["id"]) if (match := NUMBERED.match(other)) else None for _, other in lines]
    numbered = len(ids) > 1 and ids[0] is None and ids[1:] in ([*range(len(ids) - 1)], [*range(1, len(ids))])
    # "label" alone may be a class.
    if numbered or (len(words) > 1 and set(words) <= HEADINGS):
        raise ValueError(f"{place} {number}: {line!r} is a heading; delete it, the first line is class 0")
    endings = [ENDING.match(other) for _, other in lines]
    names = {match["name"] for match in endings if match}
    last = sorted(int(match["id"]) for match in endings if match and not COLOR.match(match[0]))
    if len(names) == len(lines) > 1 and last in ([*range(len(lines))], [*range(1, len(lines) + 1)]):
        raise ValueError(
            f"{place} {number}: {line!r} ends with an id; write ids before the names, or names in the order of their "
            "ids"
        )
    opaque = {match["name"] for _, other in lines if (match := OPAQUE.match(other))}
    if len(opaque) == len(lines) > 1:  # names that end with numbers would not differ without them
        raise ValueError(
            f"{place} {number}: {line!r} ends with the alpha 255, as all lines do; write a line as 'name R G B'"
        )
    if line[0] in "[{" or (len(lines) == 1 and "," in line and not COLOR.match(_without_parts(line))):
        raise ValueError(f"{place} {number}: {line!r} has several classes; write one name per line")


def _without_parts(line: str) -> str:
    """A line of CVAT's labelmap.txt without the parts and actions of a class."""
    match = CVAT.match(line)
    return match["line"] if match else line


def _without_ids(place: str, lines: list[tuple[int, str]]) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """The lines of classes and those of ignored pixels, without the ids that they begin with, if they do.

    Ids on some lines, or in another order, are an error.
    """
    matches = [NUMBERED.match(line) for _, line in lines]
    if not matches[0]:
        return lines, []
    if all(NUMBERS.match(line) for _, line in lines):
        return lines, []  # names that are numbers, with their colours
    classes: list[tuple[int, str]] = []
    ignored: list[tuple[int, str]] = []
    for (number, line), match in zip(lines, matches, strict=True):
        if match is not None and int(match["id"]) == IGNORE and len(classes) < IGNORE:
            ignored.append((number, match["name"].strip()))
        elif match is not None and int(match["id"]) == len(classes):
            classes.append((number, match["name"].strip()))
        else:
            raise ValueError(
                f"{place} {number}: {line!r} does not begin with id {len(classes)}; ids are 0, 1, 2, ... on all lines "
                f"({IGNORE} for ignored pixels), or on none"
            )
    return classes, ignored


def _name_and_color(place: str, number: int, line: str) -> tuple[str, Color | None]:
    match = COLOR.match(line)
    name, color = line, None
    if match and match["name"].strip(" \t,;:"):
        name = match["name"].strip(" \t,;:")
        red, green, blue = (int(match[channel]) for channel in "rgb")
        if max(red, green, blue) > 255:
            raise ValueError(f"{place} {number}: {line!r} has a colour beyond 0 to 255")
        color = red, green, blue
    name = " ".join(name.split()).rstrip(":,;")
    several = color and re.search(r"[,:]\s*[0-9]+$", name)  # numbers before the colour
    if not name.isprintable() or "#" in name or ";" in name or several:
        raise ValueError(
            f"{place} {number}: {line!r} is not a class; a line is a name, or a name and R G B; comments stand on "
            "lines of their own"
        )
    return name, color
