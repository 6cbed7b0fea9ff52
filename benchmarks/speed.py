"""Measures ways to turn a normalized image into its label map: python benchmarks/speed.py

Compares ways to run FPN-MobileNetV2 with its CamVid weights (or `--model`) on a frame of the synthetic streets with the
nearest networks of segmentation_models_pytorch and torchvision. Needs pip install 'edgeseg[onnx,benchmarks,plots]'.

Label maps have the size of the image; peers and the plain way take the argmax of upsampled logits. Each way runs in a
process of its own, because memory settings of one way would affect another, in turns with a process that runs the
plain way. Compiled ways and images of more than a megapixel run with a batch of 1 only. With `--write`,
results/speed.csv, docs/benchmarks.md and its picture are written; rows of speed.csv with other sizes, batches and
ways are kept. With `--device cuda`, the ways of a GPU run.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import math
import statistics
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from charts import BLUE, FONT, GRAY, INK, chart, save
from measuring import RESULTS, ROOT, Worker, in_turns, machine, markdown, spread, write_table
from ways import IN_A_FILE, PLAIN, Setting, Ways, prepare

FILE = RESULTS / "speed.csv"
LARGEST_OF_A_BATCH = 1_000_000  # pixels per image
PEERS = ("segmentation_models_pytorch", "torchvision")
# Names in the chart, which is narrow.
SHORT = {
    "plain eager": "FPN, eager", "edgeseg.optimize": "FPN, optimize", "onnxruntime": "FPN, onnxruntime",
    "segmentation_models_pytorch": "smp", "torchvision": "tv", "bfloat16": "bf16", "compiled": "comp.",
    " MobileNetV3": "",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One way at one size and batch; `ratio` is its speed relative to the plain way that ran in turns with it."""

    size: str
    batch: int
    way: str
    images_per_second: float
    lowest: float
    highest: float
    ratio: float
    gmacs: float
    gmacs_per_second: float
    peak_mb: float


def measure(setting: Setting, ways: Ways, row: tuple[str, tuple[int, int], int], budget: float) -> Row:
    """Measures one way.

    Args:
        setting: What the processes of the way and of the plain way share.
        ways: The ways of this setting, to count operations.
        row: Name of the way, size of the image, and batch size.
        budget: Seconds to measure for; at least 2 rounds and at most 25 are measured.
    """
    way, size, batch = row
    workers = {name: Worker(prepare, setting, each, size, batch) for name, each in (("way", way), ("plain", PLAIN))}
    warm_up = in_turns(workers, 2)
    rounds = round(budget / (warm_up["way"][-1] + warm_up["plain"][-1]))
    seconds = in_turns(workers, min(max(rounds, 2), 25))
    memory, _ = (worker.close() for worker in workers.values())
    median, gmacs = statistics.median(seconds["way"]), ways.gmacs(way, size)
    return Row(
        size=f"{size[0]}x{size[1]}",
        batch=batch,
        way=way,
        images_per_second=batch / median,
        lowest=batch / max(seconds["way"]),
        highest=batch / min(seconds["way"]),
        ratio=statistics.median(seconds["plain"]) / median,
        gmacs=gmacs,
        gmacs_per_second=gmacs * batch / median,
        peak_mb=memory,
    )


