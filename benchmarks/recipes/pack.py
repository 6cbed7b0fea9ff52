"""Packs what benchmarks/recipes/gpu.sh needs into a small folder: python FILE PACKED CAMVID LITE2_WEIGHTS PHOTOS...

Photos become lossy WebP; label maps stay as they are. LITE2_WEIGHTS are timm's tf_efficientnet_lite2 for ImageNet,
kept in float16. The published weights of the teacher are copied from the cache of edgeseg, and are downloaded before.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import edgeseg
from edgeseg.machine.download import cache_folder
from edgeseg.vision.listing import PHOTO_SUFFIXES, list_files

TEACHER = "espnetv2_s2p0.cityscapes"


def pack_camvid(source: Path, target: Path, quality: int) -> None:
    """Copies the dataset with photos as WebP."""
    for split in ("train", "val", "test"):
        lines = []
        for line in (source / f"{split}.txt").read_text().splitlines():
            photo, labels = (Path(*Path(name).parts[-2:]) for name in line.split())
            save_small(source / photo, target / photo.with_suffix(".webp"), quality)
            (target / labels).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / labels, target / labels)
            lines.append(f"{photo.with_suffix('.webp')} {labels}\n")
        (target / f"{split}.txt").write_text("".join(lines))


def save_small(source: Path, target: Path, quality: int) -> None:
    """Saves a photo as WebP, with at most 480 pixels on its longer side."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as photo:
        photo.thumbnail((480, 480), Image.Resampling.LANCZOS)
        photo.convert("RGB").save(target, quality=quality, method=6)


def main() -> None:
    """Writes the folder, and prints its size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("packed", "camvid", "lite2"):
        parser.add_argument(name, type=Path)
    parser.add_argument("photos", type=Path, nargs="+", help="folders of photos of streets without labels")
    parser.add_argument("--every", type=int, default=3, help="take every Nth of these photos (default 3)")
    parser.add_argument("--quality", type=int, default=85, help="quality of WebP (default 85)")
    options = parser.parse_args()
    packed = options.packed
    pack_camvid(options.camvid, packed / "camvid", options.quality)
    photos = [photo for folder in options.photos for photo in list_files(folder, PHOTO_SUFFIXES)]
    for number, photo in enumerate(photos[:: options.every]):
        save_small(photo, packed / f"photos/{number}.webp", options.quality)
    weights = {name: value.half() if value.ndim == 4 else value for name, value in load_file(options.lite2).items()}
    save_file(weights, packed / "lite2.safetensors")
    edgeseg.create_model(TEACHER)
    shutil.copytree(cache_folder() / TEACHER, packed / "home/edgeseg" / TEACHER, dirs_exist_ok=True)
    size = sum(path.stat().st_size for path in packed.rglob("*") if path.is_file())
    print(f"{packed}: {size / 1e6:.1f} MB; torch {torch.__version__}")


if __name__ == "__main__":
    main()
