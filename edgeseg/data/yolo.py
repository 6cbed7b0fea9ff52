"""Polygons of YOLO: a text file per photo with a line "class x y x y ..." per object, in shares of the picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeseg.data.base import Files, require
from edgeseg.data.classes import class_file
from edgeseg.data.shapes import LabelledShapes, Shape, listed, polygons
from edgeseg.data.splits import SPELLINGS, check_undivided, part
from edgeseg.vision.listing import by_stem, list_files, photo_suffixes

LAYOUT = """\
  {root}/images/<split>/*.jpg and {root}/labels/<split>/*.txt, or {root}/<split>/images and {root}/<split>/labels
  {root}/data.yaml with names, or {root}/classes.txt, or classes (--classes)
"valid" may stand for "val"; val_fraction (--val-fraction) divides {root}/images and {root}/labels"""


class YoloPolygons(LabelledShapes):
    """Photos, and label maps that are drawn from YOLO's polygons. Overlaps are those of `CocoJson`.

    Args:
        root: Folder with the photos, the text files and data.yaml or classes.txt.
        split: Name of the split in names of folders; "train" or "val" with `val_fraction`.
        classes: Names of the classes in the order of their numbers, instead of those files.
        background: Make pixels outside of all polygons class 0; otherwise they are ignored.
        val_fraction: Share of the photos that become the split "val" by a hash of their names.
        options: `channels`, `on_error` and `on_unlabelled`, see `CocoJson`.

    Raises:
        FileNotFoundError: a folder or the classes are missing; prints the layout.
        ValueError: a text file has other lines than polygons; names the file and the line.
    """

    def __init__(
        self, root: str | os.PathLike[str], split: str = "train", *, classes: Sequence[str] | None = None,
        background: bool = True, val_fraction: float | None = None, **options: Any,
    ) -> None:  # fmt: skip
        folder = Path(root)
        forms = [form for name in SPELLINGS.get(split, (split,)) for form in (f"{{}}/{name}", f"{name}/{{}}")]
        form = next((form for form in forms if (folder / form.format("images")).is_dir()), forms[0])
        form = form if val_fraction is None else "{}"
        images, labels = folder / form.format("images"), folder / form.format("labels")
        names = class_file(folder) if class_file(folder).is_file() else folder / "data.yaml"
        require([images, labels, *([names] if classes is None else [])], LAYOUT, folder)
        if val_fraction is not None:
            check_undivided(images, split)
        task, self.labels, outside = listed(classes, names, background)
        photos = by_stem(list_files(images, photo_suffixes(options.get("channels", 3))), images)
        found = {stem: Files((path,), {"segmentation": labels / f"{stem}.txt"}) for stem, path in photos.items()}
        items = [(Path(stem).as_posix(), files) for stem, files in found.items()]
        chosen = list(found.values()) if val_fraction is None else part(items, split, val_fraction)
        super().__init__(chosen, task, outside, **options)

    def has_shapes(self, files: Files) -> bool:
        """Whether there is a text file that is not empty."""
        path = files.targets["segmentation"]
        return path.is_file() and bool(path.read_bytes().strip())

    def shapes(self, files: Files, size: tuple[int, int]) -> Iterator[Shape]:
        """Yields the objects of a photo."""
        path = files.targets["segmentation"]
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if self.has_shapes(files) else []
        for number, line in enumerate(lines, start=1):
            words, where = line.split(), f"{path}, line {number}"
            try:
                label, values = int(words[0]) if words else None, [float(word) for word in words[1:]]
            except ValueError as error:
                raise ValueError(f"{where}: a line is a class id and pairs x y, got {line!r:.60}") from error
            if label is None:
                continue
            if not 0 <= label < len(self.labels):
                raise ValueError(f"{where}: there is no class {label}; there are {len(self.labels)} classes")
            if len(values) == 4:
                raise ValueError(f"{where} is a box; a box does not say which pixels belong to the object")
            points = [value * size[1 - i % 2] for i, value in enumerate(values)]
            yield Shape(self.labels[label], polygons([points], size, where))
