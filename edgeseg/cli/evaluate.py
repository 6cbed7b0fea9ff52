"""edgeseg evaluate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgeseg.cli.model import add_dataset, add_model, dataset_options, load_network
from edgeseg.data import load_dataset


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("evaluate", help="mean IoU on a data set")
    add_dataset(verb)
    add_model(verb)
    verb.add_argument("--onnx", type=Path, metavar="FILE", help="score this file in onnxruntime instead of a network")
    verb.add_argument("--split", default="val")
    verb.add_argument(
        "--protocol",
        choices=["native", "original"],
        default="native",
        help="logits to the labels' own size, or labels by nearest neighbour as the published figures were taken",
    )
    verb.add_argument(
        "--img-resize", "--img_resize", nargs=2, type=int, metavar=("H", "W"), help="at the network, else as trained"
    )
    verb.add_argument(
        "--output-size", "--output_size", nargs=2, type=int, metavar=("H", "W"), help="of the original's protocol"
    )
    verb.add_argument("--scales", nargs="+", type=float, default=[1.0], help="average over these factors on the size")
    verb.add_argument("--flip", action="store_true", help="average with the mirrored image")
    verb.add_argument("--workers", type=int, default=1, help="processes that decode (default 1)")
    verb.add_argument("-o", "--output", type=Path, nargs="+", default=[], metavar="FILE", help=".json and .csv")
    verb.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from edgeseg.engine import distributed, evaluate_tasks
    from edgeseg.engine.report import print_scores, write_scores

    wrong = [path for path in options.output if path.suffix not in (".json", ".csv")]
    if wrong:
        raise ValueError(f"scores are written as .json or .csv, not as {wrong[0]}")
    with distributed.process_group(options.device) as device:
        model = load_network(options, device)
        dataset = load_dataset(options.dataset, options.data_path, options.split, **dataset_options(options, model))
        for name, task in dataset.tasks.items():
            if name in model.tasks and task.channels > model.tasks[name].channels:
                raise ValueError(
                    f"{options.dataset} has {task.channels} classes, the model {model.tasks[name].channels}"
                )
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
