"""The check of both datasets before the first step of a training run."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn

from edgeseg.data.base import LabelledDataset, fact_of
from edgeseg.data.check import DataReport, Read, check_dataset
from edgeseg.data.samples import check_classes, check_inputs, require_samples
from edgeseg.data.transforms import Augmented
from edgeseg.engine import distributed
from edgeseg.machine.terminal import say, warn
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.recipes import TrainConfig
from edgeseg.spec import Task
from edgeseg.tasks import kind_of

SAMPLED = 32  # number of samples that are read where not all of them have to be


def check_tasks(model: Pixel2Pixel, train_set: LabelledDataset, val_set: LabelledDataset | None) -> None:
    """Compares what the datasets say of themselves with the tasks of the model, without reading a sample.

    Raises:
        ValueError: other classes than the model has, inputs in another order, or a task without a ground truth.
    """
    for name, dataset in (("training", train_set), *([("validation", val_set)] if val_set is not None else [])):
        require_samples(dataset, name=f"the {name} set")
        check_classes(dataset, model.tasks, name=f"the {name} set")
        check_inputs(dataset, model.inputs, name=f"the {name} set")
        given = fact_of(dataset, "tasks", model.tasks)
        missing = [task for task in model.tasks if len(model.tasks) > 1 and task not in given]
        if missing:
            raise ValueError(
                f"the {name} set has no target for {', '.join(missing)}; it has {', '.join(given)}; "
                f"pass the tasks to create_model"
            )


def check_data(
    model: Pixel2Pixel,
    samples: Augmented,
    val_set: LabelledDataset | None,
    config: TrainConfig,
    output: Path,
    *,
    unlabelled: Collection[str] = (),
) -> DataReport:
    """Checks the samples of both datasets, and says what is in them before training starts.

    All training samples are read if the recipe needs their class frequencies or says `check_data`, or if they are in
    memory anyway, and all validation samples if it says `check_data`; otherwise some of each.

    Args:
        model: The network that is trained.
        samples: The training set.
        val_set: The validation set.
        config: The recipe.
        output: Folder of the run, for `data_training.json` and `data_validation.json`.
        unlabelled: Tasks that have a teacher, whose training samples need no labels.

    Returns:
        The report of the training set.

    Raises:
        OSError: a file cannot be read.
        ValueError: a sample that cannot be used, or labels from which nothing can be learned.
    """
    everything = config.check_data or config.class_weights == "log" or samples.decoded is not None
    limit = None if everything else SAMPLED
    report = _checked("training", samples.dataset, model, limit, output, samples.read, unlabelled=unlabelled)
    if val_set is not None:
        _checked("validation", val_set, model, None if config.check_data else SAMPLED, output)
    elif distributed.rank() == 0:
        (output / "data_validation.json").unlink(missing_ok=True)  # of an earlier run in this folder
    return report


def _checked(
    name: str,
    dataset: LabelledDataset,
    model: Pixel2Pixel,
    limit: int | None,
    output: Path,
    read: Read | None = None,
    *,
    unlabelled: Collection[str] = (),
) -> DataReport:
    """Checks one dataset, and prints its report. Process 0 alone prints, and keeps the report in the folder."""
    first = distributed.rank() == 0
    check = partial(
        check_dataset, dataset, tasks=model.tasks, inputs=model.inputs, on_error="stop", read=read,
        cache=output / f"data_{name}.json" if first else None,
    )  # fmt: skip
    report = check(limit=limit)
    taught = set(model.tasks) <= set(unlabelled) and not any(sum(each.pixels) for each in report.classes.values())
    wrong = "" if taught else _wrong(name, report, model.tasks)
    if wrong and report.checked < report.samples:  # some samples are not enough to say so
        report = check(limit=None)
        wrong = _wrong(name, report, model.tasks)
    if wrong:
        raise ValueError(wrong)
    if first:
        say(f"{name} set, for {next(model.parameters()).device}\n{report}\n")
        for message in report.warnings:
            warn(f"{name} set: {message}")
    return report


def _wrong(name: str, report: DataReport, tasks: Mapping[str, Task]) -> str:
    """Why nothing can be learned or scored, in the words of a kind of task if it has some; "" if something can."""
    for task, counts in report.classes.items():
        if wrong := kind_of(tasks[task]).wrong_dataset(counts.pixels, counts.ignored):
            return f"{task} in the {name} set: {wrong}"
    return f"the {name} set: {'; '.join(report.errors)}" if report.errors else ""


def check_batch_norms(network: nn.Module, model: Pixel2Pixel, config: TrainConfig) -> None:
    """Runs a copy of the network on a batch of one sample, if batches are so small, since batch norms may refuse it.

    Raises:
        ValueError: a batch norm would see a single value per channel; names the options to change.
    """
    if config.batch_size > distributed.world_size():
        return
    height, width = config.rand_crop or config.img_resize
    device = next(model.parameters()).device
    images = [torch.zeros(1, each.channels, height, width, device=device) for each in model.inputs.values()]
    trial = copy.deepcopy(network).train()
    try:
        with torch.no_grad():
            trial(*images)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            f"a batch of one sample of {height}x{width} leaves a batch norm a single value per channel, which has no "
            "variance: raise batch_size (--batch-size) to at least 2 per process, or keep the statistics with "
            "freeze_bn (--freeze-bn); a larger rand_crop (--rand-crop) helps networks without global pooling"
        ) from error
