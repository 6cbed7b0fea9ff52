"""Batch norms folded into the convolutions before them: fewer operations, the same answers in evaluation mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.hooks import RemovableHandle

from edgeseg.pixel2pixel import Pixel2Pixel

FOLDABLE = ("Conv2d", "Conv2dSame")  # by name, since the second is timm's; other kinds do something to their weights
PROBE_SIZE = 256  # no less than twice the coarsest stride of any network


@torch.no_grad()
def fold_batch_norms(model: Pixel2Pixel) -> int:
    """Folds in place, in evaluation mode; gives the number of batch norms that are gone.

    A batch norm stays where something else than one convolution of its own comes before it.
    """
    made: dict[int, tuple[str, Tensor]] = {}  # what a convolution answered -> its name
    pairs: dict[str, str] = {}
    calls: Counter[str] = Counter()

    def after_convolution(name: str, _: nn.Module, __: Any, output: Tensor) -> None:
        calls[name] += 1
        made[id(output)] = name, output

    def before_norm(name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[name] += 1
        if id(inputs[0]) in made:
            pairs[name] = made[id(inputs[0])][0]

    hooks = []
    for name, module in model.named_modules():
        if type(module).__name__ in FOLDABLE:
            hooks.append(module.register_forward_hook(partial(after_convolution, name)))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(partial(before_norm, name)))
    probe(model, hooks)
    folded = 0
    for norm_name, conv_name in pairs.items():
        if calls[norm_name] == 1 and calls[conv_name] == 1:
            conv: Any = model.get_submodule(conv_name)
            norm: Any = model.get_submodule(norm_name)
            model.set_submodule(conv_name, fuse_conv_bn_eval(conv.eval(), norm.eval()))
            # timm's batch norms have their activation inside.
            model.set_submodule(norm_name, getattr(norm, "act", None) or nn.Identity())
            folded += 1
    return folded


def probe(model: Pixel2Pixel, hooks: Sequence[RemovableHandle]) -> None:
    """Runs the network once in evaluation mode on grey images, then removes the hooks."""
    training, device = model.training, next(model.parameters()).device
    images = [torch.zeros(1, channels, PROBE_SIZE, PROBE_SIZE, device=device) for channels in model.in_channels]
    try:
        model.eval().decode(*images)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
