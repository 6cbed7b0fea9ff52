"""Training augmentation: random transforms that change images and ground truth together, on uint8 pixels."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from edgeseg.data.samples import checked_sample, require_samples
from edgeseg.labels import IGNORE
from edgeseg.machine.random_state import kept_random_state
from edgeseg.spec import Input, Preprocess, Task
from edgeseg.tasks import kind_of
from edgeseg.vision.tensors import Depth, Flow, Probabilities, Values

# What padding and the empty corners of a rotation are filled with: mean gray in images, which preprocessing maps to
# zero; no motion in optical flow; ignored pixels in the ground truth.
FILL: Any = {tv_tensors.Image: 128, Flow: 128, tv_tensors.Mask: IGNORE, Depth: 0, Values: 0, Probabilities: 0}


def modern_augmentation(
    size: Sequence[int],
    crop: Sequence[int],
    scale: tuple[float, float] = (0.5, 2.0),
    *,
    keep_aspect: bool = True,
    rotation: float = 0.0,
    mirror: float = 0.5,
    jitter: float = 0.4,
) -> v2.Transform:
    """Makes an augmentation: random scale, rotation, padded crop, mirror image, brightness, contrast and saturation.

    Args:
        size: Height and width of the images at scale 1, the size of evaluation, in pixels.
        crop: Height and width of the augmented images, in pixels.
        scale: Lowest and highest factor on `size`.
        keep_aspect: Keep the aspect ratio of the images, with as many pixels as `size` has; otherwise stretch them.
        rotation: Largest angle in degrees; half of the samples are rotated.
        mirror: Probability that a sample is mirrored.
        jitter: Largest relative change of brightness, contrast and saturation; 0 leaves the colours as they are.
    """
    return v2.Compose(
        [
            RandomScale(size, scale, keep_aspect=keep_aspect),
            *_rotation(rotation),
            v2.RandomCrop(tuple(crop), pad_if_needed=True, fill=FILL),
            v2.RandomHorizontalFlip(mirror),
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
    mirror: float = 0.5,
    jitter: float = 0.0,
) -> v2.Transform:
    """Makes the augmentation of TI's zoo: rotation, independent factors on height and width for half of the samples,
    crops, mirror image.

    The arguments are those of `modern_augmentation`. The empty corners of a rotation are ignored; TI's code gives them
    label 0.
    """
    return v2.Compose(
        [
            *_rotation(rotation),
            RandomScale(size, scale, keep_aspect=keep_aspect, independent=True, p=0.5, corners=True),
            v2.RandomCrop(tuple(size), pad_if_needed=keep_aspect, fill=FILL),
            v2.RandomHorizontalFlip(mirror),
            v2.RandomCrop(tuple(crop)),
            *_jitter(jitter),
        ]
    )


AUGMENTATIONS = {"modern": modern_augmentation, "original": original_augmentation}


class RandomScale(v2.Transform):
    """Resizes images and ground truth to `size` times a random factor.

    torchvision's ScaleJitter is not used, because it swaps height and width in the size that scale 1 stands for.

    Args:
        size: Height and width at factor 1, in pixels.
        scale: Lowest and highest factor.
        keep_aspect: Keep the aspect ratio of the image, with as many pixels as `size` has.
        independent: Use one factor for the height and another one for the width.
        p: Probability of a random factor; otherwise the factor is 1.
        corners: Resize ground truth as OpenCV and TI's zoo do: a pixel gets the value at its upper left corner, which
            moves edges by half a pixel against the image. By default it gets the value at its centre.
    """

    def __init__(
        self,
        size: Sequence[int],
        scale: tuple[float, float],
        *,
        keep_aspect: bool = False,
        independent: bool = False,
        p: float = 1.0,
        corners: bool = False,
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess(size=(size[0], size[1]), keep_aspect=keep_aspect)
        self.scale, self.independent, self.p, self.corners = scale, independent, p, corners

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the size of a sample."""
        whole = self.preprocess.input_size(flat_inputs[0].shape[-2:])
        factors = torch.empty(2).uniform_(*self.scale) if torch.rand(()) < self.p else torch.ones(2)
        if not self.independent:
            factors = factors[:1].expand(2)
        return {"size": [max(round(side * float(f)), 1) for side, f in zip(whole, factors, strict=True)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resizes one image or one ground truth."""
        if isinstance(inpt, tv_tensors.Mask) and not isinstance(inpt, Probabilities) and not self.corners:
            plain = inpt.as_subclass(Tensor).unsqueeze(0)
            resized = v2.functional.resize(plain, params["size"], v2.InterpolationMode.NEAREST_EXACT)
            return tv_tensors.wrap(resized[0], like=inpt)
        return self._call_kernel(v2.functional.resize, inpt, params["size"], antialias=True)


class ColorJitter(v2.ColorJitter):
    """torchvision's jitter of brightness, contrast and saturation, for images of any number of channels.

    Images that are neither gray nor RGB have no saturation to change.
    """

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Changes one image; ground truth and optical flow stay as they are."""
        if not isinstance(inpt, tv_tensors.Image) or inpt.shape[-3] in (1, 3):
            return super().transform(inpt, params)
        # As one gray picture, the channels one below the other: contrast is relative to the mean of them all.
        gray = tv_tensors.wrap(inpt.reshape(1, -1, inpt.shape[-1]), like=inpt)
        return tv_tensors.wrap(super().transform(gray, params).reshape(inpt.shape), like=inpt)


def _jitter(strength: float) -> list[v2.Transform]:
    return [ColorJitter(brightness=strength, contrast=strength, saturation=strength)] if strength else []


def _rotation(degrees: float) -> list[v2.Transform]:
    if not degrees:
        return []
    turn = v2.RandomRotation(degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=FILL)
    return [v2.RandomApply([turn], p=0.5)]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this context the random numbers of torch, NumPy and Python depend on the seed alone; restores them."""
    with kept_random_state():
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield


class SoftTargets(Protocol):
    """Probabilities of the classes of one task, by photo."""

    task: str

    def __getitem__(self, image: Tensor, /) -> Probabilities:
        """Returns the probabilities uint8 [C, h, w] for a photo uint8 [3, H, W]."""


def soft_name(task: str) -> str:
    """The name of the soft labels of a task among the ground truth; no task can have such a name."""
    return f"{task}.soft"


class Augmented(Dataset[tuple[tuple[Tensor, ...], dict[str, Tensor], int]]):
    """A dataset with a random transform; a sample is the images, the ground truth by task, and its number.

    The key of a sample is `epoch * len + index`. All its randomness is derived from the seed and the key, so that it is
    the same in any worker and after any interruption.

    Args:
        dataset: See `edgeseg.data.base.LabelledDataset`.
        transform: A transform of torchvision's v2.
        tasks: What is to be predicted. A ground truth without a name belongs to the first task; the pixels of a sample
            without the ground truth of a task are ignored in that task.
        seed: Seed of all random numbers.
        cache: Decode all samples once, when the dataset is made.
        inputs: The images that the model takes; None takes any images.
        soft: Soft labels, see `edgeseg.engine.teacher`. Samples have them as a further ground truth, uint8 [C, H, W].

    Raises:
        ValueError: a sample cannot be used, see `edgeseg.data.samples.checked_sample`; names the sample.
    """

    def __init__(
        self,
        dataset: Any,
        transform: v2.Transform,
        tasks: Mapping[str, Task],
        *,
        seed: int,
        cache: bool = False,
        inputs: Mapping[str, Input] | None = None,
        soft: SoftTargets | None = None,
    ) -> None:
        require_samples(dataset)
        self.dataset, self.transform, self.tasks, self.seed = dataset, transform, dict(tasks), seed
        self.inputs, self.soft = inputs, soft
        self.decoded = [self._decoded(index) for index in range(len(dataset))] if cache else None

    def __len__(self) -> int:
        return len(self.dataset)

    def _decoded(self, index: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        with self._seeded(index):
            return self.sample(index)

    def _seeded(self, key: int) -> AbstractContextManager[None]:
        return seeded(self.seed * 1_000_003 + key)  # a dataset may draw random numbers too

    def sample(self, index: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns images and ground truth as the dataset has them, typed for torchvision."""
        images, targets = checked_sample(self.dataset, index, self.tasks, self.inputs)
        size = images[-1].shape[-2:]
        return images, {
            name: kind_of(task).typed(targets[name] if name in targets else kind_of(task).empty_target(task, size))
            for name, task in self.tasks.items()
        }

    def read(self, index: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns what `sample` does, from memory if the samples are decoded."""
        return self.decoded[index] if self.decoded else self.sample(index)

    def __getitem__(self, key: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor], int]:
        index = key % len(self)
        with self._seeded(key):
            images, targets = self.read(index)
            if self.soft is not None:
                targets = {**targets, soft_name(self.soft.task): self.soft[images[-1]]}
            images, targets = self.transform(images, targets)
        plain = tuple(image.as_subclass(Tensor) for image in images)
        return plain, {name: target.as_subclass(Tensor) for name, target in targets.items()}, index
