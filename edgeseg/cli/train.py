"""edgeseg train."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import edgeseg
from edgeseg.cli.model import add_dataset, add_device, dataset_options, on_device
from edgeseg.data import load_dataset
from edgeseg.engine import RECIPES, TrainConfig


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("train", help="train on a data set")
    add_dataset(verb)
    verb.add_argument("--model", "--model-name", "--model_name", required=True, metavar="NAME[.TAG]")
    verb.add_argument("--train-split", default="train")
    verb.add_argument("--val-split", default="val", help="'none' to score nothing")
    verb.add_argument(
        "--encoder-weights", metavar="FILE|imagenet|timm/NAME.TAG", help="the encoder's weights to start from"
    )
    verb.add_argument(
        "--pretrained",
        metavar="FILE|default",
        help="weights of the whole model to start from: a file, or its default ones",
    )
    verb.add_argument("--resume", choices=["auto"], help="go on with the run in the output folder, if there is one")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="for weights and metrics")
    add_device(verb)
    _add_recipe(verb)
    verb.set_defaults(run=_train)


def _add_recipe(verb: argparse.ArgumentParser) -> None:
    """One flag per field of `TrainConfig`; options that are not given keep the value of the recipe."""
    verb.add_argument(
        "--recipe", choices=RECIPES, default="modern", help="where the other options begin (default modern)"
    )
    types = get_type_hints(TrainConfig)
    groups: dict[str, Any] = {}
    for field in fields(TrainConfig):
        group = field.metadata["group"]
        groups.setdefault(group, verb.add_argument_group(group))
        flags = list(dict.fromkeys([f"--{field.name.replace('_', '-')}", f"--{field.name}"]))
        defaults = [str(getattr(recipe, field.name)) for recipe in RECIPES.values()]
        text = f"{field.metadata['help']} (default: {', original: '.join(dict.fromkeys(defaults))})"
        options: dict[str, Any] = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
        kind = types[field.name]
        if type(None) in get_args(kind):
            (kind,) = (each for each in get_args(kind) if each is not type(None))
        if get_origin(kind) is Literal:
            options |= {"choices": get_args(kind), "type": type(get_args(kind)[0])}
        elif kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif get_origin(kind) is tuple:
            options["type"], *rest = get_args(kind)
            options["nargs"] = "+" if rest == [...] else 1 + len(rest)
        else:
            options["type"] = kind
        groups[group].add_argument(*flags, **options)


def _train(options: argparse.Namespace) -> int:
    import torch

    from edgeseg.deploy.onnx import export_onnx
    from edgeseg.engine import distributed, train
    from edgeseg.engine.distributed import process_group

    extra = dataset_options(options)
    train_set = load_dataset(options.dataset, options.data_path, options.train_split, **extra)
    val_set = None
    if options.val_split != "none":
        val_set = load_dataset(options.dataset, options.data_path, options.val_split, **extra)
    given: dict[str, Any] = {
        field.name: getattr(options, field.name) for field in fields(TrainConfig) if hasattr(options, field.name)
    }
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    config = replace(RECIPES[options.recipe], **given)
    torch.manual_seed(config.seed)
    model = edgeseg.create_model(
        options.model,
        pretrained=options.pretrained == "default",
        tasks=train_set.tasks,
        in_channels=train_set.inputs,
        encoder_weights=options.encoder_weights,
        checkpoint_path=options.pretrained if options.pretrained != "default" else None,
    )
    with process_group(options.device) as device:
        model = on_device(model, device)
        trained = train(model, train_set, val_set, config, options.output, resume=options.resume == "auto")
        if config.quantize != "none" and distributed.rank() == 0:
            done = export_onnx(trained.cpu(), options.output / "int8.onnx", output="small_logits", preprocess=True)
            print(f"{done.path} written, for edgeseg predict --onnx and edgeseg.OnnxSegmenter")
    return 0
