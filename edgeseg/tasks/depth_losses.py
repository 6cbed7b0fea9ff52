"""Losses of depth [N, 1, H, W] in metres. A ground truth of 0 is unknown and does not count."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F


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
