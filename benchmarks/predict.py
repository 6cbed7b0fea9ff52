"""A folder of photos, images per second: `edgeseg predict` beside a plain loop: python benchmarks/predict.py

Both read the same JPEG files (frames of the synthetic streets at a camera's size), run the same network on as many
threads, and write class ids, colours and tinted photos as PNG, or with `--outputs labels` class ids only. The plain
loop is what one writes with Pillow and torch; it has no legend to draw.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from side_by_side import compare
from torch.nn import functional as F

import edgeseg
from edgeseg.cli import main
from edgeseg.data import Streets
from edgeseg.labels import palette_of
from edgeseg.vision.visualize import colorize

MODEL = "fpn_aspp_mobilenetv2_tv_edgeailite.camvid"


def _photos(folder: Path, options: argparse.Namespace) -> list[Path]:
    """As many files as asked for, of a few different pictures."""
    frames = Streets("test", (270, 480), length=4)
    paths = [folder / f"{i:04}.jpg" for i in range(options.images)]
    for i, path in enumerate(paths):
        pixels = frames[i % len(frames)][0].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).resize((options.size[1], options.size[0])).save(path, quality=95)
    return paths


def predicted(options: argparse.Namespace) -> float:
    """`edgeseg predict`, the loading of the model included."""
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder)
        paths = _photos(inside, options)
        how = ["-o", str(inside / "out"), "--outputs", *options.outputs]
        main(["predict", str(paths[0]), *how])
        start = time.perf_counter()
        main(["predict", folder, *how])
        return len(paths) / (time.perf_counter() - start)


@torch.inference_mode()
def plain(options: argparse.Namespace) -> float:
    """A loop with Pillow and torch, from file to file."""
    model = edgeseg.create_model(MODEL).eval()
    palette, preprocess = palette_of(model.tasks["segmentation"]), model.preprocess
    pixels = math.prod(preprocess.size or (480, 640))
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (preprocess.mean, preprocess.std))
    with tempfile.TemporaryDirectory() as folder:
        paths = _photos(Path(folder), options)

        def segment(path: Path) -> None:
            photo = Image.open(path).convert("RGB")
            scale = math.sqrt(pixels / (photo.width * photo.height))
            small = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BILINEAR)
            inputs = (torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() - mean) / std
            logits = F.interpolate(model(inputs)["segmentation"], photo.size[::-1], mode="bilinear")
            labels = logits.argmax(dim=1)[0].to(torch.uint8).numpy()
            if "labels" in options.outputs:
                Image.fromarray(labels).save(f"{path}_labels.png")
            if "color" in options.outputs or "overlay" in options.outputs:
                color = Image.fromarray(colorize(labels, palette))
            if "color" in options.outputs:
                color.save(f"{path}_color.png")
            if "overlay" in options.outputs:
                Image.blend(photo, color, 0.55).save(f"{path}_overlay.png")

        segment(paths[0])
        start = time.perf_counter()
        for path in paths:
            segment(path)
        return len(paths) / (time.perf_counter() - start)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--size", type=int, nargs=2, default=(1080, 1920), metavar=("H", "W"))
    parser.add_argument("--outputs", nargs="+", default=["labels", "color", "overlay"])
    compare({"plain loop": plain, "edgeseg predict": predicted}, parser, "deployment.md")
