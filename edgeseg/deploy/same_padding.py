"""TensorFlow's SAME padding in ONNX files of any size: an attribute of the convolution instead of arithmetic on sizes.

timm's `tf_` encoders compute it from each feature's size, which torch.export follows as formulas that grow from layer
to layer, for minutes.
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
    """Inside, timm's `Conv2dSame` appears as ONNX's Conv with `auto_pad`, for torch.export."""
    # By name, since importing timm takes seconds.
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
