"""Copies tensors into a module: either every tensor fits, or the error says which ones do not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from edgeseg.machine.errors import value_errors
from edgeseg.networks.modes import forget

COUNTER = "num_batches_tracked"  # of the steps of a batch norm, which old files and ONNX lack and nothing reads


@dataclass(frozen=True)
class LoadReport:
    """The names of the tensors that were loaded, and of those that were not.

    Args:
        matched: Tensors of the model that were loaded from the file.
        reinitialized: Tensors of the model that the file does not provide; they keep their values.
        ignored: Tensors of the file that the model does not use, such as those of a classifier.
    """

    matched: list[str] = field(default_factory=list)
    reinitialized: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def fill(
    module: nn.Module,
    state: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    may_miss: set[str] | None = None,
    others: str = "",
) -> None:
    """Copies `state` into `module` after checking that both sides agree on names and shapes, and nothing else differs.

    Args:
        module: Changed in place.
        state: Tensors by their names in the module.
        path: The file, for error messages.
        may_miss: Names that the file need not have.
        others: What else differs between both networks, of which the tensors show nothing.
    """
    own = module.state_dict()
    if any(value.is_meta for value in own.values()):
        raise ValueError(f"cannot load {path}: the model is on the meta device, whose tensors have no values")
    optional = {key for key in own if key.endswith(COUNTER)} | (may_miss or set())
    missing = [key for key in own if key not in state and key not in optional]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key}: {list(value.shape)} in the file, {list(own[key].shape)} in the model"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {what} ({some(keys)})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    if problems:
        source = f"{path}, which has weights of {others}," if others else path
        raise ValueError(f"{source} does not fit this model: {'; '.join(problems)}")
    types = [key for key, value in state.items() if value.is_floating_point() != own[key].is_floating_point()]
    if types:
        raise ValueError(f"{path} does not fit this model: {len(types)} of another type of numbers ({some(types)})")
    if others:
        raise ValueError(f"{path} does not fit this model, although all tensors do: {others}")
    with torch.no_grad():
        with fitting(path):  # some types cannot be converted: find out before the first tensor is changed
            ready = {key: value.to(own[key].dtype) for key, value in state.items()}
        for key, value in ready.items():
            own[key].copy_(value)
    forget(module)


def fitting(path: str | os.PathLike[str]) -> AbstractContextManager[None]:
    """Tensors of unexpected names and shapes raise a ValueError that names the file."""
    return value_errors(path, f"{path} does not fit this model")


def some(names: Sequence[str], count: int = 4) -> str:
    """The first names of a list, and how many more there are."""
    rest = len(names) - count
    return ", ".join(names[:count]) + (f" and {rest} more" if rest > 0 else "")
