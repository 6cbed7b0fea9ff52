"""The command line: edgeseg list | info | predict | train | eval. Each verb imports what it needs when it runs."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import edgeseg
from edgeseg.data import DATASETS, load_dataset
from edgeseg.engine import RECIPES, TrainConfig

if TYPE_CHECKING:
    from edgeseg.pixel2pixel import Pixel2Pixel
    from edgeseg.weights.catalog import Weights

DEFAULT_MODEL = "fpn_aspp_mobilenetv2_tv_edgeailite.camvid"
IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit status: 0, 1 where some input failed, 2 for a wrong call."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt as error:
        print(f"edgeseg {options.verb}: {error or 'interrupted'}", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"edgeseg {options.verb}: error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("edgeseg", description="A zoo of edge semantic-segmentation networks.")
    parser.add_argument("--version", action="version", version=f"edgeseg {edgeseg.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True)

    verb = verbs.add_parser("list", help="names of the zoo")
    verb.add_argument("pattern", nargs="?", default="*", help="shell pattern, such as 'fpn_*'")
    verb.add_argument("--pretrained", action="store_true", help="only those with trained weights, as NAME.TAG")
    verb.set_defaults(run=_list)

    verb = verbs.add_parser("info", help="what the zoo knows of one name")
    verb.add_argument("name", help="a name of `edgeseg list`, with or without a weights tag")
    verb.add_argument("--size", nargs=2, type=int, default=(384, 768), metavar=("H", "W"), help="for the GMACs")
    verb.set_defaults(run=_info)

    verb = verbs.add_parser("predict", help="segment photos")
    verb.add_argument("images", nargs="+", type=Path, metavar="IMAGE|FOLDER", help="folders are searched recursively")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="made where it is missing")
    verb.add_argument("--model", metavar="NAME[.TAG]", help=f"default {DEFAULT_MODEL}, or the checkpoint's")
    verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of your own for the model")
    verb.add_argument("--device", default="cpu", help="such as cuda (default cpu)")
    verb.set_defaults(run=_predict)

    verb = verbs.add_parser("train", help="train on a data set")
    _add_dataset(verb)
    verb.add_argument("--model", required=True, metavar="NAME[.TAG]")
    verb.add_argument("--train-split", default="train")
    verb.add_argument("--val-split", default="val", help="'none' to score nothing")
    verb.add_argument("--encoder-weights", metavar="FILE|imagenet|timm/NAME.TAG", help="ImageNet weights to start from")
    verb.add_argument(
        "--pretrained",
        metavar="FILE|default",
        help="weights of the whole model to start from: a file, or its default ones",
    )
    verb.add_argument("--resume", choices=["auto"], help="go on with the run in the output folder, if there is one")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="for weights and metrics")
    verb.add_argument("--device", default="cpu", help="such as cuda (default cpu)")
    _add_recipe(verb)
    verb.set_defaults(run=_train)

    verb = verbs.add_parser("eval", help="mean IoU on a data set")
    _add_dataset(verb)
    verb.add_argument("--model", metavar="NAME[.TAG]", help=f"default {DEFAULT_MODEL}, or the checkpoint's")
    verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of your own for the model")
    verb.add_argument("--split", default="test")
    verb.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="resize to this instead of as trained")
    verb.add_argument("--device", default="cpu", help="such as cuda (default cpu)")
    verb.set_defaults(run=_eval)

    _add_weights(verbs.add_parser("weights", help="trained weights: list, download, convert, verify"))
    return parser


def _add_weights(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="weights_verb", required=True)
    verb = verbs.add_parser("list", help="trained weights as NAME.TAG, with their mIoU")
    verb.add_argument("pattern", nargs="?", default="*", help="shell pattern, such as '*.coco21'")
    verb.set_defaults(run=_weights_list)

    verb = verbs.add_parser("info", help="where weights come from, what they predict, their licence")
    verb.add_argument("name", metavar="NAME[.TAG]")
    verb.set_defaults(run=_weights_info)

    verb = verbs.add_parser("download", help="fetch weights into the cache, for use without a network")
    verb.add_argument("names", nargs="+", metavar="NAME[.TAG]|PATTERN")
    verb.set_defaults(run=_weights_download)

    verb = verbs.add_parser("convert", help="the original's .pth or .onnx to safetensors")
    verb.add_argument("source", type=Path, metavar="SRC")
    verb.add_argument("target", type=Path, metavar="DST")
    verb.add_argument("--model", required=True, metavar="NAME")
    verb.add_argument("--num-classes", type=int, help="of the file; default 19")
    verb.set_defaults(run=_weights_convert)

    verb = verbs.add_parser("verify", help="load weights and check them: hash, every tensor, finite logits")
    verb.add_argument("names", nargs="+", metavar="NAME[.TAG]|PATTERN")
    verb.set_defaults(run=_weights_verify)


def _add_dataset(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--dataset", required=True, choices=sorted(DATASETS))
    verb.add_argument("--data-path", required=True, type=Path, metavar="DIR")


def _add_recipe(verb: argparse.ArgumentParser) -> None:
    """A flag for each field of `TrainConfig`, its help from the docstring there; the recipe gives what is not given."""
    verb.add_argument(
        "--recipe", choices=RECIPES, default="modern", help="where the other options begin (default modern)"
    )
    lines = re.findall(r"^    (\w+): (.+)$", inspect.getdoc(TrainConfig) or "", re.MULTILINE)
    described, types = dict(lines), get_type_hints(TrainConfig)
    for field in fields(TrainConfig):
        flags = list(dict.fromkeys([f"--{field.name.replace('_', '-')}", f"--{field.name}"]))
        defaults = [str(getattr(recipe, field.name)) for recipe in RECIPES.values()]
        text = f"{described[field.name]} (default: {', originally '.join(dict.fromkeys(defaults))})"
        options: dict[str, Any] = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
        kind = types[field.name]
        if type(None) in get_args(kind):
            (kind,) = (each for each in get_args(kind) if each is not type(None))
        if get_origin(kind) is Literal:
            options["choices"] = get_args(kind)
        elif kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif get_origin(kind) is tuple:
            options["type"], *rest = get_args(kind)
            options["nargs"] = "+" if rest == [...] else 1 + len(rest)
        else:
            options["type"] = kind
        verb.add_argument(*flags, **options)


def _list(options: argparse.Namespace) -> int:
    names = edgeseg.list_models(options.pattern, pretrained=options.pretrained)
    if not names:
        return _nothing(options.pattern)
    print("\n".join(names))
    return 0


def _nothing(pattern: str) -> int:
    print(f"nothing matches {pattern!r}", file=sys.stderr)
    return 1


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
        _print_weights(weights)
    return 0


def _print_weights(weights: Weights) -> None:
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


def _weights_list(options: argparse.Namespace) -> int:
    from edgeseg.weights.catalog import WEIGHTS

    names = edgeseg.list_weights(options.pattern)
    for name in names:
        entry = WEIGHTS[name]
        miou = entry.measured_miou or entry.published_miou
        kind = "measured" if entry.measured_miou else "published"
        print(f"{name:52} {f'{miou:.2f} % {kind}' if miou else '':18} {entry.protocol}")
    return 0 if names else _nothing(options.pattern)


def _weights_info(options: argparse.Namespace) -> int:
    entry = edgeseg.weights_info(options.name)
    print(options.name)
    _print_weights(entry)
    for address in entry.addresses:
        print(f"  {'address':18} {address}")
    print(f"  {'sha256':18} {entry.sha256 or 'remembered when first downloaded'}")
    return 0


def _weights_download(options: argparse.Namespace) -> int:
    from edgeseg.weights.pretrained import weights_file

    for name in _weights_names(options.names):
        print(f"{name}: {weights_file(name)}")
    return 0


def _weights_convert(options: argparse.Namespace) -> int:
    if options.target.suffix != ".safetensors":
        raise ValueError(f"the target is a .safetensors file, got {options.target}")
    model = edgeseg.create_model(options.model, num_classes=options.num_classes, checkpoint_path=options.source)
    edgeseg.save_checkpoint(model, options.target, source=options.source.name)
    print(f"{options.target}: {len(model.state_dict())} tensors of {options.model}")
    return 0


def _weights_verify(options: argparse.Namespace) -> int:
    import torch

    from edgeseg.weights.pretrained import verified_sha256

    for name in _weights_names(options.names):
        digest = verified_sha256(name)
        model = edgeseg.create_model(name).eval()
        with torch.inference_mode():
            outputs = model(*(torch.zeros(1, channels, 64, 64) for channels in model.in_channels))
        if not all(bool(logits.isfinite().all()) for logits in outputs.values()):
            raise ValueError(f"{name}: the network answers NaN or infinity")
        print(f"{name}: sha256 {digest}, every tensor in its place, finite logits")
    return 0


def _weights_names(patterns: Sequence[str]) -> list[str]:
    """`name.tag` of each pattern; one that matches nothing is an error with the nearest names."""
    from edgeseg.weights.catalog import WEIGHTS

    found = []
    for pattern in patterns:
        names = edgeseg.list_weights(pattern)
        found += names or [name for name, entry in WEIGHTS.items() if entry is edgeseg.weights_info(pattern)]
    return list(dict.fromkeys(found))


def _predict(options: argparse.Namespace) -> int:
    from PIL import Image
    from tqdm import tqdm

    from edgeseg.preprocess import load_image
    from edgeseg.visualize import colorize, overlay, palette_of

    files, failed = _find_images(options.images, options.output)
    done = 0
    model = _load(options)
    task_name = next((name for name, task in model.tasks.items() if task.kind == "segmentation"), None)
    if task_name is None:
        raise ValueError(f"{model.name} has no segmentation task")
    task = model.tasks[task_name]
    for path, name in tqdm(files, unit="image", disable=None if len(files) > 1 else True):
        try:
            pixels = load_image(path)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises each of them
            failed.append(f"{path}: {error}")
            continue
        labels = model.predict(pixels, task=task_name)
        target = options.output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(f"{target}_labels.png")
        Image.fromarray(colorize(labels, palette_of(task))).save(f"{target}_color.png")
        overlay(Image.fromarray(pixels.permute(1, 2, 0).numpy()), labels, task).save(f"{target}_overlay.png")
        done += 1
    for problem in failed:
        print(f"edgeseg predict: not read: {problem}", file=sys.stderr)
    print(f"{done} of {done + len(failed)} segmented into {options.output}")
    return 1 if failed else 0


def _find_images(paths: Sequence[Path], output: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    """The image files and the name that each one's pictures begin with; and what is not there."""
    found: list[tuple[Path, Path]] = []  # file, its place below the argument
    for path in paths:
        if path.is_dir():
            inside = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and output not in p.parents
            )
            found += [(file, file.relative_to(path)) for file in inside]
        elif path.exists():
            found.append((path, Path(path.name)))
    stems = Counter(place.with_suffix("") for _, place in found)
    names = [(file, str(place if stems[place.with_suffix("")] > 1 else place.with_suffix(""))) for file, place in found]
    twice = [name for name, count in Counter(name for _, name in names).items() if count > 1]
    if twice:
        raise ValueError(f"several images would be written as {twice[0]}; predict their folders one by one")
    missing = [f"{path}: no such file or folder" for path in paths if not path.exists()]
    if not found and not missing:
        raise ValueError(f"no images in {', '.join(map(str, paths))}")
    return names, missing


