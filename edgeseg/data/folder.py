"""Your own images and masks: two folders and a list of classes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from edgeseg.data.base import Files, LabelledImages, require
from edgeseg.data.classes import read_classes
from edgeseg.vision.listing import PHOTO_SUFFIXES, by_stem, list_files, photo_suffixes

LAYOUT = """\
  {root}/classes.txt             one class per line, in the order of the ids: "name" or "name R G B"
  {root}/images/<split>/*        photos, in folders of any depth
  {root}/masks/<split>/*.png     class ids (255: ignored) in the same folder and under the same name as the photo"""


class ImagesMasks(LabelledImages):
    """Photos and label maps in parallel folders.

    Args:
        root: Folder with classes.txt, images and masks.
        split: Name of the folder below images and masks.
        mask_suffix: Ending of the masks' names, which takes the place of the photos' suffix: "_mask.png" pairs
            `0.jpg` with `0_mask.png`. Upper and lower case are alike.
        on_unlabelled: What to do about photos without a mask: "stop" raises an error, "skip" leaves them out and warns
            with their number and names.
        options: `channels` and `on_error`, see `LabelledImages`.

    Raises:
        FileNotFoundError: a folder, the classes or a mask is missing; prints the layout.
        ValueError: two photos or two masks have the same name, an invalid line of classes.txt, or an invalid option.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        *,
        mask_suffix: str = ".png",
        on_unlabelled: Literal["stop", "skip"] = "stop",
        **options: Any,
    ) -> None:
        if on_unlabelled not in ("stop", "skip"):
            raise ValueError(f"on_unlabelled is 'stop' or 'skip', got {on_unlabelled!r}")
        if not mask_suffix.lower().endswith(tuple(PHOTO_SUFFIXES)):
            raise ValueError(f"mask_suffix is the ending of an image file, such as '_mask.png', got {mask_suffix!r}")
        folder = Path(root)
        images, masks = folder / "images" / split, folder / "masks" / split
        require([folder / "classes.txt", images, masks], LAYOUT, folder)
        photos = by_stem(list_files(images, photo_suffixes(options.get("channels", 3))), images)
        endings = [
            path for path in list_files(masks, PHOTO_SUFFIXES) if path.name.lower().endswith(mask_suffix.lower())
        ]
        known = by_stem(endings, masks, mask_suffix)
        missing = [stem for stem in photos if stem not in known]
        if on_unlabelled == "stop":
            require([masks / f"{stem}{mask_suffix}" for stem in missing], LAYOUT, folder)
        files = [Files((photo,), {"segmentation": known[stem]}) for stem, photo in photos.items() if stem in known]
        unlabelled = [f"{photos[stem]}: no mask {masks / stem}{mask_suffix}" for stem in missing]
        self._warn("masks are missing", unlabelled)
        super().__init__(files, {"segmentation": read_classes(folder / "classes.txt")}, **options)
        self.skipped += unlabelled
