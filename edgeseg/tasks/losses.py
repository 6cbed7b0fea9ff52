"""Losses for segmentation, from logits [N, C, H, W] and class ids [N, H, W]. Pixels with label 255 are ignored."""

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
    """Computes cross-entropy plus Dice loss (Milletari et al., 2016, https://arxiv.org/abs/1606.04797).

    Args:
        logits: float [N, C, H, W].
        target: Integer class ids [N, H, W], or 255 for ignored pixels.
        class_weights: float [C], weights of the classes in the cross-entropy; None weighs all classes alike.
        dice: Weight of the Dice loss, which is averaged over the classes that occur in the batch.
        label_smoothing: Share of the target probability, 0 to 1, that is spread over all classes.
        ohem: Online hard example mining (Shrivastava et al., 2016, https://arxiv.org/abs/1604.03540): count only pixels
            whose true class has at most this probability, and at least one pixel in 16. 0 counts all pixels.
        count_ignored: Divide the cross-entropy by the number of all pixels including ignored ones, as TI's zoo does,
            instead of by the sum of the pixels' weights.

    Returns:
        A scalar; 0 if every pixel is ignored.

    Raises:
        ValueError: more than 255 classes, another number of class weights, or a target of another shape, that is not of
            integers, or has ids that are not classes.
    """
    if logits.shape[1] > IGNORE:
        raise ValueError(
            f"{logits.shape[1]} classes, but at most 255 are possible: label {IGNORE} means ignored pixels"
        )
    if class_weights is not None and class_weights.numel() != logits.shape[1]:
        raise ValueError(
            f"{class_weights.numel()} class weights, and the logits have {logits.shape[1]} classes; pass one per class"
        )
    target = _ids(target, logits)
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


def _ids(target: Tensor, logits: Tensor) -> Tensor:
    """Class ids as int64; raises a ValueError unless they fit the logits."""
    if target.is_floating_point():
        raise ValueError(f"the target has class ids, which are integers, got {target.dtype}; convert it with .long()")
    if target.shape != (len(logits), *logits.shape[2:]):
        raise ValueError(
            f"the target is [N, H, W] for logits [N, C, H, W], got {list(target.shape)} for {list(logits.shape)}"
        )
    ids = target.long()
    if target.device.type == "cpu":  # a GPU would have to wait for the answer
        wrong = torch.unique(ids[(ids != IGNORE) & ((ids < 0) | (ids >= logits.shape[1]))])
        if len(wrong):
            raise ValueError(
                f"the target has ids {wrong[:10].tolist()}; there are {logits.shape[1]} classes with the ids 0 to "
                f"{logits.shape[1] - 1}, and {IGNORE} stands for ignored pixels"
            )
    return ids


def soft_segmentation_loss(
    logits: Tensor,
    target: Tensor,
    probabilities: Tensor,
    *,
    share: float,
    class_weights: Tensor | None = None,
    dice: float = 0.0,
) -> Tensor:
    """Computes cross-entropy plus Dice loss against a mixture of true classes and of a teacher's probabilities.

    Where a pixel has a true class, the teacher has the share `share` of its target; elsewhere the teacher has it all.

    Args:
        logits: float [N, C, H, W].
        target: Integer class ids [N, H, W], or 255 for pixels without a true class.
        probabilities: uint8 [N, C, H, W], the probabilities of the teacher in 255ths; they may sum up to less, and
            count as much less.
        share: Share of the teacher, 0 to 1.
        class_weights: As in `segmentation_loss`.
        dice: As in `segmentation_loss`.

    Returns:
        A scalar; 0 if no pixel has a true class or probabilities.
    """
    labelled = (target != IGNORE).unsqueeze(1)
    true = _ids(target, logits).masked_fill(target == IGNORE, 0).unsqueeze(1)
    mixture = probabilities.float() / 255
    mixture = torch.where(labelled, share * mixture, mixture)
    mixture = mixture.scatter_add(1, true, (1 - share) * labelled.float())
    log_probabilities = F.log_softmax(logits.float(), dim=1)
    weights = torch.ones(logits.shape[1], device=logits.device) if class_weights is None else class_weights
    weighted = mixture * weights.view(1, -1, 1, 1)
    loss = -(weighted * log_probabilities).sum() / weighted.sum().clamp(min=1e-6)
    if dice:
        predicted = log_probabilities.exp() * mixture.sum(dim=1, keepdim=True)
        both = (predicted * mixture).sum(dim=(0, 2, 3))
        mass = mixture.sum(dim=(0, 2, 3))
        score = (2 * both + 1) / (predicted.sum(dim=(0, 2, 3)) + mass + 1)
        present = mass >= 1
        loss = loss + dice * (1 - score)[present].sum() / present.sum().clamp(min=1)
    return loss


