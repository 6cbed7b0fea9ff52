"""IoU, F1, precision and recall of one class of interest, at its threshold and at every other one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from edgeseg.labels import IGNORE, class_names
from edgeseg.spec import DEFAULT_THRESHOLD, Task
from edgeseg.tasks.metrics import ConfusionMatrix
from edgeseg.tasks.table import as_numbers, table
from edgeseg.vision.upsample import warn_unless_finite

BINS = 256
THRESHOLDS = [step / BINS for step in range(1, BINS)]
# Logits are compared rather than probabilities, as the maps are.
EDGES = torch.tensor([math.log(threshold / (1 - threshold)) for threshold in THRESHOLDS], dtype=torch.float32)


class BinaryScores(ConfusionMatrix):
    """Counts of pixels by true and predicted class, and histograms of the probabilities of either class.

    The histograms have 256 bins, so that the IoU at every multiple of 1/256 as a threshold is known after one pass.

    Args:
        threshold: Probability above which a pixel is predicted as foreground.
        names: Names of the background and the foreground, for the table that `print` shows.

    Attributes:
        ignored: Number of pixels with the label 255.

    Example:
        >>> import torch
        >>> from edgeseg.engine import BinaryScores
        >>> scores = BinaryScores()
        >>> scores.update(torch.tensor([[-1.0, 2.0, 0.5]]), torch.tensor([[0, 1, 0]]))  # logits
        >>> scores.foreground_iou
        0.5
    """

    def __init__(self, threshold: float = DEFAULT_THRESHOLD, names: Sequence[str] = ()) -> None:
        super().__init__(2, names)
        self.threshold = threshold
        self.limit = torch.tensor(math.log(threshold / (1 - threshold)), dtype=torch.float32)
        self.histogram = torch.zeros(2, BINS, dtype=torch.int64)
        self.ignored = torch.zeros((), dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds predictions and true class ids of the same shape; targets of 255 are ignored.

        Args:
            prediction: float logits; or integers 0 and 1, from which the scores at other thresholds cannot be known.
            target: Integers 0, 1 and 255.
        """
        prediction, target = as_numbers(prediction), as_numbers(target)
        logits = prediction if prediction.is_floating_point() else None
        if logits is not None:
            warn_unless_finite(float(logits.sum(dtype=torch.float64)))
            prediction = (logits.float() > self.limit.to(logits.device)).to(torch.uint8)
        super().update(prediction, target)  # raises an error before anything is counted
        counted = target != IGNORE
        self.ignored += (~counted).sum().cpu()
        if logits is None:
            return
        bins = torch.bucketize(logits[counted].float(), EDGES.to(logits.device))
        pairs = target[counted].long() * BINS + bins
        self.histogram += torch.bincount(pairs, minlength=2 * BINS).view(2, BINS).cpu()

    def reduce(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replaces the counts by `total(counts)`, such as the sum over all processes."""
        super().reduce(total)
        self.histogram, self.ignored = total(self.histogram), total(self.ignored)

    def __repr__(self) -> str:
        return table(self.scores(Task("binary", classes=self.names), "native"))

    @property
    def foreground(self) -> int:
        """Number of pixels whose true class is the foreground."""
        return int(self.counts[1].sum())

    @property
    def foreground_iou(self) -> float:
        """IoU of the foreground, 0 to 1; NaN if it neither occurs nor is predicted."""
        return float(self.iou[1])

    @property
    def f1(self) -> float:
        """F1 score of the foreground, which is its Dice coefficient, 0 to 1; NaN as `foreground_iou`."""
        return float(2 * self.counts[1, 1].double() / (self.counts[1].sum() + self.counts[:, 1].sum()))

    @property
    def precision(self) -> float:
        """Share of the predicted foreground that is foreground, 0 to 1; NaN if none is predicted."""
        return float(self.counts[1, 1].double() / self.counts[:, 1].sum())

    @property
    def recall(self) -> float:
        """Share of the foreground that is predicted, 0 to 1; NaN if there is none."""
        return float(self.counts[1, 1].double() / self.counts[1].sum())

    @property
    def iou_by_threshold(self) -> dict[float, float]:
        """IoU of the foreground, 0 to 1, at every multiple of 1/256; empty if predictions were not logits."""
        if not self.counted or int(self.histogram.sum()) != self.counted:
            return {}
        above = self.histogram.flip(1).cumsum(1).flip(1)[:, 1:]  # number of pixels above each threshold
        union = above[0] + self.histogram[1].sum()
        return dict(zip(THRESHOLDS, (above[1].double() / union).tolist(), strict=True))

    @property
    def best_threshold(self) -> float | None:
        """The threshold of the highest IoU, of equal ones the nearest to 0.5; None if it cannot be known."""
        ious = self.iou_by_threshold
        if not ious or not self.foreground:
            return None
        return max(ious, key=lambda threshold: (ious[threshold], -abs(threshold - 0.5)))

    def headline(self, protocol: str) -> tuple[str, float]:
        """The name "iou" and the IoU of the foreground in percent."""
        return "iou", 100 * self.foreground_iou

    def scores(self, task: Task, protocol: str) -> dict[str, Any]:
        """Figures of the foreground in percent, and the best threshold if it can be known; None for 0 / 0."""
        figures: dict[str, Any] = {
            "protocol": protocol,
            "iou": {class_names(task)[1]: _percent(self.foreground_iou)},
            **{name: _percent(getattr(self, name)) for name in ("f1", "precision", "recall", "pixel_accuracy")},
            "threshold": round(self.threshold, 6),
        }
        best = self.best_threshold
        if best is not None:
            figures |= {"best_threshold": round(best, 6), "best_iou": _percent(self.iou_by_threshold[best])}
        return figures


def _percent(value: float) -> float | None:
    return None if math.isnan(value) else round(100 * value, 4)
