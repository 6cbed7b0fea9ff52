"""DeepLab as in TensorFlow's model zoo, on dilated encoders of timm at stride 16.

DeepLabV3+ (Chen et al., 2018, https://arxiv.org/abs/1802.02611) on Xception-65, and its short form on MobileNetV2
(https://arxiv.org/abs/1801.04381), which has no dilated branches and no decoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.networks.encoders.timm import whole
from edgeseg.networks.layers import ConvNormAct, SeparableConv, resize
from edgeseg.spec import Task

CHANNELS = 256
SHORTCUT_CHANNELS = 48


def build(
    tasks: Mapping[str, Task], *, encoder: str, dilations: Sequence[int] = ()
) -> tuple[nn.Module, dict[str, nn.Module]]:
    """Builds the encoder and the decoders.

    Args:
        tasks: One decoder is built per task.
        encoder: "xception65" for the full form, or the name of a timm network for the short form.
        dilations: Dilations of the dilated branches.
    """
    import timm

    full = encoder == "xception65"
    options: dict[str, Any] = {} if full else {"features_only": True}
    network: Any = timm.create_model(encoder, output_stride=16, **options)
    features = XceptionFeatures(network) if full else whole(network)
    fine = features.channels[0] if full else 0
    decoders: dict[str, nn.Module] = {
        name: Decoder(features.channels[-1], fine, task.channels, dilations) for name, task in tasks.items()
    }
    return features, decoders


class XceptionFeatures(nn.Module):
    """Features of timm's Xception-65 at strides 4 and 16; timm itself takes them by hooks, which prevent export."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stem, self.blocks = network.stem, network.blocks
        self.channels, self.strides = [self.blocks[1].out_channels, self.blocks[-1].out_channels], [4, 16]

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        """One image [N, 3, H, W] -> a feature at stride 4 and the deepest one at stride 16."""
        x = self.blocks[0](self.stem(images[0]))
        first_steps, last_step = self.blocks[1].stack[:-1], self.blocks[1].stack[-1]
        fine = first_steps(x)  # before the last convolution of the block, which halves the resolution
        x = last_step(fine) + self.blocks[1].shortcut(x)
        return [fine, self.blocks[2:](x)]


class Decoder(nn.Module):
    """Context on the deepest feature; if there is a fine feature of `fine` channels, refinement at its stride."""

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
        """Features from fine to coarse -> logits at the stride of the finest feature, or at stride 16."""
        x = features[-1]
        pooled = self.pooled(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        x = self.project(torch.cat([pooled, *(branch(x) for branch in self.branches)], dim=1))
        if self.shortcut is not None:
            fine = self.shortcut(features[0])
            x = self.refine(torch.cat([resize(x, fine.shape[-2:]), fine], dim=1))
        return self.logits(x)
