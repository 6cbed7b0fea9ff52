"""Training and evaluation: `train(model, train_set, val_set, TrainConfig(), folder)`, `evaluate(model, dataset)`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeseg.recipes import RECIPES, TrainConfig

if TYPE_CHECKING:
    from edgeseg.engine.callbacks import Callback, EarlyStopping
    from edgeseg.engine.decision import choose_biases, choose_threshold
    from edgeseg.engine.evaluation import evaluate, evaluate_tasks
    from edgeseg.engine.teacher import SoftLabels, Teacher
    from edgeseg.engine.training import train
    from edgeseg.tasks.binary_metrics import BinaryScores
    from edgeseg.tasks.depth_metrics import DepthErrors
    from edgeseg.tasks.metrics import ConfusionMatrix

__all__ = [
    "RECIPES",
    "BinaryScores",
    "Callback",
    "ConfusionMatrix",
    "DepthErrors",
    "EarlyStopping",
    "SoftLabels",
    "Teacher",
    "TrainConfig",
    "choose_biases",
    "choose_threshold",
    "evaluate",
    "evaluate_tasks",
    "train",
]

# Names that need torch, imported at their first use (PEP 562).
_LAZY = {
    "BinaryScores": "edgeseg.tasks.binary_metrics",
    "Callback": "edgeseg.engine.callbacks",
    "EarlyStopping": "edgeseg.engine.callbacks",
    "ConfusionMatrix": "edgeseg.tasks.metrics",
    "DepthErrors": "edgeseg.tasks.depth_metrics",
    "SoftLabels": "edgeseg.engine.teacher",
    "Teacher": "edgeseg.engine.teacher",
    "choose_biases": "edgeseg.engine.decision",
    "choose_threshold": "edgeseg.engine.decision",
    "evaluate": "edgeseg.engine.evaluation",
    "evaluate_tasks": "edgeseg.engine.evaluation",
    "train": "edgeseg.engine.training",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'edgeseg.engine' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
