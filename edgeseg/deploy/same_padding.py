"""Exports TensorFlow's SAME padding as an attribute of ONNX convolutions, in files of any size.

timm's `tf_` encoders compute the padding from the size of each feature. torch.export would trace this as formulas that
grow from layer to layer, which takes minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def same_padding_as_attribute(model: nn.Module) -> Iterator[None]:
    """Inside, torch.export records timm's `Conv2dSame` as ONNX's Conv with `auto_pad`."""
    # By the name of the class, since importing timm takes seconds.
    convolutions = [module for module in model.modules() if type(module).__name__ == "Conv2dSame"]
    for conv in convolutions:
        vars(conv)["forward"] = partial(_convolved, conv)
    try:
        yield
    finally:
        for conv in convolutions:
            del vars(conv)["forward"]


def _convolved(conv: Any, x: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    (down, across), out = conv.stride, conv.out_channels
    attributes = {
        "auto_pad": "SAME_UPPER",
        "dilations": list(conv.dilation),
        "group": conv.groups,
        "kernel_shape": list(conv.kernel_size),
        "strides": list(conv.stride),
    }
    return torch.onnx.ops.symbolic(
        "Conv",
        (x, conv.weight) if conv.bias is None else (x, conv.weight, conv.bias),
        attributes,
        dtype=x.dtype,
        shape=(batch, out, (height + down - 1) // down, (width + across - 1) // across),
        version=11,
    )
