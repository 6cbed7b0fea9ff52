"""The one check of a sample, for training, evaluation and `edgeseg data check` alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from edgeseg.data.base import LabelledDataset, facts_of, name_of
from edgeseg.labels import IGNORE, class_names
from edgeseg.spec import Input, Task
from edgeseg.tasks import kind_of, same_names
from edgeseg.vision.images import loaded, read_photo
from edgeseg.vision.masks import to_ids
from edgeseg.vision.tensors import Flow

IMAGE_KEYS = ("image", "img")
TARGET_KEYS = ("mask", "label", "labels", "target", "annotation")
GRAY_MODES = ("1", "L", "I", "I;16", "F")


def checked_sample(
    dataset: LabelledDataset, index: int, tasks: Mapping[str, Task], inputs: Mapping[str, Input] | None = None
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Reads a sample, understands it where its meaning is plain, and refuses it otherwise.

    Args:
        dataset: Any map-style dataset; see `edgeseg.data.base.LabelledDataset`. A sample is a pair of image and ground
            truth, or a dictionary with the keys "image" and "mask". Images are uint8 tensors [C, H, W], uint8 arrays
            [H, W, C] or PIL images. Class ids are integer tensors or arrays [H, W] or [1, H, W], or PIL images.
        index: Number of the sample.
        tasks: What is to be predicted; a ground truth without a name belongs to the first.
        inputs: The images that the model takes; None takes any number of images of any number of channels.

    Returns:
        The images, uint8 [C, H, W], and the ground truth of those of `tasks` that the sample has: class ids
        uint8 [H, W], or values float32 [C, H, W].

    Raises:
        ValueError: an image or a ground truth of another form, type, size or range; names the sample.
    """
    try:
        sample = dataset[index]
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:  # of any type, in code of others
        raise ValueError(f"{name_of(dataset, index)}: {type(error).__name__}: {error}") from error
    try:
        images, targets = _parts(sample, tasks)
        return _checked(images, targets, tasks, inputs)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name_of(dataset, index)}: {error}") from error


