"""Encoders by name: image tensors in, features from fine to coarse out.

A decoder knows only the `Pyramid` of an encoder: channels and strides of its features (one per stride, the deepest at
that stride), the group width of its 3x3 convolutions and its activation.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from edgeseg.networks.encoders.encoder import Encoder, SingleInputEncoder
from edgeseg.networks.encoders.espnetv2 import ESPNetv2
from edgeseg.networks.encoders.mobilenetv2 import mobilenetv2
from edgeseg.networks.encoders.regnetx import regnetx
from edgeseg.networks.encoders.resnet import resnet50
from edgeseg.networks.encoders.trunk import Block, Trunk
from edgeseg.networks.layers import Activation

__all__ = [
    "ENCODERS",
    "USER_ENCODERS",
    "WHOLE_ENCODERS",
    "Block",
    "Encoder",
    "SingleInputEncoder",
    "Trunk",
    "build_encoder",
]

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

# Networks that compute features by themselves, for a single image.
# fmt: off
WHOLE_ENCODERS: dict[str, Callable[[int], nn.Module]] = {
    "espnetv2_s0p5":    partial(ESPNetv2, scale=0.5),
    "espnetv2_s1p0":    partial(ESPNetv2, scale=1.0),
    "espnetv2_s1p5":    partial(ESPNetv2, scale=1.5),
    "espnetv2_s2p0":    partial(ESPNetv2, scale=2.0),
}
# fmt: on

USER_ENCODERS: dict[str, Callable[[int], nn.Module | Trunk]] = {}
"""Builders that `edgeseg.register_encoder` added. They take the number of channels of the image."""


def build_encoder(
    name: str,
    in_channels: Sequence[int],
    *,
    activation: Activation = nn.ReLU,
    fast_down: bool = False,
    output_stride: int | None = None,
) -> Encoder | SingleInputEncoder:
    """Builds an untrained encoder.

    Args:
        name: A name of `ENCODERS`, of an encoder that was registered, or of timm.
        in_channels: Channels of each image.
        activation: Class of the activations, for the encoders of the zoo.
        fast_down: Halve the resolution once more at the start, for the encoders of the zoo.
        output_stride: Stride of the deepest feature: the usual one, or half of it if the encoder supports that. None
            stands for 32, or for where an encoder ends that is not the zoo's own.

    Raises:
        ValueError: the name is unknown, the timm model has no feature pyramid or a fixed size, or the encoder lacks an
            option.
    """
    if name in ENCODERS:
        stride = 32 if output_stride is None else output_stride
        options = {"activation": activation, "fast_down": fast_down, "output_stride": stride}
        return Encoder([ENCODERS[name](channels, **options) for channels in in_channels])
    if fast_down:
        raise ValueError(f"fast_down is an option of the zoo's own encoders; {name!r} does not have it")
    if name in WHOLE_ENCODERS or name in USER_ENCODERS:
        return _self_made(name, in_channels, output_stride)
    import timm

    from edgeseg.networks.encoders.timm import build_timm_encoder

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, [*ENCODERS, *WHOLE_ENCODERS, *USER_ENCODERS, *timm.list_models()], n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"no encoder named {name!r} in edgeseg or in timm{hint}")
    return build_timm_encoder(name, in_channels, output_stride)


def _self_made(name: str, in_channels: Sequence[int], output_stride: int | None) -> Encoder | SingleInputEncoder:
    """The encoder of a builder that takes only the number of channels."""
    builder = WHOLE_ENCODERS.get(name) or USER_ENCODERS[name]
    try:
        built = [builder(channels) for channels in in_channels]
    except TypeError as error:
        raise ValueError(f"the encoder {name!r} cannot be built from a number of channels: {error}") from error
    trunks = [trunk for trunk in built if isinstance(trunk, Trunk)]
    encoder = Encoder(trunks) if trunks else SingleInputEncoder.of(name, [m for m in built if isinstance(m, nn.Module)])
    encoder.check_output_stride(name, output_stride)
    return encoder
