"""Our networks give the original's outputs, from weights in the original's checkpoint layout."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgeseg
from edgeseg import Task

PARTS = [("ten", 10), ("extra", 14), ("multi", 6)]


def deterministic(key: str, shape: list[int]) -> torch.Tensor:
    """The value that the fixtures' recipe gives a tensor of the original."""
    random = np.random.RandomState(zlib.crc32(key.encode("ascii")) & 0xFFFFFFFF)
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if key.endswith("running_mean"):
        value = 0.1 * random.standard_normal(shape)
    elif key.endswith("running_var"):
        value = 0.5 + random.random_sample(shape)
    elif len(shape) == 4:
        value = random.standard_normal(shape) * np.sqrt(1.0 / np.prod(shape[1:]))
    elif key.endswith(".weight"):
        value = 0.75 + 0.5 * random.random_sample(shape)
    else:
        value = 0.1 * random.standard_normal(shape)
    return torch.from_numpy(value).float()


def original_shapes(entry: dict[str, Any], classes: int | None) -> list[tuple[str, list[int]]]:
    """The original's keys and shapes, which names.json lists for 19 classes, for another number of them."""
    keys = entry["keys"]
    if classes in (None, entry["num_classes"]):
        return keys
    is_unet = any(".unet." in key for key, _ in keys)
    # 38 = 2 x 19 is the width of a UNet's fine levels; a concatenation adds a feature of the encoder to it.
    old, new = 2 * 19, max(2 * classes, 32)
    widths = {old: new, **{old + c: new + c for c in (16, 24)}} if is_unet else {}
    shapes = []
    for key, shape in keys:
        resized = list(shape)
        if key.endswith("pred.1.0.weight"):
            resized[0] = classes
        if is_unet and (".unet.smooth_convs." in key or ".pred." in key):
            resized = [widths.get(size, size) if axis < 2 else size for axis, size in enumerate(resized)]
        shapes.append((key, resized))
    return shapes


@pytest.mark.parametrize(("part", "index"), [(part, i) for part, count in PARTS for i in range(count)])
def test_fixture(part: str, index: int, reference: Callable[[str], Any], tmp_path: Path) -> None:
    fixture, names = reference("fixtures.json")[part][index], reference("names.json")
    inputs, classes = fixture["input_channels"], fixture["num_classes"]
    if classes is None:
        kinds, channels = fixture["overrides"]["output_type"], fixture["overrides"]["output_channels"]
        tasks = {f"{kind}{i}": Task(kind, c) for i, (kind, c) in enumerate(zip(kinds, channels, strict=True))}
    else:
        tasks = {"segmentation": Task("segmentation", classes)}
    variant = fixture["name"] + "__in3_3" * (len(inputs) == 2) + "__dec3" * (len(tasks) == 3)
    state = {key: deterministic(key, shape) for key, shape in original_shapes(names[variant], classes)}
    checkpoint = tmp_path / "original.pth"
    torch.save({"epoch": 1, "state_dict": state}, checkpoint)

    model = edgeseg.create_model(fixture["name"], tasks=tasks, in_channels=inputs, checkpoint_path=checkpoint).eval()
    images = [
        torch.from_numpy(
            fixture["input_scale"] * np.random.RandomState(1234 + i).standard_normal((1, c, fixture["H"], fixture["W"]))
        ).float()
        for i, c in enumerate(inputs)
    ]
    with torch.inference_mode():
        outputs = model(*images)
    assert len(outputs) == len(fixture["outputs"])
    for logits, expected in zip(outputs.values(), (output["logits"] for output in fixture["outputs"]), strict=True):
        assert list(logits.shape) == expected["shape"]
        sampled = logits.flatten()[expected["indices"]].double().numpy()
        assert np.abs(sampled - expected["values_float64"]).max() < 1e-4 * expected["std"]
