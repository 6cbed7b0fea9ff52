"""Losses and errors of depth [N,1,H,W] in metres; a target of 0 is unknown and counts nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeseg.engine import distributed

NEAREST, FARTHEST = 3.0, 80.0  # metres, of the ranged relative error


def smooth_l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of the Huber-like error that is quadratic below one metre."""
    return F.smooth_l1_loss(prediction, target)


def scale(prediction: Tensor, target: Tensor) -> Tensor:
    """Charbonnier penalty on the difference of the means: whether all is too near or too far."""
    epsilon = 1e-3
    return ((prediction.mean() - target.mean()) ** 2 + epsilon**2) ** 0.45 - epsilon**0.9


def error_variance(prediction: Tensor, target: Tensor) -> Tensor:
    """Variance of the error: whether it is the same everywhere."""
    return (prediction - target).var(correction=0)


def relative(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of |error| / depth, so that near counts as much as far; `DepthErrors.ard` is this in percent."""
    return ((prediction - target).abs() / target).mean()


def berhu(prediction: Tensor, target: Tensor) -> Tensor:
    """Reverse Huber (Laina et al., 2016, https://arxiv.org/abs/1606.00373), quadratic above the median error."""
    error = (prediction - target).abs()
    threshold = error.detach().median().clamp(min=1e-6)
    return torch.where(error <= threshold, error, (error**2 + threshold**2) / (2 * threshold)).mean()


def silog(prediction: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant logarithmic error (Eigen et al., 2014, https://arxiv.org/abs/1406.2283), half invariant."""
    difference = prediction.clamp(min=1e-3).log() - target.log()
    return (difference**2).mean() - 0.5 * difference.mean() ** 2


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "smooth_l1": smooth_l1,
    "scale": scale,
    "error_variance": error_variance,
    "relative": relative,
    "berhu": berhu,
    "silog": silog,
}


def depth_loss(prediction: Tensor, target: Tensor, factors: Mapping[str, float]) -> Tensor:
    """A weighted sum of losses over the known pixels.

    Args:
        prediction: float [N,1,H,W].
        target: float of the same shape, 0 where unknown.
        factors: Name of a loss in `LOSSES` -> its weight.

    Returns:
        A scalar; 0 where nothing is known.

    Raises:
        ValueError: unknown loss; names the known ones.
    """
    unknown = [name for name in factors if name not in LOSSES]
    if unknown:
        raise ValueError(f"no depth loss named {', '.join(unknown)}; there are {', '.join(LOSSES)}")
    known = target > 0
    if not bool(known.any()):
        return prediction.sum() * 0
    # Selecting is exact where masking would have to correct each mean.
    mine, true = prediction.float()[known], target.float()[known]
    return torch.stack([factor * LOSSES[name](mine, true) for name, factor in factors.items()]).sum()


class DepthErrors:
    """Errors of depth over a whole set.

    Args:
        limits: Lowest and highest depth that the model can predict; true depths beyond them are counted.
    """

    def __init__(self, limits: tuple[float, float] | None = None) -> None:
        self.limits = limits
        self.sums = torch.zeros(6, dtype=torch.float64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds maps of the same shape, in metres; a target of 0 is unknown."""
        known = target > 0
        mine, true = prediction[known].double().clamp(min=1e-3), target[known].double()
        near, far = mine.clamp(max=FARTHEST), true.clamp(max=FARTHEST)
        ranged = torch.where(true <= NEAREST, 0, (near - far).abs() / far)
        low, high = self.limits or (0.0, float("inf"))
        self.sums += torch.stack(
            [
                known.sum().double(),
                ((mine - true).abs() / true).sum(),
                ranged.sum(),
                ((mine - true) ** 2).sum(),
                (torch.maximum(mine / true, true / mine) < 1.25).double().sum(),
                ((true < low) | (true > high)).double().sum(),
            ]
        ).cpu()

    def reduce(self) -> None:
        """Adds up the sums of all processes."""
        self.sums = distributed.total(self.sums)

    @property
    def counted(self) -> int:
        """Pixels that count."""
        return int(self.sums[0])

    def _mean(self, index: int) -> float:
        return float(self.sums[index] / self.sums[0])

    @property
    def ard(self) -> float:
        """Mean of |error| / depth, in percent."""
        return 100 * self._mean(1)

    @property
    def ard_3_to_80(self) -> float:
        """The same as the original scores several tasks: depths up to 3 m count as right, all are cut at 80 m."""
        return 100 * self._mean(2)

    @property
    def rmse(self) -> float:
        """Root of the mean squared error, in metres."""
        return self._mean(3) ** 0.5

    @property
    def delta(self) -> float:
        """Share of the pixels whose depth is within a factor of 1.25, in percent."""
        return 100 * self._mean(4)

    @property
    def outside(self) -> float:
        """Share of the pixels whose true depth the model cannot predict, in percent."""
        return 100 * self._mean(5)
