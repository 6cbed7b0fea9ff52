"""Reports of training and evaluation: JSON lines, tables, curves, and a page of samples."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from edgeseg.data.base import LabelledDataset
from edgeseg.data.samples import checked_sample
from edgeseg.engine import distributed
from edgeseg.machine.files import replacing
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.tasks import to_map
from edgeseg.tasks.pictures import picture_of, with_key
from edgeseg.vision.visualize import as_picture, beside, colorize_flow, stack

SAMPLES, COLUMN = 4, 400  # number of samples on a page, and the width of its columns in pixels


class Log:
    """Writes one row per epoch to `metrics.jsonl`, prints it, and logs it to TensorBoard if that is installed.

    Only process 0 writes.

    Args:
        folder: Folder of the run.
        epochs: Number of epochs that are done. Rows of an earlier part of the run are kept up to there, and later ones
            are removed, since these epochs run again.
    """

    def __init__(self, folder: Path, epochs: int) -> None:
        self.path = folder / "metrics.jsonl"
        self.quiet = distributed.rank() != 0
        self.tensorboard: Any = None
        if self.quiet:
            return
        kept = self.path.read_text().splitlines()[:epochs] if epochs and self.path.is_file() else []
        self.path.write_text("".join(f"{line}\n" for line in kept))
        try:
            from torch.utils.tensorboard import SummaryWriter  # in the extra edgeseg[tensorboard]
        except ImportError:
            return
        self.tensorboard = SummaryWriter(folder / "tensorboard", purge_step=epochs + 1)

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.tensorboard is not None:
            self.tensorboard.close()

    def write(self, row: Mapping[str, float]) -> None:
        """Writes the figures of one epoch; `row["epoch"]` is its number, counted from 1."""
        if self.quiet:
            return
        rounded = {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in row.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(rounded) + "\n")
        print("  ".join(f"{name} {value:.4g}" for name, value in rounded.items()), flush=True)
        if self.tensorboard is not None:
            for name, value in rounded.items():
                self.tensorboard.add_scalar(name, value, int(rounded["epoch"]))


TITLES = {
    "miou": "mIoU", "miou_classes": "classes in the mIoU",
    "pixel_accuracy": "pixel accuracy", "frequency_weighted_iou": "frequency weighted IoU",
    "ard": "relative error", "ard_3_to_80": "relative error, 3 to 80 m", "rmse": "RMSE in metres",
    "delta": "within a factor of 1.25", "outside": "ground truth out of range",
}  # fmt: skip


def _rows(scores: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    """Names and values of the scores: first the IoU of each class, then the figures over all of them."""
    return [*scores.get("iou", {}).items(), *((key, scores[key]) for key in TITLES if key in scores)]


def print_scores(scores: Mapping[str, Any], *, title: str = "") -> None:
    """Prints a table of scores.

    Args:
        scores: Figures of one task, as `Metric.scores` returns them.
        title: Line above the table.
    """
    titles = dict(TITLES)
    if "miou_classes" in scores:
        titles["miou"] = f"mIoU over {scores['miou_classes']} of {len(scores['iou'])} classes"
    rows = [(titles.get(name, name), value) for name, value in _rows(scores) if name != "miou_classes"]
    width = max(len(name) for name, _ in rows)
    if title:
        print(title)
    for name, value in rows:
        print(f"{name:{width}}  {'-' if value is None else f'{value:.2f}':>6}")


def write_scores(scores: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Writes the scores of all tasks to a file.

    Args:
        scores: Figures by task, as `Metric.scores` returns them.
        path: `.json`; any other suffix gives CSV with one row per figure. The file is written whole or not at all.
    """
    with replacing(path) as temporary:
        if path.suffix == ".json":
            temporary.write_text(json.dumps(scores, indent=2) + "\n")
            return
        with temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["task", "name", "value"])
            writer.writerows([task, name, value] for task, figures in scores.items() for name, value in _rows(figures))


def draw_curves(folder: Path) -> None:
    """Draws `curves.png` from the `metrics.jsonl` of a folder, if matplotlib is installed (extra edgeseg[plots])."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    panels = {"loss": ("loss",), "scores in percent": ("miou", "ard"), "lr": ("lr",)}
    for axes, (title, kinds) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name in dict.fromkeys(key for row in rows for key in row if key.rpartition("_")[2] in kinds):
            points = [(row["epoch"], row[name]) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 30 else None, label=name)
        if axes.lines:
            axes.legend()
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
    with replacing(folder / "curves.png") as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def draw_samples(model: Pixel2Pixel, dataset: LabelledDataset, path: Path) -> None:
    """Draws a page of samples: per row the inputs, then ground truth and prediction of each task.

    Args:
        model: The network that predicts.
        dataset: Samples are chosen evenly over it.
        path: PNG file to write, whole or not at all.
    """
    rows = []
    for index in np.linspace(0, len(dataset) - 1, min(SAMPLES, len(dataset))).astype(int):
        images, targets = checked_sample(dataset, int(index), model.tasks, model.inputs)
        rows.append(_sample(model, images, targets))
    with replacing(path) as temporary:
        stack(rows).save(temporary, format="png")


def _sample(model: Pixel2Pixel, images: Sequence[Tensor], targets: Mapping[str, Tensor]) -> Image.Image:
    """Draws one row of the page."""
    arrays = [image.permute(1, 2, 0).numpy() for image in images]
    inputs = [
        colorize_flow(array) if entry.kind == "flow" else as_picture(array)
        for entry, array in zip(model.inputs.values(), arrays, strict=True)
    ]
    height = round(COLUMN * inputs[-1].height / inputs[-1].width)
    parts = [picture.resize((COLUMN, height)) for picture in inputs]
    for name, values in model.predict_tasks(*images).items():
        task = model.tasks[name]
        if name in targets:
            ground_truth = picture_of(to_map(targets[name].numpy()), task)
            parts.append(ground_truth.resize((COLUMN, height), Image.Resampling.NEAREST))
        parts.append(with_key(picture_of(values, task, inputs[-1]).resize((COLUMN, height)), values, task))
    return beside(parts)
