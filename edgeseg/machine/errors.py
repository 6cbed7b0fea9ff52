"""Errors of damaged files: libraries raise errors of many types for them, which they do not document."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


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
