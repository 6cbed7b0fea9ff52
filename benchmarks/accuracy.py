"""Compares decoders at an equal start, by accuracy and by time.

    python benchmarks/accuracy.py train CAMVID MOBILENET_V2
    python benchmarks/accuracy.py measure CAMVID

`train` trains decoders of edgeseg and of segmentation_models_pytorch on MobileNetV2, three times each, with the same
ImageNet weights (a safetensors file in torchvision's layout), ReLU6, normalization, images, augmentation, steps and
recipe: on CamVid's train and val without the drive 0006R0, which they are scored on. CamVid's own val is the drive that
most of its train comes from. A run takes five to fifteen minutes on one core; a stopped one is resumed from
runs/accuracy. `measure` exports every network to ONNX, in float32 and in 8 bit, runs the files in turns, and writes
results/accuracy.json, the table in docs/benchmarks.md and the chart docs/images/accuracy.svg. Both need pip install
edgeseg[benchmarks].
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from charts import BLUE, GRAY, INK, chart, save
from measuring import RESULTS, ROOT, Worker, in_turns, machine, markdown, write_table
from runtimes import in_a_file
from smp_networks import network
from torch.utils.data import Subset

import edgeseg
from edgeseg.data.camvid import CamVid
from edgeseg.engine import TrainConfig, train
from edgeseg.machine.memory import keep_freed_memory
from edgeseg.spec import Task
from edgeseg.weights.load import load_checkpoint

RUNS = Path("runs/accuracy")
SIZE = (360, 480)
# In float32 also where bfloat16 is the default, so that runs on different machines can stand in one table.
BUDGET = TrainConfig(epochs=8, img_resize=SIZE, rand_crop=(192, 256), evaluate_every=8, bf16=False)
SEEDS = (1, 2, 3)
HELD_OUT = "0006R0"
TURNS = 25
CALIBRATION_IMAGES = 24
Build = Callable[[Mapping[str, Task], Path | None], edgeseg.Pixel2Pixel]


def _ours(decoder: str, tasks: Mapping[str, Task], imagenet: Path | None, **options: Any) -> edgeseg.Pixel2Pixel:
    # ReLU6 is the activation that the weights were trained with.
    return edgeseg.create_model(
        decoder, encoder="mobilenetv2", activation="relu6", tasks=tasks, encoder_weights=imagenet, **options
    )


NETWORKS: dict[str, Build] = {
    "edgeseg fpnsum": partial(_ours, "fpnsum"),
    # Dilations that fit the stride-32 feature of a crop.
    "edgeseg fpn": partial(_ours, "fpn", dilations=(1, 2, 3)),
    "segmentation_models_pytorch FPN": partial(network, "fpn"),
    "segmentation_models_pytorch Unet": partial(network, "unet"),
}


def train_all(options: argparse.Namespace) -> None:
    """Trains every network with every seed, and prints the mIoU."""
    keep_freed_memory()
    whole = CamVid(options.camvid, "trainval")
    held = [index for index in range(len(whole)) if Path(whole.name(index)).name.startswith(HELD_OUT)]
    rest = sorted(set(range(len(whole))) - set(held))
    for name in options.networks:
        for seed in SEEDS:
            config = TrainConfig(**{**vars(BUDGET), "seed": seed})
            torch.manual_seed(seed)
            model = NETWORKS[name](whole.tasks, options.mobilenet_v2)
            train(model, Subset(whole, rest), Subset(whole, held), config, _run(name, seed), resume=True)
            print(name, seed, _miou(name, seed))


def _run(name: str, seed: int) -> Path:
    return RUNS / f"{name.replace(' ', '_')}_{seed}"


def _miou(name: str, seed: int) -> float | None:
    """The mIoU of a run in percent, None if it has not ended."""
    path = _run(name, seed) / "metrics.jsonl"
    last = json.loads(path.read_text().splitlines()[-1]) if path.is_file() else {}
    return float(last["miou"]) if last.get("epoch") == BUDGET.epochs else None


def measure_all(options: argparse.Namespace) -> None:
    """Times the networks and writes the results."""
    if missing := [name for name in NETWORKS if any(_miou(name, seed) is None for seed in SEEDS)]:
        raise SystemExit(f"no {len(SEEDS)} finished trainings of {', '.join(missing)} in {RUNS.resolve()}")
    whole = CamVid(options.camvid)
    photos = [whole[index][0] for index in range(0, len(whole), len(whole) // CALIBRATION_IMAGES)]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        workers: dict[tuple[str, str], Worker] = {}
        for name, build in NETWORKS.items():
            # The last weights, since random ones are quantized worse.
            model = build(whole.tasks, None)
            load_checkpoint(model, _run(name, SEEDS[0]) / "last.safetensors")
            cost = edgeseg.complexity(model, SIZE)
            row: dict[str, Any] = {"network": name, "gmacs": cost.gmacs, "parameters": cost.params}
            row["miou"] = [_miou(name, seed) for seed in SEEDS]
            rows.append(row)
            for precision in ("float32", "int8"):
                path = Path(folder) / f"{len(workers)}.onnx"
                images = photos if precision == "int8" else ()
                done = edgeseg.export(
                    model.eval(), path, precision=precision, images=images, size=SIZE, dynamic=(), output="small_logits"
                )
                row[f"kept {precision}"] = min(done.agreement.values(), default=None)
                workers[name, precision] = Worker(in_a_file, path, SIZE)
        seconds = in_turns({" ".join(key): worker for key, worker in workers.items()}, TURNS)
        for worker in workers.values():
            worker.close()
    for row in rows:
        for precision in ("float32", "int8"):
            row[f"ms {precision}"] = 1000 * statistics.median(seconds[f"{row['network']} {precision}"])
    results = {"machine": machine(libraries=("torch", "onnxruntime")), "networks": rows}
    (RESULTS / "accuracy.json").write_text(json.dumps(results, indent=2) + "\n")
    write_table("benchmarks.md", "accuracy", table(results))
    draw(results, ROOT / "docs/images/accuracy.svg")


def table(results: Mapping[str, Any]) -> str:
    """Returns the results as a Markdown table."""
    cells = [
        (
            row["network"],
            f"{row['gmacs']:.2f}",
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['ms float32']:.1f}",
            f"{row['ms int8']:.1f}",
            f"{statistics.mean(row['miou']):.2f}",
            " ".join(f"{miou:.2f}" for miou in row["miou"]),
        )
        for row in results["networks"]
    ]
    heading = "network | GMACs: | M parameters: | ms float32: | ms int8: | mIoU %, mean: | by seed"
    return f"{markdown(heading, cells)}\n\nAt {SIZE[1]}x{SIZE[0]}. {results['machine']}."


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Draws the mIoU in float32 against milliseconds; hollow marks are the times in 8 bit."""
    figure, (panel,) = chart([3.4])
    for row in (row for row in results["networks"] if row["miou"]):
        color = BLUE if row["network"].startswith("edgeseg") else GRAY
        mean = statistics.mean(row["miou"])
        spread = [[mean - min(row["miou"])], [max(row["miou"]) - mean]]
        fast, slow = row["ms int8"], row["ms float32"]
        panel.plot([fast, slow], [mean, mean], color=color, linewidth=0.8, linestyle=":")
        panel.plot(fast, mean, "o", color=color, markerfacecolor="none", markersize=7)
        panel.errorbar(slow, mean, spread, fmt="o", color=color, markersize=7)
        label = row["network"].removeprefix("edgeseg ").replace("segmentation_models_pytorch", "smp")
        panel.annotate(label, (slow, mean), xytext=(8, 4), textcoords="offset points", color=INK)
    panel.set_xlabel("milliseconds at 480x360 in float32 (filled), 8 bit (hollow)")
    panel.set_title("mIoU in float32 on a held-out drive, percent", loc="left")
    panel.margins(y=0.2)
    panel.set_xlim(0, 1.3 * max(row["ms float32"] for row in results["networks"]))
    panel.grid(alpha=0.5)
    save(figure, path)


def main() -> None:
    """Runs the chosen command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train", help="train the networks")
    command.add_argument("camvid", type=Path, help="folder of the CamVid dataset")
    command.add_argument("mobilenet_v2", type=Path, help="ImageNet weights of MobileNetV2 in torchvision's layout")
    command.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="default: all")
    command.set_defaults(run=train_all)
    command = commands.add_parser("measure", help="time the networks, and write the table and the chart")
    command.add_argument("camvid", type=Path, help="folder of the CamVid dataset, for calibration")
    command.set_defaults(run=measure_all)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
