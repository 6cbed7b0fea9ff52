"""Frozen records whose fields check themselves, whether they are made in Python or read from JSON. Needs no torch."""

from __future__ import annotations

import math
import reprlib
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Made = TypeVar("Made", bound="Record")
WIDTH = 100  # characters of a record that is shown on one line


class Record:
    """Base of the frozen dataclasses. Every field is checked against its annotation; lists become tuples.

    A subclass adds what its fields must fulfil beyond their types by overriding `check`. It is a dataclass with
    `repr=False`, since a record shows the fields that differ from their defaults, and long ones in part.

    Raises:
        ValueError: a field of the wrong type or value; the message names the field and says what is expected.
    """

    def __post_init__(self) -> None:
        for name, kind in _hints(type(self)).items():
            object.__setattr__(self, name, _fitted(getattr(self, name), kind, f"{type(self).__name__}.{name}"))
        self.check()

    def check(self) -> None:
        """Raises a ValueError when the values of the fields do not fit each other."""

    def require(self, fulfilled: bool, name: str, expected: str) -> None:
        """Raises a ValueError that says what is expected of the field `name`, unless it is fulfilled."""
        if not fulfilled:
            raise ValueError(f"{type(self).__name__}.{name} {expected}, got {_shown.repr(getattr(self, name))}")

    def __repr__(self) -> str:
        shown = [f"{name}={_shown.repr(value)}" for name, value in _differing(self)]
        line = f"{type(self).__name__}({', '.join(shown)})"
        if len(line) <= WIDTH and "\n" not in line:
            return line
        inner = "".join(f"    {each},\n".replace("\n", "\n    ").removesuffix("    ") for each in shown)
        return f"{type(self).__name__}(\n{inner})"

    @classmethod
    def from_json(cls: type[Made], content: Any, where: str = "") -> Made:
        """Makes the record from the dictionary of its fields, as JSON has it.

        Raises:
            ValueError: no dictionary, unknown or missing keys, or a field that does not fit; the message begins with
                `where`.
        """
        prefix = f"{where}: " if where else ""
        if not isinstance(content, Mapping):
            raise ValueError(f"{prefix}{cls.__name__} must be a dictionary of its fields, got {_shown.repr(content)}")
        known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(_shown.repr(key) for key in content if key not in known)
        missing = [
            name
            for name, field in known.items()
            if field.default is MISSING and field.default_factory is MISSING and name not in content
        ]
        if unknown or missing:
            found = (("unknown keys", unknown), ("missing keys", missing))
            wrong = " and ".join(f"{what} {', '.join(names)}" for what, names in found if names)
            raise ValueError(f"{prefix}{cls.__name__} has {wrong}")
        try:
            return cls(**content)
        except ValueError as error:
            raise ValueError(f"{prefix}{error}") from error


_shown = reprlib.Repr()
_shown.maxtuple = _shown.maxlist = 4
_shown.maxdict, _shown.maxstring, _shown.maxother = 12, 120, 4000


def _differing(record: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of the fields that differ from their defaults."""
    for field in fields(record):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if (value := getattr(record, field.name)) != default:
            yield field.name, value


_known_hints: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    """The annotations of the fields, evaluated once per class."""
    if kind not in _known_hints:
        names = {field.name for field in fields(kind)}
        _known_hints[kind] = {name: hint for name, hint in get_type_hints(kind).items() if name in names}
    return _known_hints[kind]


def _fitted(value: Any, kind: Any, where: str) -> Any:
    """`value` as the annotation `kind` has it; raises a ValueError that begins with `where` if it does not fit."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else _fitted(value, next(each for each in parts if each is not type(None)), where)
    if origin is Literal:
        return _one_of(value, parts, where)
    if origin is tuple:
        return _tuple(value, parts, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ValueError(f"{where} is a dictionary with names as keys, got {_shown.repr(value)}")
        return {key: _fitted(each, parts[1], f"{where}[{key!r}]") for key, each in value.items()}
    if issubclass(kind, Record):
        return value if isinstance(value, kind) else kind.from_json(value, where)
    return _number(value, kind, where) if kind in (int, float) else _plain(value, kind, where)


def _one_of(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError(f"{where} is one of {', '.join(map(str, choices))}; got {_shown.repr(value)}")
    return value


def _tuple(value: Any, parts: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    any_length = parts[-1:] == (...,)
    kinds = [parts[0]] * len(value) if any_length and isinstance(value, list | tuple) else list(parts)
    if not isinstance(value, list | tuple) or len(value) != len(kinds):
        wanted = "a list" if any_length else f"{len(parts)} values"
        raise ValueError(f"{where} is {wanted}, got {_shown.repr(value)}")
    return tuple(_fitted(each, kind, f"{where}[{i}]") for i, (each, kind) in enumerate(zip(value, kinds, strict=True)))


def _number(value: Any, kind: type, where: str) -> Any:
    """int from whatever is an integer, float from any finite number; bool is neither."""
    if isinstance(value, bool) or not (hasattr(value, "__index__") or (kind is float and hasattr(value, "__float__"))):
        raise ValueError(f"{where} is {'an integer' if kind is int else 'a number'}, got {_shown.repr(value)}")
    try:
        number = kind(value)
        finite = math.isfinite(number)
    except (OverflowError, TypeError, ValueError):  # such as an array of several numbers
        finite = False
    if not finite or (kind is int and abs(number) >= 2**63):
        wanted = "an integer of at most 64 bit" if kind is int else "a finite number"
        raise ValueError(f"{where} is {wanted}, got {_shown.repr(value)}")
    return number


def _plain(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{where} is {'text' if kind is str else kind.__name__}, got {_shown.repr(value)}")
    return value
