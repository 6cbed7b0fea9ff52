"""The layout of ExecuTorch programs (.pte): what can be said of a file before its runtime reads it."""

from __future__ import annotations

import os

HEADER = 64  # bytes that `program_size` needs


def program_size(head: bytes, size: int, path: str | os.PathLike[str]) -> int:
    """Checks the first bytes of a program.

    Args:
        head: The first `HEADER` bytes of the file.
        size: Size of the file in bytes.
        path: The file, for messages.

    Returns:
        The size in bytes of the program with its weights. What edgeseg says of the file stands after it.

    Raises:
        ValueError: not a program, or a truncated one.
    """
    if head[4:6] != b"ET" or not head[6:8].isdigit() or head[8:12] != b"eh00" or len(head) < HEADER:
        raise ValueError(f"{path} is not an ExecuTorch program, or it is corrupt or truncated")
    length, program, weights_at, weights = (
        int.from_bytes(head[start:stop], "little") for start, stop in ((12, 16), (16, 24), (24, 32), (32, 40))
    )
    end = max(program, weights_at + weights if length >= 32 else size)
    if end > size:
        raise ValueError(f"{path} is truncated: its program has {end} bytes, the file {size}")
    return end
