"""Intersection over union and its kin, from one confusion matrix over a whole set."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseg.engine import distributed


class ConfusionMatrix:
    """Counts of pixels by true class (row) and predicted class (column)."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds integer label maps of the same shape; targets beyond the classes, such as 255, do not count."""
        # One row more takes what does not count: cheaper than to select what does.
        rows = target.flatten().int().clamp(max=self.classes)
        pairs = rows * self.classes + prediction.flatten().int()
        counts = torch.bincount(pairs, minlength=(self.classes + 1) * self.classes)
        self.counts += counts.view(-1, self.classes)[: self.classes].cpu()

    def reduce(self) -> None:
        """Adds up the counts of all processes."""
        self.counts = distributed.total(self.counts)

    @property
    def counted(self) -> int:
        """Pixels that count."""
        return int(self.counts.sum())

    @property
    def iou(self) -> Tensor:
        """Intersection over union of each class, 0 to 1; NaN where a class is neither there nor predicted."""
        intersection = self.counts.diag().double()
        union = self.counts.sum(0) + self.counts.sum(1) - self.counts.diag()
        return intersection / union

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that occur, 0 to 1."""
        return float(self.iou.nanmean())

    @property
    def miou_of_all(self) -> float:
        """Mean of `iou` over all classes, 0 to 1; as in the original, one that occurs nowhere counts as 0."""
        return float(self.iou.nan_to_num().mean())

    @property
    def pixel_accuracy(self) -> float:
        """Share of the counted pixels that are right, 0 to 1."""
        return float(self.counts.diag().sum() / self.counts.sum())

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of `iou` weighted by how many pixels each class has, 0 to 1."""
        share = self.counts.sum(1).double() / self.counts.sum()
        return float((share * self.iou.nan_to_num()).sum())
