"""The verb `edgeseg demo`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgeseg.cli.messages import add_quiet
from edgeseg.cli.model import add_checkpoint, load_model
from edgeseg.machine.terminal import say, show

DEMO_MODEL = "deeplabv3plus_mobilenetv2_tv_edgeailite.streets"


def add(verbs: Any) -> None:
    """Adds the verb and its options."""
    verb = verbs.add_parser(
        "demo",
        help="segmentation, depth and motion on synthetic streets, without any download",
        description="Renders synthetic street scenes and predicts segmentation, depth and motion in them with weights "
        "that come with the package. Prints the scores, and writes a picture of one frame.",
        examples=("edgeseg demo", "edgeseg demo --seed 3 --sequences 4 -o streets.png"),
    )
    group = verb.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="NAME.TAG",
        help=f"model that takes images of streets, with or without optical flow (default {DEMO_MODEL})",
    )
    add_checkpoint(group)
    group = verb.add_argument_group("streets and picture")
    group.add_argument(
        "-o", "--output", type=Path, default=Path("demo.png"), metavar="FILE",
        help="PNG file of inputs, ground truth and predictions (default demo.png)",
    )  # fmt: skip
    group.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="seed of the town (default: one that the weights were not trained on)",
    )
    group.add_argument(
        "--sequences", type=int, default=2, metavar="N", help="number of sequences of four frames each (default 2)"
    )
    add_quiet(verb)
    verb.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    import torch

    from edgeseg.engine.demo import SEED, run_demo
    from edgeseg.engine.report import print_scores

    if options.model is None and options.checkpoint is None:
        options.model = DEMO_MODEL
    model = load_model(options, torch.device("cpu"))
    seed = SEED if options.seed is None else options.seed
    metrics = run_demo(model, options.output, sequences=options.sequences, seed=seed, progress="streets")
    show(f"{model.name} on {4 * options.sequences} synthetic frames with exact ground truth, in percent")
    for name, metric in metrics.items():
        show()
        print_scores(metric.scores(model.tasks[name], "native"), title=name)
    say(f"\n{options.output}: inputs, ground truth and predictions of one frame")
    return 0
