"""Completion of the command line in shells by shtab: of verbs, options, their choices, files and names of models."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import edgeseg
from edgeseg.cli.model import file_or_address


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Adds --print-completion."""
    parser.add_argument(
        "--print-completion", action=_PrintCompletion, choices=["bash", "zsh", "tcsh"], metavar="SHELL",
        help="print a script that makes a shell complete this command (bash, zsh or tcsh), and exit",
    )  # fmt: skip


class _PrintCompletion(argparse.Action):
    """Prints the script and exits."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        try:
            import shtab
        except ImportError:
            parser.error("--print-completion needs shtab: pip install 'edgeseg[completion]'")
        for action in _actions(parser):
            if action.type in (Path, file_or_address):
                complete = shtab.DIRECTORY if action.metavar in ("DIR", "FOLDER") else shtab.FILE
                action.complete = complete  # type: ignore[attr-defined]
            elif action.dest == "model":
                action.choices = [*edgeseg.list_models(), *edgeseg.list_weights()]
        print(shtab.complete(parser, values))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options of a parser and of its verbs at any depth."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)
