"""Compares `edgeseg predict` with a plain loop on a folder of photos: python benchmarks/predict.py

Both ways read the same JPEG files (frames of the synthetic streets, resized to the size of a camera's photos), run the
same network on the same number of threads, and write class ids, colours and tinted photos as PNG files, or class ids
only with `--outputs labels`. The plain loop uses Pillow and torch and does not draw a legend. Writes the table in
docs/deployment.md.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measuring import compare_ways
from PIL import Image
from torch.nn import functional as F

import edgeseg
from edgeseg.cli import main
from edgeseg.data import Streets
from edgeseg.labels import palette_of
from edgeseg.spec import Color
from edgeseg.vision.visualize import colorize

MODEL = "fpn_aspp_mobilenetv2_tv_edgeailite.camvid"


def _photos(folder: Path, options: argparse.Namespace) -> list[Path]:
    """Writes `options.images` files of a few different pictures."""
    frames = Streets("test", (270, 480), length=4)
    paths = [folder / f"{i:04}.jpg" for i in range(options.images)]
    for i, path in enumerate(paths):
        pixels = frames[i % len(frames)][0].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).resize((options.size[1], options.size[0])).save(path, quality=95)
    return paths


def predicted(options: argparse.Namespace) -> float:
    """Runs `edgeseg predict`, including the loading of the model."""
    with tempfile.TemporaryDirectory() as folder:
        paths = _photos(Path(folder), options)
        output = ["-o", str(Path(folder) / "out"), "--outputs", *options.outputs]
        main(["predict", str(paths[0]), *output])
        start = time.perf_counter()
        main(["predict", folder, *output])
        return len(paths) / (time.perf_counter() - start)


@torch.inference_mode()
def plain(options: argparse.Namespace) -> float:
    """Runs a plain loop with Pillow and torch, from file to file."""
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
            _save(path, photo, logits.argmax(dim=1)[0].to(torch.uint8).numpy(), palette, options.outputs)

        segment(paths[0])
        start = time.perf_counter()
        for path in paths:
            segment(path)
        return len(paths) / (time.perf_counter() - start)


def _save(path: Path, photo: Image.Image, labels: np.ndarray, palette: Sequence[Color], outputs: Sequence[str]) -> None:
    if "labels" in outputs:
        Image.fromarray(labels).save(f"{path}_labels.png")
    if "color" in outputs or "overlay" in outputs:
        color = Image.fromarray(colorize(labels, palette))
    if "color" in outputs:
        color.save(f"{path}_color.png")
    if "overlay" in outputs:
        Image.blend(photo, color, 0.55).save(f"{path}_overlay.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40, help="number of photos per process (default 40)")
    parser.add_argument("--size", type=int, nargs=2, default=(1080, 1920), metavar=("H", "W"), help="photo size")
    parser.add_argument("--outputs", nargs="+", default=["labels", "color", "overlay"], help="files to write per photo")
    compare_ways({"plain loop": plain, "edgeseg predict": predicted}, parser, "deployment.md")
