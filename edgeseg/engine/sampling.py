"""The order of the training samples."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from edgeseg.data.transforms import Augmented
from edgeseg.engine import distributed
from edgeseg.recipes import TrainConfig


class EpochSampler(Sampler[list[int]]):
    """Yields the batches of this process, as keys of `Augmented`, in an order derived from the seed and the epoch.

    Args:
        samples: The training samples.
        config: The recipe.

    Attributes:
        epoch: Number of the epoch, counted from 0.
        start: Number of optimizer steps of the epoch that are skipped because they are done.

    Raises:
        ValueError: a batch size that is not a multiple of the number of processes, or fewer samples than one step uses.
    """

    def __init__(self, samples: Augmented, config: TrainConfig) -> None:
        self.count, self.config = len(samples), config
        self.epoch, self.start = 0, 0
        processes = distributed.world_size()
        share, rest = divmod(config.batch_size, processes)
        if rest:
            raise ValueError(
                f"batch_size is a multiple of the number of processes, {processes}; got {config.batch_size}"
            )
        self.share = share
        if len(self) == 0:
            needed = config.batch_size * config.iter_size
            raise ValueError(
                f"an optimizer step uses {needed} images, but the training set has only {self.count}; lower batch_size "
                "or iter_size"
            )

    def __len__(self) -> int:
        """Number of optimizer steps per epoch."""
        return self.count // (self.config.batch_size * self.config.iter_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.epoch)
        order = [self.epoch * self.count + i for i in torch.randperm(self.count, generator=generator).tolist()]
        size, first = self.config.batch_size, distributed.rank() * self.share
        for batch in range(self.start * self.config.iter_size, len(self) * self.config.iter_size):
            begin = batch * size + first
            yield order[begin : begin + self.share]
