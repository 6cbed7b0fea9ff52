"""The bytes of a network's weights, whose hash tells networks apart in caches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn


def weight_bytes(model: nn.Module) -> Iterator[bytes]:
    """Yields the name and the values of each tensor of a network, of any dtype and on any device, in their order."""
    for name, tensor in model.state_dict().items():
        yield name.encode()
        yield tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
