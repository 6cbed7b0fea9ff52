"""The file from which a stopped training run is resumed."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.config import ModelConfig, read_config
from edgeseg.engine.callbacks import Callbacks
from edgeseg.machine.errors import value_errors
from edgeseg.machine.files import replacing
from edgeseg.networks.modes import EXPORTING
from edgeseg.recipes import TrainConfig
from edgeseg.storage.checkpoint import load_pickled, wrong_tensor

FILE = "run.pt"
# Options that may change when a run is resumed, since they do not affect the result.
FREE = {"workers", "cache", "save_every", "evaluate_every", "compile", "check_data"}


# What a state has, and its types; earlier versions did not store what stands in OPTIONAL.
FORM: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "config": dict,
    "modules": dict,
    "optimizer": dict,
    "step": int,
}
OPTIONAL: dict[str, type | tuple[type, ...]] = {
    "samples": int, "steps": int, "best": (int, float), "score": str, "teacher": str, "record": str, "callbacks": dict,
    "losses": dict, "unfinished": int,
}  # fmt: skip


def read_state(path: Path) -> dict[str, Any]:
    """Reads the file of a run without executing code from it. The tensors stay on disk until they are used.

    Raises:
        ValueError: a corrupt file, or not one of a run.
    """
    with value_errors(path, f"{path} is corrupt or truncated"):
        content: Any = load_pickled(path, mmap=True)
        if not isinstance(content, dict) or not set(FORM) <= set(content):
            raise ValueError("it is not the state of a run")
        for name, kind in (FORM | OPTIONAL).items():
            if name in content and (not isinstance(content[name], kind) or isinstance(content[name], bool)):
                raise ValueError(f"its {name} is a {type(content[name]).__name__}")
        if content["step"] < 0 or content.get("steps", 1) < 1:
            raise ValueError("its numbers of steps are negative")
        for name, text in content.get("callbacks", {}).items():
            if not isinstance(json.loads(text), dict):
                raise ValueError(f"what it says of {name} is not a dictionary")
        if not all(isinstance(value, float | int) for value in content.get("losses", {}).values()):
            raise ValueError("its losses are not numbers")
    return content


class RunState:
    """The state of a run. It has no random state: all randomness is derived from the seed and the step number.

    Args:
        record: The record of the model.
        config: The recipe.
        modules: Modules whose state is saved, by name.
        optimizer: The optimizer.
        samples: Number of training samples, on which their order depends.
        steps: Number of optimizer steps per epoch.
        callbacks: The callbacks, whose states are saved too.
        teacher: Digest of the teacher, "" without one.

    Attributes:
        record: The record of the model. A run that is resumed keeps its preprocessing and its notes, which say what the
            weights inherit from those that the run started from.
        step: Number of optimizer steps that are done.
        best: Best headline figure of the first task so far, negated if lower is better.
        score: That figure for people, such as "miou 71.30 at epoch 30"; empty before the first evaluation.
        losses: Sums of the losses over the steps of the current epoch: "loss" for the total, and one per task.
        unfinished: Whether the steps of the last epoch are done, and its evaluation or a callback failed.
    """

    def __init__(
        self,
        record: ModelConfig,
        config: TrainConfig,
        modules: dict[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        samples: int,
        steps: int,
        callbacks: Callbacks,
        teacher: str = "",
    ) -> None:
        self.record, self.config, self.modules, self.optimizer = record, config, modules, optimizer
        self.samples, self.steps, self.callbacks, self.teacher = samples, steps, callbacks, teacher
        self.step = 0
        self.best = -math.inf
        self.score = ""
        self.losses: dict[str, float] = {}
        self.unfinished = False

    def save(self, folder: Path) -> None:
        """Writes the file to the folder of the run, whole or not at all."""
        content = {
            "model": self.record.name,
            "record": json.dumps(self.record.to_json()),
            "config": _plain(self.config),
            "samples": self.samples,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self._optimizer_state(),
            "step": self.step,
            "steps": self.steps,
            "best": self.best,
            "score": self.score,
            "teacher": self.teacher,
            "callbacks": self.callbacks.state_dict(),
            "losses": self.losses,
            "unfinished": int(self.unfinished),
        }
        with replacing(folder / FILE, durable=True) as temporary:
            torch.save(content, temporary)

    def load(self, folder: Path) -> int:
        """Restores the state that `save` wrote to the folder of the run.

        Returns:
            The number of epochs that the run had until now, which may differ from that of the recipe.

        Raises:
            ValueError: a corrupt file, or one of another model, recipe or training set.
        """
        path = folder / FILE
        try:
            content = read_state(path)
        except ValueError as error:
            raise ValueError(f"cannot resume: {error}") from error
        model = self.record.name
        if content["model"] != model:
            raise ValueError(f"cannot resume {model} from {path}: the run trained {content['model']}")
        if content.get("samples", self.samples) != self.samples:  # runs of earlier versions do not say
            raise ValueError(
                f"cannot resume from {path}: the run had {content['samples']} training samples, and now there are "
                f"{self.samples}; use the same samples, or start a new run in another folder from "
                f"{folder / 'last.safetensors'} (--pretrained)"
            )
        if content.get("teacher", "") != self.teacher:
            raise ValueError(f"cannot resume from {path}: the run learned from another teacher, or from none")
        with value_errors(path, f"cannot resume from {path}: its recipe is damaged"):
            epochs = self._check_recipe(path, content)
        for name, module in self.modules.items():
            if problem := _difference(module, content["modules"].get(name)):
                raise ValueError(
                    f"cannot resume from {path}: the network of the run differs from this {model} ({problem})"
                )
        record = self._record(path, content)
        # A copy: the file is replaced while its tensors are in use.
        with value_errors(path, f"cannot resume from {path}: the state of its optimizer or callbacks does not fit"):
            optimizer = copy.deepcopy(content["optimizer"])
            self._check_optimizer(optimizer)
            with EXPORTING:
                self.optimizer.load_state_dict(optimizer)
            self.callbacks.load_state_dict(content.get("callbacks", {}))
        for name, module in self.modules.items():
            module.load_state_dict(content["modules"][name])
        self.step, self.best, self.losses = content["step"], content.get("best", -math.inf), content.get("losses", {})
        self.score, self.unfinished = content.get("score", ""), bool(content.get("unfinished", 0))
        self.record = record
        return epochs

    def _record(self, path: Path, content: Mapping[str, Any]) -> ModelConfig:
        """The record of the run, whose network has to be this one although the tensors of another may have its shapes.

        Raises:
            ValueError: a damaged record, or one of another network; names what differs.
        """
        if "record" not in content:  # of an earlier version
            return self.record
        before = read_config(content["record"], f"cannot resume from {path}: its record")
        now = read_config(json.dumps(self.record.to_json()), "the record")  # with the types that JSON has
        changed = [f"{name} {old!r:.200} -> {new!r:.200}" for name, old, new in _differences(before, now)]
        if changed:
            raise ValueError(
                f"cannot resume from {path}: the network of the run differs from this {self.record.name}: "
                f"{', '.join(changed)}"
            )
        return replace(self.record, preprocess=before.preprocess, notes=before.notes)

    def _optimizer_state(self) -> dict[str, Any]:
        with EXPORTING:
            return self.optimizer.state_dict()

    def _check_optimizer(self, state: dict[str, Any]) -> None:
        """Raises an error if the state does not fit the parameters; the optimizer itself does not check that."""
        own = self._optimizer_state()["param_groups"]
        for ours, theirs in zip(own, state["param_groups"], strict=True):
            numbers = {name for name, value in ours.items() if isinstance(value, float)}
            if ours["params"] != theirs["params"] or any(not isinstance(theirs[name], float | int) for name in numbers):
                raise ValueError("it has other groups of parameters")
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        kinds = {frozenset((name, value is None) for name, value in each.items()) for each in state["state"].values()}
        if len(kinds) > 1:
            raise ValueError("its parameters have different states")
        for index, entries in state["state"].items():
            for name, value in entries.items():
                fits = value is None or (not wrong_tensor(name, value) and value.shape in ((), parameters[index].shape))
                if not fits:
                    raise ValueError(f"{name} of parameter {index} does not fit it")

    def _check_recipe(self, path: Path, content: dict[str, Any]) -> int:
        """Checks that the recipe and the training set are those of the run; returns its number of epochs."""
        # Options that are newer than the run had no effect in it, which is what their defaults stand for.
        before, now = _plain(TrainConfig()) | content["config"], _plain(self.config)
        changed = {key: f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]}
        fixed = [change for key, change in changed.items() if key not in FREE and key != "epochs"]
        if fixed:
            raise ValueError(f"cannot resume from {path} with another recipe; these options differ: {', '.join(fixed)}")
        steps = content.get("steps", self.steps)
        if steps != self.steps:
            raise ValueError(
                f"cannot resume from {path} with another training set: an epoch of the run has {steps} steps, and one "
                f"of this training set has {self.steps}"
            )
        if content["step"] > self.config.epochs * self.steps:
            raise ValueError(
                f"cannot resume from {path} with epochs={self.config.epochs}: the run is at epoch "
                f"{content['step'] // self.steps} already"
            )
        return int(before["epochs"])


def _difference(module: nn.Module, state: Any) -> str:
    """What of a state does not fit a module; "" if all of it does."""
    own = module.state_dict()
    if not isinstance(state, Mapping) or set(state) != set(own):
        return "other names of tensors"
    for key, value in state.items():
        if not isinstance(value, Tensor) or wrong_tensor(key, value) or value.dtype != own[key].dtype:
            return f"{key} is not a tensor of numbers of the same type"
        if value.shape != own[key].shape:
            return f"{key} is {list(value.shape)} in the file and {list(own[key].shape)} in the network"
    return ""


def _plain(config: TrainConfig) -> dict[str, Any]:
    """The options as they are stored, with lists in place of tuples."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}


def _differences(before: ModelConfig, now: ModelConfig) -> Iterator[tuple[str, Any, Any]]:
    """What differs between two networks, whose preprocessing, colours, thresholds and notes do not count."""
    pairs: list[tuple[str, Any, Any]] = [("quantization", before.quantization, now.quantization)]
    pairs += [("inputs", dict(before.inputs), dict(now.inputs)), ("options", dict(before.options), dict(now.options))]
    pairs += [("tasks", list(before.tasks), list(now.tasks))]
    for name in before.tasks.keys() & now.tasks.keys():
        old, new = before.tasks[name], now.tasks[name]
        pairs += [(f"{key} of {name}", getattr(old, key), getattr(new, key)) for key in ("kind", "classes", "range")]
    if before.spec is None or now.spec is None:
        pairs.append(("spec", before.spec, now.spec))
    else:
        names = [each.name for each in fields(now.spec)]
        pairs += [(name, getattr(before.spec, name), getattr(now.spec, name)) for name in names]
    return ((name, old, new) for name, old, new in pairs if old != new)
