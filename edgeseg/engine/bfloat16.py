"""Autocast to bfloat16 for training, without the operators whose gradients PyTorch computes wrongly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from edgeseg.machine.processor import trains_faster_in_bf16
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.recipes import TrainConfig

DILATION, GROUPS = 5, 6  # places among the arguments of torch.conv2d


def trains_in_bfloat16(model: Pixel2Pixel, config: TrainConfig, device: torch.device) -> bool:
    """Whether a model is trained in bfloat16: as the recipe says, by default where that is faster and as accurate."""
    if config.bf16 is not None:
        return config.bf16
    if model.config.quantization is not None:  # bfloat16 would blur the rounding to 8 bits that is learned
        return False
    if device.type == "cpu" and config.compile:  # compiled networks are not rid of the operators left out below
        return False
    return trains_faster_in_bf16(device)


@contextmanager
def bfloat16(device: torch.device, *, enabled: bool) -> Iterator[None]:
    """Inside, networks compute in bfloat16 where that is accurate enough, if `enabled`.

    On CPUs, convolutions with groups and dilation are left in float32: oneDNN's gradients of their weights in bfloat16
    contain memory that nobody wrote (seen in PyTorch 2.14 on processors with AMX).
    """
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
        if not enabled or device.type != "cpu":
            yield
            return
        with _DilatedInFloat32():
            yield


class _DilatedInFloat32(TorchFunctionMode):
    """Computes convolutions with groups and dilation outside of autocast."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is not torch.conv2d or not _is_dilated(args, given):
            return func(*args, **given)
        with torch.autocast("cpu", enabled=False):
            return func(*map(_float32, args), **{name: _float32(value) for name, value in given.items()})


def _is_dilated(args: Sequence[Any], given: Mapping[str, Any]) -> bool:
    dilation = args[DILATION] if len(args) > DILATION else given.get("dilation", 1)
    groups = args[GROUPS] if len(args) > GROUPS else given.get("groups", 1)
    return groups > 1 and max(dilation if isinstance(dilation, Sequence) else [dilation]) > 1


def _float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value
