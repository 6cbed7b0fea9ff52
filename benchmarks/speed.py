"""From a normalized image to its label map, ways of running networks side by side: python benchmarks/speed.py

The network is FPN-MobileNetV2 with its CamVid weights (or `--model`), on a frame of the synthetic streets, beside the
nearest ones of segmentation_models_pytorch and torchvision; needs pip install edgeseg[onnx,benchmarks,plots]. Labels
are those of the image's size: of peers and of the plain way by argmax after an upsample. Every way has a process of its
own, since memory settings of one would serve another, and takes turns with one that runs the plain way. Compiled ways
are run for batches of 1. With `--write` results/speed.csv and docs/benchmarks.md with its picture are written; what
speed.csv has of other sizes, batches and ways stays. With `--device cuda` the ways are those of a GPU.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from reporting import RESULTS, ROOT, machine, peak_memory, write_table
from smp_networks import ARCHITECTURES, decoder_of, plain_network
from torch import Tensor, nn

import edgeseg
from edgeseg.data import Streets
from edgeseg.deploy.quantize import quantize_onnx
from edgeseg.deploy.timing import alternating
from edgeseg.machine.processor import computes_bf16, saturates_in_8_bit
from edgeseg.networks.layers import resize
from edgeseg.tasks import KINDS
from edgeseg.vision.preprocess import normalize

FILE = RESULTS / "speed.csv"
CLASSES = 11
PLAIN = "plain eager"
Run = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One way at one size; the ratio is that of its turns with the plain way."""

    size: str
    batch: int
    way: str
    images_per_second: float
    lowest: float
    highest: float
    ratio: float
    gmacs: float
    gmacs_per_second: float
    share_of_peak: float
    peak_mb: float


class Ways:
    """Every way to run the network and its peers.

    Attributes:
        build: By name, what gives the function that labels a batch.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.device, self.folder = torch.device(options.device), Path(options.folder)
        self.model = edgeseg.create_model(options.model).eval().to(self.device)
        self.build: dict[str, Callable[[Tensor], Run]] = {PLAIN: self.plain(lambda: self.model)}
        self.build["edgeseg.optimize"] = self.optimized()
        bf16 = computes_bf16(self.device)
        if bf16:
            self.build["edgeseg.optimize bfloat16"] = self.optimized(dtype=torch.bfloat16)
        if self.device.type == "cuda":
            self.build["edgeseg.optimize float16"] = self.optimized(dtype=torch.float16)
        if options.compile:
            self.build["edgeseg.optimize compiled"] = self.optimized(compile=True)
            if bf16:
                self.build["edgeseg.optimize compiled bfloat16"] = self.optimized(dtype=torch.bfloat16, compile=True)
        if self.device.type == "cpu":
            self.build["onnxruntime float32"] = self.exported(quantized=False)
            self.build["onnxruntime int8"] = self.exported(quantized=True)
        decoder = decoder_of(options.model)
        self.peers: dict[str, Callable[[], nn.Module]] = {
            f"segmentation_models_pytorch {ARCHITECTURES[decoder]}": lambda: _Padded(plain_network(decoder, CLASSES)),
            "torchvision LR-ASPP MobileNetV3": partial(_torchvision, "lraspp_mobilenet_v3_large"),
            "torchvision DeepLabV3 MobileNetV3": partial(_torchvision, "deeplabv3_mobilenet_v3_large"),
        }
        self.build |= {name: self.plain(peer) for name, peer in self.peers.items()}

    def plain(self, make: Callable[[], nn.Module]) -> Callable[[Tensor], Run]:
        """Argmax of logits at full size, as they come."""

        def build(images: Tensor) -> Run:
            network = make().eval().to(self.device)
            return lambda: self._finish(_logits(network(images)).argmax(dim=1).to(torch.uint8))

        return build

    def optimized(self, **how: Any) -> Callable[[Tensor], Run]:
        """`edgeseg.optimize`, labels without full-size logits."""

        def build(images: Tensor) -> Run:
            network = edgeseg.optimize(self.model, **how)
            task = next(iter(network.tasks))
            return lambda: self._finish(
                KINDS["segmentation"].predictions([network.decode(images)[task]], images.shape[-2:])
            )

        return build

    def exported(self, *, quantized: bool) -> Callable[[Tensor], Run]:
        """`edgeseg.OnnxSegmenter`'s session and labels."""

        def build(images: Tensor) -> Run:
            path = self.folder / f"{'int8' if quantized else 'float32'}.onnx"
            if not path.is_file() and quantized:
                frames = [Streets("train", (360, 480), length=8)[i][0] for i in range(8)]
                quantize_onnx(self.model, path, frames, reduce_range=saturates_in_8_bit())
            elif not path.is_file():
                edgeseg.export_onnx(self.model, path, output="small_logits")
            segmenter, array = edgeseg.OnnxSegmenter(path), images.numpy()

            def run() -> object:
                (logits,) = segmenter.run(array).values()
                return KINDS["segmentation"].predictions([torch.from_numpy(logits)], images.shape[-2:])

            return run

        return build

    def _finish(self, labels: Tensor) -> Tensor:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return labels

    def gmacs(self, name: str, size: Sequence[int]) -> float:
        """Of one image: of ours the convolutions, of peers as fvcore counts them, which differs by little."""
        if name not in self.peers:
            return edgeseg.complexity(self.model, size).gmacs
        counted = FlopCountAnalysis(self.peers[name]().eval(), torch.zeros(1, 3, *size))
        counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return float(counted.by_operator()["conv"]) / 1e9


def _logits(answer: Any) -> Tensor:
    return next(iter(answer.values())) if isinstance(answer, Mapping) else answer


