"""The bytes of a network, whose hash tells networks apart in caches."""

from __future__ import annotations

import json
from collections.abc import Iterator

import torch
from torch import nn


def network_bytes(model: nn.Module) -> Iterator[bytes]:
    """Yields the modules of a network with their settings, and the name and the values of each of its tensors."""
    modules = [(name, type(each).__qualname__, each.extra_repr()) for name, each in model.named_modules()]
    yield json.dumps(modules).encode()
    for name, tensor in model.state_dict().items():
        yield name.encode()
        yield tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
