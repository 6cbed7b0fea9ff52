"""The bytes of a network, whose hash tells networks apart in caches."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

LIBRARIES = ("torch", "torchvision", "timm", "edgeseg")  # their versions are known to the caches
SETTINGS = (bool, int, float, str, tuple, type(None))


def network_bytes(model: nn.Module) -> Iterator[bytes]:
    """Yields the modules of a network with their settings, and the name and the values of each of its tensors.

    Modules of others are there with their code and their attributes, so that an edited encoder is another network.
    """
    modules = [(name, type(each).__qualname__, each.extra_repr()) for name, each in model.named_modules()]
    yield json.dumps(modules).encode()
    for kind in sorted({type(each) for each in model.modules()}, key=lambda kind: (kind.__module__, kind.__qualname__)):
        if not _is_of_library(kind):
            yield _code(kind)
            yield _settings(vars(kind))
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
    """The values of the public attributes that are numbers or text."""
    public = {name: each for name, each in attributes.items() if not name.startswith("_") and name != "training"}
    return repr(sorted(item for item in public.items() if isinstance(item[1], SETTINGS))).encode()
