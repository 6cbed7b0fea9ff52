"""Photos and masks of all formats that Pillow writes, and arrays."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, features

from edgeseg.vision.images import photo_size, read_photo
from edgeseg.vision.masks import read_mask

from .damage import damaged_bytes, damaged_jpeg, damaged_png, either
from .drill import NAME, Drill, all_hold, expect

WAYS = {".png": either(damaged_bytes, damaged_png, damaged_png), ".jpg": either(damaged_bytes, damaged_jpeg)}


def make(folder: Path) -> None:
    """Small pictures in many formats, modes and options."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize((33, 21), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[274] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a photo", zip=True)
    options: dict[str, dict[str, Any]] = {
        "RGB.png": {"pnginfo": text, "exif": exif}, "RGBA.png": {}, "L.png": {"transparency": 7}, "P.png": {},
        "1.png": {}, "I;16.png": {}, "LA.png": {}, "RGB.jpg": {"exif": exif, "icc_profile": bytes(200)}, "L.jpg": {},
        "CMYK.jpg": {}, "RGB.tif": {"compression": "tiff_lzw"}, "RGBA.tif": {"compression": "tiff_adobe_deflate"},
        "F.tif": {}, "1.tif": {}, "I;16.tif": {}, "RGB.webp": {"exif": exif}, "P.gif": {}, "RGB.bmp": {}, "RGB.ppm": {},
        "RGB.tga": {}, "RGB.jp2": {}, "RGB.avif": {}, "RGB.pcx": {}, "RGBA.ico": {}, "RGB.sgi": {},
    }  # fmt: skip
    missing = {".webp": "webp", ".avif": "avif", ".jp2": "jpg_2000"}
    for name, how in options.items():
        if not features.check(missing.get(Path(name).suffix, "pil")):
            continue
        gray = photo.convert("L")
        mode = name.partition(".")[0]
        picture = Image.fromarray(np.asarray(gray).astype(np.uint16) * 200) if mode == "I;16" else photo.convert(mode)
        picture.save(folder / name, **how)
    photo.convert("RGB").save(folder / "progressive.jpg", progressive=True)
    photo.save(folder / "pages.tif", save_all=True, append_images=[photo])
    np.save(folder / "RGB.npy", np.asarray(photo.convert("RGB")))


def damage(rng: Random, seeds: Path, work: Path) -> None:
    source = rng.choice(sorted(seeds.iterdir()))
    way = WAYS.get(source.suffix, damaged_bytes)
    (work / f"{NAME}{source.suffix}").write_bytes(way(rng, source.read_bytes()))


def read(work: Path) -> None:
    (path,) = work.iterdir()

    def photo(channels: int) -> None:
        pixels = read_photo(path, channels)
        whole = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == channels and pixels.size > 0
        expect(whole, f"a photo of {pixels.dtype} {pixels.shape}")
        expect(photo_size(path) == pixels.shape[:2], "photo_size differs from the photo")

    def mask(_: Path) -> None:
        labels = read_mask(path)
        expect(labels.dtype in (np.uint8, np.int32) and labels.ndim == 2, f"a mask of {labels.dtype} {labels.shape}")

    all_hold(work, lambda _: photo(3), lambda _: photo(4), *([] if path.suffix == ".npy" else [mask]))


DRILLS = (Drill("images", make, damage, read, 10_000),)
