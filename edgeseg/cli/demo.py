"""edgeseg demo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DEMO_MODEL = "deeplabv3plus_mobilenetv2_tv_edgeailite.streets"


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("demo", help="segmentation, depth and motion on synthetic streets, without any download")
    verb.add_argument("-o", "--output", type=Path, default=Path("demo.png"), metavar="FILE", help="default demo.png")
    verb.add_argument("--model", default=DEMO_MODEL, metavar="NAME.TAG", help=f"default {DEMO_MODEL}")
    verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of your own for the model")
    verb.add_argument("--seed", type=int, help="of the town")
    verb.add_argument("--sequences", type=int, default=2, help="four frames each (default 2)")
    verb.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    import edgeseg
    from edgeseg.engine.demo import SEED, run_demo
    from edgeseg.engine.report import print_scores

    model = edgeseg.create_model(
        options.model.partition(".")[0] if options.checkpoint else options.model, checkpoint_path=options.checkpoint
    ).eval()
    seed = SEED if options.seed is None else options.seed
    metrics = run_demo(model, options.output, sequences=options.sequences, seed=seed)
    print(f"{model.name} on {4 * options.sequences} synthetic frames, against the exact truth, in percent")
    for name, metric in metrics.items():
        print_scores(metric.scores(model.tasks[name], "native"), title=f"\n{name}")
    print(f"\n{options.output}: inputs, truth and prediction of one frame")
    return 0
