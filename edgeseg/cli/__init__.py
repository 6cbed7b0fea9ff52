"""The command line. A file a verb: `add` describes its options, and what it needs is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import edgeseg
from edgeseg.cli import demo, evaluate, export, flow, predict, quantize, train, weights, zoo
from edgeseg.machine.memory import keep_freed_memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit status: 0, 1 where some input failed, 2 for a wrong call, 130 if stopped."""
    options = _parser().parse_args(arguments)
    if arguments is None:  # the process is this command's, not that of a program that calls this function
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
    parser = argparse.ArgumentParser("edgeseg", description="A zoo of edge semantic-segmentation networks.")
    parser.add_argument("--version", action="version", version=f"edgeseg {edgeseg.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in (demo, zoo, weights, predict, flow, train, evaluate, export, quantize):
        verb.add(verbs)
    return parser