def measure_all(options: argparse.Namespace, folder: str) -> Iterator[Row]:
    """Measures the chosen ways at all sizes and batches."""
    setting = Setting(options.model, options.device, options.folder or folder, options.compile)
    ways = Ways(setting)
    print(machine(options.device), file=sys.stderr)
    chosen = [way for way in ways.build if any(fnmatch.fnmatch(way, pattern) for pattern in options.ways)]
    for size in options.sizes:
        for batch in options.batches:
            for way in chosen:
                # Compiling takes a minute or two, and a batch of the largest images 14 GB.
                if batch == 1 or ("compiled" not in way and math.prod(size) <= LARGEST_OF_A_BATCH):
                    row = measure(setting, ways, (way, size, batch), options.seconds)
                    print(row, file=sys.stderr)
                    yield row


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as a Markdown table."""
    return markdown(
        "size, batch | way | images/s (lowest to highest) | ratio: | GMACs: | GMAC/s: | memory, MB:",
        [
            (
                f"{row.size}, {row.batch}",
                row.way,
                spread((row.lowest, row.images_per_second, row.highest)),
                f"{row.ratio:.2f}",
                f"{row.gmacs:.2f}",
                f"{row.gmacs_per_second:.0f}",
                f"{row.peak_mb:,.0f}",
            )
            for row in rows
        ],
    )


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws images per second as bars, in one panel per size, for single images."""
    panels = list(dict.fromkeys(row.size for row in rows))
    figure, axes = chart([3.6] * len(panels))
    for axis, size in zip(axes, panels, strict=True):
        for row in [row for row in rows if (row.size, row.batch) == (size, 1)]:
            own = not row.way.startswith(PEERS)
            error = [[row.images_per_second - row.lowest], [row.highest - row.images_per_second]]
            axis.barh(_bar(row.way), row.images_per_second, xerr=error, color=BLUE if own else GRAY, ecolor=INK)
        axis.invert_yaxis()
        axis.set_title(size, loc="left")
    figure.supxlabel("images per second: blue edgeseg, gray other libraries", fontsize=FONT)
    save(figure, path)


def _bar(way: str) -> str:
    """The name of a bar, which says what runs the network."""
    name, runtime = way.removesuffix(IN_A_FILE), ""
    if way.startswith(PEERS):
        runtime = ", onnxruntime" if way.endswith(IN_A_FILE) else ", eager"
    for long, short in SHORT.items():
        name = name.replace(long, short)
    return name + runtime


def merge(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of a CSV file with those that were measured again replaced, sorted by size and batch."""
    before = []
    if path.is_file():
        with path.open() as file:
            before = [
                Row(size, int(batch), way, *map(float, figures))
                for size, batch, way, *figures in list(csv.reader(file))[1:]
            ]
    newest = {(row.size, row.batch, row.way): row for row in [*before, *rows]}
    return sorted(newest.values(), key=_order)


def _order(row: Row) -> tuple[int, int]:
    height, width = _size(row.size)
    return height * width, row.batch


def _size(text: str) -> tuple[int, int]:
    height, width = map(int, text.split("x"))
    return height, width


def write(rows: Sequence[Row], device: str) -> None:
    """Writes results/speed.csv, the picture, and the table in docs/benchmarks.md."""
    if not rows:
        raise SystemExit("nothing was measured; see --ways")
    document = (ROOT / "docs/benchmarks.md").read_text()
    if machine(device) in document.partition("<!-- speed -->")[2].partition("<!-- end -->")[0]:
        rows = merge(FILE, rows)  # otherwise the other rows are those of another machine
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    plot(rows, ROOT / "docs/images/speed.svg")
    write_table("benchmarks.md", "speed", f"{table(rows)}\n\n{machine(device)}.")


def main() -> None:
    """Measures, and prints or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="fpn_aspp_mobilenetv2_tv_edgeailite.camvid", help="name of a network with 11 classes"
    )
    parser.add_argument("--device", default="cpu", help="device to measure on: cpu (default) or cuda")
    parser.add_argument(
        "--sizes", type=_size, nargs="+", default=[(360, 480), (384, 768), (1024, 2048)], metavar="HxW",
        help="height and width of the images",
    )  # fmt: skip
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="batch sizes (default 1 and 8)")
    parser.add_argument("--seconds", type=float, default=5.0, help="time to measure each row for (default 5)")
    parser.add_argument(
        "--ways", nargs="+", default=["*"], metavar="PATTERN", help="shell patterns of the ways to measure"
    )
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True, help="measure compiled networks too (default)"
    )
    parser.add_argument("--write", action="store_true", help="write the results file, the document and its picture")
    parser.add_argument("--folder", help="folder for exported files (default: a temporary folder)")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measure_all(options, folder))
    if options.write:
        write(rows, options.device)
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
