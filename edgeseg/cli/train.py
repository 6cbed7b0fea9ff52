"""The verb `edgeseg train`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import edgeseg
from edgeseg.cli.dataset import add_dataset, load_split
from edgeseg.cli.export import add_version_options, version_options
from edgeseg.cli.messages import add_quiet
from edgeseg.cli.model import add_device, add_encoder, load_trained, network, on_device
from edgeseg.engine import RECIPES, TrainConfig
from edgeseg.machine.errors import ExportError
from edgeseg.machine.terminal import printable_lines, say, show
from edgeseg.spec import Task

if TYPE_CHECKING:
    import torch

    from edgeseg.engine import SoftLabels
    from edgeseg.networks.pixel2pixel import Pixel2Pixel

METAVARS = {int: "N", float: "X", str: "NAME"}
PAIRS = {int: ("H", "W"), float: ("LOW", "HIGH")}


def add(verbs: Any) -> None:
    """Adds the verb and its options."""
    verb = verbs.add_parser(
        "train",
        help="train a model on a dataset",
        description="Trains a model on a dataset, by a recipe whose values further options change. Started by "
        "torchrun, each process trains on its share of every batch; Ctrl-C saves the run and stops it.",
        examples=(
            "edgeseg train --dataset camvid --data-path CamVid --download --model fpnsum_mobilenetv2 "
            "--encoder-weights imagenet -o run",
            "edgeseg train --dataset images_masks --data-path mine --model unet --encoder resnet18 "
            "--encoder-weights imagenet -o runs/mine",
        ),
    )
    group = add_dataset(verb)
    group.add_argument("--train-split", default="train", metavar="NAME", help="split to train on (default train)")
    group.add_argument(
        "--val-split",
        default="val",
        metavar="NAME",
        help="split scored during training; 'none' skips it (default val)",
    )
    _add_model(verb)
    _add_teacher(verb)
    _add_run(verb)
    _add_files(verb)
    _add_recipe(verb)
    add_quiet(verb)
    verb.set_defaults(run=_train)


def _add_model(verb: argparse.ArgumentParser) -> None:
    """Adds the options of the network and of the weights that it starts from."""
    group = verb.add_argument_group("model")
    group.add_argument(
        "--model", "--model-name", "--model_name", required=True, metavar="NAME[.TAG]",
        help="name of the model to train; with a tag, training starts from those weights",
    )  # fmt: skip
    group.add_argument(
        "--encoder-weights", metavar="FILE|https://...|imagenet|timm/NAME.TAG",
        help="weights of the encoder to start from: a file or its address, 'imagenet' for those on ImageNet that "
        "edgeseg lists, or weights of timm",
    )  # fmt: skip
    group.add_argument(
        "--pretrained", metavar="FILE|https://...|NAME.TAG|default",
        help="weights to start from: a file or its address, of the whole model or of its encoder alone, the name and "
        "tag of weights, or 'default' for the default weights of the model",
    )  # fmt: skip
    add_encoder(group)


def _add_teacher(verb: argparse.ArgumentParser) -> None:
    """Adds the options of networks to learn from."""
    group = verb.add_argument_group("teacher")
    group.add_argument(
        "--teacher", nargs="+", metavar="NAME.TAG|FILE|https://...",
        help="teacher networks for knowledge distillation, weighted by --distillation: names with the tag of their "
        "weights, or files of weights or their addresses; their probabilities, for each photo and its mirror image, "
        "are averaged once per photo",
    )  # fmt: skip
    group.add_argument(
        "--teacher-task", metavar="NAME",
        help="task of the model that learns from the teacher, if several have classes",
    )  # fmt: skip
    group.add_argument(
        "--photos", nargs="+", type=Path, default=[], metavar="FOLDER",
        help="folders of photos without labels, which are learned from the teacher alone",
    )  # fmt: skip
    group.add_argument(
        "--class-map", type=Path, metavar="FILE",
        help="text file for a teacher with other classes: lines 'class of the teacher: class to learn', or '-' for "
        "none; maps from Cityscapes to CamVid and to IDD Lite are built in",
    )  # fmt: skip
    group.add_argument(
        "--soft-labels", type=Path, metavar="DIR",
        help="folder that keeps the teacher's soft labels; by default one per teacher in the cache of edgeseg",
    )  # fmt: skip


def _add_run(verb: argparse.ArgumentParser) -> None:
    """Adds the options of the folder of a run, of where it runs, and of what ends it."""
    group = verb.add_argument_group("run")
    group.add_argument(
        "--resume", nargs="?", const="auto", choices=["auto"],
        help="resume the run in --output if there is one; with more --epochs, a finished run continues",
    )  # fmt: skip
    group.add_argument(
        "--overwrite", action="store_true", help="remove the files of the run in --output if there is one"
    )
    group.add_argument(
        "--patience", type=int, metavar="N",
        help="end the run when the score has not improved for N evaluations; see --evaluate-every",
    )  # fmt: skip
    group.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR",
        help="folder of the run, for weights and metrics; created if it is missing",
    )  # fmt: skip
    add_device(group)


def _add_files(verb: argparse.ArgumentParser) -> None:
    """Adds the options of the 8-bit files that quantization-aware training writes."""
    group = verb.add_argument_group("files of a run with --quantize")
    group.add_argument(
        "--formats", nargs="+", metavar="NAME",
        help="formats of the 8-bit files that are written at the end, of onnx, litert, executorch and openvino "
        "(default onnx)",
    )  # fmt: skip
    add_version_options(group)


def _add_recipe(verb: argparse.ArgumentParser) -> None:
    """Adds --recipe, and one option per field of `TrainConfig` that overrides the value of the recipe."""
    verb.add_argument_group("recipe").add_argument(
        "--recipe",
        choices=RECIPES,
        default="modern",
        help="recipe that sets the options below: edgeseg's own, or that of TI's zoo (default modern)",
    )
    types = get_type_hints(TrainConfig)
    groups: dict[str, Any] = {}
    for field in fields(TrainConfig):
        group = field.metadata["group"]
        groups.setdefault(group, verb.add_argument_group(group))
        names = list(dict.fromkeys([f"--{field.name.replace('_', '-')}", f"--{field.name}"]))
        text = _help(field).replace("%", "%%")
        groups[group].add_argument(*names, help=text, default=argparse.SUPPRESS, **_parsing(types[field.name]))


def _help(field: Field[Any]) -> str:
    """The help text of a field, with its value in each recipe."""
    values = {name: getattr(recipe, field.name) for name, recipe in RECIPES.items()}
    if len(set(values.values())) > 1:
        return f"{field.metadata['help']} ({', '.join(f'{name}: {_shown(value)}' for name, value in values.items())})"
    default = next(iter(values.values()))
    return field.metadata["help"] + ("" if default in (None, ()) else f" (default {_shown(default)})")


def _shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _parsing(kind: Any) -> dict[str, Any]:
    """The arguments of `add_argument` that parse a value of a type."""
    if type(None) in get_args(kind):
        (kind,) = (option for option in get_args(kind) if option is not type(None))
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind), "type": type(get_args(kind)[0])}
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is tuple:
        item, *rest = get_args(kind)
        if rest == [...]:
            return {"type": item, "nargs": "+", "metavar": METAVARS[item]}
        return {"type": item, "nargs": 1 + len(rest), "metavar": PAIRS[item]}
    return {"type": kind, "metavar": METAVARS[kind]}


def _train(options: argparse.Namespace) -> int:
    import torch

    from edgeseg.data.photos import WithPhotos
    from edgeseg.engine import EarlyStopping, distributed, train
    from edgeseg.engine.distributed import process_group
    from edgeseg.engine.run_folder import check

    resume = options.resume is not None
    _check_teacher(options)
    check(options.output, resume=resume, overwrite=options.overwrite)
    if options.patience is not None and options.val_split == "none":
        raise ValueError(
            "--patience watches the score on --val-split, which is none; name a split, or leave out --patience"
        )
    callbacks = [] if options.patience is None else [EarlyStopping(options.patience)]
    config = _config(options)
    files = _files(options, config)
    train_set = load_split(options, options.train_split)
    val_set = load_split(options, options.val_split) if options.val_split != "none" else None
    if options.photos:
        train_set = WithPhotos(train_set, options.photos, on_error="skip" if options.skip_unreadable else "stop")
    start = _start(options)
    encoder_alone = options.pretrained is not None and start.get("encoder_weights") == options.pretrained
    torch.manual_seed(config.seed)
    model = edgeseg.create_model(
        options.model, tasks=train_set.tasks, in_channels=train_set.inputs, **start, **network(options)
    )
    with process_group(options.device) as device:
        if encoder_alone and distributed.rank() == 0:
            say(f"{options.pretrained} has weights of an encoder alone: the decoders start untrained")
        model = on_device(model, device)
        trained = train(
            model, train_set, val_set, config, options.output, soft_labels=_soft_labels(options, model.tasks, device),
            resume=resume, overwrite=options.overwrite, callbacks=callbacks,
        )  # fmt: skip
        if distributed.rank() == 0:
            return _export(trained.cpu(), files)
    return 0


def _export(model: Pixel2Pixel, files: Mapping[Path, Mapping[str, Any]]) -> int:
    """Writes the 8-bit files of a run, names those that cannot be written, and returns the exit status."""
    status = 0
    for path, choices in files.items():
        try:
            edgeseg.export(model, path, output="small_logits", preprocess=True, **choices)
            say(f"wrote {path}, for edgeseg predict --exported and edgeseg.load_segmenter")
        except (ExportError, ValueError, OSError) as error:
            show(f"edgeseg train: {path} is not written: {printable_lines(error)}", file=sys.stderr)
            status = 1
    return status


def _check_teacher(options: argparse.Namespace) -> None:
    """Raises a ValueError if options of a teacher are given without a teacher."""
    given = [name for name in ("teacher_task", "photos", "class_map", "soft_labels") if getattr(options, name)]
    if given and not options.teacher:
        raise ValueError(f"--{given[0].replace('_', '-')} needs --teacher")


def _soft_labels(options: argparse.Namespace, tasks: Mapping[str, Task], device: torch.device) -> SoftLabels | None:
    """What the networks of --teacher say.

    Raises:
        OSError: a file is missing, or weights cannot be downloaded.
        ValueError: a network without trained weights, or classes that have no map.
    """
    if not options.teacher:
        return None
    from edgeseg.data.class_maps import read_class_map
    from edgeseg.engine import SoftLabels, Teacher

    own = read_class_map(options.class_map) if options.class_map else None
    models = [load_trained(name).to(device) for name in options.teacher]
    return SoftLabels(Teacher(models, tasks, task=options.teacher_task, class_map=own), options.soft_labels)


def _files(options: argparse.Namespace, config: TrainConfig) -> dict[Path, dict[str, Any]]:
    """The 8-bit files to write after quantization-aware training, with the options of their formats.

    Raises:
        ImportError: the tools of a format are missing.
        ValueError: an unknown format, or options of 8-bit files without --quantize.
    """
    from edgeseg.deploy.formats import FORMATS, format_of
    from edgeseg.deploy.quantize import check_opset_of_scales

    versions = version_options(options)
    given = [f"--{name.replace('_', '-')}" for name, value in versions.items() if value is not None]
    given += ["--formats"] if options.formats else []
    if config.quantize == "none":
        if given:
            raise ValueError(f"{', '.join(given)} applies to 8-bit files, which --quantize writes")
        return {}
    files = {}
    suffixes = {each.name: suffix for suffix, each in FORMATS.items() if "int8" in each.precisions}
    names = options.formats or ["onnx"]
    for name in names:
        if name not in suffixes:
            raise ValueError(f"--formats {name}: the formats of 8-bit files are {', '.join(suffixes)}")
    if "onnx" not in names and set(versions.values()) != {None}:
        raise ValueError("--opset and --ir-version are those of int8.onnx, which --formats leaves out")
    if "onnx" in names:
        check_opset_of_scales(versions["opset"], power_of_two=config.quantize == "power_of_two")
    for name in names:
        chosen = format_of("", name)
        chosen.require_tools()
        own = {key: value for key, value in versions.items() if key in chosen.options}
        files[options.output / f"int8{suffixes[name]}"] = own
    return files


def _start(options: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `create_model` that --pretrained and --encoder-weights stand for.

    Raises:
        OSError: a file is missing, or an address cannot be reached.
        ValueError: a file is corrupt, or both options have weights for the encoder.
    """
    from edgeseg.zoo.networks import ALIASES
    from edgeseg.zoo.pretrained import holds_encoder, weights_file

    given = {"encoder_weights": options.encoder_weights}
    if options.pretrained is None:
        return given
    if options.pretrained == "default":
        return {**given, "pretrained": True}
    name, _, tag = options.pretrained.partition(".")
    weights = f"{ALIASES.get(name, name)}.{tag}"
    if weights in edgeseg.list_weights():
        return {**given, "checkpoint_path": weights_file(weights)}
    if not holds_encoder(options.pretrained, options.model):
        return {**given, "checkpoint_path": options.pretrained}
    if options.encoder_weights is not None:
        raise ValueError("--pretrained has weights of an encoder, and so has --encoder-weights; pass one of them")
    return {"encoder_weights": options.pretrained}


def _config(options: argparse.Namespace) -> TrainConfig:
    """The recipe of --recipe, changed by the options that are given."""
    given: dict[str, Any] = {
        field.name: getattr(options, field.name) for field in fields(TrainConfig) if hasattr(options, field.name)
    }
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return replace(RECIPES[options.recipe], **given)
