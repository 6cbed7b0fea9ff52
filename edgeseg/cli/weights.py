"""The verb `edgeseg weights`, which has verbs of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgeseg
from edgeseg.machine.terminal import show

if TYPE_CHECKING:
    from edgeseg.zoo.weights import Weights


PATTERN_HELP = "word in the names, or shell pattern of the whole names such as 'fpn_*' (default: all names)"


def add(top: Any) -> None:
    """Adds the verb, its own verbs and their options."""
    parser = top.add_parser(
        "weights",
        help="list, describe, download, convert and verify trained weights",
        description="Lists, describes, downloads, converts and verifies trained weights of the zoo.",
    )
    verbs = parser.add_subparsers(dest="weights_verb", required=True)
    _add_list(verbs)
    _add_info(verbs)
    _add_download(verbs)
    _add_convert(verbs)
    _add_verify(verbs)


def _add_list(verbs: Any) -> None:
    verb = verbs.add_parser(
        "list",
        help="list trained weights with their mIoU",
        description="Lists trained weights as NAME.TAG with the mIoU measured here, or else the published one, and the "
        "protocol of the figure. Exits with status 1 if no name matches.",
    )
    verb.add_argument("pattern", nargs="?", default="*", help=PATTERN_HELP)
    verb.set_defaults(run=_list)


def _add_info(verbs: Any) -> None:
    verb = verbs.add_parser(
        "info",
        help="describe one set of trained weights",
        description="Prints what weights predict, their mIoU, licence, addresses and sha256.",
    )
    verb.add_argument(
        "name", metavar="NAME[.TAG]", help="name of the model, with the tag of its weights or for its default weights"
    )
    verb.set_defaults(run=_info)


def _add_download(verbs: Any) -> None:
    verb = verbs.add_parser(
        "download",
        help="download weights into the cache",
        description="Downloads weights into the cache, from which they are loaded without a network connection. Prints "
        "the path of each file.",
    )
    _add_names(verb)
    verb.set_defaults(run=_download)


def _add_convert(verbs: Any) -> None:
    verb = verbs.add_parser(
        "convert",
        help="convert a .pth or .onnx file of TI's zoo to safetensors",
        description="Converts a .pth or .onnx file of weights of TI's zoo to a safetensors file of edgeseg.",
    )
    verb.add_argument("source", type=Path, metavar="SRC", help=".pth or .onnx file of TI's zoo")
    verb.add_argument("target", type=Path, metavar="DST", help=".safetensors file to write")
    verb.add_argument("--model", required=True, metavar="NAME", help="name of the model that the weights belong to")
    verb.add_argument("--num-classes", type=int, metavar="N", help="number of classes of the file (default 19)")
    verb.set_defaults(run=_convert)


def _add_verify(verbs: Any) -> None:
    verb = verbs.add_parser(
        "verify",
        help="check that weights are intact and load",
        description="Checks the sha256 of weights, downloading them if they are not in the cache, loads every tensor "
        "into the model, and checks that the logits are finite.",
    )
    _add_names(verb)
    verb.set_defaults(run=_verify)


def _add_names(verb: argparse.ArgumentParser) -> None:
    """Adds names or patterns of weights."""
    verb.add_argument(
        "names", nargs="+", metavar="NAME[.TAG]|PATTERN",
        help="name of a model for its default weights, name with tag, or shell pattern such as '*.coco21'",
    )  # fmt: skip


def _list(options: argparse.Namespace) -> int:
    from edgeseg.zoo.weights import WEIGHTS

    names = edgeseg.list_weights(as_pattern(options.pattern))
    for name in names:
        entry = WEIGHTS[name]
        miou = entry.measured_miou or entry.published_miou
        kind = "measured" if entry.measured_miou else "published"
        show(f"{name:52} {f'{miou:.2f} % {kind}' if miou else '':18} {entry.protocol}")
    return 0 if names else nothing(options.pattern)


def _info(options: argparse.Namespace) -> int:
    entry = edgeseg.weights_info(options.name)
    show(options.name)
    print_weights(entry)
    for address in entry.addresses:
        show(f"  {'address':18} {address}")
    show(f"  {'sha256':18} {entry.sha256 or 'not known; that of the first download is recorded'}")
    return 0


def _download(options: argparse.Namespace) -> int:
    from edgeseg.zoo.pretrained import weights_file

    for name in _names(options.names):
        show(f"{name}: {weights_file(name)}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    if options.target.suffix != ".safetensors":
        raise ValueError(f"DST is a .safetensors file, got {options.target}")
    model = edgeseg.create_model(options.model, num_classes=options.num_classes, checkpoint_path=options.source)
    edgeseg.save_checkpoint(model, options.target, source=options.source.name)
    show(f"wrote {options.target}, {len(model.state_dict())} tensors of {options.model}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    import torch

    from edgeseg.zoo.pretrained import verified_sha256

    for name in _names(options.names):
        digest = verified_sha256(name)
        model = edgeseg.create_model(name).eval()
        with torch.inference_mode():
            outputs = model(*(torch.zeros(1, channels, 64, 64) for channels in model.in_channels))
        if not all(bool(logits.isfinite().all()) for logits in outputs.values()):
            raise ValueError(f"{name}: the network outputs NaN or infinity")
        show(f"{name}: sha256 {digest}, every tensor in its place, finite logits")
    return 0


def _names(patterns: Sequence[str]) -> list[str]:
    """Returns the weights that match any of the patterns, as `name.tag`.

    Raises:
        ValueError: a pattern matches nothing; the message has the nearest names.
    """
    from edgeseg.zoo.weights import WEIGHTS

    matches: list[str] = []
    for pattern in patterns:
        names = edgeseg.list_weights(pattern)
        matches += names or [name for name, entry in WEIGHTS.items() if entry is edgeseg.weights_info(pattern)]
    return list(dict.fromkeys(matches))


def print_weights(weights: Weights) -> None:
    """Prints an entry of the catalog, with one fact per line."""
    size = "its own size" if weights.preprocess.size is None else "{}x{}".format(*reversed(weights.preprocess.size))
    mious = [("measured here", weights.measured_miou), ("published", weights.published_miou)]
    task = next(iter((weights.tasks or {}).values()), None)
    for title, text in (
        ("mIoU", ", ".join(f"{miou:.2f} % {kind}" for kind, miou in mious if miou is not None)),
        ("mIoU on", weights.protocol),
        ("input", f"{size} (width x height)"),
        ("classes", ", ".join(task.classes) if task else "as many as the file has, without names"),
        ("licence", weights.license),
        ("notes", weights.notes),
    ):
        if text:
            show(f"  {title:18} {text}")


def as_pattern(text: str) -> str:
    """The pattern that a user means: a word without wildcards stands for all names that contain it."""
    return text if set(text) & set("*?[") else f"*{text.lower()}*"


def nothing(pattern: str) -> int:
    """Prints that no name matches a pattern, and returns the exit status."""
    show(f"no name matches {pattern!r}", file=sys.stderr)
    return 1
