"""Decoders: features from fine to coarse in, logits at the decoder's own stride out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from edgeseg.decoders.bifpn import BiFPN
from edgeseg.decoders.deeplabv3plus import DeepLabV3Plus
from edgeseg.decoders.fpn import FPN
from edgeseg.decoders.unet import UNet
from edgeseg.layers import Activation
from edgeseg.spec import ModelSpec, Task

DECODERS: dict[str, type[FPN] | type[UNet] | type[DeepLabV3Plus] | type[BiFPN]] = {
    "fpn": FPN,
    "unet": UNet,
    "deeplabv3plus": DeepLabV3Plus,
    "bifpn": BiFPN,
}


def build_decoder(
    spec: ModelSpec,
    task: Task,
    *,
    channels: Sequence[int],
    strides: Sequence[int],
    group_width: int,
    activation: Activation,
) -> nn.Module:
    """The decoder of `spec` for one task, over an encoder with these features.

    It sees the features from `spec.prediction_stride` on; where the encoder has none that fine, from its finest.
    """
    if spec.decoder not in DECODERS:
        raise ValueError(f"no decoder named {spec.decoder!r}; there are {', '.join(DECODERS)}")
    first = next((i for i, stride in enumerate(strides) if stride >= spec.prediction_stride), len(strides))
    if len(strides) - first < 2:
        raise ValueError(f"prediction_stride={spec.prediction_stride} leaves no two features of strides {strides}")
    return DECODERS[spec.decoder](spec, task, first, channels[first:], group_width, activation)
