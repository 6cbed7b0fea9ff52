"""Compares runtimes and precisions on one machine: python benchmarks/runtimes.py CAMVID [--write]

Exports each network to the format of every runtime that is installed, and runs the files in turns, each in a process
of its own. Writes results/runtimes.json, its table in docs/benchmarks.md and its picture docs/images/runtimes.svg; what
was measured before on the same machine with the same libraries stays if it is not measured again. Needs pip install
edgeseg[all].
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from charts import BLUE, FONT, INK, ORANGE, chart, save
from measuring import RESULTS, ROOT, Worker, in_turns, machine, markdown, write_table

import edgeseg
from edgeseg.data.camvid import CamVid
from edgeseg.deploy.formats import FORMATS, Precision
from edgeseg.engine import evaluate
from edgeseg.predict.load import RUNTIMES

FILE = RESULTS / "runtimes.json"
SIZES = ((360, 480), (384, 768))
NETWORKS = (
    "fpn_aspp_mobilenetv2_tv_edgeailite.camvid",
    "deeplabv3plus_mobilenetv2_tv_edgeailite.camvid",
    "unet_aspp_mobilenetv2_tv_edgeailite.camvid",
    "fpn_aspp_regnetx400mf_edgeailite",
    "fpnsum_mobilenetv2.camvid",
    "espnetv2_s2p0.camvid",
)
TITLES = {".onnx": "onnxruntime", ".xml": "OpenVINO", ".tflite": "LiteRT", ".pte": "ExecuTorch"}
CALIBRATION_IMAGES = 24
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")


def in_torch(name: str, size: Sequence[int], way: str) -> Callable[[], object]:
    """Prepares a network in PyTorch: as it is ("eager"), or by `edgeseg.optimize` ("optimize")."""
    torch.set_num_threads(2)
    model = edgeseg.create_model(name).eval()
    if way == "optimize":
        model = edgeseg.optimize(model)
    image = torch.zeros(1, 3, *size)

    def run() -> object:
        with torch.inference_mode():
            return model.decode(image)

    run()
    return run


def in_a_file(path: Path, size: Sequence[int]) -> Callable[[], object]:
    """Prepares an exported file in its runtime."""
    segmenter = edgeseg.load_segmenter(path, threads=2)
    image = np.random.default_rng(0).standard_normal((1, 3, *size)).astype(np.float32)
    segmenter.run(image)
    segmenter.run(image)
    return lambda: segmenter.run(image)


def exported(name: str, size: tuple[int, int], camvid: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Writes the files of a network at a size; yields a row per file with what is known before it is timed.

    The row of a file that could not be written has the reason in place of a path.
    """
    model = edgeseg.create_model(name).eval()
    train = CamVid(camvid)
    images = [train[index][0] for index in range(0, len(train), len(train) // CALIBRATION_IMAGES)]
    for suffix, title in TITLES.items():
        for precision in PRECISIONS:
            if suffix not in RUNTIMES or suffix not in FORMATS:
                continue
            path = folder / f"{name}_{size[0]}x{size[1]}_{precision}{suffix}"
            options: dict[str, Any] = {"dynamic": ()} if "dynamic" in FORMATS[suffix].options else {}
            try:
                done = edgeseg.export(
                    model, path, precision=precision, images=images if precision == "int8" else (), size=size,
                    output="small_logits", **options,
                )  # fmt: skip
            except (ImportError, RuntimeError, ValueError) as error:
                print(f"{path.name}: {error}", file=sys.stderr)
                yield {"way": title, "precision": precision, "refused": str(error)}
                continue
            files = [path, *([path.with_suffix(".bin")] if suffix == ".xml" else [])]
            megabytes = sum(file.stat().st_size for file in files) / 1e6
            kept = min(done.agreement.values(), default=None)
            yield {"way": title, "precision": precision, "path": path, "megabytes": megabytes, "kept": kept}


def measure(name: str, size: tuple[int, int], options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Exports, times and scores one network at one size; returns a row per way."""
    rows: list[dict[str, Any]] = [{"way": f"PyTorch, {way}", "precision": "float32"} for way in ("eager", "optimize")]
    workers = {f"torch {way}": Worker(in_torch, name, size, way) for way in ("eager", "optimize")}
    refused = []
    for row in exported(name, size, options.camvid, folder):
        if "refused" in row:
            refused.append(row)
            continue
        rows.append(row)
        workers[str(row["path"])] = Worker(in_a_file, row["path"], size)
    seconds = in_turns(workers, options.rounds)
    growths = [worker.growth() for worker in workers.values()]
    for worker in workers.values():
        worker.close()
    for row, times, growth in zip(rows, seconds.values(), growths, strict=True):
        row |= {"milliseconds": 1000 * statistics.median(times), "memory_mb": growth}
        path = row.pop("path", None)
        if path is not None and "camvid" in name and size == SIZES[0]:
            test = CamVid(options.camvid, "test")
            part = torch.utils.data.Subset(test, range(0, len(test), options.every))
            row["miou"] = 100 * evaluate(edgeseg.load_segmenter(path), part, workers=1).miou
    return [*rows, *refused]


def table(results: dict[str, Any]) -> str:
    """Returns the results as a Markdown table."""
    lines = []
    for each in results["networks"]:
        baseline = next(r["milliseconds"] for r in each["rows"] if r["way"] == "onnxruntime")
        for row in each["rows"]:
            head = (each["network"], each["size"], row["way"], row["precision"])
            if "refused" in row:
                lines.append((*head, "refused", *[""] * 5))
                continue
            forms = {"milliseconds": ".1f", "memory_mb": ",.0f", "megabytes": ".1f", "miou": ".2f"}
            shown = [f"{row[key]:{form}}" if row.get(key) is not None else "" for key, form in forms.items()]
            kept = f"{100 * row['kept']:.2f}" if row.get("kept") is not None else ""
            speed = f"{baseline / row['milliseconds']:.2f}"
            lines.append((*head, shown[0], speed, *shown[1:3], kept, shown[3]))
    heading = (
        "network | size | runtime | precision | ms: | times onnxruntime float32: | memory MB: | file MB: | "
        "pixels kept %: | mIoU %:"
    )
    return f"{markdown(heading, lines)}\n\n{results['machine']}."


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws the milliseconds of each runtime, a panel per network."""
    networks = [each for each in results["networks"] if each["size"] == "480x360"]
    figure, panels = chart([2.9] * len(networks))
    for panel, each in zip(panels, networks, strict=True):
        timed = (row for row in each["rows"] if "refused" not in row)
        rows = sorted(timed, key=lambda row: -row["milliseconds"])
        for row in rows:
            name = f"{row['way'].removeprefix('PyTorch, ')} {row['precision'].replace('float32', '')}"
            panel.barh(name, row["milliseconds"], color=ORANGE if row["precision"] == "int8" else BLUE)
            panel.text(row["milliseconds"], name, f" {row['milliseconds']:.0f}", va="center", color=INK)
        panel.set_title(each["network"].partition("_edgeailite")[0], loc="left")
        panel.margins(x=0.12)
    figure.supxlabel("milliseconds at 480x360: blue float32, orange int8", fontsize=FONT)
    save(figure, path)


def main() -> None:
    """Measures every network at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path, help="folder of the CamVid dataset")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), metavar="NAME", help="networks to measure")
    sizes = [f"{width}x{height}" for height, width in SIZES]
    parser.add_argument("--sizes", nargs="+", default=sizes, choices=sizes, help="width x height (default both)")
    parser.add_argument("--rounds", type=int, default=25, help="number of turns (default 25)")
    parser.add_argument("--every", type=int, default=4, help="score every N-th test frame (default 4)")
    parser.add_argument("--write", action="store_true", help="write the results file, the document and its picture")
    options = parser.parse_args()
    libraries = ("torch", "onnxruntime", "openvino", "ai-edge-litert", "executorch")
    results: dict[str, Any] = {"machine": machine(libraries=libraries), "networks": []}
    if options.write and FILE.is_file():
        before = json.loads(FILE.read_text())
        results["networks"] = before["networks"] if before["machine"] == results["machine"] else []
    known = {(each["network"], each["size"]): each for each in results["networks"]}
    for name in options.networks:
        for size in SIZES:
            title = f"{size[1]}x{size[0]}"
            if title in options.sizes:
                with tempfile.TemporaryDirectory() as folder:
                    rows = measure(name, size, options, Path(folder))
                print(json.dumps([name, title, rows]), file=sys.stderr)
                known[name, title] = {"network": name, "size": title, "rows": rows}
                results["networks"] = list(known.values())
                if options.write:
                    FILE.write_text(json.dumps(results, indent=2) + "\n")
    if not options.write:
        print(table(results))
        return
    draw(results, ROOT / "docs/images/runtimes.svg")
    write_table("benchmarks.md", "runtimes", table(results))


if __name__ == "__main__":
    main()
