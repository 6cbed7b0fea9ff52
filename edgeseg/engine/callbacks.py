"""Callbacks of a training run: what is called while it runs, and how a callback stops it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeseg.engine import distributed
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.recipes import TrainConfig
from edgeseg.tasks import Metric


@dataclass
class Run:
    """What a callback sees of the training run. A callback reads it, and may call `stop`.

    Args:
        model: The weights that are evaluated and saved: the moving average or, with `ema=0`, those of the last
            completed epoch.
        config: The recipe.
        output: Folder of the run.
        steps: Number of optimizer steps per epoch.
        step: Number of optimizer steps that are done, from the start of the run.
        validates: Whether the run has a validation set.
        figures: Names of the losses and, with a validation set, of the scores of an epoch.
        better: Per figure of an evaluation that was made, such as "miou", whether higher is better.
        reason: Why the run stops before its last epoch; empty while it goes on.
    """

    model: Pixel2Pixel
    config: TrainConfig
    output: Path
    steps: int
    step: int = 0
    validates: bool = True
    figures: tuple[str, ...] = ("loss",)
    better: dict[str, bool] = field(default_factory=dict)
    reason: str = ""

    @property
    def epoch(self) -> int:
        """Number of epochs that are done."""
        return self.step // self.steps

    def stop(self, reason: str) -> None:
        """Ends the run after this step, or after this epoch if called at its end; `train` then returns as usual.

        Args:
            reason: Why, for the log.
        """
        self.reason = reason or "stopped by a callback"


class Callback:
    """A callback of `train(..., callbacks=[...])`. Each method does nothing; a subclass overrides those that it needs.

    All methods are called in process 0 only; what `run.stop` says there holds for all processes. An error that a
    callback raises ends the run.

    Example:
        >>> import edgeseg
        >>> from edgeseg.data import Streets
        >>> from edgeseg.engine import Callback, TrainConfig, train
        >>> class FirstSteps(Callback):
        ...     def on_step_end(self, run, losses):
        ...         if run.step == 2:
        ...             run.stop("two steps are enough")
        >>> streets = Streets(size=(64, 96), length=8)
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", tasks=streets.tasks)
        >>> config = TrainConfig(
        ...     batch_size=2, img_resize=(64, 96), rand_crop=(64, 96), workers=0
        ... )
        >>> trained = train(model, streets, None, config, "runs/short", callbacks=[FirstSteps()])
        training set, for cpu
        ...
    """

    def check(self, run: Run) -> None:
        """Called before the first step, and before the files of an earlier run are read or removed.

        Raises:
            ValueError: the callback cannot watch this run, which is then refused.
        """

    def on_run_start(self, run: Run) -> None:
        """Called before the first step, also when a run is resumed; `run.step` is then above 0."""

    def on_step_end(self, run: Run, losses: Mapping[str, float]) -> None:
        """Called after each optimizer step with the mean losses of its batches: "loss", and one per task."""

    def on_evaluation(self, run: Run, metrics: Mapping[str, Metric]) -> None:
        """Called after each evaluation with the metric of each task, before `on_epoch_end` of the same epoch."""

    def on_epoch_end(self, run: Run, row: Mapping[str, float]) -> None:
        """Called after each epoch with its row of `metrics.jsonl`, which has scores if there was an evaluation."""

    def on_run_end(self, run: Run, error: BaseException | None) -> None:
        """Called at the end of a run that `on_run_start` was called for without an error.

        Args:
            run: The run.
            error: What ended the run before its time, such as a KeyboardInterrupt, or None.
        """

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs, as JSON values. It is saved with the state of the run."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned; called before `on_run_start` if the run is resumed."""


