"""Errors of predicted depth over a whole dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edgeseg.spec import Task
from edgeseg.tasks.table import as_numbers, figure, require_one_shape, table
from edgeseg.vision.upsample import warn_unless_finite

NEAREST, FARTHEST = 3.0, 80.0  # metres; the range of `ard_3_to_80`


class DepthErrors:
    """Sums the errors of predicted depth over a whole dataset.

    Args:
        limits: Lowest and highest depth that the model can predict, in metres; None for no limits. `outside` is the
            share of pixels, in percent, whose true depth lies beyond them.

    Example:
        >>> import torch
        >>> from edgeseg.engine import DepthErrors
        >>> errors = DepthErrors()
        >>> errors.update(torch.tensor([[11.0, 20.0]]), torch.tensor([[10.0, 20.0]]))
        >>> round(errors.ard, 3)  # absolute relative difference in percent
        5.0
    """

    higher_is_better = False

    def __init__(self, limits: tuple[float, float] | None = None) -> None:
        self.limits = limits
        self.sums = torch.zeros(6, dtype=torch.float64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds predicted and true depths in metres, float tensors of the same shape; a target of 0 is ignored.

        Raises:
            ValueError: tensors of other shapes.
        """
        prediction, target = as_numbers(prediction).detach(), as_numbers(target)
        require_one_shape(prediction, target)
        warn_unless_finite(float(prediction.sum(dtype=torch.float64)))
        known = target > 0
        predicted, true = prediction[known].double(), target[known].double()
        positive = predicted.clamp(min=1e-3)  # for the ratio alone
        limited, limited_true = predicted.clamp(max=FARTHEST), true.clamp(max=FARTHEST)
        ranged = torch.where(true <= NEAREST, 0, (limited - limited_true).abs() / limited_true)
        low, high = self.limits or (0.0, float("inf"))
        self.sums += torch.stack(
            [
                known.sum().double(),
                ((predicted - true).abs() / true).sum(),
                ranged.sum(),
                ((predicted - true) ** 2).sum(),
                (torch.maximum(positive / true, true / positive) < 1.25).double().sum(),
                ((true < low) | (true > high)).double().sum(),
            ]
        ).cpu()

    def reduce(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replaces the sums by `total(sums)`, such as the sums over all processes."""
        self.sums = total(self.sums)

    def __repr__(self) -> str:
        return table(self.scores(Task("depth"), "native"))

    @property
    def counted(self) -> int:
        """Number of pixels whose depth is known."""
        return int(self.sums[0])

    def _mean(self, index: int) -> float:
        """The mean per known pixel of one of the sums."""
        return float(self.sums[index] / self.sums[0])

    @property
    def ard(self) -> float:
        """Mean of `|error| / depth`, in percent."""
        return 100 * self._mean(1)

    @property
    def ard_3_to_80(self) -> float:
        """`ard` as TI's zoo computes it: pixels up to 3 m count with an error of 0, and depths are limited to 80 m."""
        return 100 * self._mean(2)

    @property
    def rmse(self) -> float:
        """Root of the mean squared error, in metres."""
        return self._mean(3) ** 0.5

    @property
    def delta(self) -> float:
        """Share of the pixels whose predicted depth is within a factor of 1.25 of the true depth, in percent."""
        return 100 * self._mean(4)

    @property
    def outside(self) -> float:
        """Share of the pixels whose true depth is outside the range of the model, in percent."""
        return 100 * self._mean(5)

    def headline(self, protocol: str) -> tuple[str, float]:
        """The name "ard" and its value in percent; `ard_3_to_80` under the original protocol."""
        return "ard", self.ard_3_to_80 if protocol == "original" else self.ard

    def scores(self, task: Task, protocol: str) -> dict[str, Any]:
        """All errors by name, in percent except for the RMSE, which is in metres."""
        names = ("ard", "ard_3_to_80", "rmse", "delta", "outside")
        return {"protocol": protocol, **{name: figure(getattr(self, name)) for name in names}}
