"""ADE20K scene parsing (Zhou et al., 2017): 20210 photos of places for training, 2000 for validation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor

from edgeseg.data.base import Files, LabelledImages, check_split, require
from edgeseg.data.classes import read_text
from edgeseg.labels import generic_palette, segmentation_task
from edgeseg.spec import Task
from edgeseg.vision.listing import by_stem, list_files, photo_suffixes

LAYOUT = """\
  {root}/images/{{training,validation}}/*.jpg
  {root}/annotations/{{training,validation}}/*.png     class ids: 0 other, 1 to 150 objects
  {root}/objectInfo150.txt                           names of the 151 classes"""

FOLDERS = {"train": "training", "val": "validation"}
CLASS_WEIGHTS_32 = (
    0.161, 0.198, 0.292, 0.356, 0.503, 0.651, 0.694, 0.785, 1.353, 1.578, 1.708, 1.727, 1.883, 1.953, 2.07, 2.648,
    2.841, 2.867, 3.005, 3.005, 3.034, 3.189, 4.223, 4.664, 4.808, 5.123, 5.208, 5.896, 6.01, 6.793, 7.102, 7.102,
)  # fmt: skip


class ADE20K(LabelledImages):
    """Photos and label maps. No pixel is ignored: class 0, "other", includes all labels beyond the classes.

    Args:
        root: Folder ADEChallengeData2016.
        split: "train" or "val".
        classes: Number of classes: 151 for all, 32 as in TI's zoo (after MLPerf).
        options: `channels` and `on_error`, see `LabelledImages`.

    Raises:
        FileNotFoundError: a folder is missing; prints the layout.
        ValueError: an unknown split, or two photos of the same name.
    """

    splits = ("train", "val")

    def __init__(
        self, root: str | os.PathLike[str], split: str = "train", *, classes: int = 151, **options: Any
    ) -> None:
        check_split("ADE20K", split, self.splits)
        if not isinstance(classes, int) or not 1 <= classes <= 151:
            raise ValueError(f"classes of ADE20K must be how many there are, 1 to 151, got {classes!r}")
        folder = Path(root)
        images, labels = (folder / kind / FOLDERS[split] for kind in ("images", "annotations"))
        require([images, labels], LAYOUT, folder)
        photos = list_files(images, photo_suffixes(options.get("channels", 3)), recursive=False)
        files = [
            Files((photo,), {"segmentation": labels / f"{stem}.png"}) for stem, photo in by_stem(photos, images).items()
        ]
        if classes == 32:
            task, self.class_weights = segmentation_task("ade20k32"), CLASS_WEIGHTS_32
        else:
            task = Task("segmentation", classes, classes=_names(folder, classes), palette=generic_palette(classes))
        super().__init__(files, {"segmentation": task}, **options)

    def to_classes(self, name: str, labels: Tensor) -> Tensor:
        """Maps labels beyond the classes to "other"."""
        return labels.masked_fill(labels >= self.tasks[name].channels, 0)


def _names(root: Path, classes: int) -> tuple[str, ...]:
    """Reads the class names from the last column of the dataset's own table; none if there is no table."""
    table = root / "objectInfo150.txt"
    if not table.is_file():
        return ()
    rows = [line.split("\t") for line in read_text(table).splitlines()[1:] if line.strip()]
    return ("other", *(row[-1].split(",")[0].strip() for row in rows))[:classes]
