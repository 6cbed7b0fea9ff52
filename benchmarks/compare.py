"""Compares edgeseg with segmentation_models_pytorch and torchvision.

    python benchmarks/compare.py train CAMVID MOBILENET_V2 EFFICIENTNET_LITE0
    python benchmarks/compare.py measure

`train` trains networks of both libraries on CamVid under one budget: the same images, augmentation, steps and recipe,
each with ImageNet weights in the encoder (safetensors files in the layouts of torchvision and timm). It takes an hour
or two on a CPU, and a stopped run is resumed from runs/compare. `measure` counts operations and parameters, measures
times, and writes the tables in docs/benchmarks.md, with the mIoU of the networks that were trained. Both need pip
install edgeseg[benchmarks].
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import train_step
from measuring import Case, Round, Worker, in_turns, machine, markdown, measure, spread, write_table
from smp_networks import ARCHITECTURES, network
from ways import CLASSES, TORCHVISION, Setting, Ways, prepare, torchvision_network

import edgeseg
from edgeseg.data.camvid import CamVid
from edgeseg.engine import TrainConfig, train
from edgeseg.machine.memory import keep_freed_memory

RUNS = Path("runs/compare")
BUDGET = TrainConfig(epochs=8, img_resize=(360, 480), rand_crop=(192, 256), evaluate_every=8)
SIZE = (360, 480)
ROUNDS = 3
Build = Callable[[argparse.Namespace], edgeseg.Pixel2Pixel]


def name_of(decoder: str) -> str:
    """Returns the name of the zoo's network with this decoder on MobileNetV2."""
    return f"{decoder}{'' if decoder == 'deeplabv3plus' else '_aspp'}_mobilenetv2_tv_edgeailite"


def builders() -> dict[str, Build]:
    """Returns functions that create the networks to train, by name of the run."""

    def ours(name: str, weights: str, options: argparse.Namespace, **arguments: Any) -> edgeseg.Pixel2Pixel:
        tasks = CamVid(options.camvid).tasks
        return edgeseg.create_model(name, tasks=tasks, encoder_weights=getattr(options, weights), **arguments)

    def theirs(decoder: str, options: argparse.Namespace) -> edgeseg.Pixel2Pixel:
        return network(decoder, CamVid(options.camvid).tasks, options.mobilenet_v2)

    builds: dict[str, Build] = {}
    for decoder in ARCHITECTURES:
        builds[f"edgeseg_{decoder}"] = partial(ours, name_of(decoder), "mobilenet_v2")
        builds[f"smp_{decoder}"] = partial(theirs, decoder)
    builds["edgeseg_fpn_efficientnet_lite0"] = partial(
        ours, "fpn", "efficientnet_lite0", encoder="tf_efficientnet_lite0"
    )
    return builds


def train_all(options: argparse.Namespace) -> None:
    """Trains the networks one after the other and prints their mIoU on test."""
    keep_freed_memory()
    for name, build in builders().items():
        if not options.networks or name in options.networks:
            test = CamVid(options.camvid, "test")
            train(build(options), CamVid(options.camvid), test, BUDGET, RUNS / name, resume=True)
            print(name, miou(name))


def miou(name: str) -> float | None:
    """Returns the mIoU on test of a run's last weights, in percent, or None if the run has not ended."""
    path = RUNS / name / "metrics.jsonl"
    last = json.loads(path.read_text().splitlines()[-1]) if path.is_file() else {}
    return last.get("miou") if last.get("epoch") == BUDGET.epochs else None


class Network:
    """One network of the table.

    Args:
        title: First cell of its row.
        decoder: Decoder of the zoo's network that it is compared with.
        way: Way of ways.py that runs it.
        case: Function that trains it for some steps.
        run: Name of its training run, "" if it is not trained on CamVid.
    """

    def __init__(self, title: str, decoder: str, way: str, case: Case, run: str = "") -> None:
        self.title, self.decoder, self.way, self.case, self.run = title, decoder, way, case, run

    def setting(self, folder: str = "") -> Setting:
        """Returns the setting of its way."""
        return Setting(f"{name_of(self.decoder)}.camvid", "cpu", folder, compile=False)

    @cached_property
    def ways(self) -> Ways:
        """The ways of its setting, which count its operations and parameters."""
        return Ways(self.setting())


def training_steps(case: Case, decoder: str, options: argparse.Namespace) -> float:
    """Runs a case of train_step.py on the network with this decoder."""
    options.model = name_of(decoder)
    return case(options)


def torchvision_steps(name: str, options: argparse.Namespace) -> float:
    """Runs the plain training loop on a network of torchvision."""
    model = torchvision_network(name)
    return train_step.plain_loop(model, lambda images: model(images)["out"], options)


