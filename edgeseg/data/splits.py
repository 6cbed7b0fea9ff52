"""Splits of datasets that are not divided into training and validation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")

SPELLINGS = {"val": ("val", "valid", "validation")}
"""What annotation tools call a split."""


def check_undivided(folder: Path, split: str) -> None:
    """Raises a ValueError if a folder that a fraction is to divide has folders of splits."""
    names = dict.fromkeys([split, "train", *SPELLINGS["val"]])
    found = next((name for name in names if (folder / name).is_dir()), None)
    if found:
        raise ValueError(
            f"{folder} has the folder {found!r}, so val_fraction (--val-fraction) is not needed; to divide that folder "
            "alone, choose it as the folder of the dataset or of its photos"
        )


def part(items: Sequence[tuple[str, Item]], split: str, fraction: float) -> list[Item]:
    """Returns the items that belong to a split.

    A hash of the name decides, so that an item stays in its split when others are added, and on every machine.

    Args:
        items: Names and items; names are relative paths with slashes, which are the same on every machine.
        split: "train" or "val".
        fraction: The share of "val", between 0 and 1; small sets may have other shares.

    Raises:
        ValueError: another split, a fraction out of range, or a split without items.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction < 1:
        raise ValueError(f"val_fraction (--val-fraction) is between 0 and 1, got {fraction!r}")
    if split not in ("train", "val"):
        raise ValueError(f"val_fraction (--val-fraction) divides into train and val; there is no split {split!r}")
    places = [_position(name) for name, _ in items]
    chosen = [item for (_, item), place in zip(items, places, strict=True) if (place < fraction) == (split == "val")]
    if items and not chosen:
        lowest, highest = math.floor(1000 * min(places)) / 1000 + 0.001, math.floor(1000 * max(places)) / 1000
        wanted = f"from {lowest:.3f} on" if split == "val" else f"up to {highest:.3f}"
        raise ValueError(
            f"none of the {len(items)} samples falls into {split} with val_fraction {fraction}; fractions {wanted} put "
            "one there"
        )
    return chosen


def _position(name: str) -> float:
    """A number from 0 up to 1 that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64