class EarlyStopping(Callback):
    """Ends the run when a figure has not improved for a number of evaluations in a row.

    Args:
        patience: Number of evaluations without an improvement after which the run ends; at least 1. An evaluation is
            made every `evaluate_every` epochs.
        metric: Name of the figure in `metrics.jsonl`, such as "miou", "depth_ard" or "loss" (with "loss", every epoch
            counts); by default the first score, by which `best.safetensors` is chosen.

    Raises:
        ValueError: a patience below 1.

    Example:
        >>> import edgeseg
        >>> from edgeseg.data import Streets
        >>> from edgeseg.engine import EarlyStopping, TrainConfig, train
        >>> streets = Streets(size=(64, 96), length=8)
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", tasks=streets.tasks)
        >>> config = TrainConfig(
        ...     epochs=2, img_resize=(64, 96), rand_crop=(64, 96), batch_size=4, workers=0, evaluate_every=1
        ... )
        >>> val = Streets("val", size=(64, 96), length=2)
        >>> run = train(model, streets, val, config, "run", callbacks=[EarlyStopping(patience=5)])
        training set, for cpu
        ...
    """

    def __init__(self, patience: int, metric: str | None = None) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        self.patience, self.metric = patience, metric
        self.best: float | None = None
        self.waited = 0
        self.resumed = False

    def check(self, run: Run) -> None:
        """Refuses a run in which the figure cannot occur."""
        if self.metric is not None and self.metric not in run.figures:
            raise ValueError(
                f"EarlyStopping watches {self.metric!r}, but the figures of this run are {', '.join(run.figures)}"
            )
        if not run.validates and self.metric is None:
            raise ValueError(
                "patience needs a validation set, whose score it watches; pass one, or EarlyStopping(..., 'loss')"
            )

    def on_run_start(self, run: Run) -> None:
        """A new run begins anew; a resumed run that has waited long enough ends at once."""
        if not self.resumed:
            self.best, self.waited = None, 0
        self.resumed = False
        self._stop_if_due(run)

    def on_epoch_end(self, run: Run, row: Mapping[str, float]) -> None:
        """Compares the figure with the best one before."""
        scores = [name for name in row if name in run.better]
        name = self.metric or next(iter(scores), "")
        if name not in row:
            return
        value = row[name] if run.better.get(name, False) else -row[name]
        if self.best is None or value > self.best:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        self._stop_if_due(run)

    def _stop_if_due(self, run: Run) -> None:
        if self.waited >= self.patience:
            unit = "epochs" if (self.metric or "").rpartition("_")[2] == "loss" else "evaluations"
            run.stop(f"{self.metric or 'the score'} has not improved for {self.waited} {unit}")

    def state_dict(self) -> dict[str, Any]:
        """The best figure, negated if lower is better, and the number of evaluations since."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.best, self.waited, self.resumed = state["best"], state["waited"], True


class Callbacks:
    """The callbacks of a run, in their order. Only process 0 calls them.

    Args:
        callbacks: The callbacks.

    Raises:
        TypeError: one of them is not a `Callback`, such as a class in place of an object.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        for each in callbacks:
            if not isinstance(each, Callback):
                raise TypeError(f"callbacks are objects of subclasses of edgeseg.engine.Callback, got {each!r}")
        self.callbacks = list(callbacks)
        self.started: list[Callback] = []

    def __call__(self, hook: str, run: Run, *arguments: Any) -> None:
        """Calls the method `hook` of all callbacks."""
        if distributed.rank() == 0:
            for each in self.callbacks:
                getattr(each, hook)(run, *arguments)

    def start(self, run: Run) -> None:
        """Calls `on_run_start` of all callbacks."""
        if distributed.rank() == 0:
            for each in self.callbacks:
                each.on_run_start(run)
                self.started.append(each)

    def end(self, run: Run, error: BaseException | None) -> None:
        """Calls `on_run_end` of all callbacks that have started, and then raises the first error of one."""
        raised: list[BaseException] = []
        for each in self.started:
            try:
                each.on_run_end(run, error)
            except BaseException as own:
                raised.append(own)
        if raised:
            raise raised[0]

    def state_dict(self) -> dict[str, str]:
        """The states of the callbacks as JSON, by the names of their classes.

        Raises:
            TypeError: a state is not a dictionary of JSON values; it could be written, but not be read again safely.
        """
        states = {}
        for name, each in self._named():
            state = each.state_dict()
            if not isinstance(state, dict):
                raise TypeError(f"state_dict() of the callback {name} returns a {type(state).__name__}, not a dict")
            try:
                states[name] = json.dumps(state)
            except (TypeError, ValueError) as error:
                raise TypeError(f"state_dict() of the callback {name} does not return JSON values: {error}") from error
        return states

    def load_state_dict(self, states: Mapping[str, str]) -> None:
        """Restores the states of those callbacks that the run had before; others begin anew."""
        for name, each in self._named():
            if name in states:
                each.load_state_dict(json.loads(states[name]))

    def _named(self) -> list[tuple[str, Callback]]:
        """The callbacks with the names of their classes; from the second of a class on, with a number."""
        counts: dict[str, int] = {}
        named = []
        for each in self.callbacks:
            name = type(each).__name__
            counts[name] = counts.get(name, 0) + 1
            named.append((name if counts[name] == 1 else f"{name} {counts[name]}", each))
        return named