class _Padded(nn.Module):
    """segmentation_models_pytorch takes sizes that are multiples of 32 only."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = nn.functional.pad(images, (0, -width % 32, 0, -height % 32))
        return self.network(padded)[..., :height, :width]


def _torchvision(name: str) -> nn.Module:
    from torchvision.models import get_model

    return get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES)


def peak_gmacs(device: torch.device) -> float:
    """Multiply-accumulates per second, in 1e9, of a large float32 matrix product: what the machine can do at best."""
    matrix = torch.rand(2048, 2048, device=device)

    def product() -> None:
        (matrix @ matrix).sum().item()

    return 2048**3 / min(alternating({"": product}, rounds=9)[""]) / 1e9


class Worker:
    """A process that runs one way whenever it is told to."""

    def __init__(self, options: argparse.Namespace, way: str, size: Sequence[int], batch: int) -> None:
        call = [sys.executable, __file__, "--only", way, "--sizes", f"{size[0]}x{size[1]}", "--batches", str(batch)]
        call += ["--device", options.device, "--model", options.model, "--folder", options.folder]
        self.process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def answer(self, request: str) -> Any:
        """To "run" the seconds that it took, to "facts" its peak memory; the process ends with the latter."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{request}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise RuntimeError(f"{self.process.args!r} ended")


def work(options: argparse.Namespace) -> None:
    """What a Worker's process does."""
    ways = Ways(options)
    pixels = Streets("test", (270, 480), length=1)[0][0][None].as_subclass(Tensor)
    image = normalize(resize(pixels.float(), options.sizes[0]).round().byte(), ways.model.preprocess)
    run = ways.build[options.only](image.repeat(options.batches[0], 1, 1, 1).to(ways.device))
    for request in sys.stdin:
        answer = 0.0
        if request == "run\n":
            with torch.inference_mode():
                start = time.perf_counter()
                run()
                answer = time.perf_counter() - start
        elif request == "facts\n":
            on_gpu = ways.device.type == "cuda"
            answer = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else peak_memory()
        print("answer", json.dumps(answer), flush=True)


def measured(options: argparse.Namespace) -> Iterator[Row]:
    """All ways at all sizes."""
    ways, peak = Ways(options), peak_gmacs(torch.device(options.device))
    print(f"{machine(options.device)}; {peak:.0f} GMAC/s in a float32 matrix product", file=sys.stderr)
    for size in options.sizes:
        for batch in options.batches:
            for name in ways.build:
                if not any(fnmatch.fnmatch(name, pattern) for pattern in options.ways):
                    continue
                if "compiled" in name and batch > 1:
                    continue  # a minute or two each
                pair = Worker(options, name, size, batch), Worker(options, PLAIN, size, batch)
                first = [sum(worker.answer("run") for worker in pair) for _ in range(2)][-1]
                rounds = min(max(round(options.seconds / first), 2), 25)
                seconds, reference = zip(*([w.answer("run") for w in pair] for _ in range(rounds)), strict=True)
                memory, _ = (worker.answer("facts") for worker in pair)
                for worker in pair:
                    worker.process.communicate()
                median, gmacs = statistics.median(seconds), ways.gmacs(name, size)
                rate = batch / median
                yield Row(
                    f"{size[0]}x{size[1]}", batch, name, rate, batch / max(seconds), batch / min(seconds),
                    statistics.median(reference) / median, gmacs, gmacs * rate, gmacs * rate / peak, memory,
                )  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    lines = [
        "| size, batch | way | images/s (lowest to highest) | ratio | GMACs | GMAC/s | share of peak | memory, MB |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        lines.append(
            f"| {row.size}, {row.batch} | {row.way} | {row.images_per_second:.2f} ({row.lowest:.2f} to "
            f"{row.highest:.2f}) | {row.ratio:.2f} | {row.gmacs:.2f} | {row.gmacs_per_second:.0f} | "
            f"{100 * row.share_of_peak:.0f} % | {row.peak_mb:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Bars of images per second, a panel for each size and batch."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((row.size, row.batch) for row in rows))
    figure = Figure(figsize=(10, 2.6 * len(panels)), layout="constrained")
    for axis, panel in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        some = [row for row in rows if (row.size, row.batch) == panel][::-1]
        errors = [[r.images_per_second - r.lowest for r in some], [r.highest - r.images_per_second for r in some]]
        colors = ["tab:blue" if r.way.startswith(("edgeseg", "onnx")) else "tab:gray" for r in some]
        axis.barh([r.way for r in some], [r.images_per_second for r in some], xerr=errors, color=colors)
        axis.set_title(f"{panel[0]}, batch {panel[1]}: images per second", fontsize=10)
    figure.savefig(path, dpi=100)


def _merged(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Those of a CSV file, with what was measured anew in their places, by size and batch."""
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


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fpn_aspp_mobilenetv2_tv_edgeailite.camvid", help="of 11 classes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", type=_size, nargs="+", default=[(360, 480), (384, 768), (1024, 2048)], metavar="HxW")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=5.0, help="for the turns of one way at one size, at least 2")
    parser.add_argument("--ways", nargs="+", default=["*"], metavar="PATTERN", help="names, as shell patterns")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--folder", help="for exported files (default: a temporary one)")
    parser.add_argument("--only", metavar="WAY", help="wait for requests to run one way, see Worker")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if options.only:
        work(options)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        options.folder = options.folder or folder
        for row in measured(options):
            rows.append(row)
            print(row, file=sys.stderr)
    if not options.write:
        print(table(rows))
    else:
        rows = _merged(FILE, rows)
        with FILE.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(asdict(rows[0])))
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
        plot(rows, ROOT / "docs/images/speed.png")
        write_table("benchmarks.md", "speed", f"{table(rows)}\n{machine(options.device)}.")


if __name__ == "__main__":
    main()
