"""edgeseg beside segmentation_models_pytorch and torchvision.

    python benchmarks/compare.py train CAMVID MOBILENET_V2 EFFICIENTNET_LITE0
    python benchmarks/compare.py measure

`train` trains networks of both under one budget on CamVid: the same images, augmentation, steps and recipe, each with
ImageNet weights in the encoder (safetensors files, of torchvision's and of timm's layout). It takes an hour or two on a
CPU and goes on where it was stopped, in runs/compare. `measure` counts, times, and writes the tables of
docs/benchmarks.md, with the mIoU of what is trained. Both need pip install edgeseg[benchmarks].
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import speed
import train_step
from reporting import machine, write_table
from side_by_side import Case, measure, run_one
from smp_networks import ARCHITECTURES, network

import edgeseg
from edgeseg.data.camvid import CamVid
from edgeseg.engine import TrainConfig, train

RUNS = Path("runs/compare")
BUDGET = TrainConfig(epochs=8, img_resize=(360, 480), rand_crop=(192, 256), evaluate_every=8)
SIZE = (360, 480)
ROUNDS = 3
TORCHVISION = {
    "torchvision LR-ASPP MobileNetV3": "lraspp_mobilenet_v3_large",
    "torchvision DeepLabV3 MobileNetV3": "deeplabv3_mobilenet_v3_large",
}
Build = Callable[[argparse.Namespace], edgeseg.Pixel2Pixel]


def name_of(decoder: str) -> str:
    """Of the zoo's network on MobileNetV2."""
    return f"{decoder}{'' if decoder == 'deeplabv3plus' else '_aspp'}_mobilenetv2_tv_edgeailite"


def builders() -> dict[str, Build]:
    """What is trained, by the name of the run."""

    def ours(name: str, weights: str, options: argparse.Namespace, **how: Any) -> edgeseg.Pixel2Pixel:
        tasks = CamVid(options.camvid).tasks
        return edgeseg.create_model(name, tasks=tasks, encoder_weights=getattr(options, weights), **how)

    def theirs(decoder: str, options: argparse.Namespace) -> edgeseg.Pixel2Pixel:
        return network(decoder, CamVid(options.camvid).tasks, options.mobilenet_v2)

    found: dict[str, Build] = {}
    for decoder in ARCHITECTURES:
        found[f"edgeseg_{decoder}"] = partial(ours, name_of(decoder), "mobilenet_v2")
        found[f"smp_{decoder}"] = partial(theirs, decoder)
    found["edgeseg_fpn_efficientnet_lite0"] = partial(
        ours, "fpn", "efficientnet_lite0", encoder="tf_efficientnet_lite0"
    )
    return found


def train_all(options: argparse.Namespace) -> None:
    """Each network to the end, one after the other; scored on test."""
    for name, build in builders().items():
        if not options.networks or name in options.networks:
            test = CamVid(options.camvid, "test")
            train(build(options), CamVid(options.camvid), test, BUDGET, RUNS / name, resume=True)
            print(name, miou(name))


def miou(name: str) -> float | None:
    """Of a run's last weights, in percent, on test; None where it has not ended."""
    path = RUNS / name / "metrics.jsonl"
    last = json.loads(path.read_text().splitlines()[-1]) if path.is_file() else {}
    return last.get("miou") if last.get("epoch") == BUDGET.epochs else None


def training_cases() -> dict[str, Case]:
    """Training steps of every network: of ours by `train`, of the others by a plain loop."""

    def of_torchvision(name: str, options: argparse.Namespace) -> float:
        from torchvision.models import get_model

        model = get_model(name, weights=None, weights_backbone=None, num_classes=train_step.CLASSES)
        return train_step.plain_loop(model, lambda images: model(images)["out"], options)

    def with_model(case: Case, decoder: str, options: argparse.Namespace) -> float:
        options.model = name_of(decoder)
        return case(options)

    cases: dict[str, Case] = {}
    for decoder, architecture in ARCHITECTURES.items():
        cases[f"edgeseg {decoder}"] = partial(with_model, train_step.trained, decoder)
        cases[f"segmentation_models_pytorch {architecture}"] = partial(with_model, train_step.smp, decoder)
    return cases | {title: partial(of_torchvision, name) for title, name in TORCHVISION.items()}


class Network:
    """A row of the table, and a process that runs it."""

    def __init__(self, title: str, decoder: str, way: str, run: str, folder: str) -> None:
        self.title, self.decoder, self.way, self.run = title, decoder, way, run
        options = argparse.Namespace(device="cpu", model=f"{name_of(decoder)}.camvid", folder=folder, compile=False)
        self.ways, self.worker = speed.Ways(options), speed.Worker(options, way, SIZE, 1)
        self.seconds: list[float] = []

    def parameters(self) -> int:
        """Their number."""
        made = self.ways.peers[self.way]() if self.way in self.ways.peers else self.ways.model
        return sum(each.numel() for each in made.parameters())


