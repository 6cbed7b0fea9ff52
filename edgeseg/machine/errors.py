"""Errors that are shown to users, among them those of damaged files, for which libraries raise many types."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


class ExportError(RuntimeError):
    """A network cannot be written for a runtime: it cannot be converted, or the file differs from it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short; libraries raise `RuntimeError` for that."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in ("memory", "bad_alloc", "bad allocation"))
    )


@contextmanager
def value_errors(path: str | os.PathLike[str], sentence: str) -> Iterator[None]:
    """Turns every error inside of it into a ValueError that names a file.

    Args:
        path: The file. A ValueError or an OSError that names it already stays as it is.
        sentence: What is wrong, with the name of the file; the error follows in brackets.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError | OSError) and os.fspath(path) in str(error):
            raise
        raise ValueError(f"{sentence} ({str(error) or type(error).__name__})") from error
