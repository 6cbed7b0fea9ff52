"""Loads weights files into models: either every tensor fits, or the error says which ones do not."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.config import ORIGIN, ModelConfig, inherited
from edgeseg.machine.errors import value_errors
from edgeseg.machine.terminal import warn
from edgeseg.networks.build import build
from edgeseg.networks.encoders import Encoder
from edgeseg.networks.modes import forget
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.pixelwise import last_convolutions
from edgeseg.spec import Preprocess, Task
from edgeseg.storage.checkpoint import is_onnx, read_checkpoint_config, read_weights
from edgeseg.tasks import same_names
from edgeseg.weights.layouts import espnet, original, original_onnx
from edgeseg.weights.layouts import imagenet as encoder_files
from edgeseg.weights.normalization import IMAGENET, first_layers, fold_normalization

USUAL_STRIDE = 32  # which older files say where newer ones say None
HEAD = r"head\.\d+(\.conv)?\.weight"  # how the name of a prediction layer ends; ".conv" in 8-bit networks
COUNTER = "num_batches_tracked"  # of the steps of a batch norm, which old files and ONNX lack and nothing reads


@dataclass(frozen=True)
class LoadReport:
    """The names of the tensors that were loaded, and of those that were not.

    Args:
        matched: Tensors of the model that were loaded from the file.
        reinitialized: Tensors of the model that the file does not provide; they keep their values.
        ignored: Tensors of the file that the model does not use, such as those of a classifier.
    """

    matched: list[str] = field(default_factory=list)
    reinitialized: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str], *, adapt: bool = False) -> LoadReport:
    """Loads the weights of a whole model from a file.

    Args:
        model: A `Pixel2Pixel`, changed in place; or any module, for a plain state dict.
        path: A .safetensors file of edgeseg, or a checkpoint (.pth, .pt, .pyth) or an ONNX network (.onnx) of TI's zoo.
            The model takes over the normalization of the pixels (mean, std, order of the channels) that a file of
            edgeseg says.
        adapt: Accept a file for other tasks, classes or inputs: load what fits, and warn of the tensors that start anew
            instead of raising. A single decoder is copied to all tasks, and the first blocks of a single input to all
            inputs; of several, decoders belong to the tasks and first blocks to the inputs of the same names, and those
            of others are ignored. The first convolution is adapted to other numbers of channels. Prediction layers for
            other classes (in a UNet, all layers whose width depends on the classes), decoders of tasks that the file
            does not have, and the fusion of other inputs keep their values. Other classes are those of another number,
            kind or name.

    Returns:
        The names of the tensors that were loaded, that keep their values, and that were ignored.

    Raises:
        FileNotFoundError: the file does not exist.
        TypeError: `path` is no path.
        ValueError: the file is corrupt or does not fit; the model is then unchanged.

    Example:
        >>> import edgeseg
        >>> five = edgeseg.create_model("fpn", encoder="resnet18", channels=32, num_classes=5)
        >>> edgeseg.save_checkpoint(five, "five.safetensors")
        >>> seven = edgeseg.create_model("fpn", encoder="resnet18", channels=32, num_classes=7)
        >>> report = edgeseg.load_checkpoint(seven, "five.safetensors", adapt=True)  # warns
        >>> len(report.reinitialized)  # the weights of the prediction
        1
    """
    return load_network(model, path, adapt=adapt)


def load_network(
    model: nn.Module, path: str | os.PathLike[str], *, adapt: bool, asked: Collection[str] = ()
) -> LoadReport:
    """Loads as `load_checkpoint` does; the fields `asked` of the network may be others than those of the file."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a file, got {type(path).__name__}; model.load_state_dict() takes tensors")
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    own = model.state_dict()
    with _fitting(path):
        record = read_checkpoint_config(path)
        state, notes = _read(model, path, adapt=adapt), _notes(path, record)
        predictions = _other_classes(own, state)
    if predictions and not adapt:
        name, (ours, theirs) = next(iter(predictions.items()))
        raise ValueError(
            f"{path} was trained for {theirs[0]} classes and this model has {ours[0]}: {name} is {theirs} in the file "
            f"and {ours} in the model; pass num_classes={theirs[0]} for the file's classes, or num_classes or tasks of "
            f"your own to start that layer anew (load_checkpoint does that with adapt=True)"
        )
    renamed = _other_meanings(model, record)
    if renamed and not adapt:
        name, (mine, other) = next(iter(renamed.items()))
        raise ValueError(
            f"{path} was trained for another task than {name!r}: for {other}, and this model is for {mine}; pass "
            "adapt=True to start that layer anew, or rename the classes of a model of the file's own classes by "
            "model.configure(tasks=...)"
        )
    if isinstance(model, Pixel2Pixel) and not adapt and (named := _other_inputs(model, record)):
        raise ValueError(
            f"{path} was trained for the inputs {', '.join(named)}, in this order, and this model has "
            f"{', '.join(model.inputs)}; name and order the inputs of the model (in_channels) as in the file"
        )
    anew: set[str] = set()
    dropped: set[str] = set()
    if adapt:
        with _fitting(path):
            names = _own_names(state, model, record)
            dropped = set(state) - set(names)
            state = _fit_stems(_copy_to_all(own, {name: state[key] for key, name in names.items()}), own)
        inputs = ("encoder.fusion.", "encoder.streams.")
        anew = {key for key in own if key.startswith(inputs) and key not in state and not key.endswith(COUNTER)}
        known = {key.split(".")[1] for key in state if key.startswith("decoders.")}
        anew |= {key for key in own if key.startswith("decoders.") and key.split(".")[1] not in known}
        decoders = tuple(re.sub(HEAD + "$", "", name) for name in _other_classes(own, state))
        anew |= {key for key in own if key.startswith(decoders) and key in state and own[key].shape != state[key].shape}
        layers = tuple(layer for name in renamed for layer in _predictions(model, name))
        anew |= {key for key in own if key.startswith(layers) and key in state}
    kept = {key: value for key, value in state.items() if key not in anew}
    others = _other_network(model, record, asked)
    _fill(model, kept, path, may_miss=anew, others="" if adapt else others)
    if isinstance(model, Pixel2Pixel):
        own_notes = {key: value for key, value in model.config.notes.items() if key not in ORIGIN}
        model.configure(
            notes={**own_notes, **(inherited(notes) if anew or others else notes)},
            preprocess=_same_normalization(model, record),
        )
    if others:
        warn(f"{path} has weights of another network: {others}")
    if anew:
        count = "1 tensor starts" if len(anew) == 1 else f"{len(anew)} tensors start"
        warn(f"{path} is for other tasks, classes or inputs: {count} anew ({_some(sorted(anew))})")
    return LoadReport(sorted(kept), sorted(anew), ignored=sorted(set(state) & anew | dropped))


