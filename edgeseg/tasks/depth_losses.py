"""Losses for depth in metres.

The single losses take the predicted and the true depths of the known pixels, float [P], and return a scalar;
`depth_loss` selects those pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F


def smooth_l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of |error| - 0.5, or of error^2 / 2 for errors below one metre (smooth L1)."""
    return F.smooth_l1_loss(prediction, target)


def scale(prediction: Tensor, target: Tensor) -> Tensor:
    """Charbonnier penalty on the difference of the mean depths, which penalizes a wrong overall scale."""
    epsilon = 1e-3
    return ((prediction.mean() - target.mean()) ** 2 + epsilon**2) ** 0.45 - epsilon**0.9


def error_variance(prediction: Tensor, target: Tensor) -> Tensor:
    """Variance of the error, which is 0 if all depths are wrong by the same distance."""
    return (prediction - target).var(correction=0)


def relative(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of |error| / depth, so that near and far pixels count alike; `DepthErrors.ard` is the same in percent."""
    return ((prediction - target).abs() / target).mean()


def berhu(prediction: Tensor, target: Tensor) -> Tensor:
    """Reverse Huber loss, quadratic above the median error (Laina et al., 2016, https://arxiv.org/abs/1606.00373)."""
    error = (prediction - target).abs()
    threshold = error.detach().median().clamp(min=1e-6)
    return torch.where(error <= threshold, error, (error**2 + threshold**2) / (2 * threshold)).mean()


def silog(prediction: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant logarithmic error with a factor of 0.5 (Eigen et al., 2014, https://arxiv.org/abs/1406.2283)."""
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
    """Computes a weighted sum of losses over the pixels whose depth is known.

    Args:
        prediction: float [N, 1, H, W], in metres.
        target: float [N, 1, H, W], in metres; 0 where the depth is unknown.
        factors: Weights of losses, by their names in `LOSSES`.

    Returns:
        A scalar; 0 if no depth is known.

    Raises:
        ValueError: an unknown loss; the message names the known ones.
    """
    unknown = [name for name in factors if name not in LOSSES]
    if unknown:
        raise ValueError(f"no depth loss named {', '.join(unknown)}; there are {', '.join(LOSSES)}")
    known = target > 0
    if not bool(known.any()):
        return prediction.float().sum() * 0
    # The known pixels are selected, not masked, so that means and medians are those of known pixels.
    predicted, expected = prediction.float()[known], target.float()[known]
    return torch.stack([factor * LOSSES[name](predicted, expected) for name, factor in factors.items()]).sum()
