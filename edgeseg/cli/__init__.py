"""The command line, with one file per verb: `add` describes the options, and imports wait until the verb runs."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import edgeseg
from edgeseg.cli import data, demo, doctor, evaluate, export, flow, predict, quantize, train, weights, zoo
from edgeseg.cli.completion import add_completion
from edgeseg.cli.parser import Parser, in_shell_words
from edgeseg.machine.memory import keep_freed_memory
from edgeseg.machine.terminal import printable_lines, show, showing

_format = warnings.formatwarning


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Words of the command line after "edgeseg"; by default those of this process.

    Returns:
        The exit status: 0; 1 if some inputs failed or nothing matched; 2 for an error; 130 if the user stopped it.

    Raises:
        SystemExit: after `--help` and `--version`, with status 2 for words that are no options of the command, and with
            status 143 after SIGTERM.
    """
    if arguments is None:  # the process belongs to this command, and not to a program that calls this function
        _own_process()
    parser = _parser()
    options = parser.parse_args(arguments)
    quiet = getattr(options, "quiet", False)
    if arguments is None and quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with showing(remarks=not (quiet or getattr(options, "json", False)), bars=not quiet):
            status = int(options.run(options))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt as error:
        words = in_shell_words(str(error), parser.names(options.verb))
        show(f"edgeseg {options.verb}: {words or 'interrupted'}", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if isinstance(error, BrokenPipeError) and _reader_has_left():
            return 0
        words = in_shell_words(printable_lines(error), parser.names(options.verb))
        show(f"edgeseg {options.verb}: error: {words}", file=sys.stderr)
        return 2


def _own_process() -> None:
    """Sets up what belongs to the whole process: streams, signals, memory and messages of libraries."""
    # Streams may be closed (`>&-`), and the next files to be opened would get their numbers.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (until the process ends)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _raises(SystemExit(128 + signal.SIGTERM)))
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores Ctrl-C
            signal.signal(signal.SIGINT, _raises(KeyboardInterrupt()))
    keep_freed_memory()
    warnings.formatwarning = _formatted
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # otherwise a line per retry; our error says it in one


def _raises(error: BaseException) -> Callable[[int, FrameType | None], None]:
    """A handler of signals that raises an exception: temporary files and processes that were started end with it.

    During an import the handler is called again later: libraries that try whether a module can be imported may take any
    exception for a no, and the command would go on as if there had been no signal.
    """

    def handler(_: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
            frame = frame.f_back
        if frame is None or not hasattr(signal, "setitimer"):  # Windows has no timer
            raise error
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    return handler


def _formatted(message: Warning | str, *place: Any, **line: Any) -> str:
    """A warning as Python formats it, without control characters: it may have the name of a file."""
    return _format(printable_lines(message), *place, **line)


def _reader_has_left() -> bool:
    """Whether the reader of standard output has left, such as `head` in `edgeseg list | head -1`.

    If so, standard output is sent to nowhere, so that nothing is said of it when the process ends.
    """
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # a stream that is no file
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
        description="A zoo of semantic-segmentation networks for edge devices. Each verb has its own --help.",
        examples=("edgeseg demo", "edgeseg predict photo.jpg -o segmented"),
    )
    parser.add_argument("--version", action="version", version=f"edgeseg {edgeseg.__version__}")
    add_completion(parser)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in (demo, zoo, weights, predict, flow, data, train, evaluate, export, quantize, doctor):
        verb.add(verbs)
    return parser
