"""Mean intersection over union, from one confusion matrix over a whole set."""

from __future__ import annotations

import torch
from torch import Tensor


class ConfusionMatrix:
    """Counts of pixels by true class (row) and predicted class (column)."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds integer label maps of the same shape; targets outside the classes, such as 255, do not count."""
        prediction, target = prediction.flatten().long(), target.flatten().long()
        counted = (target >= 0) & (target < self.classes)
        pairs = target[counted] * self.classes + prediction[counted]
        self.counts += torch.bincount(pairs, minlength=self.classes**2).view(self.classes, self.classes).cpu()

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
    def pixel_accuracy(self) -> float:
        """Share of the counted pixels that are right, 0 to 1."""
        return float(self.counts.diag().sum() / self.counts.sum())
