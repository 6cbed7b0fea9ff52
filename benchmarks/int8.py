"""Compares float32, PTQ and QAT files in onnxruntime on CamVid: python benchmarks/int8.py RUNS CAMVID

RUNS is the folder that `benchmarks/recipes/camvid_int8.sh` trained in, `runs/int8`. Writes
results/int8.json, of which docs/deployment.md and MODEL_ZOO.md show the table. Needs pip install edgeseg[onnx].
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from reporting import RESULTS, machine, write_table

import edgeseg
from edgeseg.data.camvid import CamVid
from edgeseg.deploy.quantize import quantize_onnx
from edgeseg.deploy.timing import alternating
from edgeseg.engine import evaluate
from edgeseg.machine.processor import saturates_in_8_bit

SIZES = ((360, 480), (384, 768))
CALIBRATION_IMAGES = 24
# By form; the last is what training wrote.
FILES = {"float32": "float32.onnx", "after training": "after_training.onnx", "in training": "int8.onnx"}
# In the table; results/int8.json and scores.json have the names of FILES.
TITLES = {"float32": "float32", "after training": "PTQ", "in training": "QAT"}


def network(folder: Path) -> edgeseg.Pixel2Pixel:
    """What training for 8 bit began from: a checkpoint in the folder, or the zoo's weights for CamVid."""
    checkpoint = folder / "float32.safetensors"
    if checkpoint.is_file():
        return edgeseg.create_model(folder.name, checkpoint_path=checkpoint).eval()
    return edgeseg.create_model(f"{folder.name}.camvid", pretrained=True).eval()


def score(folder: Path, camvid: Path) -> dict[str, dict[str, float]]:
    """Writes the other two files beside int8.onnx; mIoU on test and megabytes of all three. Done once a folder."""
    result = folder / "scores.json"
    if not result.is_file():
        model, train = network(folder), CamVid(camvid)
        chosen = range(0, len(train), len(train) // CALIBRATION_IMAGES)
        edgeseg.export_onnx(model, folder / FILES["float32"], output="small_logits", preprocess=True)
        quantize_onnx(
            model, folder / FILES["after training"], [train[index][0] for index in chosen], preprocess=True,
            reduce_range=saturates_in_8_bit(),
        )  # fmt: skip
        found = {}
        for form, file in FILES.items():
            miou = evaluate(edgeseg.OnnxSegmenter(folder / file), CamVid(camvid, "test"), workers=1).miou
            found[form] = {"megabytes": (folder / file).stat().st_size / 1e6, "miou": 100 * miou}
        result.write_text(json.dumps(found, indent=2))
    scores: dict[str, dict[str, float]] = json.loads(result.read_text())
    return scores


def milliseconds(folder: Path) -> dict[str, dict[str, float]]:
    """Of the three files at each size, in turns."""
    segmenters = {form: edgeseg.OnnxSegmenter(folder / file) for form, file in FILES.items()}
    found: dict[str, dict[str, float]] = {form: {} for form in FILES}
    for height, width in SIZES:
        pixels = np.random.default_rng(0).integers(0, 256, (1, 3, height, width), dtype=np.uint8)
        turns = alternating({form: partial(each.run, pixels) for form, each in segmenters.items()}, rounds=25)
        for form, seconds in turns.items():
            found[form][f"milliseconds at {width}x{height}"] = 1000 * statistics.median(seconds)
    return found


def table(results: dict[str, Any]) -> str:
    """In Markdown."""
    speeds = [f"milliseconds at {width}x{height}" for height, width in SIZES]
    lines = [
        f"| network | form | mIoU % on test | drop | MB | {' | '.join(f'{each} (speedup)' for each in speeds)} |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name, forms in results["networks"].items():
        first = forms["float32"]
        for form in FILES:
            one = forms[form]
            times = " | ".join(f"{one[speed]:.1f} ({first[speed] / one[speed]:.2f})" for speed in speeds)
            drop = "" if form == "float32" else f"{first['miou'] - one['miou']:.2f}"
            lines.append(
                f"| `{name}` | {TITLES[form]} | {one['miou']:.2f} | {drop} | {one['megabytes']:.1f} | {times} |"
            )
    return "\n".join([*lines, "", f"{results['machine']}, onnxruntime {results['onnxruntime']}."])


def main() -> None:
    """Measures every network that was trained for 8 bit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("camvid", type=Path)
    options = parser.parse_args()
    trained = sorted(options.runs.glob("*/int8.onnx"))
    if not trained:
        parser.error(f"no */int8.onnx in {options.runs}: run benchmarks/recipes/camvid_int8.sh")
    import onnxruntime

    folders = {path.parent.name: path.parent for path in trained}
    scores = {name: score(folder, options.camvid) for name, folder in folders.items()}
    times = {name: milliseconds(folder) for name, folder in folders.items()}
    networks = {name: {form: scores[name][form] | times[name][form] for form in FILES} for name in folders}
    results = {"machine": machine(), "onnxruntime": onnxruntime.__version__, "networks": networks}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "int8.json").write_text(json.dumps(results, indent=2) + "\n")
    write_table("deployment.md", "int8", table(results))


if __name__ == "__main__":
    main()
