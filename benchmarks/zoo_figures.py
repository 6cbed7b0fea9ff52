"""The figures of MODEL_ZOO.md: published, computed on the networks, or measured on this machine."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import peak_memory, run_alone
from published import CLASSES, OTHER_TASKS, ROWS, agrees

import edgeseg
from edgeseg.deploy.timing import alternating
from edgeseg.machine.memory import keep_freed_memory

Figures = dict[str, Any]
SIZE = (384, 768)
REFERENCE = "fpn_aspp_mobilenetv2_tv_edgeailite"  # whose time is 1
# The tag of the weights, and the dataset and split on which they are scored, by option of zoo_table.py.
SCORED_ON = {
    "cityscapes": ("cityscapes", "cityscapes_segmentation", "val"),
    "ade20k": ("ade20k32", "ade20k_seg_class32", "val"),
    "coco": ("coco21", "coco_seg21", "val"),
    "voc": ("voc", "voc_segmentation", "val"),
    "camvid": ("camvid", "camvid", "test"),
}
FORMATS = {"edgeseg": "safetensors", "checkpoint": ".pth", "onnx": ".onnx"}


def published_rows() -> list[Figures]:
    """Returns the rows of TI's table, each with the costs of the same network in this zoo."""
    rows = []
    for row in ROWS:
        width, height = row.counted or (row.width, row.height)
        cost = edgeseg.complexity(edgeseg.create_model(row.name, num_classes=CLASSES[row.dataset]), (height, width))
        value = getattr(cost, row.convention)
        rows.append(
            {
                **row._asdict(),
                "parameters": cost.params,
                "gmacs_computed": round(cost.gmacs, 4),
                "gmacs_its_way": round(value, 4),
                "agrees": agrees(value, row.gmacs),
            }
        )
    return rows


def other_tasks() -> list[Figures]:
    """Returns published and computed figures of networks with several inputs and tasks."""
    rows = []
    for row in OTHER_TASKS:
        kinds = ["depth" if channels == 1 else "segmentation" for channels in row.channels]
        pairs = zip(kinds, row.channels, strict=True)
        tasks = {f"task{i}": edgeseg.Task(kind, channels) for i, (kind, channels) in enumerate(pairs)}
        model = edgeseg.create_model(row.name, tasks=tasks, in_channels=(3,) * row.inputs)
        cost = edgeseg.complexity(model, SIZE)
        computed = {"parameters": cost.params, "gmacs_computed": round(cost.gmacs, 4)}
        rows.append({**row._asdict(), **computed, "agrees": agrees(cost.gmacs, row.gmacs)})
    return rows


def networks() -> dict[str, Figures]:
    """Returns the costs of every network of the zoo at one size, by name."""
    rows: dict[str, Figures] = {}
    for name in edgeseg.list_models():
        info = edgeseg.model_info(name)
        if info.name != name:
            rows[name] = {"other name of": info.name}
            continue
        cost = edgeseg.complexity(edgeseg.create_model(name), SIZE)
        rows[name] = {
            "decoder": info.spec.decoder if info.spec else "",
            "encoder": info.spec.encoder if info.spec else "",
            "parameters": cost.params,
            "gmacs": round(cost.gmacs, 3),
            "activations": cost.activations,
        }
    return rows


def weights(scored: Mapping[str, float]) -> list[Figures]:
    """Returns the catalog of trained weights. `scored` is the mIoU measured here, by name."""
    rows = []
    for name in edgeseg.list_weights():
        entry = edgeseg.weights_info(name)
        rows.append(
            {
                "name": name,
                "format": FORMATS[entry.format],
                # A hash is in the catalog if the published file was read.
                "file_read": entry.sha256 is not None,
                "miou_published": entry.published_miou,
                "miou_measured": scored.get(name, entry.measured_miou),
                "protocol": entry.protocol,
                "license": entry.license,
            }
        )
    return rows


def score(option: str, path: Path) -> dict[str, float]:
    """Returns the mIoU in percent of all weights for one dataset, by name."""
    from edgeseg.data import load_dataset
    from edgeseg.engine import evaluate

    tag, dataset_name, split = SCORED_ON[option]
    names = edgeseg.list_weights(f"*.{tag}*")
    if not names:
        raise SystemExit(f"--{option}: the catalog does not have weights for this dataset (edgeseg weights list)")
    dataset = load_dataset(dataset_name, path, split)
    scores = {}
    for name in names:
        matrix = evaluate(edgeseg.create_model(name).eval(), dataset, workers=1)
        scores[name] = round(100 * matrix.miou, 2)
        print(f"{name}: mIoU {scores[name]} on {path}", file=sys.stderr)
    return scores


def measure(names: Sequence[str]) -> dict[str, Figures]:
    """Measures every network in a new process. Returns the figures by name."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        reference = export(edgeseg.create_model(REFERENCE).eval(), Path(folder) / "reference.onnx")
        for name in names:
            figures[name], _ = run_alone(measure_one, name, reference)
            print(f"{name}: {figures[name]}", file=sys.stderr)
    return figures


def export(model: edgeseg.Pixel2Pixel, path: Path) -> Path:
    """Writes the ONNX file that is timed."""
    return edgeseg.export_onnx(model, path, output="small_logits", size=SIZE, dynamic=()).path


def measure_one(name: str, reference: Path) -> Figures:
    """Measures one network in this process.

    Returns milliseconds and the ratio to the reference network in turns, in torch and in onnxruntime, and the megabytes
    of memory in torch and of the ONNX file.
    """
    keep_freed_memory()
    image = torch.randn(1, 3, *SIZE)
    model = edgeseg.create_model(name).eval()
    optimized = {"this": edgeseg.optimize(model)}
    _run(optimized["this"], image)
    memory = peak_memory()  # before the reference network takes its own
    optimized["reference"] = edgeseg.optimize(edgeseg.create_model(REFERENCE).eval())
    turns = {"torch": alternating({key: partial(_run, each, image) for key, each in optimized.items()}, rounds=9)}
    with tempfile.TemporaryDirectory() as folder:
        file = export(model, Path(folder) / "this.onnx")
        megabytes = file.stat().st_size / 1e6
        segmenters = {"this": edgeseg.OnnxSegmenter(file), "reference": edgeseg.OnnxSegmenter(reference)}
        runs = {key: partial(each.run, image.numpy()) for key, each in segmenters.items()}
        turns["onnxruntime"] = alternating(runs, rounds=9)
    figures: Figures = {"memory_mb": round(memory), "onnx_mb": round(megabytes, 1)}
    for library, seconds in turns.items():
        this, other = (statistics.median(seconds[key]) for key in ("this", "reference"))
        figures |= {f"{library}_ms": round(1000 * this, 1), f"{library}_ratio": round(this / other, 2)}
    return figures


@torch.inference_mode()
def _run(model: edgeseg.Pixel2Pixel, image: torch.Tensor) -> None:
    model.decode(image)
