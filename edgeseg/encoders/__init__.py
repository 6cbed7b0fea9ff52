"""Encoders: image tensors in, features from fine to coarse out.

A decoder knows of an encoder only `channels` and `strides` of its features (one feature a stride, the deepest) and the
`group_width` of its 3x3 convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from edgeseg.encoders.mobilenetv2 import mobilenetv2
from edgeseg.encoders.regnetx import regnetx
from edgeseg.encoders.resnet import resnet50
from edgeseg.encoders.timm import TimmPyramid, features_only, timm_trunk
from edgeseg.encoders.trunk import Block, Trunk
from edgeseg.layers import Activation, SeparableConv

# fmt: off
ENCODERS: dict[str, Callable[..., Trunk]] = {
    "mobilenetv2":      mobilenetv2,
    "mobilenetv2_1p4":  partial(mobilenetv2, width=1.4),
    "resnet50":         resnet50,
    "resnet50_p5":      partial(resnet50, width=0.5),
    "regnetx400mf":     partial(regnetx, widths=(32, 64, 160, 384),   depths=(1, 2, 7, 12), group_width=16),
    "regnetx800mf":     partial(regnetx, widths=(64, 128, 288, 672),  depths=(1, 3, 7, 5),  group_width=16),
    "regnetx1p6gf":     partial(regnetx, widths=(72, 168, 408, 912),  depths=(2, 4, 10, 2), group_width=24),
    "regnetx3p2gf":     partial(regnetx, widths=(96, 192, 432, 1008), depths=(2, 6, 15, 2), group_width=48),
}
# fmt: on


class Encoder(nn.Module):
    """A row of blocks; with several inputs each has its own first blocks, fused before the rest.

    Args:
        trunks: The same network once an input.

    Attributes:
        channels, strides: Of the features, fine to coarse.
        stem: Names of the blocks that each input has of its own.
    """

    def __init__(self, trunks: Sequence[Trunk]) -> None:
        super().__init__()
        blocks, stem = trunks[0]
        self.stem = [block.name for block in blocks[:stem]]
        self.streams = nn.ModuleList(
            nn.ModuleDict({block.name: block.module for block in trunk.blocks[:stem]}) for trunk in trunks
        )
        self.trunk = nn.ModuleDict({block.name: block.module for block in blocks[stem:]})
        self.fusion: nn.Module | None = None
        if len(trunks) > 1:
            channels = blocks[stem - 1].channels
            # Depthwise and without activations for every encoder: the answer stands in for a block's linear output.
            self.fusion = SeparableConv(channels * len(trunks), channels, activation=None)
        taps = _last_at_each_stride(blocks)
        self.taps = {block.name for block in taps}
        self.channels = [block.channels for block in taps]
        self.strides = [block.stride for block in taps]

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        """One [N,C,H,W] tensor an input -> one [N,channels[i],H/strides[i],W/strides[i]] tensor a stride."""
        features: list[Tensor] = []
        streams = list(images)
        for name in self.stem:
            streams = [stream.get_submodule(name)(x) for stream, x in zip(self.streams, streams, strict=True)]
            if name in self.taps:
                # Above the fusion a decoder sees the mean of the streams: the channels it was built for, all inputs.
                features.append(streams[0] if len(streams) == 1 else torch.stack(streams).mean(dim=0))
        x = streams[0]
        if self.fusion is not None:
            x = self.fusion(torch.cat(streams, dim=1))
            if self.stem[-1] in self.taps:
                features[-1] = x
        for name, block in self.trunk.items():
            x = block(x)
            if name in self.taps:
                features.append(x)
        return features


def build_encoder(
    name: str,
    in_channels: Sequence[int],
    *,
    activation: Activation = nn.ReLU,
    fast_down: bool = False,
    output_stride: int = 32,
) -> Encoder | TimmPyramid:
    """An untrained encoder for one image tensor per entry of `in_channels`.

    Raises:
        ValueError: unknown name, a timm model without a feature pyramid, or an option that it does not have.
    """
    if name in ENCODERS:
        options = {"activation": activation, "fast_down": fast_down, "output_stride": output_stride}
        return Encoder([ENCODERS[name](channels, **options) for channels in in_channels])
    if fast_down:
        raise ValueError(f"fast_down is not known for the timm encoder {name!r}")
    networks = [features_only(name, channels) for channels in in_channels]
    trunks = [timm_trunk(name, network, output_stride) for network in networks]
    if all(trunk is not None for trunk in trunks):
        return Encoder([trunk for trunk in trunks if trunk is not None])
    if len(networks) > 1:
        raise ValueError(f"the timm encoder {name!r} takes a single input: its first stages cannot be split off")
    pyramid = TimmPyramid(networks[0])
    if output_stride < pyramid.strides[-1]:
        raise ValueError(f"the timm encoder {name!r} ends at stride {pyramid.strides[-1]}; pass it as output_stride")
    return pyramid


def group_width(encoder: nn.Module) -> int:
    """Channels a group of the encoder's grouped convolutions, 1 where it has depthwise or dense ones only."""
    convs = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    return max((c.in_channels // c.groups for c in convs if 1 < c.groups < c.in_channels), default=1)


def _last_at_each_stride(blocks: Sequence[Block]) -> list[Block]:
    last = {block.stride: block for block in blocks}
    return [last[stride] for stride in sorted(last)]
