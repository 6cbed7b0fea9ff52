"""The reader of label maps. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from edgeseg.vision.images import open_picture

# Pillow stretches gray values of 2 and 4 bit to 0 to 255; class ids are the values that the file has.
STRETCHED = {"L;2": 85, "L;4": 17}


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a label map, gray values of 1 to 32 bit or indices of a palette, and turns it upright as EXIF says.

    Args:
        path: An image file.

    Returns:
        Class ids [H, W]: uint8, or int32 for files of more than 8 bit.

    Raises:
        OSError: the file is missing, damaged or not an image; names the file.
        ValueError: a colour picture or floating-point values; names the file.
    """
    picture = open_picture(Path(path))
    mode, values = picture.image.mode, np.array(picture.image)
    if mode == "F":
        raise ValueError(f"{path} has floating-point values; a label map has one integer class id per pixel")
    if values.ndim != 2:
        raise ValueError(
            f"{path} is a colour picture (mode {mode}); a label map has one class id per pixel, in gray values or with "
            "a palette: replace each colour by the id of its class"
        )
    if mode == "L":
        values = values // np.uint8(STRETCHED.get(picture.raw_mode, 1))
    return picture.upright(values.astype(np.int32 if mode.startswith("I") else np.uint8))
