"""Training augmentation of images and targets together, on uint8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from edgeseg.data.labels import IGNORE
from edgeseg.data.tensors import Depth, Flow

# Padding and empty corners: mean grey in the image, which preprocessing makes zero, no motion in the flow, and pixels
# that count nowhere in the targets.
FILL: Any = {tv_tensors.Image: 128, Flow: 128, tv_tensors.Mask: IGNORE, Depth: 0}


def modern_augmentation(
    size: Sequence[int],
    crop: Sequence[int],
    scale: tuple[float, float] = (0.5, 2.0),
    *,
    rotation: float = 0.0,
    jitter: float = 0.4,
) -> v2.Transform:
    """Random scale (1: to fit `size`), rotation, crop (padded), flip, and brightness, contrast and saturation.

    Args:
        size: Height and width of the images at scale 1.
        crop: Height and width that come out.
        scale: Lowest and highest factor on `size`.
        rotation: Largest angle in degrees, half of the time.
        jitter: Strength of the colour change, 0 for none.
    """
    steps: list[v2.Transform] = [
        v2.ScaleJitter(tuple(size), scale, antialias=True),
        *_rotation(rotation),
        v2.RandomCrop(tuple(crop), pad_if_needed=True, fill=FILL),
        v2.RandomHorizontalFlip(),
    ]
    if jitter:
        steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
    return v2.Compose(steps)


def original_augmentation(
    size: Sequence[int],
    crop: Sequence[int],
    scale: tuple[float, float] = (1.0, 2.0),
    *,
    rotation: float = 5.0,
    jitter: float = 0.0,
) -> v2.Transform:
    """The original zoo's: rotation, then half of the time height and width scaled independently, crops, flip.

    Arguments as in `modern_augmentation`. The empty corners of a rotation are ignored; the original labels them 0.
    """
    steps: list[v2.Transform] = [
        *_rotation(rotation),
        RandomStretch(size, scale),
        v2.RandomCrop(tuple(size)),
        v2.RandomHorizontalFlip(),
        v2.RandomCrop(tuple(crop)),
    ]
    if jitter:
        steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
    return v2.Compose(steps)


AUGMENTATIONS = {"modern": modern_augmentation, "original": original_augmentation}


class RandomStretch(v2.Transform):
    """Resizes to `size`, or half of the time to height and width that are each a random factor of it."""

    def __init__(self, size: Sequence[int], scale: tuple[float, float]) -> None:
        super().__init__()
        self.size, self.scale = tuple(size), scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The size of this sample."""
        low, high = self.scale
        factors = torch.empty(2).uniform_(low, high) if torch.rand(1) < 0.5 else torch.ones(2)
        return {"size": [round(side * float(factor)) for side, factor in zip(self.size, factors, strict=True)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resizes one image or target."""
        return self._call_kernel(v2.functional.resize, inpt, params["size"], antialias=True)


def _rotation(degrees: float) -> list[v2.Transform]:
    if not degrees:
        return []
    turn = v2.RandomRotation(degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=FILL)
    return [v2.RandomApply([turn], p=0.5)]


class Augmented(Dataset[tuple[tuple[Tensor, ...], dict[str, Tensor], int]]):
    """A data set with a random transform: images, targets by task, and the number of the sample.

    A sample is asked for by `epoch * len + index`, and its randomness follows from that and the seed alone: the same
    in any worker, after any interruption.

    Args:
        dataset: Has a length and gives images and targets, each one tensor or several.
        transform: Of torchvision's v2 kind.
        tasks: Names of the tasks; a single target is that of the first.
        cache: Decode all samples once, now.
    """

    def __init__(
        self, dataset: Any, transform: v2.Transform, tasks: Sequence[str], *, seed: int, cache: bool = False
    ) -> None:
        self.dataset, self.transform, self.tasks, self.seed = dataset, transform, list(tasks), seed
        self.decoded = [self.sample(index) for index in range(len(dataset))] if cache else None

    def __len__(self) -> int:
        return len(self.dataset)

    def sample(self, index: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Images and targets as they are in the data set, typed for torchvision."""
        images, targets = self.dataset[index]
        images = images if isinstance(images, tuple) else (images,)
        targets = targets if isinstance(targets, dict) else {self.tasks[0]: targets}
        typed = [x if isinstance(x, tv_tensors.TVTensor) else tv_tensors.Image(x) for x in images]
        return tuple(typed), {
            name: x if isinstance(x, tv_tensors.TVTensor) else tv_tensors.Mask(x) for name, x in targets.items()
        }

    def __getitem__(self, key: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor], int]:
        index = key % len(self)
        images, targets = self.decoded[index] if self.decoded else self.sample(index)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * 1_000_003 + key)
            images, targets = self.transform(images, targets)
        plain = tuple(image.as_subclass(Tensor) for image in images)
        return plain, {name: target.as_subclass(Tensor) for name, target in targets.items()}, index
