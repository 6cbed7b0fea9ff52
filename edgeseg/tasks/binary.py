"""Binary segmentation: one class of interest against the background, with one logit per pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from edgeseg.labels import IGNORE, class_names, palette_of
from edgeseg.recipes import TrainConfig
from edgeseg.spec import DEFAULT_THRESHOLD, Task
from edgeseg.tasks.kind import Classification, Kind, Metric, upsampled
from edgeseg.vision.upsample import upsampled_argmax
from edgeseg.vision.visualize import legend, tint

if TYPE_CHECKING:
    from torch import Tensor

    from edgeseg.tasks.binary_metrics import BinaryScores

CURE = (
    "no pixel of the ground truth is foreground: it has only 0 (background) and 255 (ignored). If 255 means foreground "
    "in these masks, replace it by 1, with mask_values of images_masks (--mask-values), or in a dataset of your own by "
    "labels[labels == 255] = 1"
)


class Binary(Classification):
    """Outputs are one logit per pixel. Ground truth and maps are 1 for the class of interest and 0 for the background.

    Args:
        threshold: Probability above which a pixel belongs to the class of interest.
    """

    has_threshold = True

    def __init__(self, threshold: float = DEFAULT_THRESHOLD) -> None:
        self.threshold = threshold
        # As float32, so that every runtime compares with the same number.
        self.limit = float(np.float32(math.log(threshold / (1 - threshold))))

    def of(self, task: Task) -> Kind:
        """The kind with the threshold of the task."""
        return Binary(task.threshold)

    def check(self, task: Task) -> None:
        """Raises a ValueError unless the task has one channel, and no range."""
        task.require(task.channels == 1, "channels", "is 1 for binary: one logit for the class of interest")
        task.require(task.range is None, "range", "is for regressed maps, not for binary tasks")

    def map(self, output: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """uint8 [H, W] of 0 and 1: the logit is resized bilinearly and compared with that of the threshold."""
        above = np.asarray(output, np.float32) - np.float32(self.limit)
        return upsampled_argmax(np.concatenate([np.zeros_like(above), above]), size)

    def predictions(self, views: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """uint8 [N, H, W] of 0 and 1, from the logit or from the mean probability of several views."""
        import torch

        if len(views) == 1 and views[0].device.type == "cpu":
            return torch.stack([torch.from_numpy(self.map(logits.float().numpy(), size)) for logits in views[0]])
        return (self.scored(views, size) > self.limit).to(torch.uint8)

    def scored(self, views: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """The logits float32 [N, H, W], or those of the mean probability of several views."""
        import torch
        from torch.nn import functional as F

        resized = upsampled(views, size)
        if len(resized) == 1:
            return resized[0][:, 0]
        logits = torch.stack(resized)[:, :, 0]
        # The logit of the mean probability, by logarithms, in which the probability of a confident pixel is not 1.
        return F.logsigmoid(logits).logsumexp(dim=0) - F.logsigmoid(-logits).logsumexp(dim=0)

    def in_graph(self, output: Tensor) -> Tensor:
        """uint8 [N, H, W] of 0 and 1."""
        import torch

        return (output[:, 0] > self.limit).to(torch.uint8)

    def wrong_type(self, target: Tensor) -> str | None:
        """Ground truth is integers, and 0, 1 or 255."""
        import torch

        wrong = super().wrong_type(target)
        ids = torch.as_tensor(target)
        if wrong is None and bool(((ids != 0) & (ids != 1) & (ids != IGNORE)).any()):
            found = sorted(set(torch.unique(ids).tolist()) - {0, 1, IGNORE})
            some = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
            return (
                f"has the ids {some}; a binary task has 0 (background), 1 (foreground) and {IGNORE} (ignored): map the "
                "ids to these, or segment all of them with Task('segmentation', COUNT)"
            )
        return wrong

    def wrong_dataset(self, pixels: Sequence[int], ignored: int) -> str | None:
        """Both classes occur."""
        background, foreground = pixels
        if background and foreground:
            return None
        if not background and not foreground:
            return "every pixel of the ground truth is 255 (ignored)"
        if background and ignored:
            return CURE
        only, other = ("foreground (1)", "background (0)") if foreground else ("background (0)", "foreground (1)")
        return f"every pixel of the ground truth is {only}, and none is {other}"

    def doubtful_dataset(self, samples: Sequence[int], beside_ignored: Sequence[int]) -> str:
        """Masks of 0 and 1 are not mixed with masks of 0 and 255, in which 255 usually means the foreground."""
        if not samples[1] or not beside_ignored[0] or beside_ignored[1]:
            return ""
        return (
            f"{samples[1]} masks have foreground (1) and no ignored pixels, and {beside_ignored[0]} have ignored "
            "pixels (255) and no foreground. If 255 means foreground in those masks, say so with mask_values of "
            "images_masks (--mask-values 0:0 1:1 255:1)"
        )

    def wrong_metric(self, metric: Metric) -> str | None:
        """There is foreground, unless nothing is ignored."""
        foreground, ignored = (int(getattr(metric, name)) for name in ("foreground", "ignored"))
        return CURE if ignored and not foreground else None

    def loss(self, outputs: Tensor, targets: Tensor, recipe: TrainConfig, class_weights: Tensor | None) -> Tensor:
        """Binary cross-entropy, and Dice loss of the foreground, with the weights of the recipe; see `binary_loss`."""
        from edgeseg.tasks.losses import binary_loss

        return binary_loss(outputs, targets, class_weights=class_weights, **self.loss_options(recipe))

    def divergence(self, outputs: Tensor, expected: Tensor) -> Tensor:
        """Mean Kullback-Leibler divergence of the two probabilities over the pixels, as for two classes."""
        from edgeseg.tasks.losses import divergence, two_classes

        return divergence(two_classes(outputs), two_classes(expected))

    def metric(self, task: Task) -> BinaryScores:
        """An empty `BinaryScores` at the threshold of the task."""
        from edgeseg.tasks.binary_metrics import BinaryScores

        return BinaryScores(task.threshold, task.classes)

    def picture(self, values: np.ndarray, task: Task, photo: Image.Image | None = None) -> Image.Image:
        """The colours of the two classes; on a photo, only the class of interest is tinted."""
        if photo is None:
            return super().picture(values, task)
        plain = photo.convert("RGB")
        return Image.composite(tint(photo, values, palette_of(task)), plain, Image.fromarray(values == 1))

    def key(self, values: np.ndarray, task: Task, width: int) -> Image.Image:
        """The name and colour of the class of interest."""
        return legend(class_names(task)[1:], palette_of(task)[1:], width)
