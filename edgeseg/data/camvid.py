"""CamVid (Brostow et al., 2009) in the layout of the SegNet tutorial: 367 / 101 / 233 frames of 480x360, 11 classes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from edgeseg.data.labels import IGNORE, segmentation_task

LAYOUT = """\
  {root}/train.txt  val.txt  test.txt        one "image label" pair of paths a line
  {root}/train/*.png       train/ val/ test/: RGB photos, 480x360
  {root}/trainannot/*.png  trainannot/ valannot/ testannot/: class ids 0 to 10, 11 is void"""

VOID = 11


class CamVid(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of a uint8 image [3,H,W] and a uint8 label map [H,W] of class ids, void as 255.

    Args:
        root: Folder with the three lists.
        split: "train", "val", "test", or "trainval" for the first two.

    Raises:
        FileNotFoundError: the layout is not there; prints it.
        ValueError: unknown split.
    """

    task = segmentation_task("camvid")
    splits = ("train", "val", "test", "trainval")

    def __init__(self, root: str | os.PathLike[str], split: str = "train") -> None:
        if split not in self.splits:
            raise ValueError(f"no CamVid split {split!r}; there are {', '.join(self.splits)}")
        self.root = Path(root)
        self.files: list[tuple[Path, Path]] = []
        for part in ("train", "val") if split == "trainval" else (split,):
            listing = self.root / f"{part}.txt"
            if not listing.is_file():
                raise FileNotFoundError(f"no CamVid list {listing}; expected\n{LAYOUT.format(root=self.root)}")
            for line in listing.read_text().splitlines():
                # Published lines begin with /SegNet/CamVid/, wherever the set really is.
                image, label = (self.root.joinpath(*Path(name).parts[-2:]) for name in line.split())
                self.files.append((image, label))
        for path in self.files[0]:
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing; expected\n{LAYOUT.format(root=self.root)}")

    def name(self, index: int) -> str:
        """The image file of a sample."""
        return str(self.files[index][0])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image_path, label_path = self.files[index]
        with Image.open(image_path) as file:
            image = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)
        with Image.open(label_path) as file:
            label = torch.from_numpy(np.array(file))
        if int(label.max()) > VOID:
            raise ValueError(f"{label_path} has label {int(label.max())}; CamVid's are 0 to {VOID}")
        return image, label.masked_fill(label == VOID, IGNORE)
