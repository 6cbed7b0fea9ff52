"""edgeseg weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgeseg

if TYPE_CHECKING:
    from edgeseg.zoo.weights import Weights


def add(top: Any) -> None:
    """The verb and its own verbs."""
    parser = top.add_parser("weights", help="trained weights: list, download, convert, verify")
    verbs = parser.add_subparsers(dest="weights_verb", required=True)
    verb = verbs.add_parser("list", help="trained weights as NAME.TAG, with their mIoU")
    verb.add_argument("pattern", nargs="?", default="*", help="shell pattern, such as '*.coco21'")
    verb.set_defaults(run=_list)

    verb = verbs.add_parser("info", help="where weights come from, what they predict, their licence")
    verb.add_argument("name", metavar="NAME[.TAG]")
    verb.set_defaults(run=_info)

    verb = verbs.add_parser("download", help="fetch weights into the cache, for use without a network")
    verb.add_argument("names", nargs="+", metavar="NAME[.TAG]|PATTERN")
    verb.set_defaults(run=_download)

    verb = verbs.add_parser("convert", help="the original's .pth or .onnx to safetensors")
    verb.add_argument("source", type=Path, metavar="SRC")
    verb.add_argument("target", type=Path, metavar="DST")
    verb.add_argument("--model", required=True, metavar="NAME")
    verb.add_argument("--num-classes", type=int, help="of the file; default 19")
    verb.set_defaults(run=_convert)

    verb = verbs.add_parser("verify", help="load weights and check them: hash, every tensor, finite logits")
    verb.add_argument("names", nargs="+", metavar="NAME[.TAG]|PATTERN")
    verb.set_defaults(run=_verify)


def _list(options: argparse.Namespace) -> int:
    from edgeseg.zoo.weights import WEIGHTS

    names = edgeseg.list_weights(options.pattern)
    for name in names:
        entry = WEIGHTS[name]
        miou = entry.measured_miou or entry.published_miou
        kind = "measured" if entry.measured_miou else "published"
        print(f"{name:52} {f'{miou:.2f} % {kind}' if miou else '':18} {entry.protocol}")
    return 0 if names else nothing(options.pattern)


def _info(options: argparse.Namespace) -> int:
    entry = edgeseg.weights_info(options.name)
    print(options.name)
    print_weights(entry)
    for address in entry.addresses:
        print(f"  {'address':18} {address}")
    print(f"  {'sha256':18} {entry.sha256 or 'remembered when first downloaded'}")
    return 0


def _download(options: argparse.Namespace) -> int:
    from edgeseg.zoo.pretrained import weights_file

    for name in _names(options.names):
        print(f"{name}: {weights_file(name)}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    if options.target.suffix != ".safetensors":
        raise ValueError(f"the target is a .safetensors file, got {options.target}")
    model = edgeseg.create_model(options.model, num_classes=options.num_classes, checkpoint_path=options.source)
    edgeseg.save_checkpoint(model, options.target, source=options.source.name)
    print(f"{options.target}: {len(model.state_dict())} tensors of {options.model}")
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
            raise ValueError(f"{name}: the network answers NaN or infinity")
        print(f"{name}: sha256 {digest}, every tensor in its place, finite logits")
    return 0


def _names(patterns: Sequence[str]) -> list[str]:
    """`name.tag` of each pattern; one that matches nothing is an error with the nearest names."""
    from edgeseg.zoo.weights import WEIGHTS

    found = []
    for pattern in patterns:
        names = edgeseg.list_weights(pattern)
        found += names or [name for name, entry in WEIGHTS.items() if entry is edgeseg.weights_info(pattern)]
    return list(dict.fromkeys(found))


def print_weights(weights: Weights) -> None:
    """An entry of the catalog, a fact a line."""
    size = "its own size" if weights.preprocess.size is None else "{}x{}".format(*reversed(weights.preprocess.size))
    mious = [("measured here", weights.measured_miou), ("published", weights.published_miou)]
    task = next(iter((weights.tasks or {}).values()), None)
    for title, text in (
        ("mIoU", ", ".join(f"{miou:.2f} % {kind}" for kind, miou in mious if miou is not None)),
        ("on", weights.protocol),
        ("input", f"{size} (width x height)"),
        ("classes", ", ".join(task.classes) if task else "as many as the file has"),
        ("licence", weights.license),
        ("notes", weights.notes),
    ):
        if text:
            print(f"  {title:18} {text}")


def nothing(pattern: str) -> int:
    """Says that a pattern matches nothing; the exit status."""
    print(f"nothing matches {pattern!r}", file=sys.stderr)
    return 1
