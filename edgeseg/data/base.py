"""What the data sets share: files in, typed tensors out, and errors that name the file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from edgeseg.labels import IGNORE
from edgeseg.spec import Input, Task
from edgeseg.vision.tensors import Flow


@dataclass(frozen=True)
class Files:
    """The files of one sample."""

    images: tuple[Path, ...]
    targets: dict[str, Path] = field(default_factory=dict)


Sample = tuple[Tensor | tuple[Tensor, ...], Tensor | Mapping[str, Tensor]]
"""Images and targets; a single image and a single target stand alone."""


class LabelledDataset(Protocol):
    """What training and evaluation need of a dataset; any map-style dataset of PyTorch that returns samples is one.

    A sample is a pair: one uint8 image [C, H, W] or a tuple of images, and one target or a dictionary of targets by
    task. Segmentation targets are integer class ids [H, W], with 255 for pixels that do not count; depth targets are
    float32 metres [1, H, W], with 0 where the depth is unknown.
    """

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, index: int, /) -> Sample:
        """One sample."""


class LabelledImages(Dataset[Sample]):
    """Images and the targets that are to be predicted from them, read from files.

    Samples are those of `LabelledDataset`; optical flow is a `Flow` tensor.

    Args:
        files: One entry per sample.
        tasks: What the targets are.
        on_error: "stop" raises an error when a file that cannot be read is reached. "skip" opens all files once when
            the dataset is made, leaves out samples with unreadable files, and warns with their number and names.

    Attributes:
        skipped: Files that were left out.

    Raises:
        ValueError: no files.
    """

    class_weights: Sequence[float] | None = None
    """Class weights of the first task, if the dataset is published with some."""

    def __init__(
        self, files: Sequence[Files], tasks: dict[str, Task], *, on_error: Literal["stop", "skip"] = "stop"
    ) -> None:
        if on_error not in ("stop", "skip"):
            raise ValueError(f"on_error is 'stop' or 'skip', got {on_error!r}")
        self.files, self.tasks, self.skipped = list(files), tasks, list[str]()
        if on_error == "skip":
            self._skip_unreadable()
        if not self.files:
            raise ValueError(f"{type(self).__name__} has no samples here")

    @property
    def inputs(self) -> Mapping[str, Input]:
        """The images of a sample, by name; the targets belong to the last."""
        return {"image": Input()}

    @property
    def task(self) -> Task:
        """The first task."""
        return next(iter(self.tasks.values()))

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """The reference image of a sample: the last one."""
        return str(self.files[index].images[-1])

    def __getitem__(self, index: int) -> Sample:
        files = self.files[index]
        kinds = [each.kind for each in self.inputs.values()]
        images = tuple(read_image(path, flow=kind == "flow") for path, kind in zip(files.images, kinds, strict=True))
        targets = {name: self.read_target(name, path, files) for name, path in files.targets.items()}
        size = images[-1].shape[-2:]
        for path, tensor in [
            *zip(files.images, images, strict=True),
            *zip(files.targets.values(), targets.values(), strict=True),
        ]:
            if tensor.shape[-2:] != size:
                raise ValueError(
                    f"{path} is {tuple(tensor.shape[-2:])} and {files.images[-1]} is {tuple(size)} (height, width)"
                )
        return simplified(images, targets)

    def read_target(self, name: str, path: Path, files: Files) -> Tensor:
        """The target of a task; a set whose files are no plain label maps overrides this or `to_classes`."""
        labels = self.to_classes(name, read_labels(path))
        classes = self.tasks[name].channels
        wrong = torch.unique(labels[(labels >= classes) & (labels != IGNORE)]).tolist()
        if wrong:
            raise ValueError(f"{path} has ids {wrong}; there are {classes} classes, and {IGNORE} for nothing")
        return tv_tensors.Mask(labels)

    def to_classes(self, name: str, labels: Tensor) -> Tensor:
        """Ids as they stand in the files [H,W] -> class ids, or 255."""
        return labels

    def _skip_unreadable(self) -> None:
        readable = []
        for files in self.files:
            try:
                for path in (*files.images, *files.targets.values()):
                    with Image.open(path) as image:
                        image.load()
                readable.append(files)
            except (OSError, SyntaxError) as error:
                self.skipped.append(f"{path}: {error}")
        self.files = readable
        if self.skipped:
            some = "; ".join(self.skipped[:3])
            warnings.warn(f"{len(self.skipped)} samples left out, their files cannot be read: {some}", stacklevel=3)


def name_of(dataset: LabelledDataset, index: int) -> str:
    """The file of a sample, if the dataset tells."""
    name = getattr(dataset, "name", None)
    return str(name(index)) if callable(name) else f"sample {index}"


def as_sample(sample: Sample, first_task: str) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """A sample in its general form: a tuple of images, and targets by task."""
    images, targets = sample
    return (
        images if isinstance(images, tuple) else (images,),
        dict(targets) if isinstance(targets, Mapping) else {first_task: targets},
    )


def simplified(images: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Sample:
    """The reverse of `as_sample`: a single image and a single target stand alone."""
    return (images[0] if len(images) == 1 else images), (next(iter(targets.values())) if len(targets) == 1 else targets)


def read_image(path: Path, *, flow: bool = False) -> Tensor:
    """An image file as uint8 [3,H,W].

    Raises:
        OSError: missing or unreadable; names the file.
    """
    pixels = torch.from_numpy(_open(path, "RGB")).permute(2, 0, 1)
    return Flow(pixels) if flow else tv_tensors.Image(pixels)


def read_labels(path: Path) -> Tensor:
    """A label map file, grey or with a palette, as uint8 [H,W] (int32 for 16 bit).

    Raises:
        OSError: missing or unreadable; names the file.
        ValueError: a colour picture.
    """
    values = _open(path)
    if values.ndim != 2:
        raise ValueError(f"{path} is a colour picture; a label map has one class id a pixel, grey or with a palette")
    return torch.from_numpy(values.astype(np.int32) if values.dtype == np.uint16 else values)


def require(paths: Sequence[Path], layout: str, root: Path) -> None:
    """Raises a FileNotFoundError that prints the layout, unless all of `paths` are there."""
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} is missing; expected\n{layout.format(root=root)}")


def check_split(name: str, split: str, splits: Sequence[str]) -> None:
    """Raises a ValueError for a split that a data set does not have."""
    if split not in splits:
        raise ValueError(f"{name} has no split {split!r}; there are {', '.join(splits)}")


def _open(path: str | os.PathLike[str], mode: str | None = None) -> np.ndarray:
    try:
        with Image.open(path) as file:
            return np.array(file.convert(mode) if mode else file)
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise OSError(f"cannot read {path}: {error}") from error
