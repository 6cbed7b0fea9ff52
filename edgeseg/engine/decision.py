"""What is decided by labelled photos after training: the threshold of a binary task, and the biases of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from edgeseg.data.base import LabelledDataset
from edgeseg.data.samples import check_classes, check_inputs, checked_sample, require_samples
from edgeseg.engine import distributed
from edgeseg.engine.evaluation import NetworkScorer, evaluate_tasks, samples_of
from edgeseg.labels import IGNORE, class_names
from edgeseg.networks.constants import add_constants
from edgeseg.networks.modes import evaluating
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.tasks import kind_of
from edgeseg.tasks.kind import Kind, upsampled

SAMPLED_BYTES = 64e6  # of logits that biases are chosen on
CANDIDATES = torch.linspace(-4, 4, 65)  # changes of one bias that are compared
SWEEPS = 5  # over the classes, at most


def choose_threshold(model: Pixel2Pixel, dataset: LabelledDataset, *, task: str | None = None, **options: Any) -> float:
    """Chooses the threshold of a binary task at which the IoU on a dataset is highest, and sets it in the model.

    One pass gives the IoU at every multiple of 1/256. `predict`, files that are exported, and everything that is saved
    of the model have the threshold from then on.

    Args:
        model: A network; its record gets the threshold.
        dataset: As in `evaluate_tasks`; the validation set, since a threshold that is chosen on the test set makes the
            scores there too good.
        task: Name of the task; by default the only binary one.
        options: Further arguments of `evaluate_tasks`, such as `workers`.

    Returns:
        The threshold, 0 to 1.

    Raises:
        ValueError: the model has no binary task, or several and no `task` is given; or no pixel is foreground.

    Example:
        >>> import edgeseg, torch
        >>> from edgeseg.engine import choose_threshold
        >>> people = {"people": edgeseg.Task("binary", classes=("person",))}
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", tasks=people)
        >>> photo, mask = torch.zeros(3, 64, 96, dtype=torch.uint8), torch.ones(64, 96, dtype=torch.uint8)
        >>> threshold = choose_threshold(model, [((photo,), {"people": mask})], workers=0)
        >>> model.tasks["people"].threshold == threshold
        True
    """
    name = _one_task(model, task, "choose_threshold", "threshold", "binary", lambda kind: kind.has_threshold)
    metric = evaluate_tasks(model, dataset, tasks=[name], **options)[name]
    threshold: float | None = getattr(metric, "best_threshold", None)
    if threshold is None:
        raise ValueError(f"no pixel of {name} is foreground in the dataset; no threshold can be chosen on it")
    model.configure(tasks={**model.tasks, name: replace(model.tasks[name], threshold=threshold)})
    return threshold


def choose_biases(
    model: Pixel2Pixel, dataset: LabelledDataset, *, task: str | None = None, workers: int = 0, progress: str = ""
) -> dict[str, float]:
    """Chooses a constant per class at which the mIoU on a dataset is highest, and adds it to the logits of the model.

    Class weights and the Dice loss make training find rare classes, and predict too many pixels as them. This moves
    the borders between the classes to where the mIoU is best, as logit adjustment does for the mean accuracy (Menon et
    al., 2021, https://arxiv.org/abs/2007.07314). The constants go into the last layer: speed, size and layers of the
    model, and of the files that are exported from it, stay as they are.

    They are found by coordinate ascent on a sample of the pixels: in turn, the bias of each class is moved to the best
    of 65 values. Classes that do not occur in the dataset keep theirs.

    Args:
        model: A network in float32; changed in place.
        dataset: As in `evaluate_tasks`: the training or the validation set, never the one whose scores are reported.
        task: Name of a segmentation task; by default the only one.
        workers: Number of processes that decode.
        progress: Title of a progress bar, which is shown on a terminal; none if it is empty.

    Returns:
        What was added to the logits, by class.

    Raises:
        ValueError: the model has no segmentation task, or several and no `task` is given; the dataset has no labelled
            pixel; the model is an exported file, a copy that `optimize` made, or in another precision; or its last
            layer cannot add constants. The model is as it was before.

    Example:
        >>> import edgeseg
        >>> from edgeseg.data import Streets
        >>> from edgeseg.engine import choose_biases
        >>> streets = Streets("val", size=(96, 128), length=2, labels="camvid")
        >>> name = "fpn_aspp_mobilenetv2_tv_edgeailite"
        >>> model = edgeseg.create_model(name, pretrained=True, tasks=streets.tasks)
        >>> biases = choose_biases(model, streets)
        >>> biases["bicyclist"]  # there is none in these two pictures
        0.0
    """
    name = _one_task(model, task, "choose_biases", "last layer", "segmentation", lambda kind: kind.takes_soft_labels)
    dtype = next(model.parameters()).dtype
    if "optimized" in model.config.notes or model.config.quantization is not None or dtype != torch.float32:
        raise ValueError(
            "choose_biases changes the weights of a float32 network, and not those of an 8-bit network, of one in "
            f"another precision ({dtype}), or of a copy that optimize() made: choose them for the network that it was "
            "made from"
        )
    require_samples(dataset)
    check_classes(dataset, {name: model.tasks[name]})
    check_inputs(dataset, model.inputs)
    images, _ = checked_sample(dataset, 0, model.tasks, model.inputs)
    scorer = NetworkScorer.of(model, "native", None, None, (1.0,), flip=False, bf16=False)
    probe = scorer.inputs(images)
    add_constants(model, name, torch.ones(model.tasks[name].channels), probe, only_try=True)
    logits, labels = _pixels(scorer, dataset, name, workers, progress)
    if not int(distributed.total(torch.tensor(len(labels)))):
        raise ValueError(
            f"no pixel of the dataset has a ground truth for {name}: it is missing, or all of it is ignored"
        )
    biases = best_biases(logits, labels)
    add_constants(model, name, biases, probe)
    return dict(zip(class_names(model.tasks[name]), biases.tolist(), strict=True))


@torch.inference_mode()
def _pixels(
    scorer: NetworkScorer, dataset: LabelledDataset, task: str, workers: int, progress: str
) -> tuple[Tensor, Tensor]:
    """Logits float32 [N, C] and true classes int64 [N] of pixels that are drawn evenly from this process's samples."""
    model, classes = scorer.model, scorer.model.tasks[task].channels
    quota = max(round(SAMPLED_BYTES / 4 / classes / len(dataset)), 1)
    generator = torch.Generator().manual_seed(0)
    logits, labels = [torch.zeros(0, classes)], [torch.zeros(0, dtype=torch.int64)]
    for images, targets in samples_of(dataset, model, [task], workers=workers, progress=progress):
        if task not in targets:
            continue
        target = targets[task].cpu().flatten().long()
        places = (target != IGNORE).nonzero().flatten()
        places = places[torch.randperm(len(places), generator=generator)[:quota]]
        with evaluating(model):
            (output,) = upsampled([scorer.outputs(images)[task]], targets[task].shape[-2:])
        logits.append(output[0].flatten(1).cpu()[:, places].t())
        labels.append(target[places])
    return torch.cat(logits), torch.cat(labels)


def best_biases(logits: Tensor, labels: Tensor) -> Tensor:
    """The constants per class that give pixels the highest mIoU.

    Args:
        logits: float [N, C] of this process's pixels.
        labels: int64 [N], 0 to C - 1.

    Returns:
        float32 [C].
    """
    classes = logits.shape[1]
    biases = torch.zeros(classes)
    occurs = distributed.total(torch.bincount(labels, minlength=classes)) > 0
    best = 0.0
    for _ in range(SWEEPS):
        before = best
        for index in occurs.nonzero().flatten().tolist():
            mious = _mious(logits + biases, labels, index)[:, occurs].mean(dim=1)
            # Of equal ones the smallest change.
            top = (mious >= mious.max() - 1e-6).nonzero().flatten()
            choice = top[CANDIDATES[top].abs().argmin()]
            biases[index] += CANDIDATES[choice]
            best = float(mious[choice])
        if best - before < 1e-4:
            break
    return biases


def _mious(logits: Tensor, labels: Tensor, index: int) -> Tensor:
    """IoU [candidates, classes] for every change of the bias of the class `index`."""
    classes, steps = logits.shape[1], len(CANDIDATES)
    own = logits[:, index]
    rest = logits.clone()
    rest[:, index] = -torch.inf
    highest, other = rest.max(dim=1)
    # The number of candidates at which a pixel is still another class.
    lost = torch.bucketize(highest - own, CANDIDATES, right=True)
    cells = (lost * classes + other) * classes + labels
    counts = torch.bincount(cells, minlength=(steps + 1) * classes**2).view(steps + 1, classes, classes)
    counts = distributed.total(counts)
    won = counts.cumsum(dim=0)[:-1]  # [candidates, other class, true class]
    matrix = counts.sum(dim=0) - won
    matrix[:, index] += won.sum(dim=1)
    hits = matrix.diagonal(dim1=1, dim2=2).double()
    return hits / (matrix.sum(dim=1) + matrix.sum(dim=2) - hits).clamp(min=1)


def _one_task(
    model: Pixel2Pixel, task: str | None, function: str, what: str, kind: str, suits: Callable[[Kind], bool]
) -> str:
    """The name of the task that a function decides about, which has to be the only one of its kind, or named."""
    if not isinstance(model, Pixel2Pixel):
        raise ValueError(f"the {what} of an exported file is fixed; choose it for the network, and export it again")
    names = [name for name, each in model.tasks.items() if suits(kind_of(each)) and task in (None, name)]
    if len(names) != 1:
        has = ", ".join(f"{name} ({each.kind})" for name, each in model.tasks.items())
        raise ValueError(f"{function} needs one {kind} task; pass task=NAME of one. This model has {has}")
    return names[0]
