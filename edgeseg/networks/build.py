"""Builds the untrained network from the record of a model."""

from __future__ import annotations

from torch import nn

from edgeseg.config import ModelConfig
from edgeseg.networks.decoders import Pyramid, build_decoder
from edgeseg.networks.encoders import ENCODERS, WHOLE_ENCODERS, build_encoder
from edgeseg.networks.layers import initialize
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.tasks import kind_of

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6}


def build(config: ModelConfig) -> Pixel2Pixel:
    """Builds the untrained float network of `config.spec`.

    Raises:
        ValueError: encoder, decoder and tasks do not fit each other; the message names the field that is wrong.
    """
    spec = config.spec
    if spec is None:
        raise ValueError(f"{config.name!r} has no spec to build from")
    for task in config.tasks.values():
        kind_of(task).check(task)
    activation = ACTIVATIONS[spec.activation]
    encoder = build_encoder(
        spec.encoder,
        config.in_channels,
        activation=activation,
        fast_down=spec.fast_down,
        output_stride=spec.output_stride,
    )
    pyramid = Pyramid(tuple(encoder.channels), tuple(encoder.strides), encoder.group_width, activation)
    decoders = {name: build_decoder(pyramid, task, spec) for name, task in config.tasks.items()}
    model = Pixel2Pixel(encoder, decoders, config)
    if (
        spec.encoder in ENCODERS or spec.encoder in WHOLE_ENCODERS
    ):  # networks of timm and of users come with an initialization that suits them
        initialize(model.encoder)
    initialize(model.decoders)
    return model
