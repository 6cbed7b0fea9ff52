"""COCO 2017 (Lin et al., 2014, https://arxiv.org/abs/1405.0312) in the 21 classes of Pascal VOC."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from edgeseg.arguments import require_choice
from edgeseg.data.base import Files, LabelledImages, check_split, require
from edgeseg.labels import IGNORE, segmentation_task
from edgeseg.machine.errors import value_errors
from edgeseg.machine.quiet import quiet_printing
from edgeseg.vision.images import photo_size

Overlap = Literal["ignore", "original"]
LAYOUT = """\
  {root}/annotations/instances_{{train2017,val2017}}.json
  {root}/images/{{train2017,val2017}}/*.jpg    or {root}/{{train2017,val2017}}/*.jpg"""

# From COCO's category id to the class of Pascal VOC.
CATEGORIES = {
    5: 1, 2: 2, 16: 3, 9: 4, 44: 5, 6: 6, 3: 7, 17: 8, 62: 9, 21: 10, 67: 11, 18: 12, 19: 13, 4: 14, 1: 15, 64: 16,
    20: 17, 63: 18, 7: 19, 72: 20,
}  # fmt: skip
# COCO's categories by id; the ids without a name do not occur.
NAMES = (
    "", "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "", "backpack", "umbrella", "", "", "handbag", "tie", "suitcase",
    "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard",
    "surfboard", "tennis racket", "bottle", "", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana",
    "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "", "dining table", "", "", "toilet", "", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
SMALLEST = 1000  # pixels of annotated objects that an image has at least


class COCO21(LabelledImages):
    """Photos, and label maps of 21 classes drawn from the instances; images with hardly any object are left out.

    Needs pycocotools: `pip install 'edgeseg[coco]'`.

    Args:
        root: Folder with annotations and images.
        split: "train" or "val".
        overlap: "ignore" gives pixels of several objects the label 255. "original" makes them class 3, bird, because
            TI's code takes 255 modulo 21; its published figures were scored in this way.
        options: `channels` and `on_error`, see `LabelledImages`.

    Raises:
        FileNotFoundError: the annotations or the images are missing; prints the layout.
        ImportError: pycocotools is not installed.
        ValueError: an unknown split, or categories that are not COCO's.
    """

    splits = ("train", "val")

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        *,
        overlap: Overlap = "ignore",
        **options: Any,
    ) -> None:
        check_split("COCO", split, self.splits)
        require_choice("overlap", overlap, Overlap)
        try:
            from pycocotools.coco import COCO
        except ImportError as error:
            raise ImportError("COCO's annotations need pycocotools: pip install 'edgeseg[coco]'") from error
        folder = Path(root)
        part = f"{split}2017"
        annotations = folder / f"annotations/instances_{part}.json"
        images = next((path for path in (folder / "images" / part, folder / part) if path.is_dir()), folder / part)
        require([annotations, images], LAYOUT, folder)
        self.overlap = IGNORE if overlap == "ignore" else IGNORE % 21
        self.ids: dict[Path, int] = {}
        with value_errors(annotations, f"{annotations} is not a JSON of COCO"):
            with quiet_printing():  # pycocotools prints what it does
                self.coco = COCO(str(annotations))
            _check_categories(self.coco.cats, annotations)
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
        if (size := photo_size(files.images[0])) != (info.get("height"), info.get("width")):
            raise ValueError(f"{files.images[0]} is {size} (height, width), and not as {path} says")
        labels = np.zeros(size, np.uint8)
        covered = np.zeros_like(labels)
        for each in self.coco.loadAnns(self.coco.getAnnIds([number], catIds=list(CATEGORIES))):
            mask = self.coco.annToMask(each)
            labels = np.maximum(labels, mask * np.uint8(CATEGORIES[each["category_id"]]))
            covered += mask
        labels[covered > 1] = self.overlap
        return tv_tensors.Mask(torch.from_numpy(labels))


def _check_categories(categories: Mapping[int, Mapping[str, Any]], path: Path) -> None:
    """Raises a ValueError for categories of another set, which the ids would make classes of Pascal VOC."""
    known = dict(enumerate(NAMES))
    others = [
        f"{each.get('name')!r} (id {number})"
        for number, each in categories.items()
        if each.get("name") != (known.get(number) or None)
    ]
    if others or not categories:
        raise ValueError(
            f"{path} has categories that are not COCO's: {', '.join(others[:5]) or 'none at all'}; coco_seg21 reads "
            "COCO's own annotations, and coco_json (--dataset coco_json) those of any categories"
        )
