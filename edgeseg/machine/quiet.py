"""Silences libraries: what they print, log and warn of in Python, and what native code writes past Python."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from io import StringIO
from typing import Any

STDERR = 2
_lock = threading.Lock()
_callers = 0
_silencers, _disabled = 0, 0  # of the logs, and the level before the first of them
_saved = -1
_said: Any = None  # the file in place of the stream
_stream: ContextVar[Any] = ContextVar("stream", default=None)  # standard error of Python before it was silenced


@contextmanager
def quiet_logging(level: int = logging.ERROR) -> Iterator[None]:
    """Silences the logs of all libraries up to a level, by default errors included; threads may overlap."""
    global _silencers, _disabled
    with _lock:
        if not _silencers:
            _disabled = logging.root.manager.disable
        _silencers += 1
        logging.disable(max(level, logging.root.manager.disable))
    try:
        yield
    finally:
        with _lock:
            _silencers -= 1
            if not _silencers:
                logging.disable(_disabled)


@contextmanager
def quiet_python() -> Iterator[None]:
    """Silences what libraries print, log and warn of by way of Python."""
    token = _stream.set(_stream.get() or sys.stderr)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()), quiet_logging():
            warnings.simplefilter("ignore")
            yield
    finally:
        _stream.reset(token)


class _Unsilenced:
    """Standard error of the process, also while `captured_stderr` has a file in its place."""

    def __init__(self, encoding: str | None) -> None:
        self.encoding = encoding or "utf-8"

    def fileno(self) -> int:
        """The descriptor of the stream at this moment."""
        return STDERR if _said is None else _saved

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return os.isatty(self.fileno())

    def write(self, text: str) -> int:
        """Writes a text at once."""
        return os.write(self.fileno(), text.encode(self.encoding, "replace"))

    def flush(self) -> None:
        """Nothing waits to be written."""


def visible_stderr() -> Any:
    """Standard error as the user sees it, a text stream, while libraries are silenced too."""
    stream = _stream.get() or sys.stderr
    try:
        return _Unsilenced(stream.encoding) if stream.fileno() == STDERR else stream
    except (AttributeError, OSError, ValueError):  # no file of the system
        return stream


@contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Inside, nothing in the process writes to its standard error stream; threads may use it at the same time.

    Yields:
        A function that returns what native code has written since. That of other threads may be among it.
    """
    start = _enter()

    def said() -> str:
        if _said is None:
            return ""
        _said.seek(start)
        content: bytes = _said.read()  # to the end, where native code goes on writing
        return content.decode(errors="replace")

    try:
        yield said
    finally:
        _leave()


def _enter() -> int:
    """Keeps the stream and opens a file in its place, for the first caller only; returns the size of the file."""
    global _callers, _saved, _said
    with _lock:
        _callers += 1
        if _callers == 1:
            try:
                _saved = os.dup(STDERR)
            except OSError:  # the process has no such stream
                return 0
            _said = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the last caller)
            os.dup2(_said.fileno(), STDERR)
        return os.fstat(_said.fileno()).st_size if _said is not None else 0


def _leave() -> None:
    """Restores the stream after the last caller."""
    global _callers, _saved, _said
    with _lock:
        _callers -= 1
        if _callers == 0 and _said is not None:
            os.dup2(_saved, STDERR)
            os.close(_saved)
            _said.close()
            _saved, _said = -1, None
