"""The JSON files of labelme: one beside each photo."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeseg.data.base import Files, listing, require, split_readable
from edgeseg.data.classes import IGNORED, class_file
from edgeseg.data.coco_json import read_json
from edgeseg.data.shapes import LabelledShapes, Shape, listed, polygons
from edgeseg.data.splits import SPELLINGS, check_undivided, part
from edgeseg.labels import IGNORE
from edgeseg.vision.listing import PHOTO_SUFFIXES, list_files, real

LAYOUT = """\
  {root}/<split>/*.json    beside the photos, in folders of any depth; "valid" may stand for "val"
  {root}/classes.txt       one class per line (labelme's labels.txt), or classes (--classes)
val_fraction (--val-fraction) divides {root} without <split>"""
RECTANGLE = {"rectangle": (2, 4)}  # numbers of points: two opposite corners, or all four


class LabelMe(LabelledShapes):
    """Photos, and label maps that are drawn from labelme's polygons and rectangles.

    Later shapes lie on top, as labelme draws them. The label `__ignore__` means ignored pixels. Photos without a JSON
    are not part of the dataset.

    Args:
        root: Folder with classes.txt or labels.txt, and a folder per split.
        split: Name of the folder with the photos and their JSON files; "train" or "val" with `val_fraction`.
        classes: Names of the classes, instead of that file.
        background: Make pixels outside of all shapes class 0; otherwise they are ignored.
        val_fraction: Share of the photos that become the split "val" by a hash of their names.
        options: `channels`, `on_error` and `on_unlabelled`, see `CocoJson`.

    Raises:
        FileNotFoundError: a folder, a photo or the classes are missing; prints the layout.
        ValueError: a JSON is damaged, or has a label that is not a class; names the file.
    """

    later_on_top = True

    def __init__(
        self, root: str | os.PathLike[str], split: str = "train", *, classes: Sequence[str] | None = None,
        background: bool = True, val_fraction: float | None = None, **options: Any,
    ) -> None:  # fmt: skip
        folder = Path(root)
        places = [folder / name for name in SPELLINGS.get(split, (split,))] if val_fraction is None else [folder]
        place = next((each for each in places if each.is_dir()), places[0])
        require([place, *([class_file(folder)] if classes is None else [])], LAYOUT, folder)
        if val_fraction is not None:
            check_undivided(place, split)
        task, labels, outside = listed(classes, class_file(folder), background)
        self.labels = {task.classes[label]: label for label in labels} | {IGNORED: IGNORE}
        self.content: dict[Path, dict[str, Any]] = {}

        def read(path: Path) -> None:
            self.content[path] = _content(path)

        _, wrong = split_readable(list_files(place, {".json"}), read)
        if wrong and options.get("on_error", "stop") == "stop":
            raise ValueError(listing(wrong))
        items = [
            (path.relative_to(place).as_posix(), Files((_photo(path, content),), {"segmentation": path}))
            for path, content in self.content.items()
        ]
        photos = Counter(real(each.images[0]) for _, each in items)
        twice = [photo for photo, count in photos.items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]} is the photo of several JSON files in {place}")
        files = [each for _, each in items] if val_fraction is None else part(items, split, val_fraction)
        super().__init__(files, task, outside, **options)
        self._warn("JSON files cannot be read", wrong)
        self.skipped += wrong

    def has_shapes(self, files: Files) -> bool:
        """Whether the JSON has shapes."""
        return bool(self.content[files.targets["segmentation"]]["shapes"])

    def stated_size(self, files: Files) -> tuple[int, int] | None:
        """Height and width that the JSON states; None if it does not."""
        stated: tuple[Any, Any] = self.content[files.targets["segmentation"]]["size"]
        return None if None in stated else stated

    def shapes(self, files: Files, size: tuple[int, int]) -> Iterator[Shape]:
        """Yields the shapes of a photo."""
        path = files.targets["segmentation"]
        for number, each in enumerate(self.content[path]["shapes"], start=1):
            where = f"{path}: shape {number}"
            label = str(each.get("label"))
            if label not in self.labels:
                raise ValueError(f"{where} has the label {label!r}, which is not a class: {list(self.labels)}")
            yield Shape(self.labels[label], polygons([_outline(each, where)], size, where))


def _content(path: Path) -> dict[str, Any]:
    """What is read of a JSON, without the photo in it."""
    content = read_json(path)
    shapes = content.get("shapes")
    if not isinstance(shapes, list) or not all(isinstance(each, dict) for each in shapes):
        raise ValueError(f"{path} has no list of shapes, so it is not a file of labelme")
    size = content.get("imageHeight"), content.get("imageWidth")
    return {"shapes": shapes, "imagePath": content.get("imagePath", ""), "size": size}


def _photo(path: Path, content: dict[str, Any]) -> Path:
    """The photo that a JSON names, or the one beside it with its name; a ValueError if these are two."""
    named = path.parent / str(content["imagePath"]).replace("\\", "/")
    beside = [each for each in path.parent.glob(f"{glob.escape(path.stem)}.*") if each.suffix.lower() in PHOTO_SUFFIXES]
    if not named.is_file():
        return beside[0] if beside else named
    if beside and not any(each.samefile(named) for each in beside):
        raise ValueError(f"{path} has the imagePath {content['imagePath']!r}, and the photo {beside[0]} lies beside it")
    return named


def _outline(each: dict[str, Any], where: str) -> list[float]:
    """x and y of the corners of a shape in turn."""
    kind, points = str(each.get("shape_type", "polygon")), each.get("points")
    pairs = isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)
    count = len(points) if isinstance(points, list) and pairs else 0
    if not isinstance(points, list) or not (count >= 3 if kind == "polygon" else count in RECTANGLE.get(kind, ())):
        raise ValueError(
            f"{where} is a {kind} of the points {points!r:.60}; polygons are read, and rectangles of 2 or 4 points"
        )
    if count == 2:
        (x0, y0), (x1, y1) = points
        return [x0, y0, x1, y0, x1, y1, x0, y1]
    return [value for point in points for value in point]