def require_samples(dataset: Any, *, name: str = "the dataset") -> None:
    """Raises a ValueError unless the dataset has samples, and returns them by their number."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__") or isinstance(dataset, str | Mapping):
        raise ValueError(
            f"{name} has a length and returns a sample by its number, as torch.utils.data.Dataset and lists do; got "
            f"{type(dataset).__name__}"
        )
    try:
        count = len(dataset)
    except TypeError as error:  # as an IterableDataset that is loaded by a DataLoader has it
        raise ValueError(f"{name} has a length; {type(dataset).__name__} does not: {error}") from error
    if count == 0:
        raise ValueError(f"{name} has no samples")


def check_classes(dataset: LabelledDataset, tasks: Mapping[str, Task], *, name: str = "the dataset") -> None:
    """Compares the classes of a dataset that says what they are, in its attribute `tasks`, with those of a model.

    The parts of a `ConcatDataset` are compared each.

    Raises:
        ValueError: the numbers or the names of the classes differ; the message has both lists.
    """
    for known in facts_of(dataset, "tasks"):
        _check_classes(known, tasks, name)


def _check_classes(known: Mapping[str, Task], tasks: Mapping[str, Task], name: str) -> None:
    pairs = [(key, known[key], task) for key, task in tasks.items() if key in known]
    if not pairs and len(known) == len(tasks) == 1:  # a single ground truth belongs to the task, whatever its name
        pairs = [(key, next(iter(known.values())), task) for key, task in tasks.items()]
    for key, theirs, ours in pairs:
        counts = [kind_of(task).class_ids(task) for task in (theirs, ours)]
        if not all(counts):
            continue
        if counts[0] != counts[1] or not same_names(theirs, ours):
            lists = [sorted(each.strip().casefold() for each in task.classes) for task in (theirs, ours)]
            order = ", in another order" if lists[0] == lists[1] != [] else ""
            raise ValueError(
                f"{name} and the model have different classes for {key!r}{order}:\n"
                f"  dataset ({counts[0]}): {', '.join(class_names(theirs))}\n"
                f"  model ({counts[1]}): {', '.join(class_names(ours))}\n"
                "use a model of these classes, or train one for them"
            )


def check_inputs(dataset: LabelledDataset, inputs: Mapping[str, Input], *, name: str = "the dataset") -> None:
    """Compares the inputs of a dataset that says what they are, in its attribute `inputs`, with those of a model.

    Raises:
        ValueError: the dataset gives the same inputs in another order, or of other kinds.
    """
    ours = [(key, each.kind) for key, each in inputs.items()]
    for known in facts_of(dataset, "inputs"):
        theirs = [(key, each.kind) for key, each in known.items()]
        if len(inputs) > 1 and sorted(known) == sorted(inputs) and theirs != ours:
            lists = (", ".join(f"{key} ({kind})" for key, kind in one) for one in (theirs, ours))
            raise ValueError(
                "{} gives the inputs {}, and the model takes {}: use the same order and kinds".format(name, *lists)
            )


Parts = tuple[tuple[Any, ...], dict[str, Any]]


def _parts(sample: Any, tasks: Mapping[str, Task]) -> Parts:
    """The images and the ground truth by task, as they are."""
    if isinstance(sample, Mapping):
        return _parts_by_key(sample, tasks)
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        raise ValueError(f"a sample is a pair (image, ground truth), got {_described(sample)}")
    images, targets = sample
    return (tuple(images) if isinstance(images, tuple | list) else (images,)), _by_task(targets, tasks)


def _by_task(targets: Any, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """The ground truth of a sample by task; one without a name belongs to the first."""
    if isinstance(targets, Mapping):
        return {name: target for name, target in targets.items() if name in tasks}
    if isinstance(targets, tuple | list):
        raise ValueError(
            f"the ground truth of several tasks is a dictionary by their names, {', '.join(tasks)}; got "
            f"{_described(targets)}"
        )
    return {next(iter(tasks)): targets}


def _parts_by_key(sample: Mapping[Any, Any], tasks: Mapping[str, Task]) -> Parts:
    images = [key for key in IMAGE_KEYS if key in sample]
    named = [name for name in tasks if name in sample]
    targets = [key for key in TARGET_KEYS if key in sample]
    if len(images) != 1 or (not named and len(targets) != 1):
        raise ValueError(
            "a sample is a pair (image, ground truth), or a dictionary with the key 'image' and one of the keys "
            f"{', '.join(map(repr, TARGET_KEYS))}, or with a key per task ({', '.join(tasks)}); got "
            f"{_described(sample)}"
        )
    image = sample[images[0]]
    by_task = _by_task(sample if named else sample[targets[0]], tasks)
    return (tuple(image) if isinstance(image, tuple | list) else (image,)), by_task


def _checked(
    images: Sequence[Any],
    targets: Mapping[str, Any],
    tasks: Mapping[str, Task],
    inputs: Mapping[str, Input] | None,
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    if inputs is not None and len(images) != len(inputs):
        wanted = ", ".join(f"{name} ({each.channels} channels)" for name, each in inputs.items())
        raise ValueError(f"a sample has {len(images)} images, and the model takes {wanted}")
    kinds = list(inputs.values()) if inputs is not None else [None] * len(images)
    tensors = tuple(_image(image, each) for image, each in zip(images, kinds, strict=True))
    size = tensors[-1].shape[-2:]
    for tensor in tensors:
        if tensor.shape[-2:] != size:
            raise ValueError(f"an image is {_size(tensor)} and another one {_size(tensors[-1])} (height x width)")
    found = {name: _target(target, tasks[name], name, size) for name, target in targets.items()}
    return tensors, found


def _image(value: Any, each: Input | None) -> Tensor:
    """An image as uint8 [C, H, W]; what torchvision's tensor types stand for is kept."""
    channels = each.channels if each else None
    if isinstance(value, Image.Image):
        channels = channels or (1 if value.mode in GRAY_MODES else 3)
        tensor = torch.from_numpy(read_photo(value, channels)).permute(2, 0, 1)
    elif isinstance(value, np.ndarray):
        tensor = _channels_first(_pixels(_from_array(value, "an image")), channels, last=True)
    elif isinstance(value, Tensor):
        tensor = _channels_first(_pixels(value), channels, last=False)
    else:
        raise ValueError(
            f"an image is a uint8 tensor [C, H, W], a uint8 array [H, W, C] or a PIL image, got {_described(value)}"
        )
    if 0 in tensor.shape:
        raise ValueError(f"an image without pixels, of shape {list(tensor.shape)}")
    # As an image, optical flow would be mirrored as a photo is, without turning its vectors.
    if each is not None and each.kind == "flow":
        return Flow(tensor.as_subclass(Tensor))
    return tensor if isinstance(tensor, tv_tensors.TVTensor) else tv_tensors.Image(tensor)


