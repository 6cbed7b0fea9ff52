"""Draws label maps, depth and optical flow as pictures: colours, overlays, legends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgeseg.spec import Color
from edgeseg.vision.flow import ZERO
from edgeseg.vision.fonts import Font, text_and_font


def as_picture(pixels: np.ndarray) -> Image.Image:
    """Makes a picture of the pixels of any input.

    Args:
        pixels: uint8 [H, W, C]. Of one or two channels the first is drawn as gray, of more the first three as RGB.
    """
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., 0]))


def colorize(labels: np.ndarray, palette: Sequence[Color]) -> np.ndarray:
    """Maps class ids [H, W] to colours, uint8 RGB [H, W, 3]; ids beyond the palette, such as 255, are black."""
    table = np.zeros((max(256, len(palette), int(labels.max(initial=0)) + 1), 3), np.uint8)
    table[: len(palette)] = palette
    return table[labels]


def color_map(labels: np.ndarray, palette: Sequence[Color]) -> Image.Image:
    """Draws class ids [H, W]: uint8 ids become a picture with a palette (mode P), others an RGB picture."""
    if labels.dtype != np.uint8:
        return Image.fromarray(colorize(labels, palette))
    picture = Image.fromarray(labels)
    picture.putpalette([*np.ravel(palette[:256]).tolist(), *[0] * 3 * (256 - len(palette[:256]))])
    return picture


def tint(image: Image.Image, labels: np.ndarray, palette: Sequence[Color], *, alpha: float = 0.55) -> Image.Image:
    """Mixes an image with the colours of its class ids [H, W], which have the size of the image."""
    return Image.blend(image.convert("RGB"), color_map(labels, palette).convert("RGB"), alpha)


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Puts pictures one below the other, on white."""
    page = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        page.paste(picture, (0, top))
        top += picture.height
    return page


def beside(pictures: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    """Puts pictures side by side from left to right, on white, with a gap in pixels between them."""
    width = sum(p.width for p in pictures) + gap * (len(pictures) - 1)
    page = Image.new("RGB", (width, max(p.height for p in pictures)), "white")
    left = 0
    for picture in pictures:
        page.paste(picture, (left, 0))
        left += picture.width + gap
    return page


# From near to far: dark red, orange, yellow, green, blue, dark violet; unknown is black.
_DEPTH_COLORS = (
    (90, 0, 10),
    (230, 60, 20),
    (250, 180, 40),
    (190, 230, 90),
    (60, 180, 150),
    (50, 90, 180),
    (50, 20, 90),
)
LONGEST = 30  # width that a name of a legend may take on narrow pictures, in heights of its font
NARROWEST_SCALE = 160  # pixels, of the scale of depth
DEPTH_LIMITS = (2.0, 128.0)  # metres, at the ends of the colours, which follow the logarithm


def colorize_depth(depth: np.ndarray) -> Image.Image:
    """Draws depth [H, W] in metres, from red (near) to violet (far) by its logarithm; unknown depth (0) is black."""
    low, high = np.log(DEPTH_LIMITS)
    place = (np.log(np.maximum(depth, 1e-3)) - low) / (high - low)
    stops = np.linspace(0, 1, len(_DEPTH_COLORS))
    channels = [np.interp(place, stops, values) for values in zip(*_DEPTH_COLORS, strict=True)]
    color = np.stack(channels, axis=-1).round().astype(np.uint8)
    color[depth <= 0] = 0
    return Image.fromarray(color)


def depth_scale(width: int) -> Image.Image:
    """Draws the colours of depth and their metres, on a white strip of a width in pixels, or the width it needs."""
    width = max(width, NARROWEST_SCALE)
    size = max(width // 40, 11)
    left = min(2 * size, width // 3)
    font, right = ImageFont.load_default(size), max(width - 4 * size, left + 1)
    ramp = np.geomspace(*DEPTH_LIMITS, right - left)
    strip = Image.new("RGB", (width, round(3.2 * size)), "white")
    strip.paste(colorize_depth(np.repeat(ramp[None], size, axis=0)), (left, size // 2))
    draw = ImageDraw.Draw(strip)
    for metres in (2, 4, 8, 16, 32, 64, 128):
        x = left + np.log(metres / DEPTH_LIMITS[0]) / np.log(DEPTH_LIMITS[1] / DEPTH_LIMITS[0]) * (right - left)
        draw.text((x, 2.2 * size), f"{metres} m", fill="black", font=font, anchor="mm")
    return strip


def colorize_flow(flow: np.ndarray, limit: float = 16.0) -> Image.Image:
    """Draws optical flow: the direction is the hue, and white means no motion.

    Args:
        flow: uint8 [H, W, C] with two or more channels, as `edgeseg.vision.flow` encodes it.
        limit: Motion in pixels at which the colour is saturated.
    """
    x, y = (flow[..., i].astype(np.float32) - ZERO for i in (0, 1))
    hue = (np.arctan2(y, x) / (2 * np.pi) % 1 * 255).astype(np.uint8)
    saturation = (np.hypot(x, y) / limit * 255).clip(0, 255).astype(np.uint8)
    parts = [Image.fromarray(part) for part in (hue, saturation, np.full_like(hue, 255))]
    return Image.merge("HSV", parts).convert("RGB")


def legend(names: Sequence[str], colors: Sequence[Color], width: int) -> Image.Image:
    """Draws colour swatches with names in columns on a white strip; equal entries are drawn once.

    Args:
        names: One per colour, in any script; see `edgeseg.vision.fonts`.
        colors: RGB, 0 to 255.
        width: Width of the strip in pixels. The strip is wider if an entry needs it, so that it stays legible.
    """
    size = max(width // 40, 11)
    entries = list(dict.fromkeys(zip(names, colors, strict=True)))
    texts = [_shortened(name, size, max(width, LONGEST * size) - 3 * size) for name, _ in entries]
    columns = _columns([round(2.5 * size + font.getlength(text)) for text, font in texts], width - size // 2)
    rows, line = -(-len(entries) // max(len(columns), 1)), round(1.6 * size)
    strip = Image.new("RGB", (max(width, sum(columns) + size // 2), size // 2 + rows * line), "white")
    draw = ImageDraw.Draw(strip)
    for i, ((text, font), (_, color)) in enumerate(zip(texts, entries, strict=True)):
        x, y = size // 2 + sum(columns[: i // rows]), size // 2 + i % rows * line
        draw.rectangle((x, y, x + size, y + size), fill=color, outline="black")
        draw.text((x + 1.4 * size, y + size // 2), text, fill="black", font=font, anchor="lm")
    return strip


def _shortened(name: str, size: int, limit: int) -> tuple[str, Font]:
    """A name as it can be drawn in `limit` pixels, and its font."""
    text, font = text_and_font(name, size)
    if font.getlength(text) <= limit:
        return text, font
    while text and font.getlength(f"{text}...") > limit:
        text = text[:-1]
    return f"{text}...", font


def _columns(needed: Sequence[int], width: int) -> list[int]:
    """Widths of as many columns as fit, filled from top to bottom with entries of the widths `needed`."""
    for count in range(min(len(needed), max(width // min(needed, default=1), 1)), 0, -1):
        rows = -(-len(needed) // count)
        columns = [max(needed[start : start + rows]) for start in range(0, len(needed), rows)]
        if sum(columns) <= width or count == 1:
            return columns
    return []
