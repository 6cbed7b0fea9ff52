"""Losses over logits [N,C,H,W] and label maps [N,H,W], label 255 counted nowhere."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeseg.labels import IGNORE


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    *,
    class_weights: Tensor | None = None,
    dice: float = 0.0,
    label_smoothing: float = 0.0,
    ohem: float = 0.0,
    count_ignored: bool = False,
) -> Tensor:
    """Cross-entropy, plus `dice` times the soft Dice loss (Milletari et al., 2016, https://arxiv.org/abs/1606.04797).

    Args:
        logits: float [N,C,H,W].
        target: integer [N,H,W], classes or 255.
        class_weights: float [C] for the cross-entropy.
        dice: Weight of the Dice loss, averaged over the classes that occur in the batch.
        label_smoothing: Share of the target that goes to all classes alike.
        ohem: Online hard example mining (Shrivastava et al., 2016, https://arxiv.org/abs/1604.03540): only pixels whose
            class gets at most this probability, a 16th of the pixels at least. 0 for all pixels.
        count_ignored: Divide by the number of all pixels, as the original does, instead of the sum of the weights.

    Returns:
        A scalar; 0 where every pixel is ignored.
    """
    target = target.long()
    log_probabilities = F.log_softmax(logits.float(), dim=1)
    counted = target != IGNORE
    weights = torch.ones(logits.shape[1], device=logits.device) if class_weights is None else class_weights
    pixel_weights = weights[target.masked_fill(~counted, 0)] * counted
    if ohem:
        pixel_weights = pixel_weights * _hard(log_probabilities, target, counted, ohem)
    losses = F.nll_loss(log_probabilities, target, ignore_index=IGNORE, reduction="none")
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * log_probabilities.mean(dim=1)
    total = target.numel() if count_ignored else pixel_weights.sum().clamp(min=1e-6)
    loss = (losses * pixel_weights).sum() / total
    if dice:
        loss = loss + dice * dice_loss(log_probabilities.exp(), target)
    return loss


def _hard(log_probabilities: Tensor, target: Tensor, counted: Tensor, threshold: float) -> Tensor:
    """Mask [N,H,W] of the pixels whose class has a probability of `threshold` at most, or that are among the worst."""
    with torch.no_grad():
        true = log_probabilities.gather(1, target.masked_fill(~counted, 0).unsqueeze(1)).squeeze(1).exp()
        true = true.masked_fill(~counted, 2.0)
        worst = true.flatten().kthvalue(max(target.numel() // 16, 1)).values
        return true <= worst.clamp(min=threshold)


def dice_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """1 - Dice of soft predictions [N,C,H,W], mean over the classes in `target` [N,H,W]."""
    counted = (target != IGNORE).unsqueeze(1)
    labels = target.masked_fill(target == IGNORE, 0).unsqueeze(1)
    true = probabilities.gather(1, labels) * counted
    classes = probabilities.shape[1]
    flat = labels.flatten()
    intersection = torch.zeros(classes, device=true.device).index_add_(0, flat, true.flatten())
    pixels = torch.zeros_like(intersection).index_add_(0, flat, counted.flatten().float())
    predicted = (probabilities * counted).sum(dim=(0, 2, 3))
    present = pixels > 0
    score = (2 * intersection + 1) / (predicted + pixels + 1)
    return (1 - score)[present].mean() if bool(present.any()) else probabilities.sum() * 0


def log_class_weights(pixels: Tensor, smoothing: float = 1.1) -> Tensor:
    """Weights 1 / ln(smoothing + share) of each class, mean 1 (ENet: Paszke et al., 2016, https://arxiv.org/abs/1606.02147).

    Args:
        pixels: Number of pixels of each class [C].
        smoothing: Nearer to 1 makes rare classes count more.
    """
    weights = 1 / torch.log(smoothing + pixels / pixels.sum())
    return (weights / weights.mean()).float()
