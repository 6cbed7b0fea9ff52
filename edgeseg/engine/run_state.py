"""The file from which a stopped training run is resumed."""

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
# Options that may change when a run is resumed, since they do not affect the result.
FREE = {"workers", "cache", "save_every", "evaluate_every", "compile", "check_data"}


class RunState:
    """The state of a run. It has no random state: all randomness is derived from the seed and the step number.

    Args:
        name: Name of the model.
        config: The recipe.
        modules: Modules whose state is saved, by name.
        optimizer: The optimizer.
        samples: Number of training samples, on which the order of the samples and the number of steps depend.

    Attributes:
        step: Number of optimizer steps that are done.
        best: Best headline figure of the first task so far, negated if lower is better.
        losses: Sums of the losses over the steps of the current epoch: "loss" for the total, and one per task.
    """

    def __init__(
        self,
        name: str,
        config: TrainConfig,
        modules: dict[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        samples: int,
    ) -> None:
        self.name, self.config, self.modules, self.optimizer, self.samples = name, config, modules, optimizer, samples
        self.step = 0
        self.best = -math.inf
        self.losses: dict[str, float] = {}

    def save(self, folder: Path) -> None:
        """Writes the file to the folder of the run, whole or not at all."""
        content = {
            "model": self.name,
            "config": _plain(self.config),
            "samples": self.samples,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
            "losses": self.losses,
        }
        with replacing(folder / FILE) as temporary:
            torch.save(content, temporary)

    def load(self, folder: Path) -> None:
        """Restores the state that `save` wrote to the folder of the run.

        Raises:
            ValueError: a corrupt file, or one of another model, recipe or number of training samples.
        """
        path = folder / FILE
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
            raise ValueError(f"cannot resume from {path}: corrupt or truncated ({error})") from error
        if content["model"] != self.name:
            raise ValueError(f"cannot resume {self.name} from {path}: the run trained {content['model']}")
        if content.get("samples", self.samples) != self.samples:  # runs of earlier versions do not say
            raise ValueError(
                f"cannot resume from {path}: the run had {content['samples']} training samples, and now there are "
                f"{self.samples}; use the same samples, or start a new run in another folder from "
                f"{folder / 'last.safetensors'} (--pretrained)"
            )
        # Options that are newer than the run had no effect in it, which is what their defaults stand for.
        before, now = _plain(TrainConfig()) | content["config"], _plain(self.config)
        changed = [f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]]
        changed = [change for change in changed if change.split()[0] not in FREE]
        if changed:
            raise ValueError(
                f"cannot resume from {path} with another recipe; these options differ: {', '.join(changed)}"
            )
        try:
            for name, module in self.modules.items():
                module.load_state_dict(content["modules"][name])
        except (RuntimeError, KeyError) as error:
            raise ValueError(
                f"cannot resume from {path}: the network of the run differs from this {self.name} ({error})"
            ) from error
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.best, self.losses = content["step"], content["best"], content["losses"]


def _plain(config: TrainConfig) -> dict[str, Any]:
    """The options as they are stored, with lists in place of tuples."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
