"""The verbs `edgeseg list` and `edgeseg info`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import edgeseg
from edgeseg.cli.messages import add_json, print_json
from edgeseg.cli.model import add_encoder, network
from edgeseg.cli.weights import add_pattern, as_json, as_pattern, nothing, print_weights
from edgeseg.config import ORIGIN, ModelConfig, origin, read_config
from edgeseg.machine.download import FOLDER, HUB, is_address
from edgeseg.machine.terminal import printable, show
from edgeseg.predict.facts import FACTS, read_facts
from edgeseg.spec import ModelSpec


def add(verbs: Any) -> None:
    """Adds the two verbs and their options."""
    verb = verbs.add_parser(
        "list",
        help="list the models of the zoo",
        description="Lists the names of the models of the zoo. Exits with status 1 if no name matches.",
        examples=("edgeseg list fpn", "edgeseg list '*regnetx*' --pretrained"),
    )
    add_pattern(verb).add_argument(
        "--pretrained", action="store_true", help="list trained weights only, as NAME.TAG, instead of all models"
    )
    add_json(verb, "the names")
    verb.set_defaults(run=_list)

    verb = verbs.add_parser(
        "info",
        help="describe one model, or a file of one",
        description="Prints the fields of a model of the zoo, its parameters and multiply-accumulates, and its trained "
        "weights with their scores and licences; or the record of a .safetensors file or of an exported file, with its "
        "origin.",
        examples=(
            "edgeseg info fpn_aspp_mobilenetv2_tv_edgeailite --size 480 640",
            "edgeseg info runs/mine/best.safetensors --json",
        ),
    )
    group = verb.add_argument_group("model")
    group.add_argument(
        "name", metavar="NAME[.TAG]|FILE|https://...|hf-hub:OWNER/REPO|local-dir:PATH",
        help="name of the model, with or without the tag of weights, a file that edgeseg wrote or its address, or a "
        "model of the hub or a folder of save_pretrained",
    )  # fmt: skip
    add_encoder(group)
    group.add_argument(
        "--size", nargs=2, type=int, default=(384, 768), metavar=("H", "W"),
        help="height and width of the image whose multiply-accumulates are counted (default 384 768)",
    )  # fmt: skip
    add_json(verb, "the fields, costs and weights of a model, or the record of a file")
    verb.set_defaults(run=_info)


def _list(options: argparse.Namespace) -> int:
    names = edgeseg.list_models(as_pattern(options.pattern), pretrained=options.pretrained)
    if options.json:
        print_json(names)
    elif names:
        show("\n".join(names))
    return 0 if names else nothing(options.pattern)


def _info(options: argparse.Namespace) -> int:
    if is_address(options.name):
        from edgeseg.zoo.pretrained import local_file

        return _info_of_file(local_file(options.name), options)
    if options.name.startswith((HUB, FOLDER)):
        from edgeseg.storage.hub import open_published

        return _print_record(open_published(options.name)[1], options)
    if Path(options.name).suffix in (".safetensors", *FACTS) or Path(options.name).exists():
        return _info_of_file(Path(options.name), options)
    info = edgeseg.model_info(options.name)
    model = edgeseg.create_model(info.name, **network(options))
    cost = edgeseg.complexity(model, options.size)
    if options.json:
        spec = asdict(model.config.spec) if model.config.spec is not None else None
        costs = {"parameters": cost.params, "gmacs": cost.gmacs, "size": options.size}
        entries = {tag: as_json(entry) for tag, entry in info.weights.items()}
        print_json({"name": info.name, "spec": spec, **costs, "weights": entries})
        return 0
    show(info.name)
    _print_spec(model.config.spec)
    _print("parameters", f"{cost.params:,} ({next(iter(model.tasks.values())).class_count} classes)")
    _print("GMACs", "{:.3f} at {}x{} (width x height)".format(cost.gmacs, *reversed(options.size)))
    for tag, weights in info.weights.items():
        show(f"weights .{tag}{' (default)' if weights.default else ''}")
        print_weights(weights)
    return 0


def _info_of_file(path: Path, options: argparse.Namespace) -> int:
    """Prints the record of a file."""
    config = _record(path)
    if config is None:
        raise ValueError(f"{path} has no record of edgeseg: it does not say what its weights are, or where from")
    return _print_record(config, options)


def _print_record(config: ModelConfig, options: argparse.Namespace) -> int:
    """Prints the record of a network, with its origin."""
    if options.json:
        print_json(config.to_json())
        return 0
    show(config.name)
    _print_spec(config.spec)
    for name, task in config.tasks.items():
        classes = f": {', '.join(task.classes)}" if task.classes else ""
        _print("task", f"{name}, {task.kind}, {task.channels} channels{classes}")
    for name, entry in config.inputs.items():
        _print("input", f"{name}, {entry.kind}, {entry.channels} channels")
    for field in fields(config.preprocess):
        _print(field.name, getattr(config.preprocess, field.name))
    if config.quantization is not None:
        _print("quantization", config.quantization)
    origins = origin(config.notes)
    show("origin" if origins else "origin: the file does not say")
    for title, text in origins:
        _print(title, text)
    others = {key: value for key, value in config.notes.items() if key not in ORIGIN}
    if others:
        show("notes")
    for title, value in others.items():
        _print(title, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value)
    return 0


def _record(path: Path) -> ModelConfig | None:
    """Reads the record of a file of weights or of an exported file; None if the file has no record.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is corrupt, or a newer edgeseg wrote it.
    """
    from edgeseg.storage.checkpoint import read_checkpoint_config

    if path.suffix.lower() not in FACTS:
        return read_checkpoint_config(path)
    facts = read_facts(path)
    return read_config(facts["edgeseg"], str(path)) if "edgeseg" in facts else None


def _print(title: str, value: Any) -> None:
    show(f"  {printable(title):24} {printable(value)}")


def _print_spec(spec: ModelSpec | None) -> None:
    """Prints the fields of a network."""
    for field in fields(spec) if spec is not None else ():
        value = getattr(spec, field.name)
        _print(field.name, "usual" if value is None else value)
