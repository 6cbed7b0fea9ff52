"""Training augmentation of images and targets together, on uint8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from edgeseg.data.base import as_sample
from edgeseg.labels import IGNORE
from edgeseg.spec import Preprocess, Task
from edgeseg.tasks import kind_of
from edgeseg.vision.images import input_size
from edgeseg.vision.tensors import Depth, Flow

# Padding and empty corners: mean grey in the image, which preprocessing makes zero, no motion in the flow, and pixels
# that count nowhere in the targets.
FILL: Any = {tv_tensors.Image: 128, Flow: 128, tv_tensors.Mask: IGNORE, Depth: 0}


def modern_augmentation(
    size: Sequence[int],
    crop: Sequence[int],
    scale: tuple[float, float] = (0.5, 2.0),
    *,
    keep_aspect: bool = True,
    rotation: float = 0.0,
    jitter: float = 0.4,
) -> v2.Transform:
    """Random scale (1: as in evaluation), rotation, crop (padded), flip, and brightness, contrast and saturation.

    Args:
        size: Height and width of the images at scale 1.
        crop: Height and width that come out.
        scale: Lowest and highest factor on `size`.
        keep_aspect: Keep the images' own aspect, with as many pixels as `size` has; else stretch.
        rotation: Largest angle in degrees, half of the time.
        jitter: Strength of the colour change, 0 for none.
    """
    return v2.Compose(
        [
            RandomScale(size, scale, keep_aspect=keep_aspect),
            *_rotation(rotation),
            v2.RandomCrop(tuple(crop), pad_if_needed=True, fill=FILL),
            v2.RandomHorizontalFlip(),
            *_jitter(jitter),
        ]
    )


def original_augmentation(
    size: Sequence[int],
    crop: Sequence[int],
    scale: tuple[float, float] = (1.0, 2.0),
    *,
    keep_aspect: bool = False,
    rotation: float = 5.0,
    jitter: float = 0.0,
) -> v2.Transform:
    """The original zoo's: rotation, then half of the time height and width scaled independently, crops, flip.

    Arguments as in `modern_augmentation`. The empty corners of a rotation are ignored; the original labels them 0.
    """
    return v2.Compose(
        [
            *_rotation(rotation),
            RandomScale(size, scale, keep_aspect=keep_aspect, independent=True, p=0.5),
            v2.RandomCrop(tuple(size), pad_if_needed=keep_aspect, fill=FILL),
            v2.RandomHorizontalFlip(),
            v2.RandomCrop(tuple(crop)),
            *_jitter(jitter),
        ]
    )


AUGMENTATIONS = {"modern": modern_augmentation, "original": original_augmentation}


class RandomScale(v2.Transform):
    """Resizes to `size` times a random factor.

    torchvision's ScaleJitter is not used: it takes height for width in the size that scale 1 stands for.

    Args:
        size: Height and width at factor 1.
        scale: Lowest and highest factor.
        keep_aspect: Keep the image's own aspect, with as many pixels as `size` has.
        independent: A factor each for height and width.
        p: How often; else the factor is 1.
    """

    def __init__(
        self,
        size: Sequence[int],
        scale: tuple[float, float],
        *,
        keep_aspect: bool = False,
        independent: bool = False,
        p: float = 1.0,
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess(size=(size[0], size[1]), keep_aspect=keep_aspect)
        self.scale, self.independent, self.p = scale, independent, p

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The size of this sample."""
        whole = input_size(flat_inputs[0].shape[-2:], self.preprocess)
        factors = torch.empty(2).uniform_(*self.scale) if torch.rand(()) < self.p else torch.ones(2)
        if not self.independent:
            factors = factors[:1].expand(2)
        return {"size": [max(round(side * float(f)), 1) for side, f in zip(whole, factors, strict=True)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resizes one image or target."""
        return self._call_kernel(v2.functional.resize, inpt, params["size"], antialias=True)


def _jitter(strength: float) -> list[v2.Transform]:
    return [v2.ColorJitter(brightness=strength, contrast=strength, saturation=strength)] if strength else []


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
        tasks: What is to be predicted; a single target is that of the first, a missing one counts nowhere.
        cache: Decode all samples once, now.
    """

    def __init__(
        self, dataset: Any, transform: v2.Transform, tasks: Mapping[str, Task], *, seed: int, cache: bool = False
    ) -> None:
        self.dataset, self.transform, self.tasks, self.seed = dataset, transform, dict(tasks), seed
        self.decoded = [self.sample(index) for index in range(len(dataset))] if cache else None

    def __len__(self) -> int:
        return len(self.dataset)

    def sample(self, index: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Images and targets as they are in the data set, typed for torchvision."""
        images, targets = as_sample(self.dataset[index], next(iter(self.tasks)))
        typed = [x if isinstance(x, tv_tensors.TVTensor) else tv_tensors.Image(x) for x in images]
        size = typed[-1].shape[-2:]
        return tuple(typed), {
            name: kind_of(task).typed(targets[name] if name in targets else kind_of(task).empty_target(task, size))
            for name, task in self.tasks.items()
        }

    def __getitem__(self, key: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor], int]:
        index = key % len(self)
        images, targets = self.decoded[index] if self.decoded else self.sample(index)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * 1_000_003 + key)
            images, targets = self.transform(images, targets)
        plain = tuple(image.as_subclass(Tensor) for image in images)
        return plain, {name: target.as_subclass(Tensor) for name, target in targets.items()}, index
