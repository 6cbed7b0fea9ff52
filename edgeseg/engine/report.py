"""Reports of training and evaluation: JSON lines, tables, curves, and a page of samples."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from edgeseg.data.base import LabelledDataset
from edgeseg.data.samples import checked_sample
from edgeseg.engine.callbacks import Callback, Run
from edgeseg.machine.errors import value_errors
from edgeseg.machine.files import full_disk_named, replacing
from edgeseg.machine.terminal import say, show
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.tasks import to_map
from edgeseg.tasks.pictures import picture_of, with_key
from edgeseg.tasks.table import rows, table
from edgeseg.vision.visualize import as_picture, beside, colorize_flow, stack

SAMPLES, COLUMN = 4, 400  # number of samples on a page, and the width of its columns in pixels


HEARTBEAT = 60.0  # seconds between the lines that are printed within an epoch


class Log(Callback):
    """Writes one row per epoch to `metrics.jsonl`, prints it, and logs it to TensorBoard if that is installed.

    Without a visible progress bar, such as in a log file, it prints the progress of the epoch once a minute.
    """

    def __init__(self) -> None:
        self.tensorboard: Any = None
        self.path = Path()
        self.said = time.monotonic()

    def open(self, run: Run, done: int) -> None:
        """Opens the files. Keeps the rows of the `done` epochs; later ones are removed, since these run again."""
        self.path = run.output / "metrics.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if done and self.path.is_file() else []
        kept = [line for line in lines if _epoch(line) <= done]
        with replacing(self.path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter  # in the extra edgeseg[tensorboard]
        except ImportError:
            return
        try:
            self.tensorboard = SummaryWriter(run.output / "tensorboard", purge_step=run.epoch + 1)
        except UnicodeError:  # LC_ALL=C, and a name beyond ASCII
            say(f"TensorBoard cannot write to {run.output}; metrics.jsonl has the same figures")

    def on_step_end(self, run: Run, losses: Mapping[str, float]) -> None:
        """Prints how far the epoch is, every minute."""
        shown = sys.stdout.isatty() and sys.stderr.isatty()  # the bar is on stderr
        if shown or time.monotonic() - self.said < HEARTBEAT:
            return
        self.said = time.monotonic()
        epoch, step = divmod(run.step - 1, run.steps)
        say(f"epoch {epoch + 1}/{run.config.epochs}  step {step + 1}/{run.steps}  loss {losses['loss']:.4g}")

    def on_epoch_end(self, run: Run, row: Mapping[str, float]) -> None:
        """Writes the figures of one epoch; `row["epoch"]` is its number, counted from 1."""
        rounded = {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in row.items()}
        with full_disk_named(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")
        say("  ".join(f"{name} {value:.4g}" for name, value in rounded.items()))
        self.said = time.monotonic()
        if self.tensorboard is not None:
            for name, value in rounded.items():
                self.tensorboard.add_scalar(name, value, int(rounded["epoch"]))

    def on_run_end(self, run: Run, error: BaseException | None) -> None:
        """Closes the files of TensorBoard."""
        if self.tensorboard is not None:
            self.tensorboard.close()


def _epoch(line: str) -> float:
    """The epoch of a row; infinity for one that was cut off, such as by a power failure, so that it runs again."""
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return math.inf


class Pictures(Callback):
    """Draws `curves.png` and, with a validation set, `samples.png` at the end of a run.

    Args:
        val_set: The validation set.
    """

    def __init__(self, val_set: LabelledDataset | None) -> None:
        self.val_set = val_set

    def on_run_end(self, run: Run, error: BaseException | None) -> None:
        """Draws both pictures, unless the run was interrupted."""
        if error is None:
            draw_curves(run.output, run.figures)
            if self.val_set is not None:
                draw_samples(run.model, self.val_set, run.output / "samples.png")


def print_scores(scores: Mapping[str, Any], *, title: str = "") -> None:
    """Prints a table of scores.

    Args:
        scores: Figures of one task, as `Metric.scores` returns them.
        title: Line above the table.
    """
    if title:
        show(title)
    show(table(scores))


def write_scores(scores: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Writes the scores of all tasks to a file.

    Args:
        scores: Figures by task, as `Metric.scores` returns them.
        path: `.json`; any other suffix gives CSV with one row per figure. The file is written whole or not at all.
    """
    with replacing(path) as temporary:
        if path.suffix == ".json":
            temporary.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
            return
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["task", "name", "value"])
            writer.writerows([task, name, value] for task, figures in scores.items() for name, value in rows(figures))


def draw_curves(folder: Path, figures: Sequence[str]) -> None:
    """Draws `curves.png` from the `metrics.jsonl` of a folder, if matplotlib is installed (extra edgeseg[plots]).

    Args:
        folder: Folder of the run.
        figures: Names of the losses and scores in the log.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    log = folder / "metrics.jsonl"
    with value_errors(log, f"{log} is damaged"):
        rows = [dict(json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    losses = [name for name in figures if name.rpartition("_")[2] == "loss"]
    panels = {"losses": losses, "scores": [name for name in figures if name not in losses], "lr": ["lr"]}
    for axes, (title, names) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name in names:
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
    height = max(1, round(COLUMN * inputs[-1].height / inputs[-1].width))
    parts = [picture.resize((COLUMN, height)) for picture in inputs]
    for name, values in model.predict_tasks(*images).items():
        task = model.tasks[name]
        if name in targets:
            ground_truth = picture_of(to_map(targets[name].numpy()), task)
            parts.append(ground_truth.resize((COLUMN, height), Image.Resampling.NEAREST))
        parts.append(with_key(picture_of(values, task, inputs[-1]).resize((COLUMN, height)), values, task))
    return beside(parts)
