"""The figures of one task as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeseg.machine.terminal import printable

TITLES = {
    "miou": "mIoU", "miou_classes": "classes in the mIoU", "f1": "F1 (Dice)", "precision": "precision",
    "recall": "recall", "pixel_accuracy": "pixel accuracy", "frequency_weighted_iou": "frequency weighted IoU",
    "threshold": "threshold", "best_threshold": "best threshold", "best_iou": "IoU at the best threshold",
    "ard": "relative error", "ard_3_to_80": "relative error, 3 to 80 m", "rmse": "RMSE in metres",
    "delta": "within a factor of 1.25", "outside": "ground truth out of range",
}  # fmt: skip


def rows(scores: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    """Names and values of the scores: first the IoU of each class, then the figures over all of them."""
    return [*scores.get("iou", {}).items(), *((key, scores[key]) for key in TITLES if key in scores)]


def table(scores: Mapping[str, Any]) -> str:
    """The scores in lines of a title and a value, "-" for a figure that cannot be known.

    Args:
        scores: Figures of one task, as `Metric.scores` returns them.
    """
    titles = dict(TITLES)
    if "miou_classes" in scores:
        titles["miou"] = f"mIoU over {scores['miou_classes']} of {len(scores['iou'])} classes"
    lines = [(titles.get(name, printable(name)), value) for name, value in rows(scores) if name != "miou_classes"]
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"{name:{width}}  {'-' if value is None else f'{value:.2f}':>6}" for name, value in lines)
