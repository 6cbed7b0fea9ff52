"""Training samples, and how they and their errors leave the processes that load them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, default_collate

from edgeseg.data.base import LabelledDataset, parts_of
from edgeseg.data.photos import WithPhotos
from edgeseg.data.samples import checked_sample
from edgeseg.data.transforms import AUGMENTATIONS, Augmented
from edgeseg.engine.sampling import EpochSampler
from edgeseg.engine.teacher import SoftLabels
from edgeseg.machine.terminal import warn
from edgeseg.machine.workers import start_worker, started
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.recipes import TrainConfig

CACHE_LIMIT = 2e9  # bytes of decoded samples that are kept in memory by default


class ErrorsAsValues(Dataset[Any]):
    """A dataset that returns the error of a sample that cannot be used, for `raising` to raise it in the main process.

    Args:
        dataset: A map-style dataset.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int) -> Any:
        try:
            return self.dataset[key]
        except OSError as error:
            return OSError(str(error))
        except ValueError as error:
            return ValueError(str(error))


def collate(samples: Sequence[Any]) -> Any:
    """Makes a batch of samples as PyTorch does; returns the first error if there is one."""
    errors = [sample for sample in samples if isinstance(sample, Exception)]
    return errors[0] if errors else default_collate(list(samples))


def raising(loader: Iterable[Any]) -> Iterator[Any]:
    """Yields what a loader of an `ErrorsAsValues` yields, and raises errors."""
    for item in started(loader):
        if isinstance(item, Exception):
            raise item
        yield item


def training_samples(
    train_set: LabelledDataset, model: Pixel2Pixel, config: TrainConfig, soft: SoftLabels | None
) -> Augmented:
    """The training set with the augmentation of the recipe.

    Raises:
        ValueError: photos without labels, and nobody to learn from.
    """
    if soft is None and isinstance(train_set, WithPhotos):
        raise ValueError("nothing can be learned from photos without labels alone: pass soft_labels of a teacher")
    crop, size = config.rand_crop or config.img_resize, config.img_resize
    if math.prod(crop) > config.rand_scale[1] ** 2 * math.prod(size):
        warn(
            f"TrainConfig.rand_crop {crop[0]}x{crop[1]} is larger than photos of img_resize {size[0]}x{size[1]} at "
            f"their largest scale, {config.rand_scale[1]:g}, and the rest of each sample is padding: pass a smaller "
            "rand_crop (--rand-crop)"
        )
    augment = AUGMENTATIONS[config.augmentation](
        size,
        crop,
        config.rand_scale,
        keep_aspect=config.keep_aspect,
        rotation=config.transform_rotation,
        mirror=config.mirror,
        jitter=config.jitter,
    )
    cache = _fits(train_set, model, config)
    return Augmented(train_set, augment, model.tasks, seed=config.seed, cache=cache, inputs=model.inputs, soft=soft)


def training_loader(
    samples: Augmented, sampler: EpochSampler, config: TrainConfig, device: torch.device
) -> DataLoader[Any]:
    """The loader of this process's share of the batches."""
    return DataLoader(
        ErrorsAsValues(samples),
        collate_fn=collate,
        batch_sampler=sampler,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        worker_init_fn=start_worker,
        pin_memory=device.type == "cuda",
    )


def _fits(dataset: LabelledDataset, model: Pixel2Pixel, config: TrainConfig) -> bool:
    """Whether the decoded training set is kept in memory: as the recipe says, or if it is small and never changes."""
    if config.cache is not None or len(dataset) == 0 or not is_fixed(dataset):
        return bool(config.cache)
    images, _ = checked_sample(dataset, 0, model.tasks, model.inputs)
    return sum(image.numel() for image in images) * 4 / 3 * len(dataset) < CACHE_LIMIT


def is_fixed(dataset: Any) -> bool:
    """Whether a sample is known to be the same each time; datasets of users may have random augmentation."""
    reader = type(dataset).__getitem__
    if reader in (Subset.__getitem__, ConcatDataset.__getitem__):  # a subclass may have one of its own
        return all(map(is_fixed, parts_of(dataset)))
    if reader is WithPhotos.__getitem__:
        return is_fixed(dataset.labelled)
    return reader in (list.__getitem__, tuple.__getitem__) or (reader.__module__ or "").startswith("edgeseg.")
