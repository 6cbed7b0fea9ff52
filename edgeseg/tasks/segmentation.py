"""Segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.recipes import TrainConfig
from edgeseg.spec import DEFAULT_THRESHOLD, Task
from edgeseg.tasks.kind import Classification, upsampled
from edgeseg.vision.upsample import upsampled_argmax

if TYPE_CHECKING:
    from torch import Tensor

    from edgeseg.tasks.metrics import ConfusionMatrix


class Segmentation(Classification):
    """Outputs are logits per class."""

    takes_soft_labels = True

    def check(self, task: Task) -> None:
        """Raises a ValueError for a single class, which every pixel would be, for a range and for a threshold."""
        task.require(
            task.channels >= 2,
            "channels",
            "must be at least 2 for segmentation, since with one class every pixel is that class: name the background "
            "as a class of its own, or segment one class against the background with Task('binary')",
        )
        task.require(task.range is None, "range", "is for regressed maps; logits of classes must not be clamped")
        task.require(task.threshold == DEFAULT_THRESHOLD, "threshold", "is for binary tasks only")

    def map(self, output: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """Class ids [H, W]: uint8, or uint16 beyond 256 classes."""
        return upsampled_argmax(output, size)

    def predictions(self, views: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Class ids [N, H, W] of the logits, or of the mean probabilities of several views."""
        import torch

        if len(views) == 1 and views[0].device.type == "cpu":
            return torch.stack([torch.from_numpy(self.map(logits.float().numpy(), size)) for logits in views[0]])
        resized = upsampled(views, size)
        mean = resized[0] if len(views) == 1 else torch.stack([view.softmax(dim=1) for view in resized]).mean(dim=0)
        return mean.argmax(dim=1).to(torch.uint8 if mean.shape[1] <= 256 else torch.uint16)

    def in_graph(self, output: Tensor) -> Tensor:
        """Class ids uint8 [N, H, W]; int32 beyond 256 classes, since ONNX's operators lack uint16."""
        import torch

        return output.argmax(dim=1).to(torch.uint8 if output.shape[1] <= 256 else torch.int32)

    def loss(self, outputs: Tensor, targets: Tensor, recipe: TrainConfig, class_weights: Tensor | None) -> Tensor:
        """Cross-entropy and Dice loss with the weights of the recipe; see `segmentation_loss`."""
        from edgeseg.tasks.losses import segmentation_loss

        return segmentation_loss(outputs, targets, class_weights=class_weights, **self.loss_options(recipe))

    def soft_loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        probabilities: Tensor,
        recipe: TrainConfig,
        class_weights: Tensor | None,
    ) -> Tensor:
        """Cross-entropy and Dice loss with the teacher's share of the recipe; see `soft_segmentation_loss`."""
        from edgeseg.tasks.losses import soft_segmentation_loss

        return soft_segmentation_loss(
            outputs, targets, probabilities, share=recipe.teacher_share, class_weights=class_weights, dice=recipe.dice
        )

    def divergence(self, outputs: Tensor, expected: Tensor) -> Tensor:
        """Mean Kullback-Leibler divergence over the pixels (Hinton et al., 2015, https://arxiv.org/abs/1503.02531)."""
        from edgeseg.tasks.losses import divergence

        return divergence(outputs, expected)

    def metric(self, task: Task) -> ConfusionMatrix:
        """An empty confusion matrix."""
        from edgeseg.tasks.metrics import ConfusionMatrix

        return ConfusionMatrix(task.channels, task.classes)
