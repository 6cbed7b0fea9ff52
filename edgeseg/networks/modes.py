"""What threads that share a network or a process have to agree on: evaluation mode, and turns with torch.export."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn


@dataclass
class _Evaluation:
    """The number of callers that need a network in evaluation mode, and its modules that were in training mode."""

    callers: int
    in_training: list[nn.Module]


EXPORTING = threading.RLock()
"""Held while torch.export changes the process, and by what it would disturb in other threads: optimizers and traces."""
_lock = threading.Lock()
_running: weakref.WeakKeyDictionary[nn.Module, _Evaluation] = weakref.WeakKeyDictionary()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, all modules of `model` are in evaluation mode.

    The first caller switches, the last one restores the mode of each module, so that threads can share a network.
    """
    with _lock:
        evaluation = _running.setdefault(model, _Evaluation(0, []))
        if evaluation.callers == 0:
            evaluation.in_training = [module for module in model.modules() if module.training]
            for module in evaluation.in_training:
                module.training = False
        evaluation.callers += 1
    try:
        yield
    finally:
        with _lock:
            evaluation.callers -= 1
            if evaluation.callers == 0:
                for module in evaluation.in_training:
                    module.training = True
                del _running[model]
