"""Batch norms folded into the convolutions before them: fewer operations, the same outputs in evaluation mode."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.wiring import trace

FOLDABLE = ("Conv2d", "Conv2dSame")  # by name, since the second is timm's; other classes transform their weights


@torch.no_grad()
def fold_batch_norms(model: Pixel2Pixel) -> int:
    """Folds batch norms in place, for evaluation mode only.

    A batch norm stays if anything except a convolution of its own comes before it.

    Returns:
        The number of batch norms that were folded.
    """
    wiring = trace(model)
    modules = dict(model.named_modules())
    pairs = []
    for norm in wiring.ops:
        conv = wiring.producers.get(norm.inputs[0]) if "batch_norm" in norm.kind and norm.inputs else None
        if (
            conv is not None
            and conv.kind == "aten.convolution"
            and wiring.only_consumer(norm.inputs[0]) is norm
            and type(modules[conv.module]).__name__ in FOLDABLE
            and isinstance(modules.get(norm.module), nn.BatchNorm2d)
            and wiring.calls_of(norm.module) == wiring.calls_of(conv.module) == 1
        ):
            pairs.append((conv.module, norm.module))
    for conv_name, norm_name in pairs:
        convolution: Any = modules[conv_name]
        norm_module: Any = modules[norm_name]
        fused: Any = fuse_conv_bn_eval(convolution.eval(), norm_module.eval())
        if norm_module.affine:  # torch does not train a bias that the convolution did not have
            fused.bias.requires_grad_(norm_module.bias.requires_grad)
        model.set_submodule(conv_name, fused)
        # The batch norms of timm contain their activation.
        model.set_submodule(norm_name, getattr(norm_module, "act", None) or nn.Identity())
    return len(pairs)
