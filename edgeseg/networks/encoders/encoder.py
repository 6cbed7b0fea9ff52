"""The two forms of encoders: rows of blocks, which several inputs can share, and whole networks for one input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.networks.encoders.trunk import Block, Trunk
from edgeseg.networks.layers import SeparableConv


class _Features(nn.Module):
    """The properties of an encoder that a decoder needs, and the padding that its network needs.

    Attributes:
        channels: Channels of each feature, from fine to coarse.
        strides: Stride of each feature.
        multiple: Images are padded to multiples of this height and width for the network, and features are cropped.
        minimum: Images are padded to at least this height and width.
    """

    channels: list[int]
    strides: list[int]
    multiple: int = 1
    minimum: int = 0

    def forward(self, images: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Computes the features.

        Args:
            images: One tensor [N, C, H, W] per input; for a single input, the tensor itself will do.

        Returns:
            One tensor [N, channels[i], H/strides[i], W/strides[i]] per stride.
        """
        images = [images] if isinstance(images, Tensor) else images
        height, width = images[0].shape[-2:]
        # Not in files of any size: there a branch would hold for all sizes, and the networks refuse smaller images.
        small = isinstance(height, int) and isinstance(width, int) and min(height, width) < self.minimum
        if self.multiple == 1 and not small:
            return self.compute(images)
        least = self.minimum if small else 0
        down, right = self._missing(height, least), self._missing(width, least)
        features = self.compute([F.pad(image, (0, right, 0, down)) for image in images])
        return [
            feature[:, :, : (height + stride - 1) // stride, : (width + stride - 1) // stride]
            for feature, stride in zip(features, self.strides, strict=True)
        ]

    def compute(self, images: Sequence[Tensor]) -> list[Tensor]:
        """The features of images whose size suits the network."""
        raise NotImplementedError

    def _missing(self, length: int, least: int) -> int:
        """Pixels that are padded to a height or width. torch.export cannot simplify the modulo of a negative number."""
        wanted = max(length, least) if least else length
        return (wanted + self.multiple - 1) // self.multiple * self.multiple - length

    @property
    def group_width(self) -> int:
        """Channels per group of the encoder's grouped convolutions; 1 if it has only depthwise and dense ones."""
        convs = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        return max((c.in_channels // c.groups for c in convs if 1 < c.groups < c.in_channels), default=1)

    def check_output_stride(self, name: str, output_stride: int | None) -> None:
        """Raises a ValueError unless the encoder ends at `output_stride` or before, or it is None."""
        if output_stride is not None and output_stride < self.strides[-1]:
            raise ValueError(
                f"the encoder {name!r} ends at stride {self.strides[-1]}; pass output_stride={self.strides[-1]}"
            )


class Encoder(_Features):
    """A row of blocks. With several inputs, each input has first blocks of its own; they are fused before the rest.

    Args:
        trunks: One copy of the network per input.

    Attributes:
        stem: Names of the blocks that exist once per input.
    """

    def __init__(self, trunks: Sequence[Trunk]) -> None:
        super().__init__()
        blocks, stem = trunks[0]
        _check_blocks([block.name for block in blocks], stem, several=len(trunks) > 1)
        self.stem = [block.name for block in blocks[:stem]]
        self.streams = nn.ModuleList(
            nn.ModuleDict({block.name: block.module for block in trunk.blocks[:stem]}) for trunk in trunks
        )
        self.trunk = nn.ModuleDict({block.name: block.module for block in blocks[stem:]})
        self.fusion: nn.Module | None = None
        if len(trunks) > 1:
            channels = blocks[stem - 1].channels
            # Depthwise and without activations for every encoder, since it replaces the linear output of a block.
            self.fusion = SeparableConv(channels * len(trunks), channels, activation=None)
        taps = _last_at_each_stride(blocks)
        self.taps = {block.name for block in taps}
        self.channels = [block.channels for block in taps]
        self.strides = [block.stride for block in taps]

    def compute(self, images: Sequence[Tensor]) -> list[Tensor]:
        """One tensor [N, C, H, W] per input -> one tensor [N, channels[i], H/strides[i], W/strides[i]] per stride."""
        features: list[Tensor] = []
        streams = list(images)
        for name in self.stem:
            streams = [stream.get_submodule(name)(x) for stream, x in zip(self.streams, streams, strict=True)]
            if name in self.taps:
                # Before the fusion, decoders see the mean of the streams: all inputs, in the channels they expect.
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


class SingleInputEncoder(_Features):
    """A network that computes features by itself, for one image.

    Args:
        network: `forward(image)` returns the features, from fine to coarse.
        channels: Channels of each feature.
        strides: Stride of each feature.
        channels_last: Whether the features are [N, H, W, C], as those of Swin.
    """

    def __init__(
        self, network: nn.Module, channels: Sequence[int], strides: Sequence[int], *, channels_last: bool = False
    ) -> None:
        super().__init__()
        self.network = network
        self.channels, self.strides = list(channels), list(strides)
        self.channels_last = channels_last

    @classmethod
    def of(cls, name: str, networks: Sequence[Any]) -> SingleInputEncoder:
        """The encoder of a network with the attributes `channels` and `strides`.

        Raises:
            ValueError: there are several inputs, or the network lacks channels and ascending strides per feature.
        """
        if len(networks) != 1:
            raise ValueError(f"the encoder {name!r} takes a single input; a builder that returns a Trunk takes several")
        channels, strides = (list(getattr(networks[0], what, ())) for what in ("channels", "strides"))
        if len(channels) != len(strides) or not strides or strides != sorted(set(strides)):
            raise ValueError(
                f"the encoder {name!r} has channels {channels} and strides {strides}; expected one of each per "
                "feature, with ascending strides"
            )
        return cls(networks[0], channels, strides)

    def compute(self, images: Sequence[Tensor]) -> list[Tensor]:
        """One image tensor [N, C, H, W] -> one feature [N, channels[i], H/strides[i], W/strides[i]] per stride."""
        (image,) = images
        features = self.network(image)
        return [f.permute(0, 3, 1, 2) for f in features] if self.channels_last else list(features)


def _check_blocks(names: Sequence[str], stem: int, *, several: bool) -> None:
    """Raises a ValueError if blocks cannot be told apart by their names, or the first ones are not among them."""
    wrong = [name for name in names if not name or "." in name or hasattr(nn.ModuleDict, name)]
    if wrong or len(set(names)) < len(names):
        raise ValueError(f"the blocks of a Trunk need names of their own, without dots; got {', '.join(names)}")
    if not int(several) <= stem <= len(names) or not names:
        raise ValueError(f"a Trunk of {len(names)} blocks cannot have {stem} first blocks per input")


def _last_at_each_stride(blocks: Sequence[Block]) -> list[Block]:
    last = {block.stride: block for block in blocks}
    return [last[stride] for stride in sorted(last)]
