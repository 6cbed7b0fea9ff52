"""edgeseg list, edgeseg info."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

import edgeseg
from edgeseg.cli.weights import nothing, print_weights


def add(verbs: Any) -> None:
    """The two verbs."""
    verb = verbs.add_parser("list", help="names of the zoo")
    verb.add_argument("pattern", nargs="?", default="*", help="shell pattern, such as 'fpn_*'")
    verb.add_argument("--pretrained", action="store_true", help="only those with trained weights, as NAME.TAG")
    verb.set_defaults(run=_list)

    verb = verbs.add_parser("info", help="what the zoo knows of one name")
    verb.add_argument("name", help="a name of `edgeseg list`, with or without a weights tag")
    verb.add_argument("--size", nargs=2, type=int, default=(384, 768), metavar=("H", "W"), help="for the GMACs")
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
            print(f"  {field.name:18} {getattr(info.spec, field.name)}")
    height, width = options.size
    cost = edgeseg.complexity(edgeseg.create_model(info.name), (height, width))
    print(f"  {'parameters':18} {cost.params:,} (19 classes)")
    print(f"  {'GMACs':18} {cost.gmacs:.3f} at {width}x{height} (width x height)")
    for tag, weights in info.weights.items():
        print(f"weights .{tag}{' (default)' if weights.default else ''}")
        print_weights(weights)
    return 0
