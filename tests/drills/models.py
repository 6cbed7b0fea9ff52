"""The small networks that the drills save, export and load."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

import edgeseg

from .drill import expect

ENCODER = "test_efficientnet"  # timm's network for tests
SIZE = (32, 64)
PHOTO = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def small(**options: object) -> edgeseg.Pixel2Pixel:
    """A network of 0.1 M parameters for three classes with names, in evaluation mode."""
    torch.manual_seed(0)
    tasks = {"segmentation": edgeseg.Task("segmentation", 3, classes=("road", "sky", "cat"))}
    model = edgeseg.create_model("fpn", encoder=ENCODER, channels=8, tasks=tasks, **options)  # type: ignore[arg-type]
    model.configure(preprocess=edgeseg.Preprocess(size=SIZE), notes={"license": "x", "encoder": {"weights": "y"}})
    return model.eval()


@cache
def kept() -> edgeseg.Pixel2Pixel:
    """One `small` network per process, which a drill leaves as it is."""
    return small()


def expect_map(labels: np.ndarray) -> None:
    """A map of `PHOTO` has its size, and a type that maps have."""
    fits = labels.shape[:2] == PHOTO.shape[:2] and labels.dtype in (np.uint8, np.uint16, np.float32)
    expect(fits, f"a map of {labels.dtype} {labels.shape}")
