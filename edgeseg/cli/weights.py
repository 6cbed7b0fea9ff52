"""The verb `edgeseg weights`, which has verbs of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgeseg
from edgeseg.cli.export import check_file
from edgeseg.cli.messages import add_json, add_quiet, print_json
from edgeseg.cli.model import add_encoder, network
from edgeseg.machine.terminal import printable, say, show

if TYPE_CHECKING:
    from edgeseg.zoo.weights import Weights


PATTERN_HELP = "word in the names, or shell pattern of the whole names such as 'fpn_*' (default: all names)"


def add(top: Any) -> None:
    """Adds the verb, its own verbs and their options."""
    parser = top.add_parser(
        "weights",
        help="list, describe, download, convert and verify trained weights",
        description="Lists, describes, downloads, converts and verifies trained weights of the zoo.",
        examples=("edgeseg weights list camvid", "edgeseg weights download '*.coco21'"),
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
        examples=("edgeseg weights list", "edgeseg weights list '*.coco21' --json"),
    )
    add_pattern(verb)
    add_json(verb, "names with their mIoU and its protocol")
    verb.set_defaults(run=_list)


def _add_info(verbs: Any) -> None:
    verb = verbs.add_parser(
        "info",
        help="describe one set of trained weights",
        description="Prints what weights predict, their mIoU, licence, addresses and sha256.",
        examples=(
            "edgeseg weights info fpn_aspp_mobilenetv2_tv_edgeailite.camvid",
            "edgeseg weights info deeplabv3plus_mobilenetv2_tv_edgeailite.streets --json",
        ),
    )
    verb.add_argument_group("weights").add_argument(
        "name", metavar="NAME[.TAG]", help="name of the model, with the tag of its weights or for its default weights"
    )
    add_json(verb, "the entry of the catalog")
    verb.set_defaults(run=_info)


def _add_download(verbs: Any) -> None:
    verb = verbs.add_parser(
        "download",
        help="download weights into the cache",
        description="Downloads weights into the cache, from which they are loaded without a network connection. Prints "
        "the path of each file.",
        examples=(
            "edgeseg weights download fpn_aspp_regnetx800mf_edgeailite.coco21",
            "edgeseg weights download '*.ade20k32' '*.coco21'",
        ),
    )
    _add_names(verb)
    verb.set_defaults(run=_download)


def _add_convert(verbs: Any) -> None:
    verb = verbs.add_parser(
        "convert",
        help="convert a .pth or .onnx file of TI's zoo to safetensors",
        description="Converts a .pth or .onnx file of weights of TI's zoo to a safetensors file of edgeseg.",
        examples=(
            "edgeseg weights convert ti.pth fpn.safetensors --model fpn_aspp_regnetx800mf_edgeailite --num-classes 21",
            "edgeseg weights convert ti.onnx unet.safetensors --model unet_aspp_mobilenetv2_tv_edgeailite",
        ),
    )
    group = verb.add_argument_group("files and model")
    group.add_argument("source", type=Path, metavar="SRC", help=".pth or .onnx file of TI's zoo")
    group.add_argument("target", type=Path, metavar="DST", help=".safetensors file to write")
    group.add_argument("--model", required=True, metavar="NAME", help="name of the model that the weights belong to")
    group.add_argument("--num-classes", type=int, metavar="N", help="number of classes of the file (default 19)")
    add_encoder(group)
    add_quiet(verb)
    verb.set_defaults(run=_convert)


def _add_verify(verbs: Any) -> None:
    verb = verbs.add_parser(
        "verify",
        help="check that weights are intact and load",
        description="Checks the sha256 of weights, downloading them if they are not in the cache, loads every tensor "
        "into the model, checks that the logits are finite, and prints what is intact and what is broken. Exits with "
        "status 1 if something is broken. Models of the hub are checked whenever they are loaded.",
        examples=("edgeseg weights verify '*.camvid'", "edgeseg weights verify --all"),
    )
    group = _add_names(verb, "*")
    group.add_argument(
        "--all", action="store_true",
        help="check all files in edgeseg's cache and the weights in the package, and download nothing",
    )  # fmt: skip
    add_json(verb, "per file its name, its sha256, and what is wrong with it")
    verb.set_defaults(run=_verify)


def add_pattern(verb: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds the pattern of names that are listed, and returns its group."""
    group = verb.add_argument_group("names")
    group.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help=PATTERN_HELP)
    return group


