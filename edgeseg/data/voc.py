"""Pascal VOC 2012 (Everingham et al., 2015) with the further masks of SBD (Hariharan et al., 2011)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgeseg.data.base import Files, LabelledImages, check_split, require
from edgeseg.labels import segmentation_task

LAYOUT = """\
  {root}/VOCdevkit/VOC2012/JPEGImages/*.jpg
  {root}/VOCdevkit/VOC2012/SegmentationClass/*.png       masks of VOC itself: train, val, trainval
  {root}/VOCdevkit/VOC2012/SegmentationClassAug/*.png    with SBD's: trainaug, trainaug_noval
  {root}/VOCdevkit/VOC2012/ImageSets/Segmentation/<split>.txt"""


class VOC(LabelledImages):
    """Photos and label maps of 21 classes, the borders of objects ignored.

    Args:
        root: Folder with VOCdevkit, or VOC2012 itself.
        split: "train", "val", "trainval", or with SBD's masks "trainaug" (has images of val) and "trainaug_noval".
        download: Fetch VOC 2012 (2 GB; not SBD's masks) into `root` where it is not there.
        options: `on_error`, see `LabelledImages`.

    Raises:
        FileNotFoundError: the layout is not there; prints it.
        ValueError: unknown split.
    """

    splits = ("train", "val", "trainval", "trainaug", "trainaug_noval")

    def __init__(
        self, root: str | os.PathLike[str], split: str = "trainaug_noval", *, download: bool = False, **options: Any
    ) -> None:
        check_split("VOC", split, self.splits)
        folder = Path(root)
        inner = folder / "VOCdevkit/VOC2012"
        base = folder if (folder / "JPEGImages").is_dir() else inner
        if download and not base.is_dir():
            from torchvision.datasets import VOCSegmentation

            VOCSegmentation(folder, year="2012", download=True)
        masks = base / ("SegmentationClassAug" if "aug" in split else "SegmentationClass")
        if not masks.is_dir() and "aug" not in split:
            masks = base / "SegmentationClassAug"
        listing = base / f"ImageSets/Segmentation/{split}.txt"
        require([listing, masks], LAYOUT, folder)
        # SBD's lists have paths, VOC's have names.
        names = [Path(line.split()[0]).stem for line in listing.read_text().splitlines() if line.strip()]
        files = [Files((base / f"JPEGImages/{name}.jpg",), {"segmentation": masks / f"{name}.png"}) for name in names]
        super().__init__(files, {"segmentation": segmentation_task("voc")}, **options)
