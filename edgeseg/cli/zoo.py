"""The verbs `edgeseg list` and `edgeseg info`."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

import edgeseg
from edgeseg.cli.weights import nothing, print_weights


def add(verbs: Any) -> None:
    """Adds the two verbs and their options."""
    verb = verbs.add_parser(
        "list",
        help="list the models of the zoo",
        description="Lists the names of the models of the zoo. Exits with status 1 if no name matches.",
    )
    verb.add_argument(
        "pattern", nargs="?", default="*", help="shell pattern of the names, such as 'fpn_*' (default: all names)"
    )
    verb.add_argument(
        "--pretrained", action="store_true", help="list trained weights only, as NAME.TAG, instead of all models"
    )
    verb.set_defaults(run=_list)

    verb = verbs.add_parser(
        "info",
        help="describe one model",
        description="Prints the fields of a model of the zoo, its parameters and multiply-accumulates, and its trained "
        "weights with their scores and licences.",
    )
    verb.add_argument("name", metavar="NAME[.TAG]", help="name of the model, with or without the tag of weights")
    verb.add_argument(
        "--size", nargs=2, type=int, default=(384, 768), metavar=("H", "W"),
        help="height and width of the image whose multiply-accumulates are counted (default 384 768)",
    )  # fmt: skip
    verb.set_defaults(run=_info)


def _list(options: argparse.Namespace) -> int:
    names = edgeseg.list_models(options.pattern, pretrained=options.pretrained)
    if not names:
        return nothing(options.pattern)
    print("\n".join(names))
    return 0


def _info(options: argparse.Namespace) -> int:
    info = edgeseg.model_info(options.name)
    print(info.name)
    if info.spec is not None:
        for field in fields(info.spec):
            value = getattr(info.spec, field.name)
            print(f"  {field.name:18} {'usual' if value is None else value}")
    height, width = options.size
    cost = edgeseg.complexity(edgeseg.create_model(info.name), (height, width))
    print(f"  {'parameters':18} {cost.params:,} (19 classes)")
    print(f"  {'GMACs':18} {cost.gmacs:.3f} at {width}x{height} (width x height)")
    for tag, weights in info.weights.items():
        print(f"weights .{tag}{' (default)' if weights.default else ''}")
        print_weights(weights)
    return 0
