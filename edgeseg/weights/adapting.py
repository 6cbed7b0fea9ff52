"""Adapts weights to a network of other tasks, classes or inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from edgeseg.config import ModelConfig
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.pixelwise import last_convolutions
from edgeseg.weights.differences import HEAD, other_classes, other_inputs, other_meanings
from edgeseg.weights.fill import COUNTER


@dataclass(frozen=True)
class Adapted:
    """Weights that were fitted to a model.

    Args:
        state: The tensors by their names in the model.
        new: Names of the tensors of the model that are not loaded: they keep their values.
        dropped: Names of the tensors of the file that the model has no use for.
    """

    state: Mapping[str, Tensor]
    new: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)


def adapted(state: Mapping[str, Tensor], model: nn.Module, record: ModelConfig | None) -> Adapted:
    """Fits weights to a model of other tasks, classes or inputs.

    Args:
        state: The tensors of a file by their names in the model that it was made from.
        model: The model; it is not changed.
        record: What the file says of its network; None if it says nothing.
    """
    own = model.state_dict()
    names = _own_names(state, model, record)
    result = fit_stems(copy_to_all(own, {name: state[key] for key, name in names.items()}), own)
    inputs = ("encoder.fusion.", "encoder.streams.")
    new = {key for key in own if key.startswith(inputs) and key not in result and not key.endswith(COUNTER)}
    known = {key.split(".")[1] for key in result if key.startswith("decoders.")}
    new |= {key for key in own if key.startswith("decoders.") and key.split(".")[1] not in known}
    decoders = tuple(re.sub(HEAD + "$", "", name) for name in other_classes(own, result))
    new |= {key for key in own if key.startswith(decoders) and key in result and own[key].shape != result[key].shape}
    layers = tuple(layer for name in other_meanings(model, record) for layer in _predictions(model, name))
    new |= {key for key in own if key.startswith(layers) and key in result}
    return Adapted(result, new, dropped=set(state) - set(names))


def _own_names(state: Mapping[str, Tensor], model: nn.Module, record: ModelConfig | None) -> dict[str, str]:
    """The names in the model of the tensors of a file, without several decoders and inputs that the model lacks."""
    if record is None or not isinstance(model, Pixel2Pixel):
        return {key: key for key in state}
    others = set(record.tasks) - set(model.tasks) if len(record.tasks) > 1 else set()
    inputs, theirs = list(model.inputs), other_inputs(model, record)
    names = {}
    for key in state:
        parts = key.split(".")
        if parts[0] == "decoders" and parts[1] in others:
            continue
        if theirs and parts[:2] == ["encoder", "fusion"]:
            continue
        if theirs and parts[:2] == ["encoder", "streams"]:
            if theirs[int(parts[2])] not in inputs:
                continue
            parts[2] = str(inputs.index(theirs[int(parts[2])]))
        names[key] = ".".join(parts)
    return names


def copy_to_all(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies the blocks of a single input to every input, and a single decoder to every task."""
    decoders = {key.split(".")[1] for key in state if key.startswith("decoders.")}
    tasks = {key.split(".")[1] for key in own if key.startswith("decoders.")}
    copied = decoders - tasks if len(decoders) == 1 else set()  # the model has no task of that name
    result = {key: value for key, value in state.items() if not key.startswith(tuple(f"decoders.{d}." for d in copied))}
    for key in own:
        if "." not in key:  # a parameter of the model itself
            continue
        kind, name, *rest = key.split(".")
        if kind == "encoder" and name == "streams" and key not in state:
            source = ".".join([kind, name, "0", *rest[1:]])
        elif kind == "decoders" and name not in decoders and len(decoders) == 1:
            source = ".".join([kind, *decoders, *rest])
        else:
            continue
        if source in state:
            result[key] = state[source]
    return result


def fit_stems(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sums or repeats the first convolution of each input to its number of channels, as timm does."""
    result = dict(state)
    for key, value in state.items():
        mine = own.get(key)
        stem = "streams." in key and value.ndim == 4 and mine is not None and mine.shape[1] != value.shape[1]
        if stem and mine is not None and mine.shape[0] == value.shape[0] and mine.shape[2:] == value.shape[2:]:
            from timm.models import adapt_input_conv

            result[key] = adapt_input_conv(mine.shape[1], value)
    return result


def _predictions(model: nn.Module, task: str) -> list[str]:
    """What the names of the tensors of a task's prediction layers begin with."""
    if not isinstance(model, Pixel2Pixel):
        return []
    start = f"decoders.{task}."
    found = [key for key in model.state_dict() if re.fullmatch(re.escape(start) + HEAD, key)]
    return [key.removesuffix("weight") for key in found] or [f"{path}." for path in last_convolutions(model, task)]
