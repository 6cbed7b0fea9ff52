"""Depth: the distance of each pixel, in metres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from edgeseg.machine.terminal import warn
from edgeseg.recipes import TrainConfig
from edgeseg.spec import DEFAULT_THRESHOLD, Task
from edgeseg.tasks.kind import Regression
from edgeseg.vision.visualize import colorize_depth, depth_scale

if TYPE_CHECKING:
    from torch import Tensor

    from edgeseg.tasks.depth_metrics import DepthErrors


class Depth(Regression):
    """Outputs and ground truth are float32 metres [N, 1, H, W]. Pixels with a ground truth of 0 are ignored."""

    def check(self, task: Task) -> None:
        """Raises a ValueError unless the task has one channel, and no threshold."""
        task.require(task.channels == 1, "channels", "is 1 for depth")
        task.require(task.threshold == DEFAULT_THRESHOLD, "threshold", "is for binary tasks only")

    def empty_target(self, task: Task, size: Sequence[int]) -> Tensor:
        """float32 [1, H, W] of zeros."""
        import torch

        return torch.zeros(1, *size)

    def typed(self, target: Tensor) -> Tensor:
        """The depth as `edgeseg.vision.tensors.Depth`, which is resized by nearest neighbour."""
        from edgeseg.vision.tensors import Depth as DepthTensor

        return target if isinstance(target, DepthTensor) else DepthTensor(target)

    def wrong_type(self, target: Tensor) -> str | None:
        """Depths are finite floating-point numbers, and not negative."""
        import torch

        if not target.is_floating_point():
            return f"is {target.dtype}, and depths are float32 metres; convert it, and set unknown depths to 0"
        if not bool((torch.isfinite(target) & (target >= 0)).all()):
            return "has depths that are negative, infinite or NaN; set unknown depths to 0"
        return None

    def loss(self, outputs: Tensor, targets: Tensor, recipe: TrainConfig, class_weights: Tensor | None) -> Tensor:
        """The depth losses of the recipe, weighted by its factors."""
        from edgeseg.tasks.depth_losses import depth_loss

        return depth_loss(outputs, targets, dict(zip(recipe.depth_losses, recipe.depth_factors, strict=True)))

    def metric(self, task: Task) -> DepthErrors:
        """An empty `DepthErrors`, with the range of the task."""
        from edgeseg.tasks.depth_metrics import DepthErrors

        return DepthErrors(task.range)

    def picture(self, values: np.ndarray, task: Task, photo: Image.Image | None = None) -> Image.Image:
        """The depth in colours: near is red, far is violet, and 0 is black."""
        return colorize_depth(values)

    def key(self, values: np.ndarray, task: Task, width: int) -> Image.Image:
        """A colour scale in metres."""
        return depth_scale(width)

    def files(self, values: np.ndarray) -> Mapping[str, Image.Image]:
        """16-bit grey values of metres times 256, as KITTI stores depth: at most 255.99 metres."""
        if values.size and float(values.max()) * 256 > 65535.5:
            warn("depth beyond 255.99 m is written as 255.99 m, the largest value of 16 bits")
        return {"metres_x256": Image.fromarray((values * 256).round().clip(0, 65535).astype(np.uint16))}
