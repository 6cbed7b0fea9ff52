"""TensorFlow's DeepLab on timm's encoders at stride 16, dilated.

DeepLabV3+ (Chen et al., 2018, https://arxiv.org/abs/1802.02611), and its short form for MobileNetV2
(https://arxiv.org/abs/1801.04381) without the dilated branches and the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgeseg.networks.encoders.timm import whole
from edgeseg.networks.layers import ConvNormAct, SeparableConv, resize
from edgeseg.spec import Task

CHANNELS = 256
SHORTCUT_CHANNELS = 48


def build(
    tasks: Mapping[str, Task], *, encoder: str, dilations: Sequence[int] = (), low: int = 0
) -> tuple[nn.Module, dict[str, nn.Module]]:
    """Encoder and decoders; without `dilations` no dilated branches, without a `low` stride logits at stride 16."""
    import timm

    # "fx": features by way of a graph, not of hooks, which stand in the way of export.
    network = whole(timm.create_model(encoder, features_only=True, output_stride=16, feature_cls="fx"))
    fine = network.channels[network.strides.index(low)] if low else 0
    decoders: dict[str, nn.Module] = {
        name: Decoder(network.channels[-1], fine, task.channels, dilations) for name, task in tasks.items()
    }
    return network, decoders


class Decoder(nn.Module):
    """Context on the deepest feature; with a fine feature of so many channels at stride 4, refined there."""

    def __init__(self, deepest: int, fine: int, classes: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.pooled = ConvNormAct(deepest, CHANNELS)
        self.branches = nn.ModuleList([ConvNormAct(deepest, CHANNELS)])
        self.branches.extend(SeparableConv(deepest, CHANNELS, dilation=dilation) for dilation in dilations)
        self.project = ConvNormAct(CHANNELS * (1 + len(self.branches)), CHANNELS)
        self.shortcut = ConvNormAct(fine, SHORTCUT_CHANNELS) if fine else None
        self.refine = nn.Sequential()
        if fine:
            self.refine.append(SeparableConv(CHANNELS + SHORTCUT_CHANNELS, CHANNELS))
            self.refine.append(SeparableConv(CHANNELS, CHANNELS))
        self.logits = nn.Conv2d(CHANNELS, classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Of the encoder, fine to coarse (strides 2, 4, 8, 16, 16)."""
        x = features[-1]
        pooled = self.pooled(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        x = self.project(torch.cat([pooled, *(branch(x) for branch in self.branches)], dim=1))
        if self.shortcut is not None:
            fine = self.shortcut(features[1])
            x = self.refine(torch.cat([resize(x, fine.shape[-2:]), fine], dim=1))
        return self.logits(x)
