"""Restores the statistics of batch norms that were folded into their convolutions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from edgeseg.networks.observe import observe
from edgeseg.networks.pixel2pixel import Pixel2Pixel


def has_folded_batch_norms(model: nn.Module) -> bool:
    """Whether some batch norms are identities, as they are in weights that were read from ONNX files."""
    return any(
        isinstance(norm, nn.BatchNorm2d)
        and norm.affine
        and norm.running_mean is not None
        and norm.running_var is not None
        and not bool(norm.running_mean.any())
        and bool((norm.running_var == 1).all())
        and bool((norm.weight == (1 + norm.eps) ** 0.5).all())
        for norm in model.modules()
    )


@torch.no_grad()
def unfold_batch_norms(model: Pixel2Pixel, batches: Iterable[Sequence[Tensor]]) -> None:
    """Gives every batch norm the measured statistics of its input; the outputs of the network stay the same.

    Weights that were read from an ONNX file need this before they are trained further, and `edgeseg.engine.train` does
    it. In such a network a batch norm is the identity, so training would normalize with statistics that its weight and
    bias were not trained for.

    Args:
        model: A `Pixel2Pixel`; changed in place.
        batches: Some tens of training images, preprocessed. Each batch has one float tensor [N, C, H, W] per input.

    Raises:
        ValueError: there are no batches.
    """
    sums: dict[nn.BatchNorm2d, list[Tensor]] = {}

    def measure(norm: nn.BatchNorm2d, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].double()
        parts = [torch.tensor(x.numel() / x.shape[1]), x.sum(dim=(0, 2, 3)), x.square().sum(dim=(0, 2, 3))]
        sums[norm] = [a + b for a, b in zip(sums[norm], parts, strict=True)] if norm in sums else parts

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(partial(measure, norm)) for norm in norms]
    observe(model, batches, hooks)
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