def networks(folder: str) -> list[Network]:
    """All of them; each of ours before its nearest."""
    found = []
    for decoder, architecture in ARCHITECTURES.items():
        theirs = f"segmentation_models_pytorch {architecture}"
        found.append(Network(f"edgeseg {decoder}", decoder, "edgeseg.optimize", f"edgeseg_{decoder}", folder))
        found.append(Network(theirs, decoder, theirs, f"smp_{decoder}", folder))
    return found + [Network(title, "fpn", title, "", folder) for title in TORCHVISION]


def table(rows: Sequence[Network], training: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """In Markdown; ratios are those of the turns with segmentation_models_pytorch's network of the same decoder."""
    lines = [
        "| network | GMACs | M parameters | images/s (lowest to highest) | ratio | memory, MB | training, images/s "
        f"(lowest to highest) | ratio | memory, MB | CamVid mIoU %, {BUDGET.epochs} epochs |",
        "|---|--:|--:|---|--:|--:|---|--:|--:|--:|",
    ]
    for row in rows:
        peer = next(each for each in rows if each.decoder == row.decoder and each.title.startswith("segmentation"))
        rates, steps = [1 / each for each in row.seconds], [each["images_per_second"] for each in training[row.title]]
        faster = statistics.median(b / a for a, b in zip(row.seconds, peer.seconds, strict=True))
        base = statistics.median(each["images_per_second"] for each in training[peer.title])
        memory = statistics.median(each["peak_mb"] for each in training[row.title])
        lines.append(
            f"| {row.title} | {row.ways.gmacs(row.way, SIZE):.2f} | {row.parameters() / 1e6:.2f} | {_spread(rates)} | "
            f"{faster:.2f} | {row.worker.answer('facts'):,.0f} | {_spread(steps)} | "
            f"{statistics.median(steps) / base:.2f} | {memory:,.0f} | {_percent(miou(row.run))} |"
        )
    return "\n".join(lines)


def _spread(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):.2f} ({min(rates):.2f} to {max(rates):.2f})"


def measure_all(options: argparse.Namespace) -> None:
    """Writes the tables."""
    cases = training_cases()
    if options.only:
        run_one(cases[options.only], options)
        return
    training = measure(cases, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        rows = networks(folder)
        for turn in range(options.turns + 1):
            for row in rows:
                seconds = row.worker.answer("run")
                if turn:  # the first warms up
                    row.seconds.append(seconds)
        text = table(rows, training)
    write_table("benchmarks.md", "compare", f"{text}\n\nAt {SIZE[1]}x{SIZE[0]}. {machine()}.")
    write_table("benchmarks.md", "encoders", encoders())


def encoders() -> str:
    """Of the FPNs that were trained, in Markdown."""
    lines = ["| encoder | GMACs | M parameters | CamVid mIoU % |", "|---|--:|--:|--:|"]
    made = {
        "edgeseg_fpn": edgeseg.create_model(name_of("fpn"), num_classes=speed.CLASSES),
        "edgeseg_fpn_efficientnet_lite0": edgeseg.create_model(
            "fpn", encoder="tf_efficientnet_lite0", num_classes=speed.CLASSES
        ),
    }
    for run, model in made.items():
        count = sum(each.numel() for each in model.parameters()) / 1e6
        gmacs, encoder = edgeseg.complexity(model, SIZE).gmacs, model.config.spec.encoder if model.config.spec else ""
        lines.append(f"| {encoder} | {gmacs:.2f} | {count:.2f} | {_percent(miou(run))} |")
    return "\n".join(lines)


def _percent(score: float | None) -> str:
    return "not trained" if score is None else f"{score:.2f}"


def main() -> None:
    """Trains, or measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("train")
    for name in ("camvid", "mobilenet_v2", "efficientnet_lite0"):
        verb.add_argument(name, type=Path)
    verb.add_argument("--networks", nargs="+", choices=builders())
    verb.set_defaults(run=train_all)
    verb = verbs.add_parser("measure")
    verb.add_argument("--turns", type=int, default=15, help="of all networks on one image")
    verb.add_argument("--batch", type=int, default=8, help="of training steps")
    verb.add_argument("--steps", type=int, default=4, help="of training, to warm up, and again to measure")
    verb.add_argument("--only", choices=training_cases(), help="run the training steps of one network once")
    verb.set_defaults(run=measure_all)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
