"""The eight orientations that cameras and TIFF files know."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

_TURNS: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}
TURNED = (5, 6, 7, 8)
"""Orientations that exchange height and width."""


def upright(pixels: np.ndarray, orientation: object) -> np.ndarray:
    """Turns or mirrors pixels [H, W] or [H, W, C] so that they are upright.

    Args:
        pixels: As the file stores them.
        orientation: Value of the EXIF or TIFF tag 274, 1 to 8; 1 and values that the tag does not have mean upright.
    """
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))
