"""The bytes of a network, whose hash tells networks apart in caches."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LIBRARIES = ("torch", "torchvision", "timm", "edgeseg")  # their versions are known to the caches
OF_ANY_MODULE = frozenset(vars(nn.Module()))  # names of attributes


def network_bytes(model: nn.Module) -> Iterator[bytes]:
    """Yields the modules of a network with their settings, and the name and the values of each of its tensors.

    Modules of others are there with their code and their attributes, so that an edited encoder is another network.
    """
    modules = [(name, type(each).__qualname__, each.extra_repr()) for name, each in model.named_modules()]
    yield json.dumps(modules).encode()
    for kind in sorted({type(each) for each in model.modules()}, key=lambda kind: (kind.__module__, kind.__qualname__)):
        if not _is_of_library(kind):
            yield _code(kind)
            # Methods and properties are in the code.
            yield _settings({name: each for name, each in vars(kind).items() if not hasattr(each, "__get__")})
    for each in model.modules():
        if not _is_of_library(type(each)):
            yield _settings(vars(each))
    for name, tensor in model.state_dict().items():
        yield name.encode()
        yield tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def _is_of_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in LIBRARIES


def _code(kind: type) -> bytes:
    """The source of a class with the rest of its file; bytes that never come again if nobody knows it."""
    for source in (sys.modules.get(kind.__module__), kind):
        try:
            return inspect.getsource(source).encode()  # type: ignore[arg-type]
        except (OSError, TypeError):
            continue
    return os.urandom(16)


def _settings(attributes: Mapping[str, Any]) -> bytes:
    """The names and values of the attributes that a module does not have by itself."""
    own = {name: each for name, each in attributes.items() if name not in OF_ANY_MODULE and not name.startswith("__")}
    return repr(_value(own)).encode()


def _value(value: Any) -> Any:
    """A value whose `repr` tells it from others; one that never comes again if nobody knows what is in it."""
    if isinstance(value, Mapping):
        return sorted((str(key), repr(_value(each))) for key, each in value.items())
    if isinstance(value, list | tuple):
        return [_value(each) for each in value]
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if callable(value) and hasattr(value, "__qualname__"):
        return value.__module__, value.__qualname__
    text = repr(value)
    return os.urandom(16) if " at 0x" in text else text
