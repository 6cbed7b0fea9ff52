"""The verb `edgeseg evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgeseg.cli.model import add_dataset, add_model, load_network, load_split


def add(verbs: Any) -> None:
    """Adds the verb and its options."""
    verb = verbs.add_parser(
        "evaluate",
        help="score a model on a dataset",
        description="Scores all tasks of a model in one pass over a dataset: IoU of the classes, errors of depth. "
        "Started by torchrun, each process scores its share of the dataset.",
    )
    add_dataset(verb)
    add_model(verb)
    verb.add_argument(
        "--onnx", type=Path, metavar="FILE", help="score a file of edgeseg export in onnxruntime instead of a model"
    )
    verb.add_argument("--split", default="val", metavar="NAME", help="split of the dataset (default val)")
    verb.add_argument(
        "--protocol",
        choices=["native", "original"],
        default="native",
        help="native: resize the logits to the size of the ground truth; original: resize predicted classes by nearest "
        "neighbour, as the published figures of TI's zoo were taken (default native)",
    )
    verb.add_argument(
        "--img-resize", "--img_resize", nargs=2, type=int, metavar=("H", "W"),
        help="height and width of the network's input (default: as in training)",
    )  # fmt: skip
    verb.add_argument(
        "--output-size", "--output_size", nargs=2, type=int, metavar=("H", "W"),
        help="height and width at which the original protocol scores (default: the size of the ground truth)",
    )  # fmt: skip
    verb.add_argument(
        "--scales", nargs="+", type=float, default=[1.0], metavar="FACTOR",
        help="factors on the input size, over which predictions are averaged (default 1.0)",
    )  # fmt: skip
    verb.add_argument("--flip", action="store_true", help="average predictions with those for the mirrored image")
    verb.add_argument(
        "--workers", type=int, default=1, metavar="N", help="number of processes that decode images (default 1)"
    )
    verb.add_argument(
        "-o", "--output", type=Path, nargs="+", default=[], metavar="FILE",
        help=".json and .csv files to write the scores to",
    )  # fmt: skip
    verb.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from edgeseg.data.samples import check_classes
    from edgeseg.engine import distributed, evaluate_tasks
    from edgeseg.engine.report import print_scores, write_scores

    wrong = [path for path in options.output if path.suffix not in (".json", ".csv")]
    if wrong:
        raise ValueError(f"--output takes .json and .csv files, got {wrong[0]}")
    with distributed.process_group(options.device) as device:
        model = load_network(options, device)
        dataset = load_split(options, options.split, model)
        check_classes(dataset, model.tasks, name=options.dataset)
        metrics = evaluate_tasks(
            model, dataset, protocol=options.protocol, size=options.img_resize, output_size=options.output_size,
            scales=options.scales, flip=options.flip, workers=options.workers,
        )  # fmt: skip
        if distributed.rank() == 0:
            scores = {name: metric.scores(model.tasks[name], options.protocol) for name, metric in metrics.items()}
            for name, figures in scores.items():
                print_scores(figures, title=name if len(scores) > 1 else "")
            for path in options.output:
                write_scores(scores, path)
    return 0
