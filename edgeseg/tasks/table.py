"""The figures of one task as a table for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeseg.machine.terminal import printable

if TYPE_CHECKING:
    from torch import Tensor

TITLES = {
    "miou": "mIoU", "miou_classes": "classes in the mIoU", "f1": "F1 (Dice)", "precision": "precision",
    "recall": "recall", "pixel_accuracy": "pixel accuracy", "frequency_weighted_iou": "frequency weighted IoU",
    "threshold": "threshold", "best_threshold": "best threshold", "best_iou": "IoU at the best threshold",
    "ard": "relative error", "ard_3_to_80": "relative error, 3 to 80 m", "rmse": "RMSE in metres",
    "delta": "within a factor of 1.25", "outside": "ground truth out of range",
}  # fmt: skip


def figure(value: float) -> float | None:
    """A figure with four decimals; None if it cannot be known, such as a mean over no pixels."""
    return round(value, 4) if math.isfinite(value) else None


def as_numbers(values: Any) -> Tensor:
    """A tensor of a tensor or of an array, with uint16, for which torch lacks operators, as int32."""
    import torch

    tensor = torch.as_tensor(values)
    return tensor.int() if tensor.dtype == torch.uint16 else tensor


def require_one_shape(prediction: Tensor, target: Tensor) -> None:
    """Raises a ValueError if a prediction and its ground truth have different shapes."""
    if prediction.shape != target.shape:
        raise ValueError(
            f"the prediction has the shape {list(prediction.shape)} and the ground truth {list(target.shape)}; both "
            "must be the same"
        )


def rows(scores: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    """Names and values of the scores: first the IoU of each class as "iou/CLASS", then the figures over all of them."""
    classes = ((f"iou/{name}", value) for name, value in scores.get("iou", {}).items())
    return [*classes, *((key, scores[key]) for key in _figures(scores))]


def table(scores: Mapping[str, Any]) -> str:
    """The scores in lines of a title and a value, "-" for a figure that cannot be known.

    Args:
        scores: Figures of one task, as `Metric.scores` returns them.
    """
    titles = dict(TITLES)
    if "miou_classes" in scores:
        titles["miou"] = f"mIoU over {scores['miou_classes']} of {len(scores['iou'])} classes"
    lines = [(printable(name), value) for name, value in scores.get("iou", {}).items()]
    lines += [(titles.get(name, name), scores[name]) for name in _figures(scores) if name != "miou_classes"]
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"{name:{width}}  {'-' if value is None else f'{value:.2f}':>6}" for name, value in lines)


def _figures(scores: Mapping[str, Any]) -> list[str]:
    """The names of the figures over all classes; those of a registered kind come last, in its own order."""
    known = [name for name in TITLES if name in scores]
    return known + [name for name in scores if name not in TITLES and name not in ("protocol", "iou")]
