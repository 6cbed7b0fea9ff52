"""Compares the speed of edgeseg with segmentation_models_pytorch and torchvision: python benchmarks/compare.py

Counts operations and parameters, measures inference and training, and writes the table in docs/benchmarks.md. How
accurate the networks are is the subject of accuracy.py. Needs pip install 'edgeseg[benchmarks]'.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property, partial

import train_step
from measuring import Case, Round, Worker, in_turns, machine, markdown, measure, spread, write_table
from smp_networks import ARCHITECTURES
from ways import TORCHVISION, Setting, Ways, prepare, torchvision_network

SIZE = (360, 480)
ROUNDS = 3


def name_of(decoder: str) -> str:
    """Returns the name of the zoo's network with this decoder on MobileNetV2."""
    return f"{decoder}{'' if decoder == 'deeplabv3plus' else '_aspp'}_mobilenetv2_tv_edgeailite"


class Network:
    """One network of the table.

    Args:
        title: First cell of its row.
        decoder: Decoder of the zoo's network that it is compared with.
        way: Way of ways.py that runs it.
        case: Function that trains it for some steps.
    """

    def __init__(self, title: str, decoder: str, way: str, case: Case) -> None:
        self.title, self.decoder, self.way, self.case = title, decoder, way, case

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
        rows.append(Network(f"edgeseg {decoder}", decoder, "edgeseg.optimize", trained))
        rows.append(Network(peer, decoder, peer, plain))
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
            )
        )
    heading = (
        "network | GMACs: | M parameters: | images/s (lowest to highest) | ratio: | memory, MB: | "
        "training, images/s (lowest to highest) | ratio: | memory, MB:"
    )
    return markdown(heading, cells)


def main() -> None:
    """Measures all networks and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15, help="number of times each network runs (default 15)")
    parser.add_argument("--batch", type=int, default=8, help="images per training batch (default 8)")
    parser.add_argument(
        "--steps", type=int, default=4, help="training steps to warm up, and again to measure (default 4)"
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    rows = networks()
    training = measure({row.title: row.case for row in rows}, options, ROUNDS)
    text = table(rows, *inference(rows, options.turns), training)
    write_table("benchmarks.md", "compare", f"{text}\n\nAt {SIZE[1]}x{SIZE[0]}. {machine()}.")


if __name__ == "__main__":
    main()
