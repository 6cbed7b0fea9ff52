"""Silences libraries: what they print, log and warn of in Python, and what native code writes past Python."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STDERR = 2
STREAMS = ("stdout", "stderr")
_lock = threading.Lock()
_callers = 0
_levels: dict[int, list[int]] = {}  # up to which the logs of threads are silenced
_handlers: list[logging.Handler] = []  # that have the filter
_printing: Counter[int] = Counter()  # threads that are silenced, with the number of contexts
_saved = -1
_said: Any = None  # the file in place of the stream


class _Quiet(logging.Filter):
    """Drops the log records of threads that are silenced, up to the level of each."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown."""
        return record.levelno > max(_levels.get(record.thread or 0, ()), default=-1)


class _ForOthers:
    """A text stream that drops what silenced threads write, and passes on everything else."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Writes a text, unless the thread is silenced."""
        return len(text) if threading.get_ident() in _printing else int(self.stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_QUIET = _Quiet()


@contextmanager
def quiet_logging(level: int = logging.ERROR) -> Iterator[None]:
    """Silences what this thread logs up to a level, by default errors included; threads may overlap."""
    me = threading.get_ident()
    with _lock:
        if not _levels:
            loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
            last = [logging.lastResort] if logging.lastResort else []
            _handlers.extend({*last, *(handler for each in [logging.root, *loggers] for handler in each.handlers)})
            for handler in _handlers:
                handler.addFilter(_QUIET)
        _levels.setdefault(me, []).append(level)
    try:
        yield
    finally:
        with _lock:
            _levels[me].remove(level)
            if not _levels[me]:
                del _levels[me]
            if not _levels:
                for handler in _handlers:
                    handler.removeFilter(_QUIET)
                _handlers.clear()


@contextmanager
def quiet_printing() -> Iterator[None]:
    """Silences what this thread prints by way of Python; threads may overlap."""
    me = threading.get_ident()
    with _lock:
        if not _printing:
            for name in STREAMS:
                if getattr(sys, name) is not None:
                    setattr(sys, name, _ForOthers(getattr(sys, name)))
        _printing[me] += 1
    try:
        yield
    finally:
        with _lock:
            _printing[me] -= 1
            if not _printing[me]:
                del _printing[me]
            if not _printing:
                for name in STREAMS:
                    if isinstance(mine := getattr(sys, name), _ForOthers):
                        setattr(sys, name, mine.stream)


@contextmanager
def quiet_python() -> Iterator[None]:
    """Silences what libraries print, log and warn of by way of Python, in this thread."""
    with warnings.catch_warnings(), quiet_printing(), quiet_logging():
        warnings.simplefilter("ignore")
        yield


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
    stream = sys.stderr.stream if isinstance(sys.stderr, _ForOthers) else sys.stderr
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
