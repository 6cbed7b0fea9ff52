"""What the datasets share: files in, typed tensors out, and errors that name the file."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision import tv_tensors

from edgeseg.labels import IGNORE
from edgeseg.machine.terminal import warn
from edgeseg.spec import Input, Task
from edgeseg.vision.images import read_input
from edgeseg.vision.masks import read_mask
from edgeseg.vision.tensors import Flow

T = TypeVar("T")


@dataclass(frozen=True)
class Files:
    """The files of one sample.

    Args:
        images: One file per input; the ground truth belongs to the last.
        targets: Per task that the sample has a ground truth of, its file.
    """

    images: tuple[Path, ...]
    targets: dict[str, Path] = field(default_factory=dict)


Sample = tuple[Tensor | tuple[Tensor, ...], Tensor | Mapping[str, Tensor]]
"""Images and ground truth; a single image and a single ground truth stand alone."""


class LabelledDataset(Protocol):
    """What training and evaluation need of a dataset; any map-style dataset of PyTorch that returns samples is one.

    A sample is a pair: one uint8 image [C, H, W] or a tuple of images, and the ground truth of one task or a dictionary
    of the ground truth by task. For segmentation it is integer class ids [H, W], with 255 for ignored pixels (what
    PyTorch calls `ignore_index`); for depth it is float32 metres [1, H, W], with 0 where the depth is unknown. Arrays,
    PIL images and dictionaries with the keys "image" and "mask" are understood as well; see
    `edgeseg.data.samples.checked_sample`.
    """

    def __len__(self) -> int:
        """Returns the number of samples."""

    def __getitem__(self, index: int, /) -> Any:
        """Returns one sample."""


class LabelledImages(Dataset[Sample]):
    """Images and the ground truth that is to be predicted from them, read from files.

    Samples are those of `LabelledDataset`; optical flow is a `Flow` tensor.

    Args:
        files: One entry per sample.
        tasks: What the ground truth is, by name.
        channels: Number of channels of the photos; see `edgeseg.vision.images.read_photo`.
        on_error: "stop" raises an error when a file that cannot be read is reached. "skip" reads all files once when
            the dataset is made, leaves out samples that cannot be used, and warns with their number and names.

    Attributes:
        skipped: What was left out, and why.

    Raises:
        ValueError: there are no files, or an argument is out of range.
    """

    class_weights: Sequence[float] | None = None
    """Class weights of the first task, if the dataset is published with some."""

    def __init__(
        self,
        files: Sequence[Files],
        tasks: dict[str, Task],
        *,
        channels: int = 3,
        on_error: Literal["stop", "skip"] = "stop",
    ) -> None:
        if on_error not in ("stop", "skip"):
            raise ValueError(f"on_error is 'stop' or 'skip', got {on_error!r}")
        self.files, self.tasks, self.photo = list(files), tasks, Input(channels)
        self.skipped: list[str] = []
        if on_error == "skip":
            self._skip_unreadable()
        if not self.files:
            raise ValueError(f"{type(self).__name__} has no samples here")

    @property
    def inputs(self) -> Mapping[str, Input]:
        """The images of a sample, by name; the ground truth belongs to the last."""
        return {"image": self.photo}

    @property
    def task(self) -> Task:
        """The first task."""
        return next(iter(self.tasks.values()))

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """Returns the path of a sample's reference image, the last one."""
        return str(self.files[index].images[-1])

    def __getitem__(self, index: int) -> Sample:
        return simplified(*self._read(self.files[index]))

    def _read(self, files: Files) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        images = tuple(read_image(path, each) for path, each in zip(files.images, self.inputs.values(), strict=True))
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
        return images, targets

    def read_target(self, name: str, path: Path, files: Files) -> Tensor:
        """Reads the ground truth of a task; datasets whose files are not label maps override this or `to_classes`.

        Raises:
            OSError: the file is missing or damaged.
            ValueError: the file is not a label map, or has ids that are not classes; names the file.
        """
        labels = self.to_classes(name, self.read_labels(path))
        classes = self.tasks[name].class_count
        wrong = torch.unique(labels[(labels < 0) | ((labels >= classes) & (labels != IGNORE))]).tolist()
        if wrong:
            valid = f"valid ids are 0 to {classes - 1}, and {IGNORE} for ignored pixels"
            raise ValueError(f"{path} has ids {wrong}; {valid}")
        return tv_tensors.Mask(labels)

    def read_labels(self, path: Path) -> Tensor:
        """Reads the ids of a file [H, W]; raises an OSError or a ValueError that names the file."""
        return read_labels(path)

    def to_classes(self, name: str, labels: Tensor) -> Tensor:
        """Maps the ids of the files [H, W] to class ids, or to 255 for ignored pixels."""
        return labels

    def _skip_unreadable(self) -> None:
        self.files, self.skipped = split_readable(self.files, self._read)
        self._warn("files cannot be used", self.skipped)

    def _warn(self, reason: str, left_out: Sequence[str]) -> None:
        """Warns of samples that were left out."""
        if left_out:
            message = f"{len(left_out)} samples were left out because their {reason}: {listing(left_out)}"
            warn(message)


