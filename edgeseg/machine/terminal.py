"""Text that is safe to print: names from files may hold characters that command a terminal."""

from __future__ import annotations

from typing import TextIO


def printable(text: object) -> str:
    r"""Returns a text without control characters, such as `\x1b` in a file name; they are written as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


def printable_lines(text: object) -> str:
    """Returns the `printable` text of a message, with its lines kept."""
    return "\n".join(printable(line) for line in str(text).split("\n"))


def show(text: object = "", *, file: TextIO | None = None, flush: bool = False) -> None:
    """Prints the `printable_lines` of a text, by default to standard output."""
    print(printable_lines(text), file=file, flush=flush)