def binary_loss(
    logits: Tensor,
    target: Tensor,
    *,
    class_weights: Tensor | None = None,
    dice: float = 0.0,
    label_smoothing: float = 0.0,
    ohem: float = 0.0,
    count_ignored: bool = False,
) -> Tensor:
    """Computes binary cross-entropy with logits, plus the Dice loss of the foreground.

    The sigmoid of a logit is the softmax of two classes with the logits 0 and itself, so the cross-entropy and its
    options are those of `segmentation_loss`.

    Args:
        logits: float [N, 1, H, W].
        target: Integers [N, H, W]: 1 for the foreground, 0 for the background, 255 for ignored pixels.
        class_weights: float [2], weights of background and foreground in the cross-entropy.
        dice: Weight of the Dice loss, which a batch without foreground does not have.
        label_smoothing, ohem, count_ignored: As in `segmentation_loss`.

    Returns:
        A scalar; 0 if every pixel is ignored.

    Raises:
        ValueError: logits of another shape, or a target that is not of integers.
    """
    if logits.shape[1] != 1:
        raise ValueError(f"the logits of a binary task are [N, 1, H, W], got {list(logits.shape)}")
    loss = segmentation_loss(
        two_classes(logits),
        target,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        ohem=ohem,
        count_ignored=count_ignored,
    )
    if dice:
        counted, true = target != IGNORE, (target == 1).float()
        predicted = logits[:, 0].float().sigmoid() * counted
        score = (2 * (predicted * true).sum() + 1) / (predicted.sum() + true.sum() + 1)
        loss = loss + dice * (1 - score) * (true.sum() > 0)
    return loss


def two_classes(logits: Tensor) -> Tensor:
    """The logits [N, 2, H, W] of background and foreground from those of a binary task [N, 1, H, W]."""
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


def divergence(logits: Tensor, expected: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence over the pixels (Hinton et al., 2015, https://arxiv.org/abs/1503.02531).

    Args:
        logits: float [N, C, H, W] of the network that learns.
        expected: The logits of its teacher.
    """
    student, teacher = (F.log_softmax(each.float(), dim=1) for each in (logits, expected))
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1).mean()


def _hard(log_probabilities: Tensor, target: Tensor, counted: Tensor, threshold: float) -> Tensor:
    """Mask [N, H, W] of the pixels that OHEM counts: probability of the true class up to `threshold`, or the worst."""
    with torch.no_grad():
        true = log_probabilities.gather(1, target.masked_fill(~counted, 0).unsqueeze(1)).squeeze(1).exp()
        true = true.masked_fill(~counted, 2.0)
        worst = true.flatten().kthvalue(max(target.numel() // 16, 1)).values
        return true <= worst.clamp(min=threshold)


def dice_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """Computes 1 - Dice, averaged over the classes that occur (Milletari et al., 2016, https://arxiv.org/abs/1606.04797).

    Args:
        probabilities: float [N, C, H, W].
        target: int64 class ids [N, H, W], or 255 for ignored pixels.

    Returns:
        A scalar; 0 if every pixel is ignored.
    """
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
    """Computes class weights 1 / ln(smoothing + share of pixels) (Paszke et al., 2016, https://arxiv.org/abs/1606.02147).

    Args:
        pixels: Number of pixels per class [C].
        smoothing: A number above 1; the closer it is to 1, the more weight rare classes get.

    Returns:
        float32 [C] with a mean of 1.

    Raises:
        ValueError: no class has a pixel, or `smoothing` is not above 1.
    """
    if not smoothing > 1:
        raise ValueError(f"smoothing must be above 1, got {smoothing}")
    if not float(pixels.sum()) > 0:
        raise ValueError("no class has a pixel, so classes have no frequencies to compute weights from")
    weights = 1 / torch.log(smoothing + pixels / pixels.sum())
    return (weights / weights.mean()).float()
