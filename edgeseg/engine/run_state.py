"""Everything that a training run needs to go on after it was stopped, in one file."""

from __future__ import annotations

import math
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeseg.machine.files import replacing
from edgeseg.recipes import TrainConfig

FILE = "run.pt"
# What may change between a run and its continuation without making it another run.
FREE = {"workers", "cache", "save_every", "evaluate_every", "compile"}


class RunState:
    """The moving parts of a run. Randomness is none of them: it follows from the seed and the step.

    Attributes:
        step: Optimizer steps that are done.
        best: Highest figure of the first task so far.
        losses: Sums of the losses of the epoch so far, of all and by task.
    """

    def __init__(
        self, name: str, config: TrainConfig, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer
    ) -> None:
        self.name, self.config, self.modules, self.optimizer = name, config, modules, optimizer
        self.step = 0
        self.best = -math.inf
        self.losses: dict[str, float] = {}

    def save(self, folder: Path) -> None:
        """Writes the file whole or not at all."""
        content = {
            "model": self.name,
            "config": _plain(self.config),
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
            "losses": self.losses,
        }
        with replacing(folder / FILE) as temporary:
            torch.save(content, temporary)

    def load(self, folder: Path) -> None:
        """Takes up what `save` wrote.

        Raises:
            ValueError: a corrupt file, or one of another model or recipe.
        """
        path = folder / FILE
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
            raise ValueError(f"cannot resume from {path}: corrupt or truncated ({error})") from error
        if content["model"] != self.name:
            raise ValueError(f"cannot resume {self.name} from {path}: it is of {content['model']}")
        # Options that the run's edgeseg did not have yet are as they were: at their defaults.
        before, now = _plain(TrainConfig()) | content["config"], _plain(self.config)
        changed = [f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]]
        changed = [change for change in changed if change.split()[0] not in FREE]
        if changed:
            raise ValueError(f"cannot resume from {path} with another recipe: {', '.join(changed)}")
        try:
            for name, module in self.modules.items():
                module.load_state_dict(content["modules"][name])
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"cannot resume from {path}: another network than {self.name} here ({error})") from error
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.best, self.losses = content["step"], content["best"], content["losses"]


def _plain(config: TrainConfig) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
