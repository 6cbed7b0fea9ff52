"""Networks that teach: the mean of their probabilities, as soft labels on disk (Hinton et al., 2015, 1503.02531)."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeseg.data.base import LabelledDataset, name_of
from edgeseg.data.class_maps import NOTHING, class_map
from edgeseg.data.samples import checked_sample
from edgeseg.engine import distributed
from edgeseg.labels import class_names
from edgeseg.machine.download import cache_folder, make_in_cache
from edgeseg.machine.errors import value_errors
from edgeseg.machine.files import replacing
from edgeseg.machine.terminal import progress_bar
from edgeseg.networks.network_bytes import network_bytes
from edgeseg.networks.optimize import optimize, with_hooks
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.recipes import TrainConfig
from edgeseg.spec import Input, Task
from edgeseg.tasks import kind_of
from edgeseg.tasks.kind import upsampled
from edgeseg.vision.preprocess import to_input
from edgeseg.vision.tensors import Probabilities

FORMAT = 1  # of the folders of soft labels
SUMMARY = "teacher.json"
STRIDE = 2  # of soft labels, relative to the photo
CHANNELS = 3  # of photos that networks learn from


class Teacher:
    """Averages the class probabilities of networks for a photo and its mirror image, in the classes of one task.

    A photo reaches each network with as many pixels as its weights were trained for, in the photo's own aspect ratio.

    Args:
        models: The networks. Each takes one photo, and has one segmentation task or one of the name of that to learn.
        tasks: The tasks of the network that learns.
        task: Name of the one to teach; by default the only segmentation task.
        class_map: From class names of the networks to those of the task, for networks of other classes; None takes a
            known map, see `edgeseg.data.class_maps`.
        mirror: Average with the mirror image.

    Attributes:
        task: Name of the task that is taught.
        name: Names of the networks.
        notes: Names and licences of the networks, for the record of what learns from them.
        digest: A hash of everything that the soft labels of a photo depend on.

    Raises:
        ValueError: networks or tasks of another kind, or classes that have no map.

    Example:
        >>> import edgeseg, torch
        >>> from edgeseg.engine import Teacher
        >>> large = edgeseg.create_model("espnetv2_s2p0.camvid")
        >>> small = edgeseg.create_model("fpnsum_mobilenetv2", tasks=large.tasks)
        >>> teacher = Teacher([large], small.tasks)
        >>> photo = torch.zeros(3, 60, 90, dtype=torch.uint8)
        >>> teacher.probabilities(photo).shape  # 11 classes, in 255ths, at half the size
        torch.Size([11, 30, 45])
    """

    def __init__(
        self,
        models: Sequence[Pixel2Pixel],
        tasks: Mapping[str, Task],
        *,
        task: str | None = None,
        class_map: Mapping[str, str] | None = None,
        mirror: bool = True,
    ) -> None:
        if isinstance(models, Pixel2Pixel) or not models:
            raise ValueError("a teacher takes a list of networks with at least one in it")
        self.mirror = mirror
        if wrong := [model.name for model in models if model.in_channels != (CHANNELS,)]:
            raise ValueError(f"{', '.join(wrong)} cannot teach: a teacher takes one photo")
        if task is not None and task not in tasks:
            raise ValueError(f"no task named {task!r}; the network that learns has {', '.join(tasks)}")
        self.task = _taught(tasks, task, "the network that learns")
        self.classes = class_names(tasks[self.task])
        self.sources = [_taught(model.tasks, self.task, model.name) for model in models]
        self.maps = [
            _matrix(model.tasks[source], tasks[self.task], class_map)
            for model, source in zip(models, self.sources, strict=True)
        ]
        self.name = ", ".join(str(model.config.notes.get("weights") or model.name) for model in models)
        licenses = dict.fromkeys(str(m.config.notes["license"]) for m in models if m.config.notes.get("license"))
        self.notes = {"teacher": self.name} | ({"teacher_license": "; ".join(licenses)} if licenses else {})
        self.digest = self._digest(models)
        self.networks = [_for_inference(model) for model in models]

    @torch.inference_mode()
    def probabilities(self, image: Tensor) -> Tensor:
        """Returns probabilities uint8 [C, h, w] in 255ths, at half the height and width (rounded up) of a photo.

        Args:
            image: uint8 [3, H, W].
        """
        size = [(side + STRIDE - 1) // STRIDE for side in image.shape[-2:]]
        total = torch.zeros(len(self.classes), *size)
        views = (False, True) if self.mirror else (False,)
        for model, source, matrix in zip(self.networks, self.sources, self.maps, strict=True):
            preprocess = replace(model.preprocess, keep_aspect=True)
            for mirror in views:
                batch = to_input(image, preprocess, mirror=mirror).to(next(model.parameters()))
                logits = model.decode(batch.contiguous(memory_format=torch.channels_last))[source]
                found = upsampled([logits], size)[0][0].softmax(dim=0).cpu()
                total += torch.einsum("chw,cd->dhw", found.flip(-1) if mirror else found, matrix)
        return (total / (len(self.networks) * len(views)) * 255).round().to(torch.uint8)

    def _digest(self, models: Sequence[Pixel2Pixel]) -> str:
        """A hash of everything that the soft labels of a photo depend on."""
        known = hashlib.sha256(json.dumps([FORMAT, STRIDE, self.mirror, self.classes, self.sources]).encode())
        for model, matrix in zip(models, self.maps, strict=True):
            known.update(json.dumps(asdict(model.preprocess)).encode() + matrix.numpy().tobytes())
            for part in network_bytes(model):
                known.update(part)
        return known.hexdigest()


class SoftLabels:
    """The soft labels of a teacher for photos, computed once and kept in a folder.

    They are found by the content of a photo, so that the same photo in two datasets has the same file.

    Args:
        teacher: The teacher.
        folder: The folder, created if it is missing; None takes one for this teacher in the cache of edgeseg.

    Attributes:
        task: Name of the task that is taught.
        classes: Names of its classes.
        digest: As in the teacher.
        notes: As in the teacher.

    Raises:
        ValueError: the folder has the soft labels of another teacher.

    Example:
        >>> import edgeseg
        >>> from edgeseg.data import Streets
        >>> from edgeseg.engine import SoftLabels, Teacher
        >>> large = edgeseg.create_model("espnetv2_s2p0.camvid")
        >>> streets = Streets(size=(64, 96), length=2, labels="camvid")
        >>> soft = SoftLabels(Teacher([large], large.tasks), "soft")
        >>> soft.prepare(streets, large.tasks, large.inputs).shape  # pixels per class
        torch.Size([11])
    """

    def __init__(self, teacher: Teacher, folder: str | os.PathLike[str] | None = None) -> None:
        self.teacher, self.task, self.classes = teacher, teacher.task, teacher.classes
        self.digest, self.notes = teacher.digest, teacher.notes
        self.folder = Path(folder) if folder is not None else cache_folder() / "soft_labels" / teacher.digest[:16]
        if folder is None:
            make_in_cache(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        summary = self.folder / SUMMARY
        if summary.is_file():
            with value_errors(summary, f"{summary} is damaged; delete the folder"):
                before = dict(json.loads(summary.read_text(encoding="utf-8")))
            if before.get("digest") != teacher.digest:
                raise ValueError(
                    f"{self.folder} has the soft labels of another teacher ({before.get('teacher')}), or of other "
                    f"options, and not those of {teacher.name}; choose another folder"
                )
        else:
            content = {"format": FORMAT, "teacher": teacher.name, "classes": teacher.classes, "digest": teacher.digest}
            with replacing(summary) as temporary:
                temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def prepare(self, dataset: LabelledDataset, tasks: Mapping[str, Task], inputs: Mapping[str, Input]) -> Tensor:
        """Computes what is missing for the photos of a dataset; under torchrun each process does its share.

        Returns:
            Probabilities summed over all pixels of all photos, float64 [C], as a count of pixels per class.

        Raises:
            ValueError: photos that are not RGB, or soft labels that are damaged; names the file.
        """
        _check_channels(inputs)
        counts = torch.zeros(len(self.classes), dtype=torch.float64)
        mine = range(distributed.rank(), len(dataset), distributed.world_size())
        for index in progress_bar(mine, "soft labels", "image", shown=not distributed.rank()):
            images, _ = checked_sample(dataset, index, tasks, inputs)
            path = self._path(images[-1])
            if not path.is_file():
                values = self.teacher.probabilities(images[-1].as_subclass(Tensor))
                with replacing(path) as temporary, temporary.open("wb") as file:
                    np.savez_compressed(file, probabilities=values.numpy())
            try:
                counts += _read(path).double().sum(dim=(1, 2)) / 255
            except ValueError as error:
                raise ValueError(f"{name_of(dataset, index)}: {error}") from error
        return distributed.total(counts) * STRIDE**2

    def __getitem__(self, image: Tensor) -> Probabilities:
        """Returns the soft labels uint8 [C, h, w] of a photo uint8 [3, H, W], at half its size.

        Raises:
            ValueError: there are none, or they are damaged; names the file.
        """
        return Probabilities(_read(self._path(image)))

    def _path(self, image: Tensor) -> Path:
        pixels = image.as_subclass(Tensor).contiguous()
        known = hashlib.sha256(repr(tuple(pixels.shape)).encode())
        known.update(pixels.numpy().data)
        return self.folder / f"{known.hexdigest()}.npz"


def check_soft_labels(soft_labels: SoftLabels | None, model: Pixel2Pixel, config: TrainConfig) -> None:
    """Checks that a teacher, if there is one, fits the model and the recipe.

    Raises:
        ValueError: the teacher teaches another task or other classes, or the recipe has a loss for true labels only.
    """
    if soft_labels is None:
        if config.distillation and config.quantize == "none":
            raise ValueError(
                f"TrainConfig.distillation is {config.distillation}, and there is nobody to learn from: pass a teacher "
                "(--teacher), or quantize"
            )
        return
    _check_channels(model.inputs)
    task = model.tasks.get(soft_labels.task)
    if task is None or class_names(task) != soft_labels.classes:
        raise ValueError(
            f"the soft labels are those of {soft_labels.task!r} with the classes {', '.join(soft_labels.classes)}, "
            "and the model does not have that task with these classes"
        )
    for name in ("label_smoothing", "ohem", "count_ignored"):
        if getattr(config, name):
            raise ValueError(f"TrainConfig.{name} is for true labels; leave it out with a teacher")


def _check_channels(inputs: Mapping[str, Input]) -> None:
    """Raises a ValueError if the photos of a network are not those that a teacher takes."""
    channels = [*inputs.values()][-1].channels
    if channels != CHANNELS:
        raise ValueError(f"a teacher takes photos of {CHANNELS} channels, and the model takes {channels}")


def _read(path: Path) -> Tensor:
    """The soft labels in a file, uint8 [C, h, w]; a ValueError that names the file if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return torch.from_numpy(file["probabilities"])
    except FileNotFoundError as error:
        raise ValueError(
            f"there are no soft labels {path} for this photo; the dataset has to return the same photo for an index "
            "each time, without random changes, which the recipe makes"
        ) from error
    except Exception as error:  # numpy raises errors of many types for damaged files
        raise ValueError(f"the soft labels {path} cannot be read; delete the file: {error}") from error


def _taught(tasks: Mapping[str, Task], task: str | None, whose: str) -> str:
    """The name of the segmentation task that is meant: the only one, or the one called `task`."""
    known = [name for name, each in tasks.items() if kind_of(each).takes_soft_labels]
    if task in known:
        return task
    if len(known) != 1:
        has = ", ".join(f"{name} ({each.kind})" for name, each in tasks.items())
        raise ValueError(
            f"a teacher teaches one segmentation task, and {whose} has {has}; pass task=NAME of one (--teacher-task)"
        )
    return known[0]


def _for_inference(model: Pixel2Pixel) -> Pixel2Pixel:
    """A copy that is faster where that is possible."""
    model = copy.deepcopy(model).eval()
    return model if model.config.quantization is not None or with_hooks(model) else optimize(model)


def _matrix(source: Task, target: Task, own: Mapping[str, str] | None) -> Tensor:
    """The class map as float32 [classes of the teacher, classes to learn] of zeros and ones."""
    wanted = [name.casefold() for name in class_names(target)]
    matrix: Any = torch.zeros(source.channels, len(wanted))
    for row, chosen in enumerate(class_map(source, target, own).values()):
        if chosen != NOTHING:
            matrix[row, wanted.index(chosen)] = 1
    return matrix
