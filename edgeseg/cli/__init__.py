"""The command line, with one file per verb: `add` describes the options, and imports wait until the verb runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import edgeseg
from edgeseg.cli import data, demo, evaluate, export, flow, predict, quantize, train, weights, zoo
from edgeseg.machine.memory import keep_freed_memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Words of the command line after "edgeseg"; by default those of this process.

    Returns:
        The exit status: 0; 1 if some inputs failed or nothing matched; 2 for an error; 130 if the user stopped it.

    Raises:
        SystemExit: after `--help` and `--version`, and with status 2 for words that are no options of the command.
    """
    options = _parser().parse_args(arguments)
    if arguments is None:  # the process belongs to this command, and not to a program that calls this function
        keep_freed_memory()
    try:
        return int(options.run(options))
    except KeyboardInterrupt as error:
        print(f"edgeseg {options.verb}: {error or 'interrupted'}", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"edgeseg {options.verb}: error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    """The parser of all verbs and their options."""
    parser = argparse.ArgumentParser(
        "edgeseg", description="A zoo of semantic-segmentation networks for edge devices. Each verb has its own --help."
    )
    parser.add_argument("--version", action="version", version=f"edgeseg {edgeseg.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in (demo, zoo, weights, predict, flow, data, train, evaluate, export, quantize):
        verb.add(verbs)
    return parser
