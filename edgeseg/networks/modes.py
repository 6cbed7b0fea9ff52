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
    """The number of callers that need a module in evaluation mode, and whether it was in training mode."""

    callers: int
    training: bool


EXPORTING = threading.RLock()
"""Held while torch.export changes the process, and by what it would disturb in other threads: optimizers and traces."""
_lock = threading.Lock()
_running: weakref.WeakKeyDictionary[nn.Module, _Evaluation] = weakref.WeakKeyDictionary()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, all modules of `model` are in evaluation mode.

    The first caller of a module switches it, and the last one restores its mode, so that threads can share a network,
    and networks an encoder.
    """
    modules = list(model.modules())
    with _lock:
        for module in modules:
            _running.setdefault(module, _Evaluation(0, module.training)).callers += 1
            module.training = False
    try:
        yield
    finally:
        with _lock:
            for module in modules:
                evaluation = _running[module]
                evaluation.callers -= 1
                if evaluation.callers == 0:
                    _restore(module, training=evaluation.training)
                    del _running[module]


def _restore(module: nn.Module, *, training: bool) -> None:
    """Sets the mode of a module, not of those in it, as its own `train` would.

    Modules of timm forget there what they keep in evaluation mode and what depends on their weights.
    """
    if training and type(module).train is not nn.Module.train:
        modes = [(each, each.training) for each in module.modules()]
        module.train()
        for each, mode in modes:
            each.training = mode
    module.training = training
