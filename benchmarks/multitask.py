"""One task at a time, then all with each balancing, equal steps, on Streets: python benchmarks/multitask.py -o RUNS

Trains the network of the original's multi-task experiments eight times and writes the table of docs/multitask.md. A run
that was stopped goes on. Takes about three quarters of an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from reporting import write_table

import edgeseg
from edgeseg.data import Streets
from edgeseg.engine import TrainConfig, evaluate_tasks, train
from edgeseg.engine.balancing import BALANCERS

MODEL = "deeplabv3plus_mobilenetv2_tv_edgeailite"
TASKS = ("depth", "semantic", "motion")
SIZE = (192, 256)
# Always at one scale: another would be another camera, for which the depth is another.
CONFIG = TrainConfig(
    epochs=6, img_resize=SIZE, rand_crop=SIZE, rand_scale=(1, 1), keep_aspect=False, ema=0.99, warmup_epochs=1
)
# The document's: depth in ARD percent, semantic in mIoU of five classes, motion in mIoU, on Cityscapes.
PUBLISHED = {
    "one network per task": (11.35, 86.71, 86.6),
    "fixed": (12.31, 82.32, 80.52),
    "pseudo_gradnorm": (12.64, 85.53, 84.95),
}


def run(folder: Path, tasks: tuple[str, ...], balancing: str, encoder_weights: str | None) -> dict[str, float]:
    """Trains and scores one network; the figure that each task is judged by."""
    result = folder / "scores.json"
    if not result.is_file():
        torch.manual_seed(CONFIG.seed)
        train_set, val_set = (
            Streets(split, SIZE, length=length, inputs=("flow", "image"), targets=tasks)
            for split, length in (("train", 400), ("val", 100))
        )
        model = edgeseg.create_model(
            MODEL, tasks=train_set.tasks, in_channels={"flow": 3, "image": 3}, encoder_weights=encoder_weights
        )
        config = TrainConfig(**{**vars(CONFIG), "balancing": balancing})
        model = train(model, train_set, None, config, folder, resume=True)
        scores = {
            name: metric.scores(model.tasks[name], "native") for name, metric in evaluate_tasks(model, val_set).items()
        }
        result.write_text(json.dumps(scores, indent=2))
    scores = json.loads(result.read_text())
    return {name: each["ard" if name == "depth" else "miou"] for name, each in scores.items()}


def cost(tasks: tuple[str, ...]) -> float:
    """GMACs at 768x384, as the document counts."""
    model = edgeseg.create_model(MODEL, tasks=Streets(targets=tasks).tasks, in_channels=(3, 3))
    return edgeseg.complexity(model, (384, 768)).gmacs


def main() -> None:
    """Runs what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--encoder-weights", help="ImageNet weights: a file, or imagenet")
    options = parser.parse_args()
    alone: dict[str, float] = {}
    for task in TASKS:
        alone |= run(options.output / task, (task,), "fixed", options.encoder_weights)
    rows = {"one network per task": (sum(cost((task,)) for task in TASKS), alone)}
    for name in BALANCERS:
        rows[name] = (cost(TASKS), run(options.output / name, TASKS, name, options.encoder_weights))
    lines = [
        "| balancing | GMACs | depth ARD % | semantic mIoU % | motion mIoU % | published (Cityscapes) |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for name, (gmacs, figures) in rows.items():
        published = " / ".join(map(str, PUBLISHED.get(name, ()))) or "-"
        values = " | ".join(f"{figures[task]:.2f}" for task in TASKS)
        lines.append(f"| {name} | {gmacs:.2f} | {values} | {published} |")
    write_table("multitask.md", "balancing", "\n".join(lines))


if __name__ == "__main__":
    main()
