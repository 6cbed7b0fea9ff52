"""KITTI depth (Uhrig et al., 2017, https://arxiv.org/abs/1708.06500): photos of 1242x375 with the depth of a laser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor

from edgeseg.data.base import Files, LabelledImages, check_split, read_sixteen_bit, require
from edgeseg.data.classes import read_text
from edgeseg.labels import DEPTH
from edgeseg.vision.listing import by_stem, list_files, photo_suffixes
from edgeseg.vision.tensors import Depth

LAYOUT = """\
  {root}/train.txt, val.txt                                 one drive folder per line, relative to {root}
  {root}/<drive>/image_02/data/*.png                        RGB photos
  {root}/<drive>/proj_depth/groundtruth/image_02/*.png      16-bit metres x 256, 0 where unknown"""


class KITTIDepth(LabelledImages):
    """Photos of the left colour camera with the depth in metres, 0 where it is unknown.

    Photos without a depth map of the same name are left out: the first and the last five of each drive.

    Args:
        root: Folder with the drives and the lists of drives.
        split: Which list: "train" or "val".
        options: `channels` and `on_error`, see `LabelledImages`.

    Raises:
        FileNotFoundError: a list or a folder is missing; prints the layout.
        ValueError: an unknown split, no samples, or two files of the same name.
    """

    splits = ("train", "val")

    def __init__(self, root: str | os.PathLike[str], split: str = "train", **options: Any) -> None:
        check_split("KITTI", split, self.splits)
        folder = Path(root)
        require([folder / f"{split}.txt"], LAYOUT, folder)
        drives = [folder / line.strip() for line in read_text(folder / f"{split}.txt").splitlines() if line.strip()]
        files = []
        for drive in drives:
            photos, depths = drive / "image_02" / "data", drive / "proj_depth" / "groundtruth" / "image_02"
            require([photos, depths], LAYOUT, folder)
            maps = by_stem(list_files(depths, {".png"}, recursive=False), depths)
            suffixes = photo_suffixes(options.get("channels", 3))
            images = by_stem(list_files(photos, suffixes, recursive=False), photos)
            files += [Files((photo,), {"depth": maps[stem]}) for stem, photo in images.items() if stem in maps]
        super().__init__(files, {"depth": DEPTH}, **options)

    def read_target(self, name: str, path: Path, files: Files) -> Tensor:
        """Reads the depth as float32 metres [1, H, W], 0 where it is unknown."""
        return Depth((read_sixteen_bit(path, "depth, in metres times 256,") / 256).unsqueeze(0))
