"""Your own images and masks: two folders and a list of classes."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from edgeseg.data.base import Files, LabelledImages, require
from edgeseg.data.classes import class_file, find_classes
from edgeseg.data.splits import check_undivided, part
from edgeseg.labels import IGNORE
from edgeseg.vision.listing import PHOTO_SUFFIXES, by_stem, list_files, photo_suffixes, real
from edgeseg.vision.masks import read_mask

LAYOUT = """\
  {root}/classes.txt             one class per line, in the order of the ids: "name" or "name R G B"
  {root}/images/<split>/*        photos, in folders of any depth
  {root}/masks/<split>/*.png     class ids (255: ignored) in the same folder and under the same name as the photo
Other names are options: classes (--classes), images (--image-dir), masks (--mask-dir), image_suffix (--image-suffix),
mask_suffix (--mask-suffix); val_fraction (--val-fraction) divides folders without <split>."""

Values = Mapping[int, int] | Sequence[int] | Sequence[str] | str


class ImagesMasks(LabelledImages):
    """Photos and label maps in parallel folders.

    Args:
        root: Folder with classes.txt, images and masks.
        split: Name of the folder below images and masks; "train" or "val" with `val_fraction`.
        images: Folder of the photos, below `root` or absolute. "{split}" in it stands for the split, which is else the
            name of a folder in it.
        masks: Folder of the masks, in the same way.
        image_suffix: Ending of the photos' names: "_image.jpg" pairs `0_image.jpg` with `0.png`, and leaves out files
            with another ending. By default the suffix of any photo.
        mask_suffix: Ending of the masks' names, which takes the place of the photos' suffix: "_mask.png" pairs
            `0.jpg` with `0_mask.png`. Upper and lower case are alike.
        mask_values: What the values of gray or palette masks mean, if they are not class ids: the value of each class
            in order, such as `(0, 255)`, or class ids by values, such as `{0: 0, 128: 255, 255: 1}` or
            "0:0,128:255,255:1" with 255 for ignored pixels. Values that are not listed are an error, except 255.
        classes: Names of the classes, each as a line of classes.txt, instead of that file.
        val_fraction: Share of the photos that become the split "val" by a hash of their names, for folders without
            folders of splits.
        on_unlabelled: What to do about photos without a mask: "stop" raises an error, "skip" leaves them out and warns
            with their number and names.
        options: `channels` and `on_error`, see `LabelledImages`.

    Colour masks are decoded by the colours of classes.txt, which must all be different.

    Raises:
        FileNotFoundError: a folder, the classes or a mask is missing; prints the layout.
        ValueError: two photos or two masks have the same name, an invalid line of classes.txt, masks that hold nothing
            but the values 0 and 255 while `mask_values` does not say what they mean, or an invalid option.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        *,
        images: str | os.PathLike[str] = "images",
        masks: str | os.PathLike[str] = "masks",
        image_suffix: str | None = None,
        mask_suffix: str = ".png",
        mask_values: Values | None = None,
        classes: Sequence[str] | None = None,
        val_fraction: float | None = None,
        on_unlabelled: Literal["stop", "skip"] = "stop",
        **options: Any,
    ) -> None:
        if on_unlabelled not in ("stop", "skip"):
            raise ValueError(f"on_unlabelled is 'stop' or 'skip', got {on_unlabelled!r}")
        _check_suffix("mask_suffix", mask_suffix, "_mask.png", PHOTO_SUFFIXES)
        folder = Path(root)
        self.image_folder = _split_folder(folder, images, split, val_fraction)
        self.mask_folder = _split_folder(folder, masks, split, val_fraction)
        every = os.fspath(masks) if "{split}" in os.fspath(masks) else os.path.join(masks, "{split}")
        self.every_split = "*".join(glob.escape(part) for part in os.fspath(folder / every).split("{split}"))
        self.mask_suffix = mask_suffix
        require([] if classes is not None else [class_file(folder)], LAYOUT, folder)
        self.classes = find_classes(classes, class_file(folder))
        self.values = None if mask_values is None else _values(mask_values, self.classes.task.class_count)
        photos = self._photos(image_suffix, mask_suffix, options.get("channels", 3))
        if val_fraction is not None:
            items = [(Path(stem).as_posix(), (stem, photo)) for stem, photo in photos.items()]
            photos = dict(part(items, split, val_fraction))
        known = by_stem(
            _ending(list_files(self.mask_folder, PHOTO_SUFFIXES), mask_suffix), self.mask_folder, mask_suffix
        )
        missing = [stem for stem in photos if stem not in known]
        if on_unlabelled == "stop":
            require([self.mask_folder / f"{stem}{mask_suffix}" for stem in missing], LAYOUT, folder)
        files = [Files((photo,), {"segmentation": known[stem]}) for stem, photo in photos.items() if stem in known]
        unlabelled = [f"{photos[stem]}: no mask {self.mask_folder / stem}{mask_suffix}" for stem in missing]
        self._warn("masks are missing", unlabelled)
        super().__init__(files, {"segmentation": self.classes.task}, **options)
        self.skipped += unlabelled
        self._check_meaning()

    def _photos(self, suffix: str | None, mask_suffix: str, channels: int) -> dict[str, Path]:
        """The photos by their names without suffix."""
        inside = real(self.image_folder) in real(self.mask_folder).parents
        suffixes = photo_suffixes(channels)
        photos = list_files(self.image_folder, suffixes, without=self.mask_folder if inside else None)
        if suffix is not None:
            _check_suffix("image_suffix", suffix, "_image.jpg", suffixes)
            photos = _ending(photos, suffix)
        if real(self.image_folder) == real(self.mask_folder):
            masks = set(_ending(photos, mask_suffix))
            if masks == set(photos):
                raise ValueError(
                    f"{self.image_folder} is the folder of photos and of masks, and all files end with {mask_suffix}; "
                    "say how the names of photos and masks end: image_suffix and mask_suffix (--image-suffix, "
                    "--mask-suffix)"
                )
            photos = [path for path in photos if path not in masks]
        if not photos:
            ending = f" whose names end with {suffix}" if suffix else ""
            raise ValueError(f"{type(self).__name__} has no samples here: {self.image_folder} has no photos{ending}")
        return by_stem(photos, self.image_folder, suffix or "")

    def _check_meaning(self) -> None:
        """Says what 255 means where no mask has another value than 0 and 255.

        With one class, 255 is that class. With several classes it would be ignored, and 0 all there is: a ValueError.
        """
        found: set[int] = set()
        own = [files.targets["segmentation"] for files in self.files]
        # A single class has the same value in all splits.
        others = self._other_masks() if self.classes.task.channels == 1 else ()
        for path in itertools.chain(own, others) if self.values is None else ():
            with contextlib.suppress(OSError, ValueError):  # named when it is read
                found.update(np.unique(read_mask(path, self.classes.colors)).tolist())
            if not found <= {0, IGNORE}:
                return
        if found == {0, IGNORE} and self.classes.task.channels == 1:
            self.values = {0: 0, IGNORE: 1}
        elif found == {0, IGNORE}:
            names = ", ".join(self.classes.task.classes)
            pairs = " ".join(f"{i}:{i}" for i in [*range(self.classes.task.class_count), IGNORE])
            raise ValueError(
                f"the masks in {self.mask_folder} have no values but 0 and 255, and 255 means ignored; if 255 is the "
                f"second class of {names}, pass mask_values=(0, 255) (--mask-values 0 255); if it does mean ignored, "
                f"pass mask_values={pairs!r} (--mask-values {pairs})"
            )

    def _other_masks(self) -> Iterator[Path]:
        """The masks of the other splits, and of a folder that val_fraction divides."""
        folders = {self.mask_folder, *map(Path, glob.glob(self.every_split))} - {self.image_folder}
        for folder in sorted(folder for folder in folders if folder.is_dir()):
            yield from _ending(list_files(folder, PHOTO_SUFFIXES), self.mask_suffix)

    def read_target(self, name: str, path: Path, files: Files) -> Tensor:
        """Reads a mask of class ids, of other values or of colours."""
        try:
            return super().read_target(name, path, files)
        except ValueError as error:
            if "has ids" not in str(error):
                raise
            raise ValueError(
                f"{error}; other values are declared by mask_values (--mask-values){_hint(path)}"
            ) from error

    def read_labels(self, path: Path) -> Tensor:
        """Reads a mask, and replaces its values by class ids."""
        labels = read_mask(path, self.classes.colors)
        if self.values is None:
            return torch.from_numpy(labels)
        wrong = [value for value in np.unique(labels).tolist() if value not in self.values]
        if wrong:
            raise ValueError(f"{path} has values {wrong} that mask_values (--mask-values) does not list{_hint(path)}")
        result = np.full(labels.shape, IGNORE, np.uint8)
        for value, label in self.values.items():
            result[labels == value] = label
        return torch.from_numpy(result)


def _split_folder(root: Path, place: str | os.PathLike[str], split: str, fraction: float | None) -> Path:
    """The folder of a split; raises a FileNotFoundError if it is missing."""
    parent = root / os.fspath(place).replace("{split}", split)
    if fraction is not None or "{split}" in os.fspath(place):
        require([parent], LAYOUT, root)
        if fraction is not None:
            check_undivided(parent, split)
        return parent
    if parent.is_dir() and not (parent / split).is_dir():
        folders = sorted(path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
        raise FileNotFoundError(
            f"{parent / split} is missing; the folders beside it are {folders}, and val_fraction=0.2 "
            "(--val-fraction 0.2) divides photos without folders of splits into train and val; expected\n"
            f"{LAYOUT.format(root=root)}"
        )
    require([parent / split], LAYOUT, root)
    return parent / split


def _check_suffix(name: str, suffix: str, example: str, suffixes: frozenset[str]) -> None:
    if not isinstance(suffix, str) or not suffix.lower().endswith(tuple(suffixes)):
        raise ValueError(f"{name} is the ending of an image file, such as {example!r}, got {suffix!r}")


def _ending(files: Sequence[Path], suffix: str) -> list[Path]:
    return [path for path in files if path.name.lower().endswith(suffix.lower())]


def _hint(path: Path) -> str:
    return "; JPEG changes values, save masks as PNG" if path.suffix.lower() in (".jpg", ".jpeg") else ""


def _values(given: Values, classes: int) -> dict[int, int]:
    """The ids of classes by the values of masks."""
    problem = f"mask_values (--mask-values) is one value per class such as 0 255, or VALUE:CLASS pairs, got {given!r}"
    try:
        if isinstance(given, Mapping):
            pairs = [(int(str(value)), int(str(label))) for value, label in given.items()]
        else:
            words = given.replace(",", " ").split() if isinstance(given, str) else [str(word) for word in given]
            split = [word.partition(":") for word in words]
            if len({bool(colon) for _, colon, _ in split}) != 1:
                raise ValueError(problem)
            pairs = [(int(value), int(label) if colon else i) for i, (value, colon, label) in enumerate(split)]
    except (TypeError, ValueError) as error:
        raise ValueError(problem) from error
    values = dict(pairs)
    wrong = sorted({label for label in values.values() if not (0 <= label < classes or label == IGNORE)})
    if len(values) < len(pairs):
        raise ValueError(f"{problem}: a value stands twice")
    if wrong:
        raise ValueError(
            f"mask_values (--mask-values) has class ids {wrong}; there are {classes} classes, and {IGNORE}"
        )
    missing = sorted(set(range(classes)) - set(values.values()))
    if missing:
        raise ValueError(f"mask_values (--mask-values) has no value for the classes {missing}")
    return {IGNORE: IGNORE, **values}
