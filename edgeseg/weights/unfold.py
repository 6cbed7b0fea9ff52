"""Batch norms that were folded away, given statistics again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn


@torch.no_grad()
def unfold_batch_norms(model: nn.Module, batches: Iterable[Sequence[Tensor]]) -> None:
    """Measures what reaches each batch norm and makes it normalize that, while the network's outputs stay the same.

    For weights read from ONNX, before training them further: there a batch norm is the identity, and training would
    normalize with statistics that its weight and bias know nothing of.

    Args:
        model: A `Pixel2Pixel`; changed in place.
        batches: Some tens of images as they come in training, preprocessed: per batch one float [N,C,H,W] tensor an
            input.

    Raises:
        ValueError: no batches.
    """
    sums: dict[nn.BatchNorm2d, list[Tensor]] = {}

    def measure(norm: nn.BatchNorm2d, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].double()
        parts = [torch.tensor(x.numel() / x.shape[1]), x.sum(dim=(0, 2, 3)), x.square().sum(dim=(0, 2, 3))]
        sums[norm] = [a + b for a, b in zip(sums[norm], parts, strict=True)] if norm in sums else parts

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(partial(measure, norm)) for norm in norms]
    training = model.training
    try:
        model.eval()
        for images in batches:
            model(*images)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    if not sums:
        raise ValueError("unfold_batch_norms needs at least one batch of images")
    for norm, (count, total, squares) in sums.items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        mean = total / count
        var = (squares / count - mean.square()).clamp(min=0)
        norm.bias.copy_(norm.bias + (mean - norm.running_mean) * factor)
        norm.weight.copy_(factor * (var + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
