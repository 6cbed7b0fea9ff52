"""What an encoder is made of: blocks in a row, each with the channels and the stride of its output."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn


class Block(NamedTuple):
    """One step of an encoder. `stride` is that of its output, seen from the image."""

    name: str
    module: nn.Module
    channels: int
    stride: int


class Trunk(NamedTuple):
    """A whole encoder for one input; with several inputs each gets its own copy of the first `stem` blocks."""

    blocks: list[Block]
    stem: int


def check_output_stride(name: str, output_stride: int, usual: int) -> bool:
    """True when the last stage has to keep stride 1 so that the encoder ends at `output_stride`."""
    if output_stride not in (usual, usual // 2):
        raise ValueError(f"{name} ends at stride {usual} or {usual // 2}, not at output_stride={output_stride}")
    return output_stride < usual
