"""The reader of label maps. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeseg.spec import Color
from edgeseg.vision.images import Picture, named_errors, open_picture, to_channels

# Pillow stretches gray values of 2 and 4 bit to 0 to 255; class ids are the values that the file has.
STRETCHED = {"L;2": 85, "L;4": 17}


def read_mask(path: str | os.PathLike[str], colors: Mapping[Color, int] | None = None) -> np.ndarray:
    """Reads a label map and turns it upright as EXIF says.

    Class ids are gray values of 1 to 32 bit or indices of a palette. A colour picture without colours, red, green and
    blue being equal everywhere, counts as gray.

    Args:
        path: An image file.
        colors: Class ids by the colours of the classes, RGB of 0 to 255, by which colour pictures are decoded; without
            them a colour picture is an error.

    Returns:
        Class ids [H, W]: uint8, or int32 for files of more than 8 bit.

    Raises:
        OSError: the file is missing, damaged or not an image; names the file.
        ValueError: a colour picture, colours that are not classes, a palette that has the colours of the classes at
            other indices, shapes in the alpha channel alone, or floating-point values; names the file.
    """
    return to_ids(open_picture(Path(path)), colors)


def to_ids(picture: Picture, colors: Mapping[Color, int] | None = None) -> np.ndarray:
    """Returns the class ids of a decoded image as `read_mask` does, upright; errors name the image."""
    path, mode = picture.name, picture.image.mode
    with named_errors(path):
        values = np.array(picture.image)
    if mode == "P" and colors:
        _check_palette(picture, values, colors)
    if mode == "F":
        raise ValueError(f"{path} has floating-point values; a label map has one integer class id per pixel")
    if values.ndim != 2:
        if (";16" in picture.raw_mode or picture.highest not in (None, 255)) and not colors:
            raise ValueError(
                f"{path} has several channels of other than 8 bit ({picture.raw_mode}); save a label map as a gray "
                "picture"
            )
        pixels = to_channels(picture, 3)
        if mode[-1] in "Aa" and np.ptp(values[..., -1]) and (pixels == pixels[:1, :1]).all():
            raise ValueError(
                f"{path} has one colour everywhere, and its shapes are in the alpha channel; save a label map as a "
                "gray picture with one class id per pixel"
            )
        return _from_colors(path, mode, pixels, colors)
    if picture.highest is not None:
        white = np.iinfo(np.uint8 if mode == "L" else np.uint16).max
        values = (values * (picture.highest / white)).round().astype(values.dtype)
    elif mode == "L":
        values = values // np.uint8(STRETCHED.get(picture.raw_mode, 1))
    return picture.upright(values.astype(np.int32 if mode.startswith("I") else np.uint8))


def _check_palette(picture: Picture, values: np.ndarray, colors: Mapping[Color, int]) -> None:
    """Refuses indices whose colours are those of other classes: programs number a palette at will.

    A palette has the colours of the classes if all colours that occur are such colours, or if several are, none of them
    at the index of its class. Other colours may be those of ignored pixels.
    """
    palette = np.array(picture.image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    used = {index: tuple(palette[index].tolist()) for index in np.unique(values).tolist() if index < len(palette)}
    meant = {index: color for index, color in used.items() if color in colors}
    elsewhere = [index for index, color in meant.items() if colors[color] != index]
    if len(meant) < len(used) and (len(meant) < 2 or len(elsewhere) < len(meant)):
        return
    for index, color in meant.items():
        if colors[color] != index:
            raise ValueError(
                f"{picture.name} has a palette in which index {index} is {color}, the colour of class {colors[color]}; "
                "save the mask as RGB to read its colours, or list the classes without colours to read its indices"
            )


def _from_colors(path: str, mode: str, pixels: np.ndarray, colors: Mapping[Color, int] | None) -> np.ndarray:
    """Replaces colours [H, W, 3] by class ids."""
    if not colors:
        if (pixels == pixels[..., :1]).all():
            return np.ascontiguousarray(pixels[..., 0])
        raise ValueError(
            f"{path} is a colour picture (mode {mode}); a label map has one class id per pixel, in gray values or with "
            "a palette: replace each colour by the id of its class, or give the classes of a folder their colours, all "
            "different ('road 128 64 128' in classes.txt)"
        )
    codes = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    known = sorted((red << 16 | green << 8 | blue, label) for (red, green, blue), label in colors.items())
    keys = np.array([code for code, _ in known], np.int32)
    places = np.searchsorted(keys, codes).clip(max=len(keys) - 1)
    wrong = np.unique(codes[keys[places] != codes])
    if wrong.size:
        some = ", ".join(str((code >> 16, code >> 8 & 255, code & 255)) for code in wrong[:4].tolist())
        raise ValueError(
            f"{path} has {wrong.size} colours that belong to no class: {some}{', ...' if wrong.size > 4 else ''}; the "
            "colours of ignored pixels have the id 255 in a numbered list of classes, such as '255 void 0 0 0', and "
            "masks are not saved as JPEG, which changes colours"
        )
    return np.array([label for _, label in known], np.uint8)[places]
