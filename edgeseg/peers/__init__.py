"""The systems that the original's table compares with, to be built and measured beside the zoo: one row a network.

They answer and train as the zoo's networks do, but take a single image. Readable without torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeseg.spec import Task


@dataclass(frozen=True)
class Peer:
    """A row: the module of this package that builds it, and what tells it from its siblings."""

    module: str
    options: Mapping[str, Any] = field(default_factory=dict)


# fmt: off
PEERS: dict[str, Peer] = {
    "erfnet":                          Peer("erfnet"),
    "swiftnet_mobilenetv2":            Peer("swiftnet", {"encoder": "mobilenetv2"}),
    "deeplab_mobilenetv2":             Peer("deeplab", {"encoder": "mobilenetv2_100"}),
    "deeplabv3plus_xception65":        Peer("deeplab", {"encoder": "xception65", "dilations": (6, 12, 18), "low": 4}),
    "fcn_resnet50_tv":                 Peer("torchvision", {"name": "fcn_resnet50"}),
    "deeplabv3_resnet50_tv":           Peer("torchvision", {"name": "deeplabv3_resnet50"}),
    "deeplabv3_mobilenetv3_large_tv":  Peer("torchvision", {"name": "deeplabv3_mobilenet_v3_large"}),
    "lraspp_mobilenetv3_large_tv":     Peer("torchvision", {"name": "lraspp_mobilenet_v3_large"}),
}
# fmt: on


def build_peer(peer: Peer, *, tasks: Mapping[str, Task], in_channels: Sequence[int], **overrides: Any) -> Any:
    """The builder of every row, as a `Pixel2Pixel`.

    Raises:
        ValueError: several inputs, an image of other than 3 channels, or overrides, which these networks do not have.
    """
    from edgeseg.pixel2pixel import Pixel2Pixel

    if tuple(in_channels) != (3,):
        raise ValueError(f"this network takes one image of 3 channels, got in_channels={tuple(in_channels)}")
    if overrides:
        raise ValueError(f"no option {', '.join(overrides)}; this network has none")
    module = importlib.import_module(f"edgeseg.peers.{peer.module}")
    encoder, decoders = module.build(tasks, **peer.options)
    return Pixel2Pixel(encoder, decoders, tasks=tasks)