def _add_names(verb: argparse.ArgumentParser, count: str = "+") -> argparse._ArgumentGroup:
    """Adds names or patterns of weights, and --quiet, since these verbs may download; returns their group."""
    add_quiet(verb)
    group = verb.add_argument_group("weights")
    group.add_argument(
        "names", nargs=count, metavar="NAME[.TAG]|PATTERN",
        help="name of a model for its default weights, name with tag, or shell pattern such as '*.coco21'",
    )  # fmt: skip
    return group


def _list(options: argparse.Namespace) -> int:
    from edgeseg.zoo.weights import WEIGHTS

    names = edgeseg.list_weights(as_pattern(options.pattern))
    if options.json:
        print_json([{"name": name, **_scores(WEIGHTS[name])} for name in names])
    else:
        for name in names:
            entry = WEIGHTS[name]
            miou = entry.measured_miou or entry.published_miou
            kind = "measured" if entry.measured_miou else "published"
            show(f"{name:52} {f'{miou:.2f} % {kind}' if miou else '':18} {entry.protocol}")
    return 0 if names else nothing(options.pattern)


def _scores(entry: Weights) -> dict[str, Any]:
    """The figures of weights, as JSON has them."""
    return {each: getattr(entry, each) for each in ("measured_miou", "published_miou", "protocol", "license")}


def _info(options: argparse.Namespace) -> int:
    from edgeseg.zoo.pretrained import known_sha256
    from edgeseg.zoo.registry import find_weights, split

    if Path(options.name).is_file():
        raise ValueError(f"{options.name} is a file; edgeseg info {options.name} says what it has")
    entry = edgeseg.weights_info(options.name)
    digest = known_sha256(find_weights(*split(options.name)))
    if options.json:
        print_json({"name": options.name, **as_json(entry), "sha256": digest or None})
        return 0
    show(options.name)
    print_weights(entry)
    for address in entry.addresses:
        show(f"  {'address':18} {address}")
    show(f"  {'sha256':18} {digest or 'not known; that of the first download is recorded'}")
    return 0


def as_json(entry: Weights) -> dict[str, Any]:
    """An entry of the catalog with its tasks, as JSON has it."""
    tasks = {name: asdict(task) for name, task in entry.tasks.items()} if entry.tasks is not None else None
    return {**asdict(entry), "tasks": tasks}


