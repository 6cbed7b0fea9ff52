"""The verb `edgeseg evaluate`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgeseg
from edgeseg.cli.dataset import add_dataset, load_split
from edgeseg.cli.export import check_file
from edgeseg.cli.messages import add_json, add_quiet, print_json
from edgeseg.cli.model import accelerated, add_exported, add_model, add_runtime, load_network
from edgeseg.machine.terminal import say

if TYPE_CHECKING:
    from edgeseg.predict.predictor import Predictor


def add(verbs: Any) -> None:
    """Adds the verb and its options."""
    verb = verbs.add_parser(
        "evaluate",
        help="score a model on a dataset",
        description="Scores all tasks of a model in one pass over a dataset: IoU of the classes, errors of depth; for "
        "a binary task also F1, precision, recall and the best threshold. "
        "Started by torchrun, each process scores its share of the dataset.",
        examples=(
            "edgeseg evaluate --dataset camvid --data-path CamVid --download --split test",
            "edgeseg evaluate --dataset images_masks --data-path mine --checkpoint runs/mine/best.safetensors --json",
        ),
    )
    group = add_dataset(verb)
    group.add_argument("--split", default="val", metavar="NAME", help="split of the dataset (default val)")
    group.add_argument(
        "--workers", type=int, default=1, metavar="N", help="number of processes that decode images (default 1)"
    )
    group = add_model(verb)
    add_exported(group)
    add_runtime(group)
    _add_views(verb)
    _add_results(verb)
    add_quiet(verb)
    verb.set_defaults(run=_evaluate)


def _add_views(verb: argparse.ArgumentParser) -> None:
    """Adds the options that say at which sizes images are seen and scored."""
    group = verb.add_argument_group("protocol")
    group.add_argument(
        "--protocol",
        choices=["native", "original"],
        default="native",
        help="native: resize the logits to the size of the ground truth; original: resize predicted classes by nearest "
        "neighbour, as the published figures of TI's zoo were taken (default native)",
    )
    group.add_argument(
        "--img-resize", "--img_resize", nargs=2, type=int, metavar=("H", "W"),
        help="height and width of the network's input (default: as in training)",
    )  # fmt: skip
    group.add_argument(
        "--output-size", "--output_size", nargs=2, type=int, metavar=("H", "W"),
        help="height and width at which the original protocol scores (default: the size of the ground truth)",
    )  # fmt: skip
    group.add_argument(
        "--scales", nargs="+", type=float, default=[1.0], metavar="FACTOR",
        help="factors on the input size, over which predictions are averaged (default 1.0)",
    )  # fmt: skip
    group.add_argument("--flip", action="store_true", help="average predictions with those for the mirrored image")


def _add_results(verb: argparse.ArgumentParser) -> None:
    """Adds the options of what is written, and of what is printed."""
    group = verb.add_argument_group("results")
    group.add_argument(
        "-o", "--output", type=Path, nargs="+", default=[], metavar="FILE",
        help=".json and .csv files to write the scores to",
    )  # fmt: skip
    group.add_argument(
        "--store-threshold", type=Path, metavar="FILE",
        help="write the model, which has one binary task, to this .safetensors file, with the threshold that gives the "
        "highest IoU on the split",
    )  # fmt: skip
    group.add_argument(
        "--store-biases", type=Path, metavar="FILE",
        help="write the model, which has one segmentation task, to this .safetensors file, with the biases of its "
        "classes that give the highest mIoU on the split, and print the scores with them; use the training or the "
        "validation split",
    )  # fmt: skip
    add_json(group, "the scores by task, as in a .json file of --output")


def _evaluate(options: argparse.Namespace) -> int:
    from edgeseg.data.samples import check_classes
    from edgeseg.engine import distributed, evaluate_tasks

    _check_files(options)
    if options.exported is not None and (given := _views(options)):
        raise ValueError(f"an exported file is scored as it predicts for users; leave out {', '.join(given)}")
    if options.workers < 0:
        raise ValueError(f"--workers must be at least 0, got {options.workers}")
    with distributed.process_group(options.device) as device:
        model = load_network(options, device)
        _check_tasks(options, model)
        dataset = load_split(options, options.split, model)
        check_classes(dataset, model.tasks, name=options.dataset)
        if _needs_torch(options, model) and options.runtime == "auto":
            options.runtime = "torch"
        if options.store_biases is not None:
            _store_biases(options.store_biases, model, dataset, options.workers)
        metrics = evaluate_tasks(
            accelerated(model, options, len(dataset)), dataset, protocol=options.protocol, size=options.img_resize,
            output_size=options.output_size, scales=options.scales, flip=options.flip, workers=options.workers,
            progress="evaluation",
        )  # fmt: skip
        if distributed.rank() == 0:
            scores = {name: metric.scores(model.tasks[name], options.protocol) for name, metric in metrics.items()}
            _report(scores, options)
            if options.store_threshold is not None:
                _store_threshold(options.store_threshold, model, scores)
    return 0


def _report(scores: Mapping[str, Mapping[str, Any]], options: argparse.Namespace) -> None:
    """Prints the scores of all tasks, and writes them to the files of --output."""
    from edgeseg.engine.report import print_scores, write_scores

    if options.json:
        print_json(scores)
    else:
        for name, figures in scores.items():
            print_scores(figures, title=name if len(scores) > 1 else "")
    for path in options.output:
        write_scores(scores, path)


def _needs_torch(options: argparse.Namespace, model: Predictor) -> bool:
    """Whether the scores need more than maps: probabilities of binary tasks, several views, or other sizes."""
    from edgeseg.networks.pixel2pixel import Pixel2Pixel
    from edgeseg.tasks import kind_of

    thresholds = any(kind_of(task).has_threshold for task in model.tasks.values())
    return isinstance(model, Pixel2Pixel) and bool(_views(options) or thresholds)


def _views(options: argparse.Namespace) -> list[str]:
    """The options given by which images are seen or scored at other sizes, or more than once."""
    given = {
        "--flip": options.flip,
        "--scales": options.scales != [1.0],
        "--img-resize": options.img_resize,
        "--protocol": options.protocol != "native",
    }
    return [name for name, value in given.items() if value]


def _check_files(options: argparse.Namespace) -> None:
    """Raises a ValueError if a file to write has a suffix that is not written, or a folder that does not exist."""
    wrong = [path for path in options.output if path.suffix not in (".json", ".csv")]
    if wrong:
        raise ValueError(f"--output takes .json and .csv files, got {wrong[0]}")
    for path in options.output:
        check_file("--output", path)
    for option, path, what in _stores(options):
        if path.suffix != ".safetensors":
            raise ValueError(f"{option} takes a .safetensors file, got {path}")
        check_file(option, path)
        read = options.checkpoint
        if read is not None and path.exists() and os.path.exists(read) and path.samefile(read):
            raise ValueError(f"{option} would overwrite the file of --checkpoint; name another file")
        if option == "--store-biases" and (views := _views(options)):
            raise ValueError(
                f"{option} scores as training does, from one view at the size of training: leave out {views[0]}"
            )
        if option == "--store-threshold" and options.runtime in ("onnxruntime", "openvino"):
            raise ValueError(f"{option} needs probabilities, which PyTorch computes: leave out --runtime")
        if options.exported is not None:
            raise ValueError(
                f"{option} cannot be combined with --exported, whose {what} fixed; choose for the checkpoint, and "
                "export that"
            )


def _stores(options: argparse.Namespace) -> list[tuple[str, Path, str]]:
    """The options that write a model: their names, their files, and what they choose."""
    stores = (
        ("--store-threshold", options.store_threshold, "threshold is"),
        ("--store-biases", options.store_biases, "biases are"),
    )
    return [(option, path, what) for option, path, what in stores if path is not None]


def _check_tasks(options: argparse.Namespace, model: Any) -> None:
    """Raises a ValueError if a model is to be written, and it does not have one task of the kind that this needs."""
    from edgeseg.tasks import kind_of

    kinds = {name: kind_of(task) for name, task in model.tasks.items()}
    suits = {
        "--store-threshold": ("binary", [name for name, kind in kinds.items() if kind.has_threshold]),
        "--store-biases": ("segmentation", [name for name, kind in kinds.items() if kind.takes_soft_labels]),
    }
    for option, _, _ in _stores(options):
        kind, names = suits[option]
        if len(names) != 1:
            has = ", ".join(f"{name} ({task.kind})" for name, task in model.tasks.items())
            raise ValueError(f"{option} needs a model with one {kind} task; this one has {has}")


def _store_threshold(path: Path, model: Any, scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the model with the best threshold of its binary task."""
    chosen = {name: figures["best_threshold"] for name, figures in scores.items() if "best_threshold" in figures}
    if not chosen:
        raise ValueError("no pixel of the split is foreground; no threshold can be chosen on it")
    tasks = {name: replace(task, threshold=chosen.get(name, task.threshold)) for name, task in model.tasks.items()}
    model.configure(tasks=tasks)
    edgeseg.save_checkpoint(model, path)
    say(f"wrote {path}, with the threshold {next(iter(chosen.values())):.4g}")


def _store_biases(path: Path, model: Any, dataset: Any, workers: int) -> None:
    """Writes the model with the biases that are chosen on a dataset. Under torchrun, every process has to call it."""
    from edgeseg.engine import choose_biases, distributed

    biases = choose_biases(model, dataset, workers=workers, progress="biases")
    if distributed.rank() == 0:
        edgeseg.save_checkpoint(model, path)
        say(f"wrote {path}, with these biases: {', '.join(f'{name} {bias:+.3g}' for name, bias in biases.items())}")
