"""Atomic writes: a file appears complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary file to write. It replaces `path` when the block ends, and is deleted if the block fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, *, content: str) -> Iterator[Path]:
    """As `replacing`, for a folder with the suffix of `path`. An earlier folder is removed once the new one is there.

    Args:
        path: The folder.
        content: Name of a file that the earlier folder has, so that no other folder is removed.

    Raises:
        FileExistsError: what is at `path` has no such file and is not an empty folder.
    """
    if (
        path.is_symlink()
        or path.is_file()
        or (path.is_dir() and any(path.iterdir()) and not (path / content).is_file())
    ):
        raise FileExistsError(f"{path} is not a folder with a file {content}, and is not replaced")
    temporary, earlier = (path.with_name(f".{path.stem}.{os.getpid()}.{name}{path.suffix}") for name in ("tmp", "old"))
    try:
        yield temporary
        if path.exists():
            os.replace(path, earlier)
        try:
            os.replace(temporary, path)
        except OSError:
            if earlier.exists():
                os.replace(earlier, path)
            raise
    finally:
        for left in (temporary, earlier):
            shutil.rmtree(left, ignore_errors=True)
