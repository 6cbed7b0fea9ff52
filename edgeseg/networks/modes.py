"""What threads that share a network or a process have to agree on: evaluation mode, and turns with torch.export."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from typing_extensions import Self


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
                    if evaluation.training and _forgets(module):  # training will change the weights
                        forget(module)
                    module.training = evaluation.training
                    del _running[module]


class SharedModule(nn.Module):
    """A module that threads may use at the same time by way of `evaluating`."""

    def train(self, mode: bool = True) -> Self:
        """Sets the mode as usual; of modules that `evaluating` has, when their last caller leaves."""
        with _lock:
            modules = list(self.modules())
            running = any(module in _running for module in modules)
            for module in modules if running else ():
                if module in _running:
                    _running[module].training = mode
                else:
                    module.training = mode
        return self if running else super().train(mode)


def forget_after_loading(model: nn.Module, _: Any) -> None:
    """A hook of `load_state_dict`: clears what was computed from the earlier weights."""
    forget(model)


def forget(model: nn.Module) -> None:
    """Clears what modules of timm compute from their weights and keep in evaluation mode, and leaves all modes.

    Those modules, such as the attention of TinyViT, clear it when their own `train` is called.
    """
    modes = [(each, each.training) for each in model.modules()]
    for each, _ in modes:
        if _forgets(each):
            each.train()
    for each, mode in modes:
        each.training = mode


def _forgets(module: nn.Module) -> bool:
    return type(module).train not in (nn.Module.train, SharedModule.train)
