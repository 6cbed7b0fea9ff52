"""The order of training samples."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from edgeseg.data.transforms import Augmented
from edgeseg.engine import distributed
from edgeseg.recipes import TrainConfig


class EpochSampler(Sampler[list[int]]):
    """Batches of keys for `Augmented`: a new order each epoch that follows from the seed alone.

    Attributes:
        epoch: Counted from 0.
        start: Optimizer steps of it that are done already.
    """

    def __init__(self, samples: Augmented, config: TrainConfig) -> None:
        self.count, self.config = len(samples), config
        self.epoch, self.start = 0, 0
        share, rest = divmod(config.batch_size, distributed.world_size())
        if rest:
            raise ValueError(f"batch_size {config.batch_size} cannot be shared by {distributed.world_size()} processes")
        self.share = share
        if len(self) == 0:
            wanted = config.batch_size * config.iter_size
            raise ValueError(f"{self.count} training images make no batch of {wanted}")

    def __len__(self) -> int:
        """Optimizer steps in an epoch."""
        return self.count // (self.config.batch_size * self.config.iter_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.epoch)
        order = [self.epoch * self.count + i for i in torch.randperm(self.count, generator=generator).tolist()]
        size, first = self.config.batch_size, distributed.rank() * self.share
        for batch in range(self.start * self.config.iter_size, len(self) * self.config.iter_size):
            begin = batch * size + first
            yield order[begin : begin + self.share]
