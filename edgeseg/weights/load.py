"""Loads weights files into models: either every tensor fits, or the error says which ones do not."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace

from torch import Tensor, nn

from edgeseg.config import ORIGIN, ModelConfig, inherited
from edgeseg.machine.terminal import warn
from edgeseg.networks.build import build
from edgeseg.networks.encoders import Encoder
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.spec import Preprocess
from edgeseg.storage.checkpoint import file_notes, is_onnx, read_checkpoint_config, read_weights
from edgeseg.weights.adapting import Adapted, adapted
from edgeseg.weights.differences import HEAD, check_same, other_network
from edgeseg.weights.fill import LoadReport, fill, fitting, some
from edgeseg.weights.layouts import espnet, original, original_onnx


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str], *, adapt: bool = False) -> LoadReport:
    """Loads the weights of a whole model from a file.

    Args:
        model: A `Pixel2Pixel`, changed in place; or any module, for a plain state dict.
        path: A .safetensors file of edgeseg, or a checkpoint (.pth, .pt, .pyth) or an ONNX network (.onnx) of TI's zoo.
            The model takes over the normalization of the pixels (mean, std, order of the channels) that a file of
            edgeseg says.
        adapt: Accept a file for other tasks, classes or inputs: load what fits, and warn of the tensors that are not
            loaded instead of raising. A single decoder is copied to all tasks, and the first blocks of a single input
            to all inputs; of several, decoders belong to the tasks and first blocks to the inputs of the same names,
            and those of others are ignored. The first convolution is adapted to other numbers of channels. Prediction
            layers for other classes (in a UNet, all layers whose width depends on the classes), decoders of tasks that
            the file does not have, and the fusion of other inputs keep their values. Other classes are those of another
            number, kind or name.

    Returns:
        The names of the tensors that were loaded, that keep their values, and that were ignored.

    Raises:
        FileNotFoundError: the file does not exist.
        TypeError: `path` is not a path, or `model` not a network.
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
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a network, got {type(model).__name__}; create_model(NAME) makes one")
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    with fitting(path):
        record = read_checkpoint_config(path)
        read, notes = _read(model, path, adapt=adapt), file_notes(path, record)
        if not adapt:
            check_same(path, model, read, record)
        found = adapted(read, model, record) if adapt else Adapted(dict(read))
    new = found.new
    kept = {key: value for key, value in found.state.items() if key not in new}
    others = other_network(model, record, asked)
    fill(model, kept, path, may_miss=new, others="" if adapt else others)
    if isinstance(model, Pixel2Pixel):
        own_notes = {key: value for key, value in model.config.notes.items() if key not in ORIGIN}
        model.configure(
            notes={**own_notes, **(inherited(notes) if new or others else notes)},
            preprocess=_same_normalization(model, record),
        )
    if others:
        warn(f"{path} has weights of another network: {others}")
    if new:
        count = "1 tensor is" if len(new) == 1 else f"{len(new)} tensors are"
        warn(f"{path} is for other tasks, classes or inputs: {count} not loaded ({some(sorted(new))})")
    return LoadReport(sorted(kept), sorted(new), ignored=sorted(set(found.state) & new | found.dropped))


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


def _same_normalization(model: Pixel2Pixel, record: ModelConfig | None) -> Preprocess:
    """The preprocessing of a model with the normalization that the weights of a file were trained with."""
    if record is None or record.in_channels[-1] != model.in_channels[-1]:
        return model.preprocess
    theirs = record.preprocess
    return replace(model.preprocess, mean=theirs.mean, std=theirs.std, channel_order=theirs.channel_order)
