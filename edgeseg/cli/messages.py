"""What verbs print: the options --quiet and --json, and JSON for programs."""

from __future__ import annotations

import json
from typing import Any

from edgeseg.cli.model import Group


def add_quiet(verb: Group) -> None:
    """Adds --quiet, which `edgeseg.cli.main` obeys for all verbs."""
    verb.add_argument(
        "--quiet", action="store_true",
        help="print errors, warnings and the results that were asked for, without progress bars and remarks",
    )  # fmt: skip


def add_json(verb: Group, content: str) -> None:
    """Adds --json; `content` says what the document has."""
    verb.add_argument("--json", action="store_true", help=f"print one JSON document: {content}")


def print_json(content: Any) -> None:
    """Prints a document of which nothing can command a terminal."""
    print(json.dumps(content, indent=2).replace("\x7f", "\\u007f"))
