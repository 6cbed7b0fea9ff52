"""The table of kinds of tasks. A kind defines maps, ground truth, loss, metric and pictures; other code asks the kind.

To add a kind of your own, subclass `Kind` or `Regression` and register an instance of it with `register_kind`.
"""

from __future__ import annotations

from edgeseg.spec import KIND_NAMES, Task
from edgeseg.tasks.binary import Binary
from edgeseg.tasks.depth import Depth
from edgeseg.tasks.kind import Classification, Kind, Metric, Regression, to_map, to_target
from edgeseg.tasks.segmentation import Segmentation

__all__ = ["KINDS", "Classification", "Kind", "Metric", "Regression", "kind_of", "register_kind", "to_map", "to_target"]

KINDS: dict[str, Kind] = {"segmentation": Segmentation(), "binary": Binary(), "depth": Depth()}


def register_kind(name: str, kind: Kind) -> None:
    """Registers a kind of your own, so that `Task(name, ...)` is a task of it.

    Args:
        name: Name of the kind.
        kind: An instance of your subclass of `Kind`.

    Raises:
        ValueError: the name is taken, or `kind` is not an instance of `Kind`.
    """
    if name in KINDS:
        raise ValueError(f"a kind of tasks named {name!r} is registered already; choose another name")
    if not isinstance(kind, Kind):
        raise ValueError(f"a kind of tasks is an instance of a subclass of edgeseg.tasks.Kind, got {kind!r}")
    KINDS[name] = kind
    KIND_NAMES.add(name)


def kind_of(task: Task) -> Kind:
    """Finds the kind of a task.

    Args:
        task: A task of a registered kind.

    Returns:
        The kind, which knows the fields of the task that its maps depend on.
    """
    return KINDS[task.kind].of(task)


def same_names(one: Task, other: Task) -> bool:
    """Whether the classes of two tasks have the same names, or those of one have none.

    What is not the foreground of a binary task may have any name.
    """
    if not one.classes or len(one.classes) != len(other.classes):
        return True
    first = int(kind_of(one).has_threshold or kind_of(other).has_threshold)
    names = [[each.strip().casefold() for each in task.classes[first:]] for task in (one, other)]
    return names[0] == names[1]
