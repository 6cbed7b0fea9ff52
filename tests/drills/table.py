"""All drills whose runtimes are installed, by name."""

from __future__ import annotations

from importlib.util import find_spec

from . import configs, datasets, exported, images, interrupted, runs, surroundings, threads, weights
from .drill import Drill

ALL: tuple[Drill, ...] = (
    *images.DRILLS, *weights.DRILLS, *configs.DRILLS, *exported.DRILLS, *runs.DRILLS, *datasets.DRILLS,
    *interrupted.DRILLS, *threads.DRILLS, *surroundings.DRILLS,
)  # fmt: skip
DRILLS = {drill.name: drill for drill in ALL if not drill.needs or find_spec(drill.needs)}
