"""COCO 2017 (Lin et al., 2014, https://arxiv.org/abs/1405.0312) in the 21 classes of Pascal VOC."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from edgeseg.data.base import Files, LabelledImages, check_split, require
from edgeseg.labels import IGNORE, segmentation_task

LAYOUT = """\
  {root}/annotations/instances_{{train2017,val2017}}.json
  {root}/images/{{train2017,val2017}}/*.jpg    or {root}/{{train2017,val2017}}/*.jpg"""

# From COCO's category id to the class of Pascal VOC.
CATEGORIES = {
    5: 1, 2: 2, 16: 3, 9: 4, 44: 5, 6: 6, 3: 7, 17: 8, 62: 9, 21: 10, 67: 11, 18: 12, 19: 13, 4: 14, 1: 15, 64: 16,
    20: 17, 63: 18, 7: 19, 72: 20,
}  # fmt: skip
SMALLEST = 1000  # pixels of annotated objects that an image has at least


class COCO21(LabelledImages):
    """Photos, and label maps of 21 classes drawn from the instances; images with hardly any object are left out.

    Needs pycocotools: `pip install edgeseg[coco]`.

    Args:
        root: Folder with annotations and images.
        split: "train" or "val".
        overlap: "ignore" gives pixels of several objects the label 255. "original" makes them class 3, bird, because
            TI's code takes 255 modulo 21; its published figures were scored in this way.
        options: `channels` and `on_error`, see `LabelledImages`.

    Raises:
        FileNotFoundError: the annotations or the images are missing; prints the layout.
        ImportError: pycocotools is not installed.
        ValueError: an unknown split.
    """

    splits = ("train", "val")

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        *,
        overlap: Literal["ignore", "original"] = "ignore",
        **options: Any,
    ) -> None:
        check_split("COCO", split, self.splits)
        try:
            from pycocotools.coco import COCO
        except ImportError as error:
            raise ImportError("COCO's annotations need pycocotools: pip install edgeseg[coco]") from error
        folder = Path(root)
        part = f"{split}2017"
        annotations = folder / f"annotations/instances_{part}.json"
        images = next((path for path in (folder / "images" / part, folder / part) if path.is_dir()), folder / part)
        require([annotations, images], LAYOUT, folder)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
            self.coco = COCO(str(annotations))
        self.overlap = IGNORE if overlap == "ignore" else IGNORE % 21
        self.ids: dict[Path, int] = {}
        for number in sorted(self.coco.imgs):
            objects = self.coco.loadAnns(self.coco.getAnnIds([number], catIds=list(CATEGORIES)))
            if sum(each["area"] for each in objects) > SMALLEST:
                self.ids[images / self.coco.imgs[number]["file_name"]] = number
        # The annotations stand for all label maps.
        files = [Files((path,), {"segmentation": annotations}) for path in self.ids]
        super().__init__(files, {"segmentation": segmentation_task("coco21")}, **options)

    def read_target(self, name: str, path: Path, files: Files) -> Tensor:
        """Draws the label map of an image, uint8 [H, W], from its polygons and run lengths."""
        number = self.ids[files.images[0]]
        info = self.coco.imgs[number]
        labels = np.zeros((info["height"], info["width"]), np.uint8)
        covered = np.zeros_like(labels)
        for each in self.coco.loadAnns(self.coco.getAnnIds([number], catIds=list(CATEGORIES))):
            mask = self.coco.annToMask(each)
            labels = np.maximum(labels, mask * np.uint8(CATEGORIES[each["category_id"]]))
            covered += mask
        labels[covered > 1] = self.overlap
        return tv_tensors.Mask(torch.from_numpy(labels))

    def check_files(self, files: Files) -> None:
        """Reads the photo only, since the annotations are not an image."""
        super().check_files(Files(files.images))
