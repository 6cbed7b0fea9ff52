"""Encoder weights that were trained with another normalization of the pixels, made to see what they saw in training.

Both normalizations are linear per channel, so the difference goes exactly into the first convolution and the batch norm
(or the bias) behind it. Only at the border of the image, where a convolution pads with zeros, the values differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.wiring import Wiring, trace
from edgeseg.spec import Preprocess

IMAGENET = Preprocess(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


class FirstLayers(NamedTuple):
    """The first convolution of an input and what follows it, by the names of their tensors in the encoder."""

    weight: str
    offset: str
    """The running mean of the batch norm, or the bias of the convolution."""


def first_layers(model: Pixel2Pixel) -> list[FirstLayers] | None:
    """The first layers of each input; None if a network begins with anything but a convolution of it."""
    like = next(model.parameters())
    wiring = trace(model, [torch.zeros(1, entry.channels, 64, 64).to(like) for entry in model.inputs.values()])
    layers = []
    for value in wiring.images:
        first = _first_layers_of(wiring, value)
        if first is None:
            return None
        layers.append(first)
    return layers


def _first_layers_of(wiring: Wiring, value: int) -> FirstLayers | None:
    op = wiring.only_consumer(value)
    while op is not None and "pad" in op.kind:
        op = wiring.only_consumer(op.outputs[0])
    if op is None or op.kind != "aten.convolution":
        return None
    module = op.module.removeprefix("encoder.")
    if len(op.parameters) > 1:
        return FirstLayers(f"{module}.weight", f"{module}.bias")
    norm = wiring.only_consumer(op.outputs[0])
    if norm is None or "batch_norm" not in norm.kind:
        return None
    return FirstLayers(f"{module}.weight", f"{norm.module.removeprefix('encoder.')}.running_mean")


def fold_normalization(
    state: Mapping[str, Tensor], layers: Sequence[FirstLayers], source: Preprocess, target: Preprocess
) -> dict[str, Tensor]:
    """The tensors of an encoder for images that are normalized like `target` instead of like `source`.

    Args:
        state: Tensors of the encoder by name, for images of any number of channels.
        layers: The first layers of each image.
        source: Normalization with which the tensors were trained.
        target: Normalization with which they will be used.
    """
    result = dict(state)
    for layer in layers:
        weight = state[layer.weight].double()
        channels = weight.shape[1]
        flip = source.channel_order != target.channel_order
        if flip:
            weight = weight.flip(1)
        # In the channel order of the target: source input = scale * target input + shift.
        mean, std = (values.flip(0) if flip else values for values in _per_channel(source, channels))
        target_mean, target_std = _per_channel(target, channels)
        scale, shift = target_std / std, (target_mean - mean) / std
        constant = (weight * shift.view(1, -1, 1, 1)).sum(dim=(1, 2, 3))
        offset = state[layer.offset].double()
        offset = offset + constant if layer.offset.endswith(".bias") else offset - constant
        result[layer.weight] = (weight * scale.view(1, -1, 1, 1)).float()
        result[layer.offset] = offset.float()
    return result


def _per_channel(how: Preprocess, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, or one of each for all."""
    fitting = how.for_channels(channels)
    return torch.tensor(fitting.mean, dtype=torch.float64), torch.tensor(fitting.std, dtype=torch.float64)
