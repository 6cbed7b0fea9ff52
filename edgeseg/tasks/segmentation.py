"""Segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from edgeseg.labels import IGNORE, class_names, palette_of
from edgeseg.recipes import TrainConfig
from edgeseg.spec import Task
from edgeseg.tasks.kind import Kind
from edgeseg.vision.upsample import upsampled_argmax
from edgeseg.vision.visualize import color_map, legend, tint

if TYPE_CHECKING:
    from torch import Tensor

    from edgeseg.tasks.metrics import ConfusionMatrix


class Segmentation(Kind):
    """Outputs are logits per class. Ground truth is integer [N, H, W]: class ids, or 255 for ignored pixels."""

    has_classes = True
    higher_is_better = True

    def map(self, output: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """Class ids [H, W]: uint8, or uint16 beyond 256 classes."""
        return upsampled_argmax(output, size)

    def predictions(self, views: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Class ids [N, H, W] of the logits, or of the mean probabilities of several views."""
        import torch
        from torch.nn import functional as F

        if len(views) == 1 and views[0].device.type == "cpu":
            return torch.stack([torch.from_numpy(self.map(logits.float().numpy(), size)) for logits in views[0]])
        resized = [F.interpolate(view.float(), size=list(size), mode="bilinear", align_corners=False) for view in views]
        mean = resized[0] if len(views) == 1 else torch.stack([view.softmax(dim=1) for view in resized]).mean(dim=0)
        return mean.argmax(dim=1).to(torch.uint8 if mean.shape[1] <= 256 else torch.uint16)

    def in_graph(self, output: Tensor) -> Tensor:
        """Class ids uint8 [N, H, W]; int32 beyond 256 classes, since ONNX's operators lack uint16."""
        import torch

        return output.argmax(dim=1).to(torch.uint8 if output.shape[1] <= 256 else torch.int32)

    def resized(self, values: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """Class ids [H, W] by nearest neighbour."""
        rows, columns = (np.arange(new) * old // new for new, old in zip(size, values.shape, strict=True))
        return values[rows].take(columns, axis=1)

    def empty_target(self, task: Task, size: Sequence[int]) -> Tensor:
        """A ground truth uint8 [H, W] of 255, of which every pixel is ignored."""
        import torch

        return torch.full(tuple(size), IGNORE, dtype=torch.uint8)

    def wrong_type(self, target: Tensor) -> str | None:
        """Class ids are integers."""
        import torch

        kind = torch.as_tensor(target).dtype
        if kind != torch.bool and not kind.is_floating_point:
            return None
        return f"is {kind}, and class ids are integers; convert it with .to(torch.uint8), and set ignored pixels to 255"

    def loss(self, outputs: Tensor, targets: Tensor, recipe: TrainConfig, class_weights: Tensor | None) -> Tensor:
        """Cross-entropy and Dice loss with the weights of the recipe; see `segmentation_loss`."""
        from edgeseg.tasks.losses import segmentation_loss

        return segmentation_loss(
            outputs,
            targets,
            class_weights=class_weights,
            dice=recipe.dice,
            label_smoothing=recipe.label_smoothing,
            ohem=recipe.ohem,
            count_ignored=recipe.count_ignored,
        )

    def divergence(self, outputs: Tensor, expected: Tensor) -> Tensor:
        """Mean Kullback-Leibler divergence over the pixels (Hinton et al., 2015, https://arxiv.org/abs/1503.02531)."""
        from torch.nn import functional as F

        student, teacher = (F.log_softmax(logits.float(), dim=1) for logits in (outputs, expected))
        return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1).mean()

    def metric(self, task: Task) -> ConfusionMatrix:
        """An empty confusion matrix."""
        from edgeseg.tasks.metrics import ConfusionMatrix

        return ConfusionMatrix(task.channels)

    def picture(self, values: np.ndarray, task: Task, photo: Image.Image | None = None) -> Image.Image:
        """The colours of the classes, mixed with the photo if there is one."""
        palette = palette_of(task)
        return tint(photo, values, palette) if photo else color_map(values, palette)

    def key(self, values: np.ndarray, task: Task, width: int) -> Image.Image:
        """A legend of the classes that occur in the map."""
        palette, names = palette_of(task), class_names(task)
        present = [int(i) for i in np.unique(values) if i < len(names)]
        return legend([names[i] for i in present], [palette[i] for i in present], width)

    def files(self, values: np.ndarray) -> Mapping[str, Image.Image]:
        """Class ids as grey values, 8 bit or 16 bit."""
        return {"labels": Image.fromarray(values)}