def networks() -> list[Network]:
    """Returns all networks; each of the zoo's comes before its peer."""
    rows = []
    for decoder, architecture in ARCHITECTURES.items():
        peer = f"segmentation_models_pytorch {architecture}"
        trained, plain = (partial(training_steps, case, decoder) for case in (train_step.trained, train_step.smp))
        rows.append(Network(f"edgeseg {decoder}", decoder, "edgeseg.optimize", trained, f"edgeseg_{decoder}"))
        rows.append(Network(peer, decoder, peer, plain, f"smp_{decoder}"))
    return rows + [
        Network(title, "fpn", title, partial(torchvision_steps, name)) for title, name in TORCHVISION.items()
    ]


def inference(rows: Sequence[Network], turns: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Runs all networks in turns. Returns the seconds of each turn and the peak memory in MB, by title."""
    with tempfile.TemporaryDirectory() as folder:
        workers = {row.title: Worker(prepare, row.setting(folder), row.way, SIZE, 1) for row in rows}
        in_turns(workers, 1)  # warms up
        seconds = in_turns(workers, turns)
        return seconds, {title: worker.close() for title, worker in workers.items()}


def table(
    rows: Sequence[Network],
    seconds: Mapping[str, Sequence[float]],
    peak_mb: Mapping[str, float],
    training: Mapping[str, Sequence[Round]],
) -> str:
    """Returns a Markdown table.

    Ratios are relative to the network of segmentation_models_pytorch with the same decoder: for inference the median of
    the ratios in each turn, for training the ratio of the medians.
    """
    rates = {title: [each.images_per_second for each in rounds] for title, rounds in training.items()}
    cells = []
    for row in rows:
        title, peer = row.title, f"segmentation_models_pytorch {ARCHITECTURES[row.decoder]}"
        faster = statistics.median(b / a for a, b in zip(seconds[title], seconds[peer], strict=True))
        cells.append(
            (
                title,
                f"{row.ways.gmacs(row.way, SIZE):.2f}",
                f"{row.ways.parameters(row.way) / 1e6:.2f}",
                spread(1 / each for each in seconds[title]),
                f"{faster:.2f}",
                f"{peak_mb[title]:,.0f}",
                spread(rates[title]),
                f"{statistics.median(rates[title]) / statistics.median(rates[peer]):.2f}",
                f"{statistics.median(each.peak_mb for each in training[title]):,.0f}",
                _percent(miou(row.run)),
            )
        )
    heading = (
        "network | GMACs: | M parameters: | images/s (lowest to highest) | ratio: | memory, MB: | "
        f"training, images/s (lowest to highest) | ratio: | memory, MB: | CamVid mIoU %, {BUDGET.epochs} epochs:"
    )
    return markdown(heading, cells)


def measure_all(options: argparse.Namespace) -> None:
    """Measures training and inference of all networks and writes the tables."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    rows = networks()
    training = measure({row.title: row.case for row in rows}, options, ROUNDS)
    text = table(rows, *inference(rows, options.turns), training)
    write_table("benchmarks.md", "compare", f"{text}\n\nAt {SIZE[1]}x{SIZE[0]}. {machine()}.")
    write_table("benchmarks.md", "encoders", encoders())


def encoders() -> str:
    """Returns a Markdown table of the encoders on which the FPN was trained."""
    models = {
        "edgeseg_fpn": edgeseg.create_model(name_of("fpn"), num_classes=CLASSES),
        "edgeseg_fpn_efficientnet_lite0": edgeseg.create_model(
            "fpn", encoder="tf_efficientnet_lite0", num_classes=CLASSES
        ),
    }
    rows = []
    for run, model in models.items():
        cost, spec = edgeseg.complexity(model, SIZE), model.config.spec
        assert spec is not None
        rows.append((spec.encoder, f"{cost.gmacs:.2f}", f"{cost.params / 1e6:.2f}", _percent(miou(run))))
    return markdown("encoder | GMACs: | M parameters: | CamVid mIoU %:", rows)


def _percent(score: float | None) -> str:
    return "not trained" if score is None else f"{score:.2f}"


def main() -> None:
    """Runs the chosen command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train", help="train the networks on CamVid")
    command.add_argument("camvid", type=Path, help="folder of the CamVid dataset")
    command.add_argument("mobilenet_v2", type=Path, help="ImageNet weights of MobileNetV2 in torchvision's layout")
    command.add_argument(
        "efficientnet_lite0", type=Path, help="ImageNet weights of EfficientNet-Lite0 in timm's layout"
    )
    command.add_argument("--networks", nargs="+", choices=builders(), help="runs to train (default: all)")
    command.set_defaults(run=train_all)
    command = commands.add_parser("measure", help="measure all networks and write the tables")
    command.add_argument("--turns", type=int, default=15, help="number of times each network runs (default 15)")
    command.add_argument("--batch", type=int, default=8, help="images per training batch (default 8)")
    command.add_argument(
        "--steps", type=int, default=4, help="training steps to warm up, and again to measure (default 4)"
    )
    command.set_defaults(run=measure_all)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
