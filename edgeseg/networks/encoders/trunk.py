"""The parts of an encoder: blocks in a row, each with the channels and the stride of its output."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn


class Block(NamedTuple):
    """One step of an encoder.

    Args:
        name: Name of the module within the encoder.
        module: Takes a feature [N, C, h, w] and returns the next one.
        channels: Channels of its output.
        stride: Stride of its output relative to the image.
    """

    name: str
    module: nn.Module
    channels: int
    stride: int


class Trunk(NamedTuple):
    """An encoder for one input.

    Args:
        blocks: The blocks in their order.
        stem: Number of blocks at the beginning that exist once per input if there are several inputs.
    """

    blocks: list[Block]
    stem: int


def check_output_stride(name: str, output_stride: int, usual: int) -> bool:
    """Whether the last stage must keep stride 1 so that the encoder ends at `output_stride`.

    Raises:
        ValueError: the stride is neither the usual one nor half of it.
    """
    if output_stride not in (usual, usual // 2):
        raise ValueError(f"{name} ends at stride {usual} or {usual // 2}, not at output_stride={output_stride}")
    return output_stride < usual
