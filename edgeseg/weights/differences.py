"""What differs between a network and the one that a weights file was made for."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any

from torch import Tensor, nn

from edgeseg.config import ModelConfig
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.spec import Task
from edgeseg.tasks import same_names

USUAL_STRIDE = 32  # which older files say where newer ones say None
HEAD = r"head\.\d+(\.conv)?\.weight"  # how the name of a prediction layer ends; ".conv" in 8-bit networks


def check_same(
    path: str | os.PathLike[str], model: nn.Module, state: Mapping[str, Tensor], record: ModelConfig | None
) -> None:
    """Checks that the weights of a file predict the classes of a model from its inputs.

    Args:
        path: The file, for error messages.
        model: The model.
        state: The tensors of the file by their names in the model.
        record: What the file says of its network; None if it says nothing.

    Raises:
        ValueError: other classes, tasks or inputs.
    """
    for name, (ours, theirs) in other_classes(model.state_dict(), state).items():
        raise ValueError(
            f"{path} was trained for {theirs[0]} classes and this model has {ours[0]}: {name} is {theirs} in the file "
            f"and {ours} in the model; pass num_classes={theirs[0]} for the file's classes, or num_classes or tasks of "
            f"your own for a new prediction layer (adapt=True in load_checkpoint)"
        )
    for name, (mine, other) in other_meanings(model, record).items():
        raise ValueError(
            f"{path} was trained for another task than {name!r}: for {other}, and this model is for {mine}; pass "
            "adapt=True to keep the layer of the model, or rename the classes of a model of the file's own classes by "
            "model.configure(tasks=...)"
        )
    if isinstance(model, Pixel2Pixel) and (named := other_inputs(model, record)):
        raise ValueError(
            f"{path} was trained for the inputs {', '.join(named)}, in this order, and this model has "
            f"{', '.join(model.inputs)}; name and order the inputs of the model (in_channels) as in the file"
        )


def other_classes(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, tuple[list[int], list[int]]]:
    """Shapes, in the model and in the file, of the prediction layers for another number of classes."""
    names = [key for key in own if re.fullmatch(rf"decoders\.[^.]+\.{HEAD}", key) and key in state]
    shapes = {key: (list(own[key].shape), list(state[key].shape)) for key in names}
    return {key: (ours, theirs) for key, (ours, theirs) in shapes.items() if ours[0] != theirs[0]}


def other_meanings(model: nn.Module, record: ModelConfig | None) -> dict[str, tuple[str, str]]:
    """The tasks of a model for which a file was trained with other classes of the same number, or as another kind."""
    if record is None or not isinstance(model, Pixel2Pixel):
        return {}
    single = next(iter(record.tasks.values())) if len(record.tasks) == 1 else None
    pairs = {name: (task, record.tasks.get(name, single)) for name, task in model.tasks.items()}
    return {
        name: (_meaning(ours), _meaning(theirs))
        for name, (ours, theirs) in pairs.items()
        if theirs is not None
        and ours.channels == theirs.channels
        and (ours.kind != theirs.kind or not same_names(ours, theirs))
    }


def _meaning(task: Task) -> str:
    """What a task predicts, in words."""
    return f"{task.kind} of {', '.join(task.classes)}" if task.classes else task.kind


def other_inputs(model: Pixel2Pixel, record: ModelConfig | None) -> list[str]:
    """The names of the several inputs of a file, unless those of the model are the same in the same order."""
    theirs = list(record.inputs) if record is not None else []
    return theirs if len(theirs) > 1 and theirs != list(model.inputs) else []


def other_network(model: nn.Module, record: ModelConfig | None, asked: Collection[str]) -> str:
    """What differs between a model and the network of a file beside their tensors; "" if nothing does."""
    if record is None or not isinstance(model, Pixel2Pixel):
        return ""
    ours, theirs = model.config.spec, record.spec
    if ours is None and theirs is None and record.name == model.config.name:
        written, own = (
            json.loads(json.dumps(dict(each), default=str)) for each in (record.options, model.config.options)
        )
        return _differing(record.name, written, own, [name for name in {**written, **own} if name not in asked])
    if ours is None or theirs is None:
        return ""
    if theirs.output_stride in (None, USUAL_STRIDE) and ours.output_stride in (None, USUAL_STRIDE):
        theirs = replace(theirs, output_stride=ours.output_stride)
    return _differing(record.name, vars(theirs), vars(ours), [e.name for e in fields(ours) if e.name not in asked])


def _differing(network: str, theirs: Mapping[str, Any], ours: Mapping[str, Any], names: Collection[str]) -> str:
    """What differs in the values of these names; None stands for what is not given."""
    differing = [name for name in names if theirs.get(name) != ours.get(name)]
    values = (f"{name} is {theirs.get(name)!r} in the file and {ours.get(name)!r} here" for name in differing)
    return f"{network}, whose {', '.join(values)}" if differing else ""
