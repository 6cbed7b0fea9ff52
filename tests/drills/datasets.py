"""Datasets of a user: lists of classes, masks and annotations, through `edgeseg data check`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from edgeseg.cli import main

from .damage import damaged_bytes, damaged_json, damaged_png, either
from .drill import NAME, Drill, expect

HEIGHT, WIDTH = 24, 32
CLASSES = "0 road 128 64 128\n1 sky 70 130 180\n2 traffic light 250 170 30\n255 void 0 0 0\n"


def _photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(path)


def _masks(folder: Path) -> None:
    labels = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 99 % 3
    for number in range(2):
        _photo(folder / f"images/train/{number}.jpg")
        (folder / "masks/train").mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels.astype(np.uint8)).save(folder / f"masks/train/{number}.png")
    (folder / "classes.txt").write_text(CLASSES)


def _coco(folder: Path) -> None:
    for number in range(2):
        _photo(folder / f"images/{number}.jpg")
    shapes: list[Any] = [
        [[2, 2, 20, 3, 15, 20]], {"size": [HEIGHT, WIDTH], "counts": [100, 200, 468]},
        [[1, 1, 9, 1, 9, 9, 1, 9], [12, 12, 30, 12, 30, 20]],
    ]  # fmt: skip
    annotations = [
        {"id": i, "image_id": i % 2, "category_id": 1 + i % 2, "segmentation": shape, "iscrowd": i // 2}
        for i, shape in enumerate(shapes)
    ]
    images = [{"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in range(2)]
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "tree", "supercategory": "none"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations").mkdir()
    (folder / "annotations/instances_train.json").write_text(json.dumps(content))


def _labelme(folder: Path) -> None:
    for number in range(2):
        _photo(folder / f"train/{number}.jpg")
        shape = {"label": "sky", "points": [[1, 1], [20, 2], [10, 20]], "shape_type": "polygon"}
        (folder / f"train/{number}.json").write_text(json.dumps({"shapes": [shape], "imagePath": f"{number}.jpg"}))
    (folder / "classes.txt").write_text(CLASSES)


def _yolo(folder: Path) -> None:
    for number in range(2):
        _photo(folder / f"images/train/{number}.jpg")
        (folder / "labels/train").mkdir(parents=True, exist_ok=True)
        (folder / f"labels/train/{number}.txt").write_text("0 0.1 0.1 0.8 0.1 0.5 0.9\n1 0.2 0.2 0.4 0.2 0.3 0.5\n")
    (folder / "data.yaml").write_text("names: [car, tree]\nnc: 2\n")


def _text(rng: Random, data: bytes) -> bytes:
    """Damages a line of a text."""
    lines = data.decode().split("\n")
    index = rng.randrange(len(lines))
    words = (
        "",
        "#",
        "\x1b[31m",
        "0",
        "-1",
        "256",
        "1e308",
        "nan",
        "9" * 5000,
        "²",
        "\u202e",
        "sky",
        "a" * 10000,
        "- x: [",
    )
    match rng.randrange(4):
        case 0:
            del lines[index]
        case 1:
            lines.insert(index, lines[index])
        case 2:
            lines[index] = rng.choice(words)
        case _:
            parts = lines[index].split(" ")
            parts[rng.randrange(len(parts))] = rng.choice(words)
            lines[index] = " ".join(parts)
    return "\n".join(lines).encode(rng.choice(("utf-8", "utf-8", "utf-16", "utf-8-sig")))


def _json(rng: Random, data: bytes) -> bytes:
    return damaged_json(rng, data.decode()).encode("utf-8", "surrogatepass")


WAYS: dict[str, Callable[[Random, bytes], bytes]] = {
    ".png": either(damaged_bytes, damaged_png), ".json": either(damaged_bytes, _json, _json, _json),
    ".txt": either(damaged_bytes, _text, _text), ".yaml": either(damaged_bytes, _text, _text), ".jpg": damaged_bytes,
}  # fmt: skip


def damage(kind: str, rng: Random, seeds: Path, work: Path) -> None:
    shutil.copytree(seeds, work / NAME)
    files = sorted(path for path in (work / NAME).rglob("*") if path.is_file())
    chosen = rng.choice([path for path in files if path.suffix == kind] * 4 + files)
    chosen.write_bytes(WAYS[chosen.suffix](rng, chosen.read_bytes()))


def read(dataset: str, work: Path) -> None:
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        call = ["--dataset", dataset, "--data-path", str(work / NAME), "--split", "train"]
        status = main(["data", "check", *call, "--no-cache", "--workers", "0"])
    raw = [character for character in said.getvalue().replace("\n", "") if not character.isprintable()]
    expect(not raw, f"the terminal gets {raw[:1]}")
    if status != 0:
        raise ValueError(said.getvalue())


def _drill(dataset: str, make: Callable[[Path], None], kind: str) -> Drill:
    return Drill(dataset, make, partial(damage, kind), partial(read, dataset), 500)


DRILLS = (
    _drill("images_masks", _masks, ".png"),
    _drill("coco_json", _coco, ".json"),
    _drill("labelme", _labelme, ".json"),
    _drill("yolo", _yolo, ".txt"),
)
