"""What a user sees in a terminal: safe text, progress bars, and remarks beside the results."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO

from edgeseg.machine.quiet import visible_stderr

if TYPE_CHECKING:
    from tqdm import tqdm

_remarks = ContextVar("remarks", default=True)
_bars = ContextVar("bars", default=True)


def printable(text: object) -> str:
    r"""Returns a text without control characters, such as `\x1b` in a file name; they are written as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


def printable_lines(text: object) -> str:
    """Returns the `printable` text of a message, with its lines kept."""
    return "\n".join(printable(line) for line in str(text).split("\n"))


def show(text: object = "", *, file: TextIO | None = None, flush: bool = False) -> None:
    r"""Prints the `printable_lines` of a text, by default to standard output.

    Characters that the terminal or file cannot encode, such as those of a class name under `LC_ALL=C` or on Windows,
    are written as in Python, such as `\xe9`.
    """
    stream = file or sys.stdout
    lines, encoding = printable_lines(text), getattr(stream, "encoding", None) or "utf-8"
    print(lines.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=flush)


@contextmanager
def showing(*, remarks: bool, bars: bool) -> Iterator[None]:
    """Says whether `say` prints and whether `progress_bar` shows anything inside; both do by default."""
    before = _remarks.set(remarks), _bars.set(bars)
    try:
        yield
    finally:
        _remarks.reset(before[0])
        _bars.reset(before[1])


def say(text: str) -> None:
    """Prints a remark at once. Whoever reads the output may leave: the work goes on without a reader."""
    if not _remarks.get():
        return
    try:
        show(text, flush=True)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)


def warn(message: str) -> None:
    """Warns of something at the line, outside of edgeseg, that led to it."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "edgeseg":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def progress_bar(
    steps: Iterable[Any] | None, title: str, unit: str, total: int | None = None, *, shown: bool = True, **options: Any
) -> tqdm[Any]:
    """A progress bar on standard error, which is removed at the end; it is hidden unless that is a terminal.

    Args:
        steps: What the bar iterates over; None for a bar that is updated by hand.
        title: Text before the bar.
        unit: What is counted.
        total: Number of steps; by default the length of `steps`, if it has one.
        shown: Whether the bar is shown at all, for example in one process of several only.
        options: Further arguments of `tqdm`.
    """
    from tqdm import tqdm

    hidden = None if shown and _bars.get() else True  # None: hidden unless on a terminal
    return tqdm(steps, title, total, unit=unit, leave=False, disable=hidden, file=visible_stderr(), **options)