def split_readable(items: Sequence[T], read: Callable[[T], object]) -> tuple[list[T], list[str]]:
    """Reads items, and returns those that can be read, and what is wrong with the others."""
    readable, wrong = [], []
    for item in items:
        try:
            read(item)
            readable.append(item)
        except (OSError, ValueError) as error:
            wrong.append(str(error))
    return readable, wrong


def listing(entries: Sequence[str], shown: int = 3) -> str:
    """Returns the first entries for a message, and how many others there are."""
    rest = len(entries) - shown
    return "; ".join(entries[:shown]) + (f"; and {rest} more" if rest > 0 else "")


def fact_of(dataset: Any, name: str, default: Any = None) -> Any:
    """Returns an attribute of a dataset, such as `tasks`, also of one in torch's `Subset` or `ConcatDataset`.

    The parts of a `ConcatDataset` may differ; its fact is that of the first part that has one.
    """
    return next(iter(facts_of(dataset, name)), default)


def facts_of(dataset: Any, name: str) -> list[Any]:
    """Returns an attribute of a dataset, or of each part of torch's `Subset` or `ConcatDataset` that has it."""
    fact = getattr(dataset, name, None)
    if fact is not None and _is_fact(name, fact):
        return [fact]
    return [fact for each in parts_of(dataset) for fact in facts_of(each, name)]


def parts_of(dataset: Any) -> Sequence[Any]:
    """Returns the datasets in torch's `Subset` or `ConcatDataset`; none for others."""
    return [dataset.dataset] if isinstance(dataset, Subset) else getattr(dataset, "datasets", ())


def _is_fact(name: str, value: Any) -> bool:
    """Whether an attribute of anybody's dataset is what edgeseg means by its name."""
    kinds = {"tasks": Task, "inputs": Input}
    if name in kinds:
        return isinstance(value, Mapping) and all(isinstance(each, kinds[name]) for each in value.values())
    return name != "skipped" or isinstance(value, list | tuple)


def name_of(dataset: Any, index: int) -> str:
    """Returns the name of a sample for error messages: its file, if the dataset has the method `name`."""
    if isinstance(dataset, Subset):
        return name_of(dataset.dataset, dataset.indices[index])
    if isinstance(dataset, ConcatDataset):
        number = bisect.bisect_right(dataset.cumulative_sizes, index)
        return name_of(dataset.datasets[number], index - (dataset.cumulative_sizes[number - 1] if number else 0))
    name = getattr(dataset, "name", None)
    try:
        return str(name(index)) if callable(name) else f"sample {index}"
    except TypeError:  # a method of another meaning
        return f"sample {index}"


def as_sample(sample: Sample, first_task: str) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Returns a sample in its general form: a tuple of images, and the ground truth by task."""
    images, targets = sample
    return (
        images if isinstance(images, tuple) else (images,),
        dict(targets) if isinstance(targets, Mapping) else {first_task: targets},
    )


def simplified(images: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Sample:
    """Reverses `as_sample`: a single image and a single ground truth stand alone."""
    return (images[0] if len(images) == 1 else images), (next(iter(targets.values())) if len(targets) == 1 else targets)


def read_image(path: Path, each: Input) -> Tensor:
    """Reads an image file as a uint8 tensor [C, H, W] of torchvision's type for images, or as optical flow.

    Raises:
        OSError: the file is missing or damaged; names the file.
        ValueError: the file does not have the channels of the input; names the file.
    """
    pixels = torch.from_numpy(read_input(path, each)).permute(2, 0, 1)
    return Flow(pixels) if each.kind == "flow" else tv_tensors.Image(pixels)


def read_labels(path: Path) -> Tensor:
    """Reads a label map as a tensor [H, W]; see `edgeseg.vision.masks.read_mask`."""
    return torch.from_numpy(read_mask(path))


def read_sixteen_bit(path: Path, content: str) -> Tensor:
    """Reads a map of 16-bit numbers as float32 [H, W]; raises a ValueError for 8 bits, which `content` never has."""
    values = read_labels(path)
    if values.dtype == torch.uint8:
        raise ValueError(f"{path} has 8 bits per pixel; {content} is a gray picture of 16 bits")
    return values.float()


def require(paths: Sequence[Path], layout: str, root: Path) -> None:
    """Raises a FileNotFoundError that prints the layout, unless all of `paths` exist."""
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise FileNotFoundError(f"{listing(missing)} {verb} missing; expected\n{layout.format(root=root)}")


def check_split(name: str, split: str, splits: Sequence[str]) -> None:
    """Raises a ValueError for a split that a dataset does not have."""
    if split not in splits:
        raise ValueError(f"{name} has no split {split!r}; there are {', '.join(splits)}")
