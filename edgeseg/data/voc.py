"""Pascal VOC 2012 (Everingham et al., 2015) with the additional masks of SBD (Hariharan et al., 2011)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from edgeseg.data.base import Files, LabelledImages, check_split, require
from edgeseg.data.classes import read_text
from edgeseg.labels import segmentation_task

INNER = "VOCdevkit/VOC2012"
LAYOUT = """\
  {root}/VOCdevkit/VOC2012/JPEGImages/*.jpg
  {root}/VOCdevkit/VOC2012/SegmentationClass/*.png       VOC's own masks: train, val, trainval
  {root}/VOCdevkit/VOC2012/SegmentationClassAug/*.png    with SBD's masks: trainaug, trainaug_noval
  {root}/VOCdevkit/VOC2012/ImageSets/Segmentation/<split>.txt"""


class VOC(LabelledImages):
    """Photos and label maps of 21 classes; the borders of objects are ignored.

    Args:
        root: Folder with VOCdevkit, or VOC2012 itself.
        split: "train", "val", "trainval", or with SBD's masks "trainaug" (includes images of val) or "trainaug_noval".
        download: Download VOC 2012 (2 GB, without SBD's masks) into `root` if it is missing.
        options: `channels` and `on_error`, see `LabelledImages`.

    Raises:
        FileNotFoundError: a list or the masks are missing; prints the layout.
        ValueError: an unknown split, or a folder in this layout of other classes.
    """

    splits = ("train", "val", "trainval", "trainaug", "trainaug_noval")

    def __init__(
        self, root: str | os.PathLike[str], split: str = "trainaug_noval", *, download: bool = False, **options: Any
    ) -> None:
        check_split("VOC", split, self.splits)
        folder = Path(root)
        base = folder if (folder / "JPEGImages").is_dir() else folder / INNER
        if download and not base.is_dir():
            _download(folder)
        masks = base / ("SegmentationClassAug" if "aug" in split else "SegmentationClass")
        if not masks.is_dir() and "aug" not in split:
            masks = base / "SegmentationClassAug"
        listing = base / f"ImageSets/Segmentation/{split}.txt"
        require([listing, masks], LAYOUT, folder)
        _require_own_classes(base)
        # The lines of SBD's lists are paths, those of VOC's lists are names.
        names = [Path(line.split()[0]).stem for line in read_text(listing).splitlines() if line.strip()]
        files = [Files((base / f"JPEGImages/{name}.jpg",), {"segmentation": masks / f"{name}.png"}) for name in names]
        super().__init__(files, {"segmentation": segmentation_task("voc")}, **options)


def _require_own_classes(base: Path) -> None:
    """Raises a ValueError for a folder in VOC's layout of other classes, as annotation tools export it."""
    table = base / "labelmap.txt"  # of CVAT: name:color:parts:actions
    if not table.is_file():
        return
    lines = (line.strip() for line in read_text(table).splitlines())
    known = {*segmentation_task("voc").classes, "void", "ambiguous"}
    others = [name for name in (line.split(":")[0] for line in lines if line and line[0] != "#") if name not in known]
    if others:
        raise ValueError(
            f"{table} has classes that VOC lacks ({', '.join(others[:4])}); read the folders by images_masks, with "
            "classes (--classes) in the order of their ids"
        )


def _download(root: Path) -> None:
    """Downloads VOC 2012 and unpacks it into the folder `root`, one process at a time; it appears there whole."""
    from filelock import FileLock
    from torchvision.datasets import VOCSegmentation

    root.mkdir(parents=True, exist_ok=True)
    temporary = root / ".unpacking"
    with FileLock(root / ".unpacking.lock"):
        if (root / INNER).is_dir():  # another process was first
            return
        VOCSegmentation(temporary, year="2012", download=True)
        (root / INNER).parent.mkdir(exist_ok=True)
        (temporary / INNER).replace(root / INNER)
        shutil.rmtree(temporary)
