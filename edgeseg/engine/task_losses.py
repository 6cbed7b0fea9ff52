"""Computes the losses of a batch by task, as the recipe weighs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from edgeseg.data.base import LabelledDataset, fact_of
from edgeseg.data.check import DataReport
from edgeseg.data.transforms import soft_name
from edgeseg.networks.layers import resize
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.recipes import TrainConfig
from edgeseg.spec import Task
from edgeseg.tasks import kind_of
from edgeseg.tasks.depth_losses import LOSSES as DEPTH_LOSSES
from edgeseg.tasks.losses import log_class_weights


class Outputs(NamedTuple):
    """What a network in training returns.

    Args:
        by_task: Logits by task, at the stride of the decoders.
        auxiliary: Auxiliary logits by task, at the stride of the deepest feature.
        features: The deepest feature.
    """

    by_task: dict[str, Tensor]
    auxiliary: dict[str, Tensor]
    features: Tensor


def check_losses(model: Pixel2Pixel, train_set: LabelledDataset, config: TrainConfig) -> None:
    """Raises a ValueError if task factors, depth losses or the class weights of a dataset cannot be used."""
    if unknown := [name for name in config.depth_losses if name not in DEPTH_LOSSES]:
        raise ValueError(f"no depth loss named {', '.join(unknown)}; there are {', '.join(DEPTH_LOSSES)}")
    if config.task_factors and len(config.task_factors) != len(model.tasks):
        given = len(config.task_factors)
        raise ValueError(f"{given} task_factors for the tasks {', '.join(model.tasks)}; pass one per task")
    published = fact_of(train_set, "class_weights") if config.class_weights == "dataset" else None
    name, task = next(iter(model.tasks.items()))
    if published is None:
        return
    weights = _class_weights(published)
    if weights.shape != (task.class_count,):
        raise ValueError(
            f"the dataset has {weights.numel()} class weights, and {name} has {task.class_count} classes; set "
            "class_weights to log or none"
        )
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise ValueError(f"the class weights of the dataset must be finite and not negative, got {weights.tolist()}")


def _class_weights(published: Any) -> Tensor:
    """The class weights of a dataset as float32 [C]; a ValueError if they are not numbers."""
    try:
        return torch.as_tensor(published, dtype=torch.float32).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"the class weights of the dataset are not a sequence of numbers, one per class: {published!r:.200}"
        ) from error


class TaskLosses:
    """Computes one loss per task from outputs and targets.

    Args:
        model: The network that is trained; only its tasks and its device are used.
        train_set: The training set. Its `class_weights` are used if the recipe says "dataset".
        report: The report of the training set, whose pixels are counted by class; used if the recipe says "log".
        config: The recipe.
        float_network: The network to learn from in quantization-aware training without soft labels.
        soft_counts: Pixels per class that the soft labels of a teacher have, by task; they set the class weights "log".

    """

    def __init__(
        self,
        model: Pixel2Pixel,
        train_set: LabelledDataset,
        report: DataReport,
        config: TrainConfig,
        float_network: Pixel2Pixel | None = None,
        soft_counts: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.tasks, self.config, self.float_network = model.tasks, config, float_network
        self.device = next(model.parameters()).device
        self.class_weights: dict[str, Tensor] = {}
        published = fact_of(train_set, "class_weights")
        if config.class_weights == "dataset" and published is not None:
            name = next(iter(model.tasks))
            self.class_weights[name] = _class_weights(published).to(self.device)
        elif config.class_weights == "log":
            counts = {name: torch.tensor(each.pixels, dtype=torch.float32) for name, each in report.classes.items()}
            counts |= soft_counts or {}
            self.class_weights = {name: log_class_weights(each).to(self.device) for name, each in counts.items()}

    def __call__(self, inputs: Sequence[Tensor], outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Computes the losses of a batch.

        Args:
            inputs: The inputs of the model, for the float network.
            outputs: The outputs of the model.
            targets: Ground truth by task, and soft labels.

        Returns:
            A scalar per task.
        """
        losses = self._from_targets(outputs, targets)
        if self.float_network is None:
            return losses
        with torch.no_grad():
            expected = self.float_network.decode(*inputs)
        return {
            name: torch.lerp(
                loss,
                kind_of(self.tasks[name]).divergence(outputs.by_task[name], expected[name]),
                self.config.teacher_share,
            )
            for name, loss in losses.items()
        }

    def _from_targets(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        config = self.config
        weighted = config.class_weights_probability >= 1 or float(torch.rand(())) < config.class_weights_probability
        losses = {}
        for name, task in self.tasks.items():
            target = targets[name]
            size, weights = target.shape[-2:], self.class_weights.get(name) if weighted else None
            soft = targets.get(soft_name(name))
            losses[name] = _loss(task, resize(outputs.by_task[name], size), target, soft, config, weights)
            if name in outputs.auxiliary:
                auxiliary = resize(outputs.auxiliary[name], size)
                loss = _loss(task, auxiliary, target, soft, replace(config, dice=0.0), weights)
                losses[name] = losses[name] + config.aux_loss * loss
        return losses


def _loss(
    task: Task, outputs: Tensor, target: Tensor, soft: Tensor | None, config: TrainConfig, weights: Tensor | None
) -> Tensor:
    if soft is None:
        return kind_of(task).loss(outputs, target, config, weights)
    return kind_of(task).soft_loss(outputs, target, soft, config, weights)
