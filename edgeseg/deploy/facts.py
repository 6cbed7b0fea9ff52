"""What an exported file says of itself, in whatever way its format has for that."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from edgeseg.config import ORIGIN
from edgeseg.deploy.graph import Graph
from edgeseg.labels import class_names, palette_of
from edgeseg.machine.versions import version_of
from edgeseg.predict.facts import read_facts
from edgeseg.predict.segmenter import Fit
from edgeseg.tasks import kind_of


def facts_of(graph: Graph, size: Sequence[int] | None, fit: Fit) -> dict[str, str]:
    """The texts of a file by name: what edgeseg reads, then the same for people and other programs.

    Args:
        graph: The content of the file.
        size: Height and width that photos are resized to; None for that of the weights.
        fit: How photos are fitted to a file of fixed size.
    """
    config = graph.model.config
    if size is not None:
        config = replace(config, preprocess=replace(config.preprocess, size=graph.ends.size))
    tasks = {name: task for name, task in config.tasks.items() if kind_of(task).has_classes}
    facts: dict[str, Any] = {
        "edgeseg": config.to_json(),
        "edgeseg_file": {"output": graph.ends.output, "preprocess": graph.ends.preprocess, "fit": fit},
        "version": version_of("edgeseg"),
        "inputs": list(graph.model.inputs),
        "outputs": list(graph.model.tasks),
        "classes": {name: class_names(task) for name, task in tasks.items()},
        "palette": {name: palette_of(task) for name, task in tasks.items()},
        **{key: config.notes[key] for key in ORIGIN if key in config.notes},
    }
    return {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()}


def check_free(folder: Path, model: str, others: Collection[str]) -> None:
    """Checks the place of an exported folder, which is not replaced if edgeseg did not write it.

    Args:
        folder: The folder that will be written.
        model: Name of the exported file in it.
        others: Names of everything else that may be in it.

    Raises:
        FileExistsError: there is a file, a link, or a folder with other content than an earlier export.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise FileExistsError(f"{folder} exists and is not a folder; choose another name")
    content = {path.name for path in folder.iterdir()}
    try:
        # An earlier export has more than its model, which alone may be a file of `edgeseg.export`.
        known = bool(content - {model}) and content <= {model, *others}
        ours = not content or (known and "edgeseg" in read_facts(folder / model))
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise FileExistsError(f"{folder} is not empty and not an earlier export; choose another folder")


def check_fit(fit: str, dynamic: Sequence[str]) -> None:
    """Raises a ValueError if photos cannot be fitted in this way to a file with these dimensions."""
    if fit not in get_args(Fit):
        raise ValueError(f"no fit named {fit!r}; the fits are {', '.join(get_args(Fit))}")
    if fit != "stretch" and set(dynamic) - {"batch"}:
        raise ValueError(f"fit={fit!r} (--fit) applies to files of fixed height and width (--fixed)")