def _download(options: argparse.Namespace) -> int:
    from edgeseg.zoo.pretrained import weights_file

    names, failed = _names(options.names), False
    for name in names:
        try:
            show(f"{name}: {weights_file(name)}")
        except (ValueError, OSError) as error:
            if len(names) == 1:
                raise
            show(f"edgeseg weights download: {name}: {printable(error)}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


def _convert(options: argparse.Namespace) -> int:
    from edgeseg.weights.load import count_classes

    if options.target.suffix != ".safetensors":
        raise ValueError(f"DST is a .safetensors file, got {options.target}")
    check_file("DST", options.target)
    if options.target.exists() and options.source.exists() and options.target.samefile(options.source):
        raise ValueError(f"SRC and DST are the same file, {options.source}; choose another name for DST")
    if options.num_classes is not None and (found := count_classes(options.source)) != options.num_classes:
        raise ValueError(f"{options.source} has {found} classes, and --num-classes says {options.num_classes}")
    model = edgeseg.create_model(
        options.model, num_classes=options.num_classes, checkpoint_path=options.source, **network(options)
    )
    edgeseg.save_checkpoint(model, options.target, source=options.source.name)
    say(f"wrote {options.target}, {len(model.state_dict())} tensors of {options.model}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    if options.all == bool(options.names):
        raise ValueError("pass either names of weights or --all")
    checks = _checks_of_all() if options.all else {name: partial(_verified, name) for name in _names(options.names)}
    rows: list[dict[str, str | None]] = []
    for name, verified in checks.items():
        digest = wrong = None
        try:
            digest = verified()
        except (ValueError, OSError) as error:
            wrong = error
        if not options.json:
            state = "intact" if digest else "broken" if isinstance(wrong, ValueError) else "failed"
            show(f"{name:52} {state}  {wrong or f'sha256 {digest}'}")
        rows.append({"name": name, "sha256": digest, "error": str(wrong) if wrong else None})
    if options.json:
        print_json(rows)
    return 1 if any(row["error"] for row in rows) else 0


def _checks_of_all() -> dict[str, Callable[[], str]]:
    """What checks the files on this machine, by the name of the weights, or the path of files of no known weights."""
    from edgeseg.machine.download import cache_folder
    from edgeseg.zoo.pretrained import files_here, other_files
    from edgeseg.zoo.weights import ENCODER_WEIGHTS, WEIGHTS

    known = {name: partial(_verified_here, name) for name in (*WEIGHTS, *ENCODER_WEIGHTS) if files_here(name)}
    others = {
        str(path.relative_to(cache_folder())): partial(_verified_other, path, expected)
        for path, expected in other_files().items()
    }
    return {**known, **others}


def _verified_other(path: Path, expected: str) -> str:
    """The hash of a file that is not of the catalog; without a recorded one, all tensors are read."""
    from edgeseg.zoo.pretrained import check_weights, checked_sha256

    digest = checked_sha256(path, expected)
    if not expected:
        check_weights(path)
    return digest


def _verified_here(name: str) -> str:
    """As `_verified`, of the files on this machine; of those that are not of edgeseg, all tensors are read."""
    from edgeseg.zoo.pretrained import check_weights, files_here, verified_sha256
    from edgeseg.zoo.weights import WEIGHTS

    digest = verified_sha256(name)
    for path in files_here(name):
        check_weights(path)
        if name in WEIGHTS and path.suffix == ".safetensors":
            _check_logits(name, path)
    return digest


def _verified(name: str) -> str:
    """Checks the files of weights `name.tag` and what a network outputs with them, and returns their hash."""
    from edgeseg.zoo.pretrained import verified_sha256, weights_file

    digest = verified_sha256(name)
    _check_logits(name, weights_file(name))
    return digest


def _check_logits(name: str, file: Path) -> None:
    """Raises a ValueError if the weights `name.tag` in a file of edgeseg do not fit their network or overflow in it."""
    import torch

    model = edgeseg.create_model(name.partition(".")[0], checkpoint_path=file).eval()
    with torch.inference_mode():
        outputs = model(*(torch.zeros(1, channels, 64, 64) for channels in model.in_channels))
    if not all(bool(logits.isfinite().all()) for logits in outputs.values()):
        raise ValueError(f"{name}: the network outputs NaN or infinity")


def _names(patterns: Sequence[str]) -> list[str]:
    """Returns the weights that match any of the patterns, as `name.tag`.

    Raises:
        ValueError: a pattern matches nothing; the message has the nearest names.
    """
    from edgeseg.zoo.weights import WEIGHTS

    matches: list[str] = []
    for pattern in patterns:
        names = edgeseg.list_weights(pattern)
        if not names and set(pattern) & set("*?["):
            raise ValueError(f"no weights match {pattern!r}; see edgeseg weights list")
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
        ("classes", ", ".join(task.classes) if task else "those in the file"),
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
