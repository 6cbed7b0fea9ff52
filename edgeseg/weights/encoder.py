"""Loads weights into the encoder of a network, in whatever layout and normalization they come."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from edgeseg.config import inherited
from edgeseg.networks.encoders import Encoder
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.spec import Preprocess
from edgeseg.storage.checkpoint import file_notes, is_onnx, read_checkpoint_config, read_weights
from edgeseg.weights.adapting import copy_to_all, fit_stems
from edgeseg.weights.fill import COUNTER, LoadReport, fill, fitting
from edgeseg.weights.layouts import imagenet as encoder_files
from edgeseg.weights.normalization import IMAGENET, first_layers, fold_normalization


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
    with fitting(path):
        record = read_checkpoint_config(path)
        found = inherited(file_notes(path, record))
        state, ignored = _encoder_state(encoder, read_weights(path))
        state, preprocess = _same_pixels(model, state, normalization or (record.preprocess if record else IMAGENET))
        may_miss = {key for key in encoder.state_dict() if key.startswith("fusion.") and key not in state}
        fitted = fit_stems(state, encoder.state_dict())
        note = {"weights": found.get("started_from", Path(path).name), "license": found.get("license")}
        notes = {**model.config.notes, "encoder": {key: value for key, value in note.items() if value}}
        config = replace(model.config, notes=notes, preprocess=preprocess)
    fill(encoder, fitted, path, may_miss=may_miss)
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


def _encoder_state(encoder: nn.Module, file: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Names the tensors of a file as in the encoder, and lists those that the encoder does not use."""
    own = encoder.state_dict()
    if all(key in file for key in own if not key.endswith(COUNTER)):  # of encoder.state_dict()
        return {key: file[key] for key in own if key in file}, sorted(set(file) - set(own))
    if any(key.startswith("encoder.") for key in file):  # a whole network of edgeseg
        theirs = {key: value for key, value in file.items() if key.startswith("encoder.")}
        copied = copy_to_all({f"encoder.{key}": value for key, value in own.items()}, theirs)
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
