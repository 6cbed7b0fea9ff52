"""Class names and palettes of data sets: data, readable without torch."""

from __future__ import annotations

from edgeseg.spec import Color, Task

IGNORE = 255
"""The label of pixels that no loss and no metric counts."""

# fmt: off
CAMVID: dict[str, Color] = {
    "sky":        (128, 128, 128),
    "building":   (128,   0,   0),
    "pole":       (192, 192, 128),
    "road":       (128,  64, 128),
    "pavement":   ( 60,  40, 222),
    "tree":       (128, 128,   0),
    "sign":       (192, 128, 128),
    "fence":      ( 64,  64, 128),
    "car":        ( 64,   0, 128),
    "pedestrian": ( 64,  64,   0),
    "bicyclist":  (  0, 128, 192),
}
# fmt: on

LABELS: dict[str, dict[str, Color]] = {"camvid": CAMVID}


def segmentation_task(labels: str) -> Task:
    """The task of segmenting into the classes of a data set."""
    colors = LABELS[labels]
    return Task("segmentation", len(colors), classes=tuple(colors), palette=tuple(colors.values()))


def generic_palette(classes: int) -> tuple[Color, ...]:
    """Distinct colours for classes that come without: a grid over RGB, darkest first."""
    step = 255 if classes <= 8 else 127 if classes <= 27 else 63 if classes <= 125 else 31
    levels = range(0, 256, step)
    grid = [(r, g, b) for r in levels for g in levels for b in levels]
    return tuple(grid[i % len(grid)] for i in range(classes))
