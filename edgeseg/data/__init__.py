"""Data sets by name. `edgeseg.data.labels` can be read without torch; the sets themselves load it."""

from __future__ import annotations

import importlib
import os
from typing import Any

DATASETS = {"camvid": "edgeseg.data.camvid:CamVid"}


def load_dataset(name: str, root: str | os.PathLike[str], split: str) -> Any:
    """A split of the data set `name` in the folder `root`.

    Raises:
        ValueError: unknown name or split.
        FileNotFoundError: the files are not there.
    """
    if name not in DATASETS:
        raise ValueError(f"no data set named {name!r}; there are {', '.join(DATASETS)}")
    module, _, class_name = DATASETS[name].partition(":")
    return getattr(importlib.import_module(module), class_name)(root, split)
