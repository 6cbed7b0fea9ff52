"""Translates the keys of the checkpoints of TI's zoo to those of edgeseg."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

# Renames below `decoders.<index>.`; the first pattern that matches is applied.
DECODER_RENAMES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"^(?:aspp|rfblock)\.conv1x1\."), "context.branches.0."),
    (re.compile(r"^(?:aspp|rfblock)\.aspp_bra(\d)\."), r"context.branches.\1."),
    (re.compile(r"^(?:aspp|rfblock)\.aspp_out\."), "context.project."),
    (re.compile(r"^rfblock\."), "context."),
    (re.compile(r"^fpn\.bifpn_blocks\.0\.in_convs\."), "laterals."),
    (re.compile(r"^fpn\.bifpn_blocks\.(\d)\.(up|down)_convs\.(\d)\."), r"blocks.\1.\2.\3.conv."),
    (re.compile(r"^pred\.1\.0\."), "head.1."),
    (re.compile(r"^pred\."), "head."),
]
# TI's zoo counts these from 1, since its index 0 is the context.
NUMBERED = re.compile(r"^(?:fpn|unet)\.(shortcuts|smooth_convs)\.(\d)\.")
NUMBERED_NAMES = {"shortcuts": "laterals", "smooth_convs": "smooths"}

# In older checkpoints the encoder has no prefix: its modules stand at the top, as in torchvision and pycls.
OLDER = re.compile(r"^(?:features\.|(?=stem\.|s\d\.|conv1\.|bn1\.|layer\d\.))")


def is_original(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of a checkpoint of TI's zoo."""
    return any(key.startswith(("encoder.features.", "decoders.0.")) for key in state)


def convert(
    state: Mapping[str, Tensor], *, stem: Sequence[str], trunk: Sequence[str], tasks: Sequence[str]
) -> dict[str, Tensor]:
    """Translates the keys of a checkpoint. A key without a counterpart keeps its name, and the loader reports it.

    Args:
        state: The tensors of the checkpoint.
        stem: Names of the encoder's blocks that exist once per input.
        trunk: Names of the blocks after them.
        tasks: Names of the tasks, in the order of the checkpoint's decoders.
    """
    return {_convert_key(key, [*stem, *trunk], len(stem), tasks): tensor for key, tensor in state.items()}


def _convert_key(key: str, blocks: Sequence[str], stem: int, tasks: Sequence[str]) -> str:
    key = OLDER.sub("encoder.features.", key)
    if match := re.match(r"encoder\.features\.streamfuse\.(.+)", key):
        return f"encoder.fusion.{match[1]}"
    if match := re.match(r"encoder\.features\.(?:stream(\d+)\.)?([^.]+)\.(.+)", key):
        stream, block, rest = match.groups()
        if block not in blocks and stream is not None and block.isdigit() and int(block) < len(blocks):
            block = blocks[int(block)]  # with several inputs TI's zoo numbers the blocks of RegNetX and ResNet
        if block in blocks[:stem]:
            return f"encoder.streams.{stream or 0}.{block}.{rest}"
        return f"encoder.trunk.{block}.{rest}"
    if match := re.match(r"decoders\.(\d+)\.(.+)", key):
        index, rest = int(match[1]), match[2]
        if index < len(tasks):
            return f"decoders.{tasks[index]}.{_convert_decoder(rest)}"
    return key


def _convert_decoder(rest: str) -> str:
    if match := NUMBERED.match(rest):
        return f"{NUMBERED_NAMES[match[1]]}.{int(match[2]) - 1}.{rest[match.end() :]}"
    for pattern, replacement in DECODER_RENAMES:
        if pattern.match(rest):
            return pattern.sub(replacement, rest)
    return rest
