"""Folders of models whose config.json is damaged, and the records in weights files."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import edgeseg
from edgeseg.cli import main

from .damage import damaged_bytes, damaged_json
from .drill import NAME, Drill, expect
from .models import PHOTO, expect_map, small


def make(folder: Path) -> None:
    small().save_pretrained(folder / "one", license="mit")
    tasks = {"classes": edgeseg.Task("segmentation", 4), "depth": edgeseg.Task("depth", 1, range=(0, 80))}
    two = edgeseg.create_model("unet", encoder="mobilenetv2", channels=8, in_channels=(3, 3), tasks=tasks)
    two.save_pretrained(folder / "two")


def damage(rng: Random, seeds: Path, work: Path) -> None:
    folder = work / NAME
    shutil.copytree(rng.choice(sorted(seeds.iterdir())), folder)
    text = (folder / "config.json").read_text()
    changed = damaged_bytes(rng, text.encode()) if rng.random() < 0.2 else damaged_json(rng, text).encode()
    (folder / "config.json").write_bytes(changed)


def read(work: Path) -> None:
    model = edgeseg.create_model(f"local-dir:{work / NAME}").eval()
    photos = [PHOTO[..., : each.channels] for each in model.inputs.values()]
    if all(each.channels <= 3 for each in model.inputs.values()):
        for values in model.predict_tasks(*photos).values():
            expect_map(values)
    repr(model)
    edgeseg.save_checkpoint(model, work / "again.safetensors")
    expect(main(["info", str(work / "again.safetensors")]) == 0, "edgeseg info refuses what was saved")


DRILLS = (Drill("configs", make, damage, read, 2500),)
