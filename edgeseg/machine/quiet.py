"""Silences native libraries, which write to the standard error stream of the process past Python."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STDERR = 2
_lock = threading.Lock()
_callers = 0
_saved = -1


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Inside, nothing in the process writes to its standard error stream; threads may use it at the same time."""
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    """Keeps the stream and opens the null device in its place, for the first caller only."""
    global _callers, _saved
    with _lock:
        _callers += 1
        if _callers > 1:
            return
        try:
            _saved = os.dup(STDERR)
        except OSError:  # the process has no such stream
            _saved = -1
            return
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, STDERR)
        os.close(null)


def _leave() -> None:
    """Restores the stream after the last caller."""
    global _callers, _saved
    with _lock:
        _callers -= 1
        if _callers == 0 and _saved != -1:
            os.dup2(_saved, STDERR)
            os.close(_saved)
            _saved = -1
