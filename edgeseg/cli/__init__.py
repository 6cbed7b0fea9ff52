"""The command line, with one file per verb: `add` describes the options, and imports wait until the verb runs."""

from __future__ import annotations

import os
import select
import sys
import threading
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import edgeseg
from edgeseg.cli import data, demo, doctor, evaluate, export, flow, predict, quantize, train, weights, zoo
from edgeseg.cli.completion import add_completion
from edgeseg.cli.parser import Parser, in_shell_words
from edgeseg.cli.stops import Stops
from edgeseg.machine.errors import ExportError
from edgeseg.machine.memory import keep_freed_memory
from edgeseg.machine.terminal import printable_lines, show, showing

_format = warnings.formatwarning


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Words of the command line after "edgeseg"; by default those of this process.

    Returns:
        The exit status: 0; 1 if some inputs failed or nothing matched; 2 for an error; 130 if the user stopped it, or
        if either signal stopped a training, which is saved.

    Raises:
        SystemExit: after `--help` and `--version`, with status 2 for words that are not options of the command, and
            with status 143 after SIGTERM.
    """
    stops = Stops()
    if arguments is None:  # the process belongs to this command, and not to a program that calls this function
        _own_process(stops)
    command, names = "edgeseg", set[str]()
    try:
        parser = _parser()
        options = parser.parse_args(arguments)
        command, names = f"edgeseg {options.verb}", parser.names(options.verb)
        quiet = getattr(options, "quiet", False)
        if arguments is None and quiet:
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        with showing(remarks=not (quiet or getattr(options, "json", False)), bars=not quiet):
            status = int(options.run(options))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BaseException as error:
        return _status(stops.error or error, command, names)  # a library may have put its own error in place of a stop
    finally:
        stops.end()


def _status(error: BaseException, command: str, names: Iterable[str]) -> int:
    """The exit status after an exception that a user can meet, once its message is shown; others are raised again."""
    if isinstance(error, KeyboardInterrupt):
        show(f"{command}: {in_shell_words(str(error), names) or 'interrupted'}", file=sys.stderr)
        return 130
    if isinstance(error, BrokenPipeError) and _reader_has_left():
        return 0
    if isinstance(error, ValueError | OSError | ImportError | FloatingPointError | MemoryError | ExportError):
        show(f"{command}: error: {in_shell_words(printable_lines(error), names)}", file=sys.stderr)
        return 2
    raise error


def _own_process(stops: Stops) -> None:
    """Sets up what belongs to the whole process: streams, signals, memory and messages of libraries."""
    # Streams may be closed (`>&-`), and the next files to be opened would get their numbers.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (until the process ends)
    if threading.current_thread() is threading.main_thread():
        stops.install()
    keep_freed_memory()
    warnings.formatwarning = _formatted
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # otherwise a line per retry; our error says it in one


def _formatted(message: Warning | str, *place: Any, **line: Any) -> str:
    """A warning as Python formats it, without control characters: it may have the name of a file."""
    return _format(printable_lines(message), *place, **line)


def _reader_has_left() -> bool:
    """Whether the reader of standard output has left, such as `head` in `edgeseg list | head -1`.

    If so, standard output is sent to nowhere, so that nothing is said of it when the process ends.
    """
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # a stream that is not a file
        return False
    if hasattr(select, "poll"):  # not on Windows
        poll = select.poll()
        poll.register(number, 0)
        if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return True


def _parser() -> Parser:
    """The parser of all verbs and their options."""
    parser = Parser(
        "edgeseg",
        description="A zoo of semantic-segmentation networks for edge devices. Each command has its own --help.",
        examples=("edgeseg demo", "edgeseg predict photo.jpg -o segmented"),
    )
    parser.add_argument("--version", action="version", version=f"edgeseg {edgeseg.__version__}")
    add_completion(parser)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in (demo, zoo, weights, predict, flow, data, train, evaluate, export, quantize, doctor):
        verb.add(verbs)
    return parser
