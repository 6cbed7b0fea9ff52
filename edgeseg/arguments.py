"""Checks of arguments that functions of several packages take."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    import torch


def require_choice(name: str, value: object, choices: Any) -> None:
    """Raises a ValueError unless an argument is one of the values of a `Literal`."""
    if value not in get_args(choices):
        raise ValueError(f"{name} is one of {', '.join(map(repr, get_args(choices)))}, got {value!r}")


def require_network(function: str, model: Any) -> None:
    """Raises a ValueError unless the first argument of a function is an edgeseg network or segmenter."""
    if hasattr(model, "config") and hasattr(model, "tasks"):
        return
    inside = getattr(model, "module", None)
    cure = "; pass its .module" if hasattr(inside, "tasks") else ""
    raise ValueError(f"{function} takes an edgeseg model, got a {type(model).__name__}{cure}")


def device_of(name: str) -> torch.device:
    """The device of PyTorch with a name, such as "cpu" or "cuda"; a ValueError if there is none."""
    import torch

    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"cannot use device {name}: {error}") from error


def require_size(name: str, size: Any) -> None:
    """Raises a ValueError unless an argument is a height and a width in pixels, or None."""
    if size is not None and not _is_size(size):
        raise ValueError(f"{name} must be a positive height and width, got {size!r}")


def require_pixels(count: Any) -> None:
    """Raises a ValueError unless an argument is a largest number of pixels, or None."""
    if count is not None and (not isinstance(count, Integral) or int(count) < 1):
        raise ValueError(f"max_pixels must be at least 1, and an integer, got {count!r}")


def as_size(name: str, size: Any) -> tuple[int, int]:
    """Returns the height and width that an argument means; a single number is a square.

    Raises:
        ValueError: it is not a positive height and width in pixels.
    """
    sides = (size, size) if isinstance(size, Integral) else size
    if not _is_size(sides):
        raise ValueError(f"{name} must be a positive height and width, or one number for a square, got {size!r}")
    height, width = map(int, sides)
    return height, width


def _is_size(sides: Any) -> bool:
    try:
        return len(sides) == 2 and all(isinstance(each, Integral) and int(each) >= 1 for each in sides)
    except TypeError:  # a number has no length
        return False
