"""Decoders by name: features from fine to coarse in, logits at the decoder's own stride out."""

from __future__ import annotations

from collections.abc import Callable

from edgeseg.networks.decoders.base import Decoder, Pyramid
from edgeseg.networks.decoders.bifpn import BiFPN
from edgeseg.networks.decoders.deeplabv3plus import DeepLabV3Plus
from edgeseg.networks.decoders.espnetv2 import ESPNetv2Decoder
from edgeseg.networks.decoders.fpn import FPN
from edgeseg.networks.decoders.fpnsum import FPNSum
from edgeseg.networks.decoders.unet import UNet
from edgeseg.spec import ModelSpec, Task

__all__ = ["DECODERS", "Decoder", "DecoderClass", "Pyramid", "build_decoder"]

DecoderClass = Callable[[Pyramid, Task, ModelSpec], Decoder]

DECODERS: dict[str, DecoderClass] = {
    "fpn": FPN,
    "unet": UNet,
    "deeplabv3plus": DeepLabV3Plus,
    "bifpn": BiFPN,
    "fpnsum": FPNSum,
    "espnetv2": ESPNetv2Decoder,
}


def build_decoder(pyramid: Pyramid, task: Task, spec: ModelSpec) -> Decoder:
    """Builds the untrained decoder of `spec` for one task.

    Raises:
        ValueError: the decoder is unknown, or cannot use the pyramid or the spec.
    """
    if spec.decoder not in DECODERS:
        raise ValueError(f"no decoder named {spec.decoder!r}; the decoders are {', '.join(DECODERS)}")
    return DECODERS[spec.decoder](pyramid.from_stride(spec.prediction_stride), task, spec)
