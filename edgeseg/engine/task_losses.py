"""The losses of a recipe, by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from edgeseg.data.base import name_of
from edgeseg.data.labels import IGNORE
from edgeseg.data.transforms import Augmented
from edgeseg.engine.config import TrainConfig
from edgeseg.engine.depth import depth_loss
from edgeseg.engine.losses import divergence, log_class_weights, segmentation_loss
from edgeseg.layers import resize
from edgeseg.pixel2pixel import Pixel2Pixel


class TaskLosses:
    """Outputs and targets -> a loss a task.

    Args:
        model: For its tasks and device.
        train_set: For the weights of its classes, where the recipe wants those that it is published with.
        samples: Of it, to count the pixels of each class where the recipe wants that.
        config: The recipe.
        teacher: The float network to learn from, where `config.distillation` is not 0.

    Raises:
        ValueError: task factors or targets do not fit the tasks, or labels the classes.
    """

    def __init__(
        self,
        model: Pixel2Pixel,
        train_set: Any,
        samples: Augmented,
        config: TrainConfig,
        teacher: Pixel2Pixel | None = None,
    ) -> None:
        if config.task_factors and len(config.task_factors) != len(model.tasks):
            raise ValueError(f"{len(config.task_factors)} task_factors for the tasks {', '.join(model.tasks)}")
        given = getattr(train_set, "tasks", model.tasks)
        missing = [name for name in model.tasks if len(model.tasks) > 1 and name not in given]
        if missing:
            raise ValueError(f"the training set has no target for {', '.join(missing)}; it has {', '.join(given)}")
        self.tasks, self.config, self.teacher = model.tasks, config, teacher
        self.device = next(model.parameters()).device
        self.depth_factors = dict(zip(config.depth_losses, config.depth_factors, strict=True))
        self.class_weights: dict[str, Tensor] = {}
        published = getattr(train_set, "class_weights", None)
        if config.class_weights == "dataset" and published is not None:
            self.class_weights[next(iter(model.tasks))] = torch.tensor(published, device=self.device)
        elif config.class_weights == "log":
            counts = _count_pixels(samples, model)
            self.class_weights = {name: log_class_weights(each).to(self.device) for name, each in counts.items()}

    def __call__(
        self, inputs: Sequence[Tensor], outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Scalars.

        Args:
            inputs: The model's, for the teacher.
            outputs: By task, and by `task/auxiliary`; at the decoders' stride.
            targets: By task: label maps [N,H,W], depth [N,1,H,W].
        """
        losses = self._from_targets(outputs, targets)
        if self.teacher is None:
            return losses
        with torch.no_grad():
            expected = self.teacher.decode(*inputs)
        return {
            name: torch.lerp(
                loss, divergence(outputs[name], expected[name], self.tasks[name].kind), self.config.distillation
            )
            for name, loss in losses.items()
        }

    def _from_targets(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        config = self.config
        weighted = config.class_weights_probability >= 1 or float(torch.rand(())) < config.class_weights_probability
        losses = {name: torch.zeros((), device=self.device) for name in self.tasks}
        for output, values in outputs.items():
            name, _, auxiliary = output.partition("/")
            target = targets[name]
            values = resize(values, target.shape[-2:])
            if self.tasks[name].kind != "segmentation":
                losses[name] = depth_loss(values, target, self.depth_factors)
                continue
            losses[name] = losses[name] + (config.aux_loss if auxiliary else 1.0) * segmentation_loss(
                values,
                target,
                class_weights=self.class_weights.get(name) if weighted else None,
                dice=0.0 if auxiliary else config.dice,
                label_smoothing=config.label_smoothing,
                ohem=config.ohem,
                count_ignored=config.count_ignored,
            )
        return losses


def _count_pixels(samples: Augmented, model: Pixel2Pixel) -> dict[str, Tensor]:
    """Of each class, of the tasks that have classes."""
    pixels = {n: torch.zeros(task.channels) for n, task in model.tasks.items() if task.kind == "segmentation"}
    for index in range(len(samples)):
        _, targets = samples.decoded[index] if samples.decoded else samples.sample(index)
        for name, target in ((name, targets[name]) for name in pixels):
            labels = target[target != IGNORE].flatten().long()
            if labels.numel() and int(labels.max()) >= len(pixels[name]):
                raise ValueError(
                    f"{name_of(samples.dataset, index)} has label {int(labels.max())}, the model has "
                    f"{len(pixels[name])} classes for {name}"
                )
            pixels[name] += torch.bincount(labels, minlength=len(pixels[name]))
    return pixels
