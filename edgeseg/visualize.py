"""Label maps as pictures: colours, overlays, legends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgeseg.data.labels import generic_palette
from edgeseg.spec import Color, Task


def palette_of(task: Task) -> tuple[Color, ...]:
    """The colours of a task's classes, generic ones where it has none."""
    return task.palette or generic_palette(task.channels)


def class_names(task: Task) -> tuple[str, ...]:
    """The names of a task's classes, numbers where it has none."""
    return task.classes or tuple(f"class {i}" for i in range(task.channels))


def colorize(labels: np.ndarray, palette: Sequence[Color]) -> np.ndarray:
    """Class ids [H,W] -> uint8 RGB [H,W,3]; ids beyond the palette, such as 255, are black."""
    table = np.zeros((max(256, len(palette), int(labels.max(initial=0)) + 1), 3), np.uint8)
    table[: len(palette)] = palette
    return table[labels]


def tint(image: Image.Image, labels: np.ndarray, task: Task, *, alpha: float = 0.55) -> Image.Image:
    """`image` mixed with the colours of its class ids [H,W] of the same size."""
    return Image.blend(image.convert("RGB"), Image.fromarray(colorize(labels, palette_of(task))), alpha)


def overlay(image: Image.Image, labels: np.ndarray, task: Task, *, alpha: float = 0.55) -> Image.Image:
    """`image` tinted by its class ids [H,W] of the same size, with a legend of the classes that occur below it."""
    palette, names = palette_of(task), class_names(task)
    tinted = tint(image, labels, task, alpha=alpha)
    present = [int(i) for i in np.unique(labels) if i < len(names)]
    key = legend([names[i] for i in present], [palette[i] for i in present], tinted.width)
    picture = Image.new("RGB", (tinted.width, tinted.height + key.height), "white")
    picture.paste(tinted)
    picture.paste(key, (0, tinted.height))
    return picture


def legend(names: Sequence[str], colors: Sequence[Color], width: int) -> Image.Image:
    """A white strip of colour swatches and names, wrapped to `width` pixels."""
    size = max(width // 40, 11)
    font = ImageFont.load_default(size)
    line, x, y = round(1.6 * size), size // 2, size // 2
    places = []
    for name in names:
        needed = round(2 * size + font.getlength(name))
        if x > size // 2 and x + needed > width:
            x, y = size // 2, y + line
        places.append((x, y))
        x += needed + size // 2
    strip = Image.new("RGB", (width, y + line), "white")
    draw = ImageDraw.Draw(strip)
    for (x, y), name, color in zip(places, names, colors, strict=True):
        draw.rectangle((x, y, x + size, y + size), fill=color, outline="black")
        draw.text((x + 1.4 * size, y + size // 2), name, fill="black", font=font, anchor="lm")
    return strip
