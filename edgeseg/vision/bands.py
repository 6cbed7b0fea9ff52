"""TIFF files of any number of bands, of which Pillow itself reads the first three or four only.

The samples of a pixel lie side by side, so a picture of C bands is stored exactly as a gray picture that is C times as
wide. A directory that says so is put behind the content of the file, and Pillow decodes that, whatever the compression.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from edgeseg.vision.orientation import TURNED, upright

# Tags of TIFF 6.0.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, SAMPLES, STRIP_SIZES = 256, 257, 258, 259, 262, 273, 277, 279
PLANAR, PREDICTOR, TILE_WIDTH, TILES, TILE_SIZES, EXTRA, FORMAT = 284, 317, 322, 324, 325, 338, 339
ORIENTATION, KEPT = 274, (HEIGHT, COMPRESSION, 278, 323)  # the last two are rows per strip and the height of a tile
LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)  # none, LZW, Deflate, PackBits, Deflate, LZMA, Zstandard
PREMULTIPLIED = 1  # kind of extra sample: alpha that the colours were multiplied with
STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_bands(path: Path, channels: int, max_pixels: int | None = None) -> np.ndarray | None:
    """Reads a TIFF file of `channels` bands, or of as many gray pages.

    Args:
        path: Any file.
        channels: Number of bands that are wanted.
        max_pixels: Height times width above which the file is refused; by default Pillow's limit.

    Returns:
        uint8 [H, W, channels], with 16-bit samples divided by 257; None for all files that Pillow reads as well: other
        formats, other numbers of bands, gray, RGB, CMYK and premultiplied alpha.

    Raises:
        Exception: of many types if the file is damaged.
    """
    if channels in (1, 3):
        return None
    with path.open("rb") as file:
        if file.read(4) not in STARTS:
            return None
        file.seek(0)
        content = file.read()
    tags = _first_directory(content)
    samples = tags.get(SAMPLES, (1,))[0]
    plain = tags.get(PHOTOMETRIC, (1,))[0] in (1, 2) and tags.get(COMPRESSION, (1,))[0] in LOSSLESS
    if samples not in (1, channels) or not plain or tags.get(EXTRA, (0,))[0] == PREMULTIPLIED:
        return None
    count = tags[WIDTH][0] * tags[HEIGHT][0]
    limit = max_pixels or (2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else count)
    if count > limit:
        raise Image.DecompressionBombError(f"it has {count} pixels, more than the limit of {limit}.")
    pixels = _pages(content, channels) if samples == 1 else _samples(content, tags, samples)
    if pixels is None:
        return None
    pixels = upright(pixels, tags.get(ORIENTATION, (1,))[0] if samples > 1 else 1)
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def size_of_bands(path: Path) -> tuple[int, int] | None:
    """Height and width that the pictures of `read_bands` have; None for files that are not TIFF.

    Raises:
        Exception: of many types if the file is damaged.
    """
    content = path.read_bytes()
    if not content.startswith(STARTS):
        return None
    tags = _first_directory(content)
    height, width = tags[HEIGHT][0], tags[WIDTH][0]
    return (width, height) if tags.get(ORIENTATION, (1,))[0] in TURNED else (height, width)


def _first_directory(content: bytes) -> dict[int, tuple[Any, ...]]:
    header = content[:16] if b"+" in content[:4] else content[:8]
    directory = ImageFileDirectory_v2(header)
    file = io.BytesIO(content)
    file.seek(directory.next)
    directory.load(file)
    values = {tag: directory[tag] for tag in directory}
    return {tag: value if isinstance(value, tuple) else (value,) for tag, value in values.items()}


def _samples(content: bytes, tags: Mapping[int, Sequence[Any]], samples: int) -> np.ndarray:
    """Decodes all samples of the pixels [H, W, samples], uint8 or uint16, not yet turned upright."""
    if set(tags[BITS]) not in ({8}, {16}) or set(tags.get(FORMAT, (1,))) != {1}:
        raise ValueError("several bands are read as unsigned integers of 8 or 16 bit only")
    if tags.get(PLANAR, (1,))[0] == 2:
        return np.stack([_decoded(content, plane) for plane in _planes(tags, samples)], axis=-1)
    return _interleaved(content, tags, samples)


def _interleaved(content: bytes, tags: Mapping[int, Sequence[Any]], samples: int) -> np.ndarray:
    """Decodes samples that lie side by side, and sums the differences that some writers store instead."""
    wide = {**tags, WIDTH: [tags[WIDTH][0] * samples], PREDICTOR: [1]}
    if TILE_WIDTH in tags:
        wide[TILE_WIDTH] = [tags[TILE_WIDTH][0] * samples]
    pixels = _decoded(content, wide)
    pixels = pixels.reshape(len(pixels), -1, samples)
    if tags.get(PREDICTOR, (1,))[0] == 2:
        part = tags.get(TILE_WIDTH, tags[WIDTH])[0]
        for left in range(0, pixels.shape[1], part):
            columns = slice(left, left + part)
            pixels[:, columns] = np.cumsum(pixels[:, columns], axis=1, dtype=pixels.dtype)
    return pixels


def _planes(tags: Mapping[int, Sequence[Any]], samples: int) -> Iterator[dict[int, Sequence[Any]]]:
    """One directory per band, for files that store band after band."""
    for band in range(samples):
        plane = dict(tags)
        for tag in (STRIPS, STRIP_SIZES, TILES, TILE_SIZES):
            if tag in tags:
                count = len(tags[tag]) // samples
                plane[tag] = tags[tag][band * count : (band + 1) * count]
        yield plane


def _decoded(content: bytes, tags: Mapping[int, Sequence[Any]]) -> np.ndarray:
    """Decodes one band [H, W], uint8 or uint16, that a directory describes."""
    gray = {tag: tags[tag] for tag in (WIDTH, STRIPS, STRIP_SIZES, TILE_WIDTH, TILES, TILE_SIZES, *KEPT) if tag in tags}
    gray |= {BITS: tags[BITS][:1], PHOTOMETRIC: [1], SAMPLES: [1], PREDICTOR: tags.get(PREDICTOR, (1,))}
    order = "<" if content[:2] == b"II" else ">"
    start = len(content) + len(content) % 2
    end = start + 2 + 12 * len(gray) + 4
    entries, values = b"", b""
    for tag, numbers in sorted(gray.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        place = packed if len(numbers) == 1 else struct.pack(f"{order}I", end + len(values))
        values += b"" if len(numbers) == 1 else packed
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + place
    header = content[:2] + struct.pack(f"{order}HI", 42, start)
    directory = struct.pack(f"{order}H", len(gray)) + entries + bytes(4) + values
    return _gray(header + content[8:].ljust(start - 8, b"\0") + directory)


def _gray(content: bytes) -> np.ndarray:
    """Decodes a gray TIFF file. `Image.open` would refuse it early: the bands of a pixel look like so many pixels."""
    with TiffImageFile(io.BytesIO(content)) as image:
        return np.array(image)


def _pages(content: bytes, channels: int) -> np.ndarray | None:
    """Reads the pages of a file as bands, if there are as many and all are gray and of one size."""
    with TiffImageFile(io.BytesIO(content)) as image:
        if getattr(image, "n_frames", 1) != channels:
            return None
        pages = []
        for page in range(channels):
            image.seek(page)
            pages.append(np.array(image))
    alike = len({(page.shape, page.dtype) for page in pages}) == 1
    return np.stack(pages, axis=-1) if alike and pages[0].ndim == 2 and pages[0].dtype.itemsize <= 2 else None
