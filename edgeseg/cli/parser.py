"""The parser of all verbs: a wrong call gets two or three lines, with the nearest name that exists."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from edgeseg.machine.terminal import printable_lines

EXAMPLES = "examples:\n"  # what the end of a help text begins with
MANY = 12  # choices that are listed in full in an error; of more, only the nearest are
# Options of one command by the names that others, or other libraries, have for them.
ALSO_CALLED = {
    "--pretrained": ["--checkpoint"],
    "--weights": ["--checkpoint", "--pretrained"],
    "--checkpoint": ["--pretrained"],
}


class _Help(argparse.HelpFormatter):
    """Keeps the lines of examples, which are commands to copy, as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(EXAMPLES) else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """A parser whose errors show the usage of their own verb in short, and suggest what may have been meant.

    Args:
        arguments: Those of `argparse.ArgumentParser`.
        examples: Commands that are shown at the end of the help text.
        options: Further arguments of `argparse.ArgumentParser`.
    """

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **options: Any) -> None:
        self.examples = tuple(examples)
        epilog = EXAMPLES + "\n".join(f"  {each}" for each in examples) if examples else None
        options |= {"allow_abbrev": False, "formatter_class": _Help, "epilog": epilog}
        super().__init__(*arguments, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses unknown options first: otherwise a mistyped option is reported as a required one that is missing."""
        words = list(sys.argv[1:] if args is None else args)
        for word in self._own(words):
            if not self._is_known(word):
                option = word.partition("=")[0]
                self.error(f"no option {option}{_hint(option, self._option_string_actions)}")
        return super().parse_known_args(words, namespace)

    def _own(self, words: Sequence[str]) -> Sequence[str]:
        """The words that belong to this parser and not to one of its verbs."""
        words = words[: words.index("--")] if "--" in words else words
        if self._subparsers is not None:
            verb = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
            return words[:verb]
        return words

    def _is_known(self, word: str) -> bool:
        """Whether a word is an option of this parser, or no option at all."""
        if not word.startswith("-") or word == "-" or " " in word or self._negative_number_matcher.match(word):
            return True
        option = word.partition("=")[0] if word.startswith("--") else word[:2]
        return option in self._option_string_actions

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            is_verb = isinstance(action, argparse._SubParsersAction)
            hint = _hint(str(value), names, all_if_few=True)
            what = "no command" if is_verb else f"{next(iter(action.option_strings), action.dest)}: no choice"
            raise argparse.ArgumentError(None, f"{what} {value}{hint}")

    def error(self, message: str) -> NoReturn:
        """Prints the error and the usage in short, and exits with status 2."""
        self.exit(2, f"{self.prog}: error: {printable_lines(message)}\n{self._short_usage()}\n")

    def names(self, verb: str) -> set[str]:
        """The names in Python of the options of a verb, and of its own verbs."""
        found: set[str] = set()
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                below = [action.choices[verb]] if verb in action.choices else action.choices.values()
                found = found.union(*(each.names("") for each in below))
            elif action.option_strings:
                found.add(action.dest)
        return found

    def _short_usage(self) -> str:
        """The usage with positional arguments and required options only."""
        words = []
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                words.append(f"{{{','.join(action.choices)}}} ...")
            elif not action.option_strings or action.required:
                metavar: Any = action.metavar or action.dest
                text = self._get_formatter()._format_args(action, metavar)
                words.append(" ".join([*action.option_strings[:1], text]))
        return f"usage: {' '.join([self.prog, *words])} [options]; {self.prog} --help explains them"


def _hint(name: str, known: Iterable[str], *, all_if_few: bool = False) -> str:
    """The end of an error: the nearest names that exist, or all of them if they are few."""
    names = list(known)
    near = [each for each in ALSO_CALLED.get(name, ()) if each in names]
    near = near or difflib.get_close_matches(name.lower(), names, n=2, cutoff=0.7)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; expected one of {', '.join(names)}" if all_if_few and len(names) <= MANY else ""


def in_shell_words(message: str, options: Iterable[str]) -> str:
    """An error of the library in the words of the command line.

    Args:
        message: It names arguments of Python, such as "pass num_classes=5".
        options: The names of the verb's options in Python, such as "num_classes".
    """
    message = re.sub(r"\bedgeseg\.list_(models|weights)\(\)", _listing, message)
    message = re.sub(r"\bcreate_model\([^,()]+, (\w+='[^']+')\)", r"\1", message)
    message = re.sub(r"\bTrainConfig\.(\w+)", lambda match: f"--{match[1].replace('_', '-')}", message)
    message = re.sub(r"\bModelSpec\.(\w+)", r"--option \1", message)
    if option := next((name for name in ("checkpoint", "pretrained") if name in options), None):
        message = re.sub(r"\bcheckpoint_path\b", f"--{option}", message)
    for name in sorted(options, key=len, reverse=True):
        flag = f"--{name.replace('_', '-')}"
        message = re.sub(rf"(?<![\w/.'\"-]){name}=True\b", flag, message)
        message = re.sub(rf"(?<![\w/.'\"-]){name}=(['\"]?)([^\s,;)'\"]+)\1", rf"{flag} \2", message)
        if "_" in name:
            message = re.sub(rf"(?<![\w/.'\"-]){name}(?![\w/.-])", flag, message)
    return re.sub(r"(--[\w-]+)(?: \([^()]*\)| [^\s()]+)? \((\1(?: [^()]*)?)\)", r"\2", message)


def _listing(match: re.Match[str]) -> str:
    return "edgeseg list" if match[1] == "models" else "edgeseg weights list"
