"""Your own images and masks: two folders and a list of classes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgeseg.data.base import Files, LabelledImages, require
from edgeseg.labels import generic_palette
from edgeseg.spec import Task

LAYOUT = """\
  {root}/classes.txt             one class a line, in the order of their ids; "name" or "name R G B"
  {root}/images/<split>/*        photos, in folders of any depth
  {root}/masks/<split>/*.png     class ids (255: nothing) at the same place, under the same name"""

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


class ImagesMasks(LabelledImages):
    """Photos and label maps in parallel folders.

    Args:
        root: Folder with classes.txt, images and masks.
        split: Name of the folder below images and masks.
        options: `on_error`, see `LabelledImages`.

    Raises:
        FileNotFoundError: the layout is not there, or a mask is missing; prints it.
        ValueError: a line of classes.txt that is none.
    """

    def __init__(self, root: str | os.PathLike[str], split: str = "train", **options: Any) -> None:
        folder = Path(root)
        images, masks = folder / "images" / split, folder / "masks" / split
        require([folder / "classes.txt", images, masks], LAYOUT, folder)
        found = sorted(path for path in images.rglob("*") if path.suffix.lower() in SUFFIXES)
        targets = [(masks / path.relative_to(images)).with_suffix(".png") for path in found]
        require(targets, LAYOUT, folder)
        files = [Files((image,), {"segmentation": mask}) for image, mask in zip(found, targets, strict=True)]
        super().__init__(files, {"segmentation": read_classes(folder / "classes.txt")}, **options)


def read_classes(path: Path) -> Task:
    """The task of a classes file.

    Raises:
        ValueError: names the line that is no class.
    """
    names, colors = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        color = words[-3:] if len(words) > 3 and all(word.isdigit() for word in words[-3:]) else []
        if any(int(value) > 255 for value in color):
            raise ValueError(f"{path}, line {number}: {line!r} has a colour beyond 0 to 255")
        names.append(" ".join(words[: len(words) - len(color)]))
        colors.append(tuple(int(value) for value in color))
    if not names:
        raise ValueError(f"{path} has no class")
    fallback = generic_palette(len(names))
    palette = tuple((c[0], c[1], c[2]) if c else fallback[i] for i, c in enumerate(colors))
    return Task("segmentation", len(names), classes=tuple(names), palette=palette)