def _pixels(tensor: Tensor) -> Tensor:
    """The tensor, if its values are pixels of 0 to 255."""
    if tensor.dtype == torch.uint8:
        return tensor
    expected = f"an image is {_described(tensor)}, and images are uint8, 0 to 255"
    if not tensor.is_floating_point():
        cures = {torch.bool: "multiply by 255", torch.uint16: "divide by 257, if white is 65535"}
        cure = cures.get(tensor.dtype, "bring the values to that range")
        raise ValueError(f"{expected}; {cure}, then convert them with .to(torch.uint8)")
    low, high = (float(each) for each in tensor.aminmax()) if tensor.numel() else (0.0, 0.0)
    found = f"the values are {low:.3g} to {high:.3g}"
    if low >= 0 and high <= 1:
        raise ValueError(f"{expected}; {found}: multiply by 255, or leave out ToTensor() and ToDtype(scale=True)")
    if low < 0:
        raise ValueError(
            f"{expected}; {found}, which looks normalized: leave out Normalize(), the model's own preprocessing does it"
        )
    raise ValueError(f"{expected}; {found}: convert it with .round().clamp(0, 255).to(torch.uint8)")


def _channels_first(tensor: Tensor, channels: int | None, *, last: bool) -> Tensor:
    """An image as [C, H, W].

    Args:
        tensor: Rank 2 (gray) or 3.
        channels: Number of channels that the model takes, if it is known.
        last: Whether the channels are expected last, as in arrays, if both places are possible.
    """
    if tensor.ndim == 2:
        tensor, last = tensor.unsqueeze(0), False
    if tensor.ndim != 3:
        raise ValueError(f"an image has shape {list(tensor.shape)}; a sample has one image, [C, H, W] or [H, W, C]")
    # A single gray channel is repeated for RGB, as in `predict`.
    fits = [n in (channels, 1 if channels == 3 else channels) if channels else n <= 4 for n in tensor.shape]
    if not channels and not (fits[0] or fits[2]):
        fits[2 if last else 0] = True  # any number of channels, in the usual place
    at_end = fits[2] if last or not fits[0] else False
    if not at_end and not fits[0]:
        wanted = f"[{channels}, H, W] or [H, W, {channels}]"
        raise ValueError(f"an image has shape {list(tensor.shape)}, and the model takes {channels} channels: {wanted}")
    if at_end:
        tensor = tensor.permute(2, 0, 1).contiguous()
    return tensor.repeat(3, 1, 1) if channels == 3 and tensor.shape[0] == 1 else tensor


def _target(value: Any, task: Task, name: str, size: torch.Size) -> Tensor:
    """A ground truth as class ids uint8 [H, W] or as values [C, H, W]."""
    tensor = _tensor(value, name)
    kind = kind_of(task)
    wrong = kind.wrong_type(tensor)
    if wrong:
        raise ValueError(f"the ground truth of {name!r} {wrong}")
    ids = kind.class_ids(task)
    tensor = _flat(tensor, name, ids, size) if ids else _planes(tensor, name, task, size)
    if tensor.shape[-2:] != size:
        raise ValueError(
            f"the ground truth of {name!r} is {_size(tensor)} and the image is {size[0]}x{size[1]} (height x width); "
            "give both the same size, and resize class ids by nearest neighbour only"
        )
    return _class_ids(tensor, name, ids) if ids else tensor


