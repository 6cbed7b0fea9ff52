"""Checks before the first step whether the ground truth can be learned at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from edgeseg.data.base import LabelledDataset
from edgeseg.data.samples import checked_sample
from edgeseg.data.transforms import Augmented
from edgeseg.spec import Task
from edgeseg.tasks import kind_of


def check_ground_truth(tasks: Mapping[str, Task], samples: Augmented, val_set: LabelledDataset | None) -> None:
    """Asks the kind of each task whether it can be learned on the training set and scored on the validation set.

    Args:
        tasks: What is trained, by name.
        samples: The training samples.
        val_set: The validation set, if there is one.

    Raises:
        ValueError: the ground truth of a task cannot be learned or scored, such as a binary one without foreground.
    """
    for name, task in tasks.items():
        sets = {"training": _of_training(samples, name)}
        if val_set is not None:
            sets["validation"] = _of_validation(val_set, tasks, name)
        for which, targets in sets.items():
            wrong = kind_of(task).wrong_dataset(targets)
            if wrong:
                raise ValueError(f"{name} in the {which} set: {wrong}")


def _of_training(samples: Augmented, name: str) -> Iterator[Tensor]:
    for index in range(len(samples)):
        _, targets = samples.decoded[index] if samples.decoded else samples.sample(index)
        yield targets[name].as_subclass(Tensor)


def _of_validation(val_set: LabelledDataset, tasks: Mapping[str, Task], name: str) -> Iterator[Tensor]:
    for index in range(len(val_set)):
        _, targets = checked_sample(val_set, index, tasks)
        if name in targets:
            yield targets[name].as_subclass(Tensor)
