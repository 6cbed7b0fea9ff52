"""Compares float32, quantization after training (PTQ) and in training (QAT): python benchmarks/int8.py RUNS CAMVID

Evaluates and times the networks on CamVid in onnxruntime. RUNS is the output folder of
`benchmarks/recipes/camvid_int8.sh`, `runs/int8`. Writes results/int8.json and its table in docs/deployment.md, which
MODEL_ZOO.md shows too. Needs pip install 'edgeseg[onnx]'.
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import RESULTS, machine, markdown, write_table

import edgeseg
from edgeseg.data.camvid import CamVid
from edgeseg.deploy.quantize import quantize_onnx
from edgeseg.deploy.timing import alternating
from edgeseg.engine import evaluate
from edgeseg.machine.download import file_sha256
from edgeseg.machine.files import replacing
from edgeseg.machine.processor import saturates_in_8_bit

SIZES = ((360, 480), (384, 768))
CALIBRATION_IMAGES = 24
# The files of a network; training wrote the last.
FILES = {"float32": "float32.onnx", "after training": "after_training.onnx", "in training": "int8.onnx"}
# The names of the forms in the table; the results files have the names of FILES.
TITLES = {"float32": "float32", "after training": "PTQ", "in training": "QAT"}


def score(folder: Path, camvid: Path) -> dict[str, dict[str, float]]:
    """Writes the other two files next to int8.onnx. Returns the test mIoU and the megabytes of all three files.

    The scores are kept in the folder, and computed again if the weights or int8.onnx have changed.
    """
    result = folder / "scores.json"
    of = [edgeseg.weights_info(f"{folder.name}.camvid").sha256, file_sha256(folder / FILES["in training"])]
    kept = json.loads(result.read_text()) if result.is_file() else {}
    if kept.get("of") != of:
        model, train = edgeseg.create_model(f"{folder.name}.camvid", pretrained=True).eval(), CamVid(camvid)
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
        kept = {"of": of, "scores": found}
        with replacing(result) as temporary:
            temporary.write_text(json.dumps(kept, indent=2))
    scores: dict[str, dict[str, float]] = kept["scores"]
    return scores


def milliseconds(folder: Path) -> dict[str, dict[str, float]]:
    """Times the three files in turns at each size."""
    segmenters = {form: edgeseg.OnnxSegmenter(folder / file) for form, file in FILES.items()}
    found: dict[str, dict[str, float]] = {form: {} for form in FILES}
    for height, width in SIZES:
        pixels = np.random.default_rng(0).integers(0, 256, (1, 3, height, width), dtype=np.uint8)
        turns = alternating({form: partial(each.run, pixels) for form, each in segmenters.items()}, rounds=25)
        for form, seconds in turns.items():
            found[form][f"milliseconds at {width}x{height}"] = 1000 * statistics.median(seconds)
    return found


def table(results: dict[str, Any]) -> str:
    """Returns the results as a Markdown table."""
    speeds = [f"milliseconds at {width}x{height}" for height, width in SIZES]
    rows = []
    for name, forms in results["networks"].items():
        baseline = forms["float32"]
        for form in FILES:
            one = forms[form]
            loss = "" if form == "float32" else f"{baseline['miou'] - one['miou']:.2f}"
            times = [f"{one[speed]:.1f} ({baseline[speed] / one[speed]:.2f})" for speed in speeds]
            rows.append((f"`{name}`", TITLES[form], f"{one['miou']:.2f}", loss, f"{one['megabytes']:.1f}", *times))
    heading = " | ".join(
        ["network | form | mIoU % on test: | drop: | MB:", *(f"{speed} (speedup):" for speed in speeds)]
    )
    return f"{markdown(heading, rows)}\n\n{results['machine']}, onnxruntime {results['onnxruntime']}."


def main() -> None:
    """Evaluates and times every network that was trained with quantization."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="output folder of benchmarks/recipes/camvid_int8.sh")
    parser.add_argument("camvid", type=Path, help="folder of the CamVid dataset")
    options = parser.parse_args()
    trained = sorted(options.runs.glob("*/int8.onnx"))
    if not trained:
        parser.error(f"{options.runs} does not have a file */int8.onnx; run benchmarks/recipes/camvid_int8.sh first")
    import onnxruntime

    folders = {path.parent.name: path.parent for path in trained}
    scores = {name: score(folder, options.camvid) for name, folder in folders.items()}
    times = {name: milliseconds(folder) for name, folder in folders.items()}
    networks = {name: {form: scores[name][form] | times[name][form] for form in FILES} for name in folders}
    results = {"machine": machine(), "onnxruntime": onnxruntime.__version__, "networks": networks}
    (RESULTS / "int8.json").write_text(json.dumps(results, indent=2) + "\n")
    write_table("deployment.md", "int8", table(results))


if __name__ == "__main__":
    main()
