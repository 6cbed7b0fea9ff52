"""Networks of other projects, with which the table of TI's zoo compares its own.

They train, predict and export like the zoo's networks, but take a single image.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeseg.config import ModelConfig

if TYPE_CHECKING:
    from edgeseg.networks.pixel2pixel import Pixel2Pixel


def build_peer(module: str, config: ModelConfig, **options: Any) -> Pixel2Pixel:
    """Builds an untrained peer.

    Args:
        module: Module of this package.
        config: The record of the model.
        options: Keyword arguments of the module's `build`.

    Raises:
        ValueError: the input is not one image of 3 channels, or there are options, which these networks do not have.
    """
    from edgeseg.networks.pixel2pixel import Pixel2Pixel

    if config.in_channels != (3,):
        raise ValueError(f"{config.name} takes one image of 3 channels, got in_channels={config.in_channels}")
    if config.options:
        raise ValueError(f"no option {', '.join(config.options)}; {config.name} has no options")
    encoder, decoders = importlib.import_module(f"edgeseg.networks.peers.{module}").build(config.tasks, **options)
    return Pixel2Pixel(encoder, decoders, config)
