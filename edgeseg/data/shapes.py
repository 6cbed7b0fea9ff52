"""Label maps that are drawn from shapes: polygons and run lengths, as annotation tools export them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from edgeseg.data.base import Files, LabelledImages, listing
from edgeseg.data.classes import find_classes
from edgeseg.labels import IGNORE, distinct_palette
from edgeseg.machine.terminal import warn
from edgeseg.spec import Task
from edgeseg.vision.images import photo_size

BACKGROUND = "background"
TOLERANCE = 1.0  # pixels by which a polygon may leave the picture
LONGEST = 4e6  # pixels of outline that the polygons of one object may have, each of which takes memory


class Region(NamedTuple):
    """A part of a picture: a mask, bool [h, w], whose first pixel is at this row and column of the picture."""

    mask: np.ndarray
    top: int
    left: int


@dataclass(frozen=True)
class Shape:
    """One object of a picture.

    Args:
        label: Class id, or 255 for ignored pixels.
        region: Where it lies.
        below: Draw it below all shapes that are not.
    """

    label: int
    region: Region
    below: bool = False


class LabelledShapes(LabelledImages):
    """Photos, and label maps that are drawn from shapes.

    Where shapes overlap, the smaller one lies on top, so that a car is seen on its road whatever the order; of equal
    ones the later. A subclass may have the later one on top, and says which shapes a photo has.

    Args:
        files: One entry per sample; a photo without annotations has no targets.
        task: The classes.
        outside: Class id of pixels outside of all shapes, or 255.
        on_unlabelled: What to do about photos without shapes: "background" makes them background and warns with their
            number and names, "skip" leaves them out.
        options: `channels` and `on_error`, see `LabelledImages`.
    """

    later_on_top = False

    def __init__(
        self, files: Sequence[Files], task: Task, outside: int, *, on_unlabelled: str = "background", **options: Any
    ) -> None:
        if on_unlabelled not in ("background", "skip"):
            raise ValueError(f"on_unlabelled is 'background' or 'skip', got {on_unlabelled!r}")
        self.outside = outside
        missing = [each for each in files if not each.images[0].is_file()]
        if missing and options.get("on_error", "stop") == "stop":
            where = ", ".join(map(str, missing[0].targets.values()))
            raise FileNotFoundError(f"{where}: the photo {missing[0].images[0]} is missing")
        drawn = [self.has_shapes(each) for each in files]
        empty = [each for each, has in zip(files, drawn, strict=True) if not has]
        if empty:
            kept = "background" if outside != IGNORE else "ignored"
            done = f"{kept} everywhere; on_unlabelled='skip' (--skip-unlabelled) leaves them out"
            done = "left out" if on_unlabelled == "skip" else done
            some = listing([str(each.images[0]) for each in empty])
            warn(f"{len(empty)} photos do not have annotations and are {done}: {some}")
        if on_unlabelled == "skip":
            files = [each for each, has in zip(files, drawn, strict=True) if has]
        super().__init__(files, {"segmentation": task}, **options)
        if on_unlabelled == "skip":
            self.skipped += [f"{each.images[0]}: no annotations" for each in empty]

    def has_shapes(self, files: Files) -> bool:
        """Whether a photo has any shapes."""
        raise NotImplementedError

    def stated_size(self, files: Files) -> tuple[int, int] | None:
        """Height and width that the annotations state of a photo; None if they do not."""
        return None

    def shapes(self, files: Files, size: tuple[int, int]) -> Iterator[Shape]:
        """Yields the shapes of a photo; raises a ValueError that names file and annotation if one is wrong."""
        raise NotImplementedError

    def read_target(self, name: str, path: Path, files: Files) -> Tensor:
        """Draws the label map of a photo, uint8 [H, W].

        Raises:
            ValueError: the annotations were made for a photo of another size, or one of them is wrong.
        """
        stated, size = self.stated_size(files), photo_size(files.images[0])
        if stated is not None and stated != size:
            raise ValueError(f"{path} is {stated} and {files.images[0]} is {size} (height, width)")
        labels = np.full(size, self.outside, np.uint8)
        rank = np.full(size, math.inf)  # the lower lies on top
        for i, shape in enumerate(self.shapes(files, size)):
            mask, top, left = shape.region
            place = slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1])
            own = (-i if self.later_on_top else int(mask.sum())) + (labels.size if shape.below else 0)
            on_top = mask & (own <= rank[place])
            labels[place][on_top], rank[place][on_top] = shape.label, own
        return tv_tensors.Mask(torch.from_numpy(labels))


def with_background(names: Sequence[str], background: bool, where: str) -> tuple[Task, dict[str, int], int]:
    """Returns the task of classes with these names, their class ids, and the id of pixels outside of all shapes.

    Args:
        names: Names in the order of the ids.
        background: Whether pixels outside of all shapes are class 0, "background", or ignored. A class of that name is
            moved there.
        where: Where the names stand, for error messages.

    Raises:
        ValueError: names that occur twice, none, or more than 255.
    """
    if not isinstance(background, bool):
        raise ValueError(f"background is True or False, got {background!r}")
    if not names:
        raise ValueError(f"{where} has no classes")
    lower = {name: name.lower().strip("_") for name in names}
    front = [name for name in names if lower[name] == BACKGROUND][:1] or [BACKGROUND] if background else []
    ordered = [*front, *(name for name in names if name not in front)]
    twice = sorted({name for name in ordered if ordered.count(name) > 1})
    if twice:
        raise ValueError(f"{where} has several classes named {', '.join(map(repr, twice))}")
    if len(ordered) > IGNORE:
        raise ValueError(f"{where} has {len(ordered)} classes; there are 1 to {IGNORE}, since {IGNORE} means ignored")
    colors = distinct_palette(len(ordered))
    palette = ((0, 0, 0), *colors[:-1]) if background else colors
    task = Task("segmentation", len(ordered), classes=tuple(ordered), palette=palette)
    return task, {name: i for i, name in enumerate(ordered)}, 0 if background else IGNORE


def listed(classes: Sequence[str] | None, path: Path, background: bool) -> tuple[Task, list[int], int]:
    """`with_background` of the classes that an argument or a file lists; returns their ids in the order of the list."""
    found = find_classes(classes, path)
    names = found.task.classes[-found.task.channels :]  # a single class is listed without its background
    task, ids, outside = with_background(names, background, "classes")
    if found.colors:
        colors = dict(zip(found.task.classes, found.task.palette, strict=True))
        task = replace(task, palette=tuple(colors.get(name, (0, 0, 0)) for name in task.classes))
    return task, [ids[name] for name in names], outside


def polygons(parts: Any, size: tuple[int, int], where: str) -> Region:
    """Draws polygons as COCO's API does: the pixels whose centres lie in one of them, by the even-odd rule.

    Args:
        parts: Per polygon, x and y of the corners in turn, in pixels from the picture's upper left corner.
        size: Height and width of the picture.
        where: The file and the annotation, for error messages.

    Raises:
        ValueError: no polygons, or one that is not a list of at least three pairs of numbers or that leaves the
            picture by more than a pixel, or outlines of millions of pixels.
    """
    outlines = all_corners(parts, size, where)
    length = sum(float(np.abs(each - np.roll(each, -1, axis=0)).max(axis=1).sum()) for each in outlines)
    if length > LONGEST:
        raise ValueError(f"{where}: its outlines are {length:.0f} pixels long, and at most {LONGEST:.0f} are drawn")
    crossings = [_crossings(each) for each in outlines]
    everything = np.concatenate(crossings, axis=1)
    everything = everything[:, (everything[0] >= 0) & (everything[0] < size[1])]
    if not everything.size:
        return Region(np.zeros((0, 0), bool), 0, 0)
    left, top = everything.min(axis=1).clip(0).tolist()
    right, bottom = everything[0].max().item() + 1, max(top, everything[1].max().clip(max=size[0]).item())
    mask = np.zeros((bottom - top, right - left), bool)
    for columns, rows in crossings:
        mask |= _filled(columns - left, rows - top, mask.shape)
    return Region(mask, top, left)


def all_corners(parts: Any, size: tuple[int, int], where: str) -> list[np.ndarray]:
    """The corners [N, 2] of polygons; raises the errors of `polygons`, without drawing."""
    if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
        raise ValueError(f"{where} has no polygons; a box alone does not say which pixels belong to the object")
    return [_corners(points, size, where) for points in parts]


def _crossings(corners: np.ndarray) -> np.ndarray:
    """Columns and rows [2, N] where the outline crosses the centre of a column: above the row is one side of it.

    As `rleFrPoly` of COCO's API (BSD-2-Clause, Dollar and Lin), which draws edges on a grid of fifths of a pixel.
    """
    start = (5 * corners + 0.5).astype(np.int64)
    end = np.roll(start, -1, axis=0)
    wide = np.abs(end - start) @ (1, -1) >= 0
    along = np.where(wide, 0, 1)[:, None]  # the longer side of each edge, along which it is drawn
    turned = np.take_along_axis(start, along, 1) > np.take_along_axis(end, along, 1)
    start, end = np.where(turned, end, start), np.where(turned, start, end)
    lengths = np.take_along_axis(end - start, along, 1)[:, 0]
    slopes = np.take_along_axis(end - start, 1 - along, 1)[:, 0] / np.maximum(lengths, 1)
    edge = np.repeat(np.arange(len(lengths)), lengths + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(lengths + 1) - lengths - 1, lengths + 1)
    x, y = start[edge].T
    columns = np.where(wide[edge], x + step, (x + slopes[edge] * step + 0.5).astype(np.int64))
    rows = np.where(wide[edge], (y + slopes[edge] * step + 0.5).astype(np.int64), y + step)
    changes = np.flatnonzero((columns[1:] != columns[:-1]) & (edge[1:] == edge[:-1]))
    left = np.minimum(columns[changes], columns[changes + 1])
    top = np.minimum(rows[changes], rows[changes + 1])[left % 5 == 2]
    return np.stack([left[left % 5 == 2] // 5, np.ceil((top + 0.5) / 5 - 0.5).astype(np.int64)])


def _filled(columns: np.ndarray, rows: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The pixels inside of an outline, bool [h, w]: each crossing changes the rest of its column."""
    height, width = size
    inside = (columns >= 0) & (columns < width)
    changes = columns[inside] * height + rows[inside].clip(0, height)
    counts = np.bincount(changes, minlength=width * height + 1)[: width * height]
    return (np.cumsum(counts) % 2 == 1).reshape(width, height).T


