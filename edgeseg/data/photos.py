"""Photos without labels beside a labelled dataset, for networks that learn from a teacher."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from torch.utils.data import Dataset

from edgeseg.data.base import LabelledDataset, Sample, fact_of, facts_of, listing, name_of, read_image, split_readable
from edgeseg.machine.terminal import warn
from edgeseg.spec import Input, Task
from edgeseg.vision.listing import list_files, photo_suffixes


class WithPhotos(Dataset[Sample]):
    """A labelled dataset, followed by photos without labels.

    Args:
        labelled: The labelled dataset.
        folders: Folders that are searched for photos, with their sub-folders.
        tasks: What is to be predicted; by default what the labelled dataset says.
        on_error: "stop" raises an error when a photo that cannot be read is reached. "skip" reads all photos once when
            the dataset is made, leaves out those that cannot be read, and warns with their number and names.

    Attributes:
        skipped: The photos that were left out, and why, after what the labelled dataset left out.

    Raises:
        OSError: a folder is missing or cannot be read.
        ValueError: a folder has no photos; the dataset does not say its tasks, and none are given; or it has several
            images per sample.
    """

    def __init__(
        self,
        labelled: LabelledDataset,
        folders: Sequence[str | os.PathLike[str]],
        tasks: Mapping[str, Task] | None = None,
        *,
        on_error: Literal["stop", "skip"] = "stop",
    ) -> None:
        if on_error not in ("stop", "skip"):
            raise ValueError(f"on_error is 'stop' or 'skip', got {on_error!r}")
        self.labelled = labelled
        known = tasks if tasks is not None else fact_of(labelled, "tasks")
        if not known:
            raise ValueError("the labelled dataset does not say its tasks; pass tasks")
        self.tasks = dict(known)
        self.inputs: Mapping[str, Input] = fact_of(labelled, "inputs", {"image": Input()})
        if len(self.inputs) != 1:
            raise ValueError(f"photos without labels have one image, and the dataset has {', '.join(self.inputs)}")
        suffixes = photo_suffixes(next(iter(self.inputs.values())).channels)
        found = {folder: list_files(folder, suffixes) for folder in map(Path, folders)}
        empty = [str(folder) for folder, files in found.items() if not files]
        if empty:
            raise ValueError(f"there are no photos in {', '.join(empty)}")
        self.photos = [path for files in found.values() for path in files]
        self.skipped: list[str] = [each for skipped in facts_of(labelled, "skipped") for each in skipped]
        if on_error == "skip":
            self.photos, wrong = split_readable(self.photos, self._read)
            self.skipped += wrong
            if wrong:
                message = f"{len(wrong)} photos were left out because they cannot be read: {listing(wrong)}"
                warn(message)
        self.class_weights: Any = fact_of(labelled, "class_weights")

    def _read(self, path: Path) -> Tensor:
        return read_image(path, next(iter(self.inputs.values())))

    def __len__(self) -> int:
        return len(self.labelled) + len(self.photos)

    def name(self, index: int) -> str:
        """Returns the path of a sample's image."""
        own = index - len(self.labelled)
        return name_of(self.labelled, index) if own < 0 else str(self.photos[own])

    def __getitem__(self, index: int) -> Sample:
        own = index - len(self.labelled)
        if own < 0:
            sample: Sample = self.labelled[index]
            return sample
        return self._read(self.photos[own]), {}
