"""A page of samples with their ground truth drawn over the photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from edgeseg.data.base import LabelledDataset, fact_of, name_of
from edgeseg.data.samples import checked_sample
from edgeseg.machine.files import replacing
from edgeseg.tasks import to_map
from edgeseg.tasks.pictures import picture_of, with_key
from edgeseg.vision.visualize import as_picture, beside, colorize_flow, stack

COLUMN = 400  # width of a picture in pixels


def draw_overlays(dataset: LabelledDataset, *, count: int = 6, title: str = "", **options: Any) -> Image.Image:
    """Draws a page of samples: per row the images and the ground truth of each task, with the name of the sample.

    Args:
        dataset: Samples are chosen evenly over it; those that cannot be used are left out.
        count: Number of samples.
        title: Line above the page.
        options: `tasks` and `inputs` of `edgeseg.data.samples.checked_sample`; by default those of the dataset.

    Raises:
        ValueError: neither the dataset nor `options` says what the tasks are.
    """
    tasks = options.get("tasks") or fact_of(dataset, "tasks", {})
    inputs = options.get("inputs") or fact_of(dataset, "inputs")
    if not tasks:
        raise ValueError('the dataset has no attribute `tasks`; pass tasks={"segmentation": Task(channels=3)}')
    rows = [_caption(title)] if title else []
    for index in sorted({*np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist()}):
        try:
            images, targets = checked_sample(dataset, index, tasks, inputs)
        except (OSError, ValueError):
            continue
        flows = [each.kind == "flow" for each in inputs.values()] if inputs else [False] * len(images)
        pictures = [
            colorize_flow(_array(image)) if flow else as_picture(_array(image))
            for image, flow in zip(images, flows, strict=True)
        ]
        parts = [_column(picture) for picture in pictures]
        for name, target in targets.items():
            values = to_map(target.as_subclass(Tensor).numpy())
            overlay = picture_of(values, tasks[name], pictures[-1].convert("RGB")).convert("RGB")
            parts.append(with_key(_column(overlay), values, tasks[name]))
        rows += [_caption(name_of(dataset, index)), beside(parts, gap=4)]
    return stack(rows or [_caption("no sample can be drawn")])


def save_page(page: Image.Image, path: Path) -> None:
    """Saves a page as a PNG file, whole or not at all."""
    with replacing(path) as temporary:
        page.save(temporary, format="png")


def _array(image: Tensor) -> np.ndarray:
    return image.as_subclass(Tensor).permute(1, 2, 0).numpy()


def _column(picture: Image.Image) -> Image.Image:
    return picture.resize((COLUMN, max(round(COLUMN * picture.height / picture.width), 1)))


def _caption(text: str) -> Image.Image:
    font = ImageFont.load_default(14)
    strip = Image.new("RGB", (round(font.getlength(text)) + 12, 24), "white")
    ImageDraw.Draw(strip).text((6, 12), text, fill="black", font=font, anchor="lm")
    return strip