def _train(options: argparse.Namespace) -> int:
    import torch

    from edgeseg.engine import train
    from edgeseg.engine.distributed import process_group

    train_set = load_dataset(options.dataset, options.data_path, options.train_split)
    val_set = None
    if options.val_split != "none":
        val_set = load_dataset(options.dataset, options.data_path, options.val_split)
    given: dict[str, Any] = {
        field.name: getattr(options, field.name) for field in fields(TrainConfig) if hasattr(options, field.name)
    }
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    config = replace(RECIPES[options.recipe], **given)
    torch.manual_seed(config.seed)
    model = edgeseg.create_model(
        options.model,
        pretrained=options.pretrained == "default",
        tasks={"segmentation": train_set.task},
        encoder_weights=options.encoder_weights,
        checkpoint_path=options.pretrained if options.pretrained != "default" else None,
    )
    with process_group(options.device) as device:
        model = _on_device(model, str(device))
        train(model, train_set, val_set, config, options.output, resume=options.resume == "auto")
    return 0


def _eval(options: argparse.Namespace) -> int:
    from edgeseg.engine import evaluate

    model = _load(options)
    if options.size:
        model.preprocess = replace(model.preprocess, size=tuple(options.size))
    matrix = evaluate(model, load_dataset(options.dataset, options.data_path, options.split))
    task = next(iter(model.tasks.values()))
    for name, iou in zip(task.classes, matrix.iou.tolist(), strict=True):
        print(f"{name:12} {100 * iou:6.2f}")
    print(f"{'mIoU':12} {100 * matrix.miou:6.2f}\n{'pixels right':12} {100 * matrix.pixel_accuracy:6.2f}")
    return 0


def _load(options: argparse.Namespace) -> Pixel2Pixel:
    """The model of --model and --checkpoint, ready to predict."""
    name = options.model or DEFAULT_MODEL
    if options.checkpoint is not None and options.model is None:
        from edgeseg.weights.checkpoint import read_config

        config = read_config(options.checkpoint)
        name = config.model if config else ""
        if not name:
            raise ValueError(f"{options.checkpoint} does not say which model it is; pass --model NAME")
    tagged = "." in name or options.checkpoint is not None
    model = edgeseg.create_model(name, pretrained=not tagged, checkpoint_path=options.checkpoint)
    return _on_device(model, options.device).eval()


def _on_device(model: Pixel2Pixel, device: str) -> Pixel2Pixel:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"cannot use --device {device}: {error}") from error
