"""The interface of a kind of task: its maps, ground truth, loss, metric and pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from edgeseg.labels import IGNORE, class_names, palette_of
from edgeseg.recipes import TrainConfig
from edgeseg.spec import Task
from edgeseg.vision.upsample import bilinear, warn_unless_finite
from edgeseg.vision.visualize import color_map, legend, tint

if TYPE_CHECKING:
    from torch import Tensor


class Metric(Protocol):
    """How well a task is predicted over a whole dataset."""

    higher_is_better: bool

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds predictions and their ground truth, of the same shape."""

    def reduce(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replaces every sum by `total(sum)`, for instance by the sum over all processes."""

    @property
    def counted(self) -> int:
        """Number of pixels with a ground truth."""

    def headline(self, protocol: str) -> tuple[str, float]:
        """The most important figure: its name and its value, under the "native" or the "original" protocol."""

    def scores(self, task: Task, protocol: str) -> dict[str, Any]:
        """All figures by name. "iou" may be a dictionary by class, with None for a class without pixels."""


class Kind(ABC):
    """A kind of task. Subclass it and register an instance with `edgeseg.register_kind`.

    Outputs of a network are float tensors [N, C, h, w] at the stride of its decoder. Ground truth is [N, C, H, W], or
    [N, H, W] where a pixel has one class. Maps are what users see: [H, W], or [H, W, C] for several values per pixel.

    Attributes:
        has_classes: Whether maps are classes, with names and colours.
        has_threshold: Whether maps depend on `Task.threshold`.
        takes_soft_labels: Whether outputs are logits per class, which `soft_loss` compares with probabilities.
    """

    has_classes: bool = False
    takes_soft_labels: bool = False
    has_threshold: bool = False

    def of(self, task: Task) -> Kind:
        """The kind for one task; a kind whose maps depend on fields of the task returns a copy that knows them."""
        return self

    def check(self, task: Task) -> None:  # noqa: B027 (most kinds have nothing to check)
        """Raises a ValueError if the fields of `task` do not suit the kind."""

    def class_ids(self, task: Task) -> int:
        """Number of class ids in the ground truth, which are 0, 1, 2, ...; 0 if the ground truth has other values."""
        return task.class_count if self.has_classes else 0

    @abstractmethod
    def map(self, output: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """The map of one output, computed without torch.

        Args:
            output: float32 [C, h, w].
            size: Height and width of the map.

        Returns:
            [H, W], or [H, W, C] for several values per pixel.
        """

    @abstractmethod
    def predictions(self, views: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Predictions in the form of the ground truth, averaged over several views of the same images.

        Args:
            views: float [N, C, h, w] each, for instance of a photo and its mirror image.
            size: Height and width of the predictions.

        Returns:
            Class ids [N, H, W], or values float32 [N, C, H, W].
        """

    def scored(self, views: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """What the metric takes, from the same arguments as `predictions`: by default the predictions."""
        return self.predictions(views, size)

    def in_graph(self, output: Tensor) -> Tensor:
        """The output of an exported file that was written with `output="labels"`, from an output [N, C, H, W]."""
        return output

    def resized(self, values: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """Resizes the output of `in_graph` for one image to a map of another size."""
        return self.map(values, size)

    def empty_target(self, task: Task, size: Sequence[int]) -> Tensor:
        """A ground truth of which every pixel is ignored, for samples without one."""
        import torch

        return torch.zeros(task.channels, *size)

    def typed(self, target: Tensor) -> Tensor:
        """The ground truth as the tensor type that makes torchvision's transforms handle it correctly."""
        from torchvision import tv_tensors

        from edgeseg.vision.tensors import Values

        if isinstance(target, tv_tensors.TVTensor) and (self.has_classes or type(target) is not tv_tensors.Mask):
            return target
        return tv_tensors.Mask(target) if self.has_classes else Values(target)

    def wrong_type(self, target: Tensor) -> str | None:
        """Says what is wrong with the ground truth of a sample, as the end of a sentence; None if nothing is."""
        return None

    def wrong_dataset(self, pixels: Sequence[int], ignored: int) -> str | None:
        """Says why a dataset with classes cannot be trained on or scored, in a sentence; None if it can.

        Args:
            pixels: Number of pixels per class in the whole dataset.
            ignored: Number of ignored pixels.
        """
        return None

    def doubtful_dataset(self, samples: Sequence[int], beside_ignored: Sequence[int]) -> str:
        """Says what looks wrong in a dataset with classes that can be used, in a sentence; "" if nothing does.

        Args:
            samples: Number of samples per class in which the class occurs.
            beside_ignored: Number of samples per class in which both the class and ignored pixels occur.
        """
        return ""

    def wrong_metric(self, metric: Metric) -> str | None:
        """Says why the scores of a whole dataset mean nothing, in a sentence; None if they do."""
        return None

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, recipe: TrainConfig, class_weights: Tensor | None) -> Tensor:
        """The loss of a batch.

        Args:
            outputs: float [N, C, H, W] at the size of the targets.
            targets: Ground truth.
            recipe: Options of the losses.
            class_weights: float [`task.class_count`], or None.

        Returns:
            A scalar; 0 if no pixel has a ground truth.
        """

    def soft_loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        probabilities: Tensor,
        recipe: TrainConfig,
        class_weights: Tensor | None,
    ) -> Tensor:
        """The loss of a batch with soft labels, of a kind that takes them.

        Args:
            outputs, targets, recipe, class_weights: As in `loss`.
            probabilities: uint8 [N, C, H, W], what a teacher says, in 255ths.

        Returns:
            A scalar; 0 if no pixel has a ground truth or probabilities.
        """
        raise NotImplementedError

    def divergence(self, outputs: Tensor, expected: Tensor) -> Tensor:
        """How far the outputs of a network are from those of its teacher, both [N, C, h, w]; a scalar."""
        return (outputs.float() - expected.float()).abs().mean()

    @abstractmethod
    def metric(self, task: Task) -> Metric:
        """An empty metric."""

    @abstractmethod
    def picture(self, values: np.ndarray, task: Task, photo: Image.Image | None = None) -> Image.Image:
        """A map in colours, mixed with the photo where that helps."""

    def key(self, values: np.ndarray, task: Task, width: int) -> Image.Image | None:
        """A strip of `width` pixels that explains the colours of `picture`, or None."""
        return None

    def files(self, values: np.ndarray) -> Mapping[str, Image.Image]:
        """The map as images to save without loss, by the suffix of the file's name, such as "labels"."""
        return {}


class Classification(Kind):
    """A kind whose maps are class ids [H, W]. Ground truth is integer [N, H, W]: class ids, or 255 for ignored."""

    has_classes = True

    def resized(self, values: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """Class ids [H, W] by nearest neighbour."""
        places = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, values.shape, strict=True))
        rows, columns = places  # those whose centres are nearest
        return values[rows].take(columns, axis=1)

    @staticmethod
    def loss_options(recipe: TrainConfig) -> dict[str, Any]:
        """The options of `segmentation_loss` and `binary_loss` that the recipe chooses."""
        names = ("dice", "label_smoothing", "ohem", "count_ignored")
        return {name: getattr(recipe, name) for name in names}

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


