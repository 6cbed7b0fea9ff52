"""Errors of samples on their way out of the processes that load them, without the processes' tracebacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset, default_collate

from edgeseg.machine.workers import started


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
