"""Training augmentation of image and label map together, on uint8."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from edgeseg.data.labels import IGNORE

# Padding is mean grey in the image, which preprocessing makes zero, and counts nowhere in the labels.
FILL = {tv_tensors.Image: 128, tv_tensors.Mask: IGNORE}


def augmentation(
    size: Sequence[int], crop: Sequence[int], scale: tuple[float, float] = (0.5, 2.0), jitter: float = 0.4
) -> v2.Transform:
    """Random scale (1: to fit `size`), crop (padded), flip, and brightness, contrast and saturation.

    Args:
        size: Height and width of the images at scale 1.
        crop: Height and width that come out.
        scale: Lowest and highest factor on `size`.
        jitter: Strength of the colour change, 0 for none.
    """
    steps: list[v2.Transform] = [
        v2.ScaleJitter(tuple(size), scale, antialias=True),
        v2.RandomCrop(tuple(crop), pad_if_needed=True, fill=FILL),
        v2.RandomHorizontalFlip(),
    ]
    if jitter:
        steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
    return v2.Compose(steps)


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """A dataset of image and label map, decoded once, with a transform at each access."""

    def __init__(self, dataset: Dataset[tuple[Tensor, Tensor]], transform: v2.Transform) -> None:
        self.pairs = [
            (tv_tensors.Image(image), tv_tensors.Mask(label))
            for image, label in (dataset[i] for i in range(len(dataset)))  # type: ignore[arg-type]
        ]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self.transform(*self.pairs[index])
        return image.as_subclass(Tensor), label.as_subclass(Tensor)