class Regression(Kind):
    """A kind whose outputs are continuous values, resized bilinearly."""

    def map(self, output: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """The map float32 [H, W], or [H, W, C] for several channels."""
        warn_unless_finite(float(output.sum(dtype=np.float64)))
        return to_map(bilinear(output, size))

    def predictions(self, views: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """The mean of the views, float32 [N, C, H, W]."""
        import torch

        return torch.stack(upsampled(views, size)).mean(dim=0)

    def picture(self, values: np.ndarray, task: Task, photo: Image.Image | None = None) -> Image.Image:
        """The values in grey: black is the lowest and white the highest value of the task's range, or of the map."""
        low, high = task.range or (float(values.min()), float(values.max()))
        grey = ((values - low) / max(high - low, 1e-12) * 255).clip(0, 255).astype(np.uint8)
        return Image.fromarray(
            grey if grey.ndim == 3 and grey.shape[2] == 3 else grey.reshape(*grey.shape[:2], -1)[..., 0]
        )


def upsampled(views: Sequence[Tensor], size: Sequence[int]) -> list[Tensor]:
    """Outputs [N, C, h, w], each resized bilinearly to float32 [N, C, H, W]."""
    import torch
    from torch.nn import functional as F

    for view in views:
        warn_unless_finite(float(view.sum(dtype=torch.float64)))
    return [F.interpolate(view.float(), size=list(size), mode="bilinear", align_corners=False) for view in views]


def to_target(values: np.ndarray) -> np.ndarray:
    """Puts a map into the layout of the ground truth.

    Args:
        values: Class ids [H, W], or values [H, W] or [H, W, C] in floating point.

    Returns:
        Class ids [H, W] as they are, or values [C, H, W].
    """
    if values.dtype.kind in "iu":
        return values
    return values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)


def to_map(target: np.ndarray) -> np.ndarray:
    """Puts ground truth into the layout of a map, the reverse of `to_target`.

    Args:
        target: Class ids [H, W], or values [C, H, W].

    Returns:
        Class ids [H, W] as they are, or values [H, W] of one channel or [H, W, C] of several.
    """
    if target.ndim == 2:
        return target
    return target[0] if len(target) == 1 else np.moveaxis(target, 0, -1)
