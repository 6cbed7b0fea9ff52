"""Files that list the classes of a dataset, in the forms in which people write them."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from edgeseg.labels import distinct_palette
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
COLOR = re.compile(r"^(?P<name>.*?)(?:[\s,;:]+)(?P<r>[0-9]+)[\s,;]+(?P<g>[0-9]+)[\s,;]+(?P<b>[0-9]+)[\s,;:]*$")
NUMBERED = re.compile(r"^(?P<id>[0-9]+)[\s,;:.)]+(?P<name>\S.*)$")
NUMBERS = re.compile(r"^[0-9\s,;]+$")


def read_classes(path: Path) -> Task:
    """Reads the segmentation task of a file of classes, one class per line in the order of the ids.

    A line is "name" or "name R G B", with spaces, commas or colons between them (as in CVAT's labelmap.txt), and may
    begin with its own id, if all lines do. Empty lines and lines that begin with "#" are skipped. The file is UTF-8, or
    UTF-16 with a byte order mark.

    Raises:
        ValueError: another encoding, a heading, ids that are not 0, 1, 2, ..., a colour out of range, a class that
            occurs twice, or no classes; the message has the file and the line.
    """
    lines = [
        (number, line.strip())
        for number, line in enumerate(_text(path).splitlines(), start=1)
        if line.strip() and not line.strip().startswith("#")
    ]
    if not lines:
        raise ValueError(f"{path} has no classes; write one name per line")
    _check_heading(path, *lines[0])
    lines = _without_ids(path, lines)
    names: dict[str, int] = {}
    colors: list[Color | None] = []
    for number, line in lines:
        name, color = _name_and_color(path, number, line)
        if name in names:
            raise ValueError(f"{path}, line {number}: class {name!r} stands in line {names[name]} already")
        names[name] = number
        colors.append(color)
    fallback = distinct_palette(len(names))
    palette = tuple(color or fallback[i] for i, color in enumerate(colors))
    return Task("segmentation", len(names), classes=tuple(names), palette=palette)


def _text(path: Path) -> str:
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{path} is not UTF-8 text; save it as UTF-8")
    return text


def _check_heading(path: Path, number: int, line: str) -> None:
    words = [word.lower() for word in re.split(r"[\s,;:]+", line) if word]
    # "label" alone may be a class.
    if len(words) > 1 and set(words) <= HEADINGS:
        raise ValueError(f"{path}, line {number}: {line!r} is a heading; delete it, the first line is class 0")


def _without_ids(path: Path, lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The lines without the ids that they begin with; ids on some lines, or in another order, are an error."""
    matches = [NUMBERED.match(line) for _, line in lines]
    if not matches[0]:
        return lines
    if all(NUMBERS.match(line) for _, line in lines):
        return lines  # names that are numbers, with their colours
    for expected, ((number, line), match) in enumerate(zip(lines, matches, strict=True)):
        if match is None or int(match["id"]) != expected:
            raise ValueError(
                f"{path}, line {number}: {line!r} does not begin with id {expected}; ids are 0, 1, 2, ... on all "
                "lines, or on none"
            )
    return [(number, match["name"].strip()) for (number, _), match in zip(lines, matches, strict=True) if match]


def _name_and_color(path: Path, number: int, line: str) -> tuple[str, Color | None]:
    match = COLOR.match(line)
    name, color = line, None
    if match and match["name"].strip(" \t,;:"):
        name = match["name"].strip(" \t,;:")
        red, green, blue = (int(match[channel]) for channel in "rgb")
        if max(red, green, blue) > 255:
            raise ValueError(f"{path}, line {number}: {line!r} has a colour beyond 0 to 255")
        color = red, green, blue
    name = " ".join(name.split()).rstrip(":,;")
    if not name.isprintable() or "#" in name:
        raise ValueError(f"{path}, line {number}: {line!r} is not a class; comments stand on lines of their own")
    return name, color
