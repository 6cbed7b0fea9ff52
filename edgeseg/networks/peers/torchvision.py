"""The segmentation networks of torchvision, untrained, split into encoder and decoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.segmentation.lraspp import LRASPPHead

from edgeseg.spec import Task

PROBE_SIZE = 64


def build(tasks: Mapping[str, Task], *, name: str) -> tuple[nn.Module, dict[str, nn.Module]]:
    """Builds the encoder and the decoders of the network that torchvision calls `name`."""
    networks: dict[str, Any] = {
        task_name: get_model(name, weights=None, weights_backbone=None, num_classes=task.channels)
        for task_name, task in tasks.items()
    }
    encoder = Encoder(next(iter(networks.values())).backbone)
    return encoder, {task: Decoder(network.classifier, encoder.names) for task, network in networks.items()}


class Encoder(nn.Module):
    """A backbone of torchvision, for one image.

    Attributes:
        names: Names of its features in torchvision, such as "low" and "high".
        channels, strides: Channels and stride of each feature.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.names: tuple[str, ...] = tuple(network.return_layers.values())
        with torch.no_grad():
            features = self.eval()([torch.zeros(1, 3, PROBE_SIZE, PROBE_SIZE)])
        self.train()
        self.channels = [feature.shape[1] for feature in features]
        self.strides = [PROBE_SIZE // feature.shape[2] for feature in features]

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        """One image [N, 3, H, W] -> one feature per name."""
        return list(self.network(images[0]).values())


class Decoder(nn.Module):
    """A head of torchvision, which computes logits at the stride of its feature."""

    def __init__(self, head: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.head, self.names = head, tuple(names)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The features of the encoder -> logits."""
        if isinstance(self.head, LRASPPHead):
            return self.head(dict(zip(self.names, features, strict=True)))
        return self.head(features[-1])
