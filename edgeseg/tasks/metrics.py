"""Intersection over union (IoU) and related metrics, from one confusion matrix over a whole dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from edgeseg.labels import IGNORE, class_names
from edgeseg.spec import Task
from edgeseg.tasks.table import as_numbers, figure, require_one_shape, table


class ConfusionMatrix:
    """Counts of pixels by true class (row) and predicted class (column).

    Args:
        classes: Number of classes, up to 255, since label 255 stands for ignored pixels.
        names: Names of the classes, for the table that `print` shows.

    Raises:
        ValueError: `classes` is not 1 to 255.

    Example:
        >>> import torch
        >>> from edgeseg.engine import ConfusionMatrix
        >>> matrix = ConfusionMatrix(2, ("road", "sky"))
        >>> matrix.update(torch.tensor([[0, 0, 1]]), torch.tensor([[0, 1, 255]]))
        >>> matrix.pixel_accuracy, matrix.iou.tolist()
        (0.5, [0.5, 0.0])
    """

    higher_is_better = True

    def __init__(self, classes: int, names: Sequence[str] = ()) -> None:
        if not 1 <= classes <= IGNORE:
            raise ValueError(f"{classes} classes, but 1 to {IGNORE} are possible: label {IGNORE} means ignored pixels")
        self.classes, self.names = classes, tuple(names)
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds predicted and true class ids, integers of the same shape; targets of 255 are ignored.

        Raises:
            ValueError: the shapes differ, a tensor is not of integers, a target is neither a class nor 255, or a
                prediction is not a class.
        """
        prediction, target = as_numbers(prediction), as_numbers(target)
        require_one_shape(prediction, target)
        if prediction.is_floating_point() or target.is_floating_point():
            raise ValueError(
                f"class ids are integers, got {prediction.dtype} and {target.dtype}; logits become ids by .argmax(1), "
                "and the probabilities of a binary task by > 0.5"
            )
        if prediction.numel() and not 0 <= int(prediction.min()) <= int(prediction.max()) < self.classes:
            raise ValueError(
                f"the predicted ids are {int(prediction.min())} to {int(prediction.max())}; there are {self.classes} "
                f"classes with the ids 0 to {self.classes - 1}"
            )
        outside = (target < 0) | ((target >= self.classes) & (target != IGNORE))
        if bool(outside.any()):
            raise ValueError(
                f"the ground truth has ids {torch.unique(target[outside])[:10].tolist()}; there are {self.classes} "
                f"classes with the ids 0 to {self.classes - 1}, and {IGNORE} stands for ignored pixels"
            )
        # An extra row collects the ignored pixels, which is cheaper than selecting the others.
        rows = target.flatten().int().clamp(max=self.classes)
        pairs = rows * self.classes + prediction.flatten().int()
        counts = torch.bincount(pairs, minlength=(self.classes + 1) * self.classes)
        self.counts += counts.view(-1, self.classes)[: self.classes].cpu()

    def reduce(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replaces the counts by `total(counts)`, such as the sum over all processes."""
        self.counts = total(self.counts)

    def __repr__(self) -> str:
        return table(self.scores(Task("segmentation", self.classes, classes=self.names), "native"))

    @property
    def counted(self) -> int:
        """Number of pixels that are not ignored."""
        return int(self.counts.sum())

    @property
    def iou(self) -> Tensor:
        """IoU per class, float64 [C], 0 to 1; NaN for a class that neither occurs nor is predicted."""
        intersection = self.counts.diag().double()
        union = self.counts.sum(0) + self.counts.sum(1) - self.counts.diag()
        return intersection / union

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that occur or are predicted, 0 to 1."""
        return float(self.iou.nanmean())

    @property
    def miou_of_all(self) -> float:
        """Mean of `iou` over all classes, 0 to 1. As in TI's zoo, a class whose `iou` is NaN counts as 0."""
        return float(self.iou.nan_to_num().mean())

    @property
    def pixel_accuracy(self) -> float:
        """Share of the counted pixels whose class is predicted correctly, 0 to 1."""
        return float(self.counts.diag().sum().double() / self.counts.sum())

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of `iou` weighted by the number of pixels per class, 0 to 1."""
        share = self.counts.sum(1).double() / self.counts.sum()
        return float((share * self.iou.nan_to_num()).sum())

    def headline(self, protocol: str) -> tuple[str, float]:
        """The name "miou" and its value in percent; `miou_of_all` under the original protocol."""
        return "miou", 100 * (self.miou_of_all if protocol == "original" else self.miou)

    def scores(self, task: Task, protocol: str) -> dict[str, Any]:
        """IoU by class and the figures over all classes, in percent; None for a class whose `iou` is NaN.

        "miou_classes" is the number of classes that the mean is taken over.
        """
        ious = [None if iou != iou else round(100 * iou, 4) for iou in self.iou.tolist()]
        return {
            "protocol": protocol,
            "iou": dict(zip(class_names(task), ious, strict=True)),
            "miou": figure(self.headline(protocol)[1]),
            "miou_classes": self.classes if protocol == "original" else sum(iou is not None for iou in ious),
            "pixel_accuracy": figure(100 * self.pixel_accuracy),
            "frequency_weighted_iou": figure(100 * self.frequency_weighted_iou),
        }