def _tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, Image.Image):
        if value.mode not in (*GRAY_MODES, "P") and not value.mode.startswith("I;16"):
            raise ValueError(
                f"the ground truth of {name!r} is a colour picture (mode {value.mode}); a label map has one class id "
                "per pixel: replace each colour by the id of its class"
            )
        picture = loaded(value)
        value = picture.upright(np.array(value)) if value.mode == "F" else to_ids(picture)
    if isinstance(value, np.ndarray):
        value = _from_array(value, f"the ground truth of {name!r}")
    if not isinstance(value, Tensor):
        raise ValueError(f"the ground truth of {name!r} is a tensor, an array or a PIL image, got {_described(value)}")
    return value


def _from_array(value: np.ndarray, what: str) -> Tensor:
    """An array of numbers as a tensor, in the byte order of this machine."""
    if value.dtype.kind not in "biuf":
        raise ValueError(f"{what} is an array of numbers, got {_described(value)}")
    native = value.astype(value.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(np.ascontiguousarray(native))


def _flat(tensor: Tensor, name: str, ids: int, size: torch.Size) -> Tensor:
    """Class ids as [H, W]."""
    if tensor.ndim == 3 and tensor.shape[0] == 1:
        return tensor[0]
    if tensor.ndim == 3 and tensor.shape[2] == 1:
        return tensor[..., 0]
    if tensor.ndim != 2:
        one_hot = tensor.ndim == 3 and tensor.shape[0] == ids and tensor.shape[1:] == size
        hint = "; one-hot planes become class ids by .argmax(0)" if one_hot else ""
        raise ValueError(f"the ground truth of {name!r} has shape {list(tensor.shape)}, and class ids are [H, W]{hint}")
    return tensor


def _planes(tensor: Tensor, name: str, task: Task, size: torch.Size) -> Tensor:
    """Values as float32 [C, H, W]."""
    if tensor.ndim == 2 and task.channels == 1:
        tensor = tensor.unsqueeze(0)
    if tensor.ndim != 3:
        raise ValueError(f"the ground truth of {name!r} has shape {list(tensor.shape)}, and is [{task.channels}, H, W]")
    if tensor.shape[-2:] != size and tensor.shape[:2] == size:
        tensor = tensor.permute(2, 0, 1).contiguous()
    if tensor.shape[0] != task.channels:
        raise ValueError(
            f"the ground truth of {name!r} has {tensor.shape[0]} channels, and the task has {task.channels}: "
            f"{list(tensor.shape)}"
        )
    return tensor.float() if tensor.is_floating_point() else tensor


def _class_ids(tensor: Tensor, name: str, count: int) -> Tensor:
    """The ids as uint8, if all of them are classes or ignored."""
    if count > IGNORE:
        raise ValueError(
            f"the task {name!r} has {count} classes, and label {IGNORE} stands for ignored pixels; training and "
            f"evaluation take up to {IGNORE} classes"
        )
    labels = tensor if tensor.dtype == torch.uint8 else tensor.long()
    outside = (labels >= count) & (labels != IGNORE)
    if labels.dtype != torch.uint8:
        outside |= labels < 0
    if bool(outside.any()):
        ids = torch.unique(labels[outside].as_subclass(Tensor)).tolist()
        shown = ", ".join(map(str, ids[:10])) + (", ..." if len(ids) > 10 else "")
        raise ValueError(
            f"the ground truth of {name!r} has ids {shown}; there are {count} classes with the ids 0 to {count - 1}, "
            f"and {IGNORE} stands for ignored pixels{_hint(ids, count)}"
        )
    return labels.to(torch.uint8)


def _hint(ids: Sequence[int], count: int) -> str:
    if ids[0] < 0:
        return f"; ignored pixels, often -1 or -100 elsewhere, are {IGNORE} here: mask[mask < 0] = {IGNORE}"
    if ids == [count]:
        return f"; subtract 1 if your ids start at 1, or make a model of {count + 1} classes"
    return ""


def _size(tensor: Tensor) -> str:
    return f"{tensor.shape[-2]}x{tensor.shape[-1]}"


def _described(value: Any) -> str:
    """What a value is, for error messages."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dictionary with the keys {', '.join(map(repr, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} values"
    return f"{type(value).__name__}"
