"""Options of models that several verbs share, and the models that they stand for."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgeseg
from edgeseg.machine.download import FOLDER, HUB, is_address
from edgeseg.machine.terminal import show
from edgeseg.zoo.create import named_model

if TYPE_CHECKING:
    import torch

    from edgeseg.networks.pixel2pixel import Pixel2Pixel
    from edgeseg.predict.predictor import Predictor

DEFAULT_MODEL = "fpn_aspp_mobilenetv2_tv_edgeailite.camvid"
# Arguments of `create_model` that no --option can give.
NO_OPTIONS = {"name", "pretrained", "tasks", "in_channels", "encoder_weights", "checkpoint_path"}


Group = argparse._ArgumentGroup | argparse.ArgumentParser  # what options are added to


def add_model(verb: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds and returns the group of the model: --model, --checkpoint and --device."""
    group = verb.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="NAME[.TAG]",
        help="name of the model, with the tag of its weights or without for the default weights "
        f"(default: the model of --checkpoint, or {DEFAULT_MODEL})",
    )
    add_checkpoint(group)
    add_device(group)
    return group


def add_checkpoint(group: Group) -> None:
    """Adds --checkpoint."""
    group.add_argument(
        "--checkpoint", type=file_or_address, metavar="FILE|https://...",
        help="file of weights to use instead of the published ones, or its address",
    )  # fmt: skip


def file_or_address(text: str) -> Path | str:
    """Reads an option that takes a file or an address, whose two slashes a path would not keep."""
    return text if is_address(text) else Path(text)


def add_device(group: Group) -> None:
    """Adds --device."""
    group.add_argument(
        "--device", default="cpu", metavar="NAME", help="device of PyTorch, such as cuda or cuda:1 (default cpu)"
    )


def add_encoder(group: Group) -> None:
    """Adds --encoder and --option."""
    group.add_argument(
        "--encoder", metavar="NAME",
        help="encoder to combine with a decoder family (fpn, unet, deeplabv3plus, bifpn or fpnsum), such as "
        "resnet18 or another timm model",
    )  # fmt: skip
    group.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE",
        help="another value for a field of ModelSpec, such as channels=64; may be given several times",
    )  # fmt: skip


def network(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the keyword arguments of `create_model` that --encoder and --option stand for.

    Raises:
        ValueError: an --option without a name or a value, or one that stands for an option of the command line.
    """
    given: dict[str, Any] = {} if options.encoder is None else {"encoder": options.encoder}
    for text in options.option:
        name, _, value = text.partition("=")
        if not name or not value:
            raise ValueError(f"--option is KEY=VALUE, such as dilations=[6,12,18]; got {text!r}")
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        name = name.replace("-", "_")
        if name in NO_OPTIONS:
            raise ValueError(
                f"--option {text}: {name} is not an option of a network; the dataset or another option gives it"
            )
        given[name] = tuple(parsed) if isinstance(parsed, list) else parsed
    return given


def load_model(options: argparse.Namespace, device: torch.device) -> Pixel2Pixel:
    """Creates the model of --model and --checkpoint, in evaluation mode.

    Raises:
        ValueError: unknown model or weights, a checkpoint that does not name its model, or an unusable device.
        OSError: a file is missing, or weights cannot be downloaded.
    """
    name = options.model or DEFAULT_MODEL
    if options.checkpoint is not None and options.model is None:
        name = named_model(options.checkpoint, "pass --model NAME")
    given = network(options) if "encoder" in options else {}
    tagged = "." in name or options.checkpoint is not None
    model = edgeseg.create_model(name, pretrained=not tagged and not given, checkpoint_path=options.checkpoint, **given)
    if given and not tagged:
        show(f"warning: {name} with {given} has no trained weights; its weights are random", file=sys.stderr)
    return on_device(model, device).eval()


def load_trained(name: str) -> Pixel2Pixel:
    """Creates the network of a name with a tag, of a published model, or of a file of weights that names its model.

    Raises:
        OSError: weights cannot be downloaded.
        ValueError: a name without a tag, or a file that does not name its model.
    """
    if not is_address(name) and not Path(name).is_file():
        model = edgeseg.create_model(name)
        if not model.config.notes.get("weights") and not name.startswith((FOLDER, HUB)):
            raise ValueError(f"{name} has no trained weights; add the tag of some, such as NAME.camvid, or pass a file")
        return model
    advice = "save the weights with edgeseg.save_checkpoint first"
    return edgeseg.create_model(named_model(name, advice), checkpoint_path=name)


def load_network(options: argparse.Namespace, device: torch.device) -> Predictor:
    """Creates the model of --model and --checkpoint, or opens the file of --exported.

    Raises:
        ValueError: both are given, or as in `load_model`.
        OSError: a file is missing, or weights cannot be downloaded.
    """
    if options.exported is None:
        return load_model(options, device)
    from edgeseg.predict.load import load_segmenter

    if options.model or options.checkpoint:
        raise ValueError("--exported cannot be combined with --model or --checkpoint")
    if device.type != "cpu":
        raise ValueError(f"--exported runs on the CPU; it cannot be combined with --device {device}")
    return load_segmenter(options.exported)


def add_exported(group: Group) -> None:
    """Adds --exported."""
    group.add_argument(
        "--exported", "--onnx", type=Path, metavar="FILE",
        help="file of edgeseg export that is run in its runtime, instead of a model",
    )  # fmt: skip


def add_runtime(group: Group) -> None:
    """Adds --runtime."""
    group.add_argument(
        "--runtime", choices=["auto", "torch", "onnxruntime", "openvino"], default="auto",
        help="library that runs the model: PyTorch, or on CPUs another, for which the model is exported once and kept "
        "in the cache; auto is onnxruntime if that takes less time in all (default auto)",
    )  # fmt: skip


def accelerated(model: Predictor, options: argparse.Namespace, count: int) -> Predictor:
    """The model in the runtime of --runtime; a file of --exported as it is.

    Args:
        model: What `load_network` returned.
        options: Parsed options.
        count: Number of photos that it will segment.

    Raises:
        ValueError: --runtime with --exported, another runtime than torch on another device than the CPU, or a device
            without values.
        ImportError: the runtime is not installed.
    """
    from edgeseg.deploy.fast import faster
    from edgeseg.networks.pixel2pixel import Pixel2Pixel

    if not isinstance(model, Pixel2Pixel):
        if options.runtime != "auto":
            raise ValueError("--runtime cannot be combined with --exported: the suffix of a file names its runtime")
        return model
    if options.runtime not in ("auto", "torch") and options.device != "cpu":
        raise ValueError(f"--runtime {options.runtime} runs on the CPU, not on --device {options.device}")
    if options.device == "meta":
        raise ValueError("--device meta has shapes only, and no values: choose cpu or cuda")
    return faster(model, options.runtime, count)


def on_device(model: Pixel2Pixel, device: torch.device) -> Pixel2Pixel:
    """Moves a model to a device.

    Raises:
        ValueError: the device cannot be used.
    """
    try:
        return model.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"cannot use --device {device}: {error}") from error