def _notes(path: str | os.PathLike[str], record: ModelConfig | None) -> dict[str, Any]:
    """What a file of weights says of itself; the name of a file that says nothing."""
    return {"source": Path(path).name} if record is None else dict(record.notes)


def _other_inputs(model: Pixel2Pixel, record: ModelConfig | None) -> list[str]:
    """The names of the several inputs of a file, unless those of the model are the same in the same order."""
    theirs = list(record.inputs) if record is not None else []
    return theirs if len(theirs) > 1 and theirs != list(model.inputs) else []


def _own_names(state: Mapping[str, Tensor], model: nn.Module, record: ModelConfig | None) -> dict[str, str]:
    """The names in the model of the tensors of a file, without several decoders and inputs that the model lacks."""
    if record is None or not isinstance(model, Pixel2Pixel):
        return {key: key for key in state}
    others = set(record.tasks) - set(model.tasks) if len(record.tasks) > 1 else set()
    inputs, theirs = list(model.inputs), _other_inputs(model, record)
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


def _copy_to_all(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
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


def _fit_stems(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sums or repeats the first convolution of each input to its number of channels, as timm does."""
    result = dict(state)
    for key, value in state.items():
        mine = own.get(key)
        stem = "streams." in key and value.ndim == 4 and mine is not None and mine.shape[1] != value.shape[1]
        if stem and mine is not None and mine.shape[0] == value.shape[0] and mine.shape[2:] == value.shape[2:]:
            from timm.models import adapt_input_conv

            result[key] = adapt_input_conv(mine.shape[1], value)
    return result


def count_classes(path: str | os.PathLike[str]) -> int:
    """Counts the classes that the first decoder of a weights file predicts.

    Args:
        path: A file of edgeseg, or a checkpoint or an ONNX network of TI's zoo.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is corrupt or has no prediction layer.
    """
    if is_onnx(path):
        return original_onnx.count_classes(path)
    for key, value in read_weights(path).items():
        if re.fullmatch(rf"decoders\.(0\.pred\.1\.0\.weight|[^.]+\.{HEAD})", key) and value.ndim == 4:
            return len(value)
    raise ValueError(f"{path} has no prediction layer of a decoder")


def has_decoder(path: str | os.PathLike[str]) -> bool:
    """Whether a weights file has a whole network, such as those of edgeseg and of TI's zoo, and not an encoder alone.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is corrupt.
    """
    if is_onnx(path) or read_checkpoint_config(path) is not None:
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loading the file repeats what there is to say of its names
        state = read_weights(path)
    return espnet.is_espnet(state) or any(key.startswith("decoders.") for key in state)


def _read(model: nn.Module, path: str | os.PathLike[str], *, adapt: bool) -> Mapping[str, Tensor]:
    """Reads the tensors of a file of any format, and names them as in the model."""
    if is_onnx(path):
        if not isinstance(model, Pixel2Pixel):
            raise ValueError(
                f"{path}: an ONNX file is read into a Pixel2Pixel network, not into a {type(model).__name__}"
            )
        try:
            return original_onnx.read_onnx(path, model)
        except ValueError:
            if not adapt or model.config.spec is None:
                raise
        # Read it as a network of a single input and task, as the published ones are, and adapt that.
        name, task = next(iter(model.tasks.items()))
        single = build(ModelConfig(name=model.name, spec=model.config.spec, tasks={name: task}))
        return original_onnx.read_onnx(path, single)
    state = read_weights(path, model.state_dict())
    if espnet.is_espnet(state) and isinstance(model, Pixel2Pixel):
        classes = next(iter(model.tasks.values())).channels
        return espnet.convert(state, tasks=list(model.tasks), classes=classes)
    if original.is_original(state) and isinstance(model, Pixel2Pixel) and isinstance(model.encoder, Encoder):
        encoder = model.encoder
        return original.convert(state, stem=encoder.stem, trunk=list(encoder.trunk), tasks=list(model.tasks))
    return state


def load_encoder(
    model: Pixel2Pixel, path: str | os.PathLike[str], *, normalization: Preprocess | None = None
) -> LoadReport:
    """Loads weights into the encoder of a model, for each of its inputs.

    Weights that were trained with another normalization of the pixels than the model's are changed so that they see
    what they saw in training (see `edgeseg.weights.normalization`). If the first layers do not allow that, the model
    takes over the normalization of the weights instead.

    Args:
        model: Its decoders stay as they are.
        path: ImageNet weights in the layout of torchvision, timm or pycls, or a network of edgeseg with this encoder.
        normalization: How the weights were trained: `mean`, `std` and `channel_order` are used. By default what the
            file of a network of edgeseg says, and for other files that of torchvision's ImageNet weights.

    Returns:
        The names of the encoder's tensors that were loaded and that keep their values, and of the ignored ones.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is corrupt, or tensors are missing, unexpected or of another shape; the model is then
            unchanged.
    """
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    if not isinstance(model, Pixel2Pixel):
        raise ValueError(f"encoder_weights need a Pixel2Pixel network, not {type(model).__name__}")
    if is_onnx(path):
        raise ValueError(
            f"{path} is an ONNX file, which has a whole network and not an encoder alone; pass it as checkpoint_path"
        )
    encoder = model.encoder
    with _fitting(path):
        record = read_checkpoint_config(path)
        found = inherited(_notes(path, record))
        state, ignored = _encoder_state(encoder, read_weights(path))
        state, preprocess = _same_pixels(model, state, normalization or (record.preprocess if record else IMAGENET))
        may_miss = {key for key in encoder.state_dict() if key.startswith("fusion.") and key not in state}
        fitted = _fit_stems(state, encoder.state_dict())
        note = {"weights": found.get("started_from", Path(path).name), "license": found.get("license")}
        notes = {**model.config.notes, "encoder": {key: value for key, value in note.items() if value}}
        config = replace(model.config, notes=notes, preprocess=preprocess)
    _fill(encoder, fitted, path, may_miss=may_miss)
    model.configure(notes=config.notes, preprocess=config.preprocess)
    return LoadReport(sorted(state), sorted(may_miss), ignored)


def _same_pixels(
    model: Pixel2Pixel, state: dict[str, Tensor], source: Preprocess
) -> tuple[dict[str, Tensor], Preprocess]:
    """`state` for the normalization of the model, or as it is with that of the weights for the model to take over."""
    target = model.preprocess
    wanted = replace(target, mean=source.mean, std=source.std, channel_order=source.channel_order)
    if wanted == target:
        return state, target
    layers = first_layers(model)
    if layers is None or any(name not in state for layer in layers for name in layer):
        return state, wanted.for_channels(model.in_channels[-1])
    return fold_normalization(state, layers, source, target), target


def _fitting(path: str | os.PathLike[str]) -> AbstractContextManager[None]:
    """Tensors of unexpected names and shapes raise a ValueError that names the file."""
    return value_errors(path, f"{path} does not fit this model")


def _encoder_state(encoder: nn.Module, file: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Names the tensors of a file as in the encoder, and lists those that the encoder does not use."""
    own = encoder.state_dict()
    if all(key in file for key in own if not key.endswith(COUNTER)):  # of encoder.state_dict()
        return {key: file[key] for key in own if key in file}, sorted(set(file) - set(own))
    if any(key.startswith("encoder.") for key in file):  # a whole network of edgeseg
        theirs = {key: value for key, value in file.items() if key.startswith("encoder.")}
        copied = _copy_to_all({f"encoder.{key}": value for key, value in own.items()}, theirs)
        state = {key.removeprefix("encoder."): value for key, value in copied.items()}
        return state, [key for key in file if key not in theirs]
    if not isinstance(encoder, Encoder):  # a network that is not split into blocks
        names = {key: next((name for name in _names_in_timm(key) if name in file), "") for key in own}
        return {key: file[name] for key, name in names.items() if name}, sorted(set(file) - set(names.values()))
    if encoder.stem[0].startswith("stage"):  # a timm network that is split into blocks
        stages = [*encoder.streams[0].named_children(), *encoder.trunk.named_children()]
        steps = {step: name for name, stage in stages for step, _ in stage.named_children()}
        blocks, ignored = encoder_files.timm_to_blocks(file, steps)
    else:
        blocks, ignored = encoder_files.to_blocks(file, [*encoder.stem, *encoder.trunk])
    state = {}
    for key, value in blocks.items():
        if key.split(".")[0] in encoder.stem:
            state.update({f"streams.{i}.{key}": value for i in range(len(encoder.streams))})
        else:
            state[f"trunk.{key}"] = value
    return state, ignored


def _names_in_timm(key: str) -> tuple[str, ...]:
    """The names that a tensor of a timm network may have in its weights: timm renames parts to get their features."""
    plain = key.removeprefix("network.")
    return plain, plain.removeprefix("model."), re.sub(r"^([^.]*?)_(\d+)\.", r"\1.\2.", plain)


def _fill(
    module: nn.Module,
    state: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    may_miss: set[str] | None = None,
    others: str = "",
) -> None:
    """Copies `state` into `module` after checking that both sides agree on names and shapes, and nothing else differs.

    Args:
        module: Changed in place.
        state: Tensors by their names in the module.
        path: The file, for error messages.
        may_miss: Names that the file need not have.
        others: What else differs between both networks, of which the tensors show nothing.
    """
    own = module.state_dict()
    if any(value.is_meta for value in own.values()):
        raise ValueError(f"cannot load {path}: the model is on the meta device, whose tensors have no values")
    optional = {key for key in own if key.endswith(COUNTER)} | (may_miss or set())
    missing = [key for key in own if key not in state and key not in optional]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key}: {list(value.shape)} in the file, {list(own[key].shape)} in the model"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {what} ({_some(keys)})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    if problems:
        source = f"{path}, which has weights of {others}," if others else path
        raise ValueError(f"{source} does not fit this model: {'; '.join(problems)}")
    types = [key for key, value in state.items() if value.is_floating_point() != own[key].is_floating_point()]
    if types:
        raise ValueError(f"{path} does not fit this model: {len(types)} of another type of numbers ({_some(types)})")
    if others:
        raise ValueError(f"{path} does not fit this model, although all tensors do: {others}")
    with torch.no_grad():
        with _fitting(path):  # some types cannot be converted: find out before the first tensor is changed
            ready = {key: value.to(own[key].dtype) for key, value in state.items()}
        for key, value in ready.items():
            own[key].copy_(value)
    forget(module)


def _other_classes(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, tuple[list[int], list[int]]]:
    """Shapes, in the model and in the file, of the prediction layers for another number of classes."""
    names = [key for key in own if re.fullmatch(rf"decoders\.[^.]+\.{HEAD}", key) and key in state]
    shapes = {key: (list(own[key].shape), list(state[key].shape)) for key in names}
    return {key: (ours, theirs) for key, (ours, theirs) in shapes.items() if ours[0] != theirs[0]}


def _other_meanings(model: nn.Module, record: ModelConfig | None) -> dict[str, tuple[str, str]]:
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


def _predictions(model: nn.Module, task: str) -> list[str]:
    """What the names of the tensors of a task's prediction layers begin with."""
    if not isinstance(model, Pixel2Pixel):
        return []
    start = f"decoders.{task}."
    found = [key for key in model.state_dict() if re.fullmatch(re.escape(start) + HEAD, key)]
    return [key.removesuffix("weight") for key in found] or [f"{path}." for path in last_convolutions(model, task)]


def _other_network(model: nn.Module, record: ModelConfig | None, asked: Collection[str]) -> str:
    """What differs between a model and the network of a file beside their tensors; "" if nothing does."""
    ours = model.config.spec if isinstance(model, Pixel2Pixel) else None
    theirs = record.spec if record is not None else None
    if record is None or ours is None or theirs is None:
        return ""
    if theirs.output_stride in (None, USUAL_STRIDE) and ours.output_stride in (None, USUAL_STRIDE):
        theirs = replace(theirs, output_stride=ours.output_stride)
    names = [each.name for each in fields(ours) if each.name not in asked]
    differing = [name for name in names if getattr(ours, name) != getattr(theirs, name)]
    values = (f"{name} is {getattr(theirs, name)!r} in the file and {getattr(ours, name)!r} here" for name in differing)
    return f"{record.name}, whose {', '.join(values)}" if differing else ""


def _same_normalization(model: Pixel2Pixel, record: ModelConfig | None) -> Preprocess:
    """The preprocessing of a model with the normalization that the weights of a file were trained with."""
    if record is None or record.in_channels[-1] != model.in_channels[-1]:
        return model.preprocess
    theirs = record.preprocess
    return replace(model.preprocess, mean=theirs.mean, std=theirs.std, channel_order=theirs.channel_order)


def _some(names: Sequence[str], count: int = 4) -> str:
    rest = len(names) - count
    return ", ".join(names[:count]) + (f" and {rest} more" if rest > 0 else "")