def _corners(points: Any, size: tuple[int, int], where: str) -> np.ndarray:
    numbers = isinstance(points, Sequence) and all(type(value) in (int, float) for value in points)
    if not numbers or len(points) % 2 or len(points) < 6:
        count = f"{len(points)} values" if isinstance(points, Sequence) else repr(points)
        raise ValueError(f"{where}: a polygon is a list of at least three pairs x, y of numbers, got {count}")
    corners = np.array([min(max(value, -1e9), 1e9) for value in points], np.float64).reshape(-1, 2)
    limits = np.array(size[::-1])
    if not ((corners >= -TOLERANCE) & (corners <= limits + TOLERANCE)).all():
        far = corners[((corners < -TOLERANCE) | (corners > limits + TOLERANCE) | np.isnan(corners)).any(1)][0].tolist()
        raise ValueError(f"{where}: the point {far} is outside of the picture of {size[1]} x {size[0]} pixels")
    return corners


def run_lengths(segmentation: Mapping[str, Any], size: tuple[int, int], where: str) -> Region:
    """Decodes run lengths of COCO, a list of numbers or compressed text, column by column.

    Raises:
        ValueError: no counts, another size than the picture's, or counts that do not fill it.
    """
    counts, stated = segmentation.get("counts"), segmentation.get("size")
    if stated is not None and stated != list(size):
        raise ValueError(f"{where}: its run lengths are for the size {stated}, and the picture is {list(size)}")
    if isinstance(counts, str):
        counts = _decompressed(counts, where)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"{where}: run lengths are a list of numbers or text, got {counts!r:.60}")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"{where}: its run lengths fill {sum(counts)} pixels, and the picture has {size[0] * size[1]}")
    inside = np.arange(len(counts)) % 2 == 1
    return Region(np.repeat(inside, counts).reshape(size[1], size[0]).T, 0, 0)


def _decompressed(text: str, where: str) -> list[int]:
    """The numbers of COCO's compressed run lengths: 5 bit per character, differences to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"{where}: {character!r} does not occur in compressed run lengths")
        value |= (code & 31) << shift
        shift += 5
        if shift > 60:  # no picture has so many pixels
            raise ValueError(f"{where}: a number of its compressed run lengths has more than 60 bit")
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError(f"{where}: its compressed run lengths end within a number")
    return counts
