"""Drills: valid files are damaged at random, and whatever reads them must be right or refuse them by name.

`python -m tests.drills` runs them; see docs/CONTRIBUTING.md. A drill is a row of `DRILLS` in one of the files here.
"""

from __future__ import annotations

from importlib.util import find_spec

from . import configs, datasets, exported, images, runs, weights
from .drill import Drill

ALL: tuple[Drill, ...] = (
    *images.DRILLS, *weights.DRILLS, *configs.DRILLS, *exported.DRILLS, *runs.DRILLS, *datasets.DRILLS
)  # fmt: skip
DRILLS = {drill.name: drill for drill in ALL if not drill.needs or find_spec(drill.needs)}
