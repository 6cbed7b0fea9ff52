"""The zoo's table, every figure published, computed or measured: python benchmarks/zoo_table.py

Writes MODEL_ZOO.md, its figures as results/zoo.json, and the picture docs/images/zoo.png (pip install edgeseg[plots]).

- Published figures are those of published.py and of the catalog of weights.
- Computed ones (parameters, multiply-accumulates, activations) are counted anew each time.
- Measured ones are kept from results/zoo.json, unless they are asked for: `--measure` times every network in torch and
  onnxruntime, in a quarter of an hour (edgeseg[onnx]); `--camvid PATH` and the like score the weights of that dataset.

`--check` writes nothing and fails where MODEL_ZOO.md or results/zoo.json are not what would be written.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import int8
from published import CLASSES, OTHER_TASKS, ROWS, TRUNCATED, agrees
from reporting import RESULTS, ROOT, machine, peak_memory

import edgeseg

Figures = dict[str, Any]
FILE = RESULTS / "zoo.json"
SIZE = (384, 768)
REFERENCE = "fpn_aspp_mobilenetv2_tv_edgeailite"  # whose time is 1
# By option: the tag of the weights, and the dataset and split that they are scored on.
SCORED_ON = {
    "cityscapes": ("cityscapes", "cityscapes_segmentation", "val"),
    "ade20k": ("ade20k32", "ade20k_seg_class32", "val"),
    "coco": ("coco21", "coco_seg21", "val"),
    "voc": ("voc", "voc_segmentation", "val"),
    "camvid": ("camvid", "camvid", "test"),
}
SHORT = {"gmacs": "conv", "all_operators": "all", "all_operators_folded": "all, folded"}
FORMATS = {"edgeseg": "safetensors", "checkpoint": "TI's .pth", "onnx": "TI's .onnx"}
# Published beside the zoo's own networks, by torchvision's trainer.
NOT_READ = [("DeepLabV3 MobileNetV3-Large-Lite", 60.80), ("LR-ASPP MobileNetV3-Large-Lite", 59.80)]


def computed_rows() -> list[Figures]:
    """TI's table, with the computed cost of edgeseg's networks."""
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


def computed_tasks() -> list[Figures]:
    """Networks with several inputs and tasks."""
    rows = []
    for row in OTHER_TASKS:
        tasks = {f"task{i}": edgeseg.Task(channels=channels) for i, channels in enumerate(row.channels)}
        model = edgeseg.create_model(row.name, tasks=tasks, in_channels=(3,) * row.inputs)
        cost = edgeseg.complexity(model, SIZE)
        found = {"parameters": cost.params, "gmacs_computed": round(cost.gmacs, 4)}
        rows.append({**row._asdict(), **found, "agrees": agrees(cost.gmacs, row.gmacs)})
    return rows


def computed_networks() -> dict[str, Figures]:
    """Every name at one size."""
    found: dict[str, Figures] = {}
    for name in edgeseg.list_models():
        info = edgeseg.model_info(name)
        if info.name != name:
            found[name] = {"other name of": info.name}
            continue
        cost = edgeseg.complexity(edgeseg.create_model(name), SIZE)
        found[name] = {
            "decoder": info.spec.decoder if info.spec else "",
            "encoder": info.spec.encoder if info.spec else "",
            "parameters": cost.params,
            "gmacs": round(cost.gmacs, 3),
            "activations": cost.activations,
        }
    return found


def catalog(scored: dict[str, float]) -> list[Figures]:
    """The trained weights, with what was scored here."""
    rows = []
    for name in edgeseg.list_weights():
        entry = edgeseg.weights_info(name)
        measured = scored.get(name, entry.measured_miou)
        rows.append(
            {
                "name": name,
                "format": FORMATS[entry.format],
                "miou_published": entry.published_miou,
                "miou_measured": measured,
                "protocol": entry.protocol,
                "license": entry.license,
            }
        )
    return rows


def score(data: str, path: Path) -> dict[str, float]:
    """mIoU of all weights for one dataset."""
    from edgeseg.data import load_dataset
    from edgeseg.engine import evaluate

    tag, name_of_set, split = SCORED_ON[data]
    names = edgeseg.list_weights(f"*.{tag}*")
    if not names:
        raise SystemExit(f"--{data}: the catalog has no weights for this dataset (edgeseg weights list)")
    dataset = load_dataset(name_of_set, path, split)
    found = {}
    for name in names:
        matrix = evaluate(edgeseg.create_model(name).eval(), dataset, workers=1)
        found[name] = round(100 * matrix.miou, 2)
        print(f"{name}: {found[name]} on {path}", file=sys.stderr)
    return found


def measure(names: list[str]) -> dict[str, Figures]:
    """Times of every network, each in a process of its own."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        reference = export(edgeseg.create_model(REFERENCE).eval(), Path(folder) / "reference.onnx")
        for name in names:
            call = [sys.executable, __file__, "--only", name, "--reference", str(reference)]
            output = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True).stdout
            found[name] = json.loads(output.splitlines()[-1])
            print(f"{name}: {found[name]}", file=sys.stderr)
    return found


def export(model: edgeseg.Pixel2Pixel, path: Path) -> Path:
    """The ONNX file that is timed."""
    return edgeseg.export_onnx(model, path, output="small_logits", size=SIZE, dynamic=()).path


def measure_one(name: str, reference: Path) -> Figures:
    """Milliseconds and, in turns with the reference network, ratios; megabytes of memory and of the ONNX file."""
    import torch

    from edgeseg.deploy.timing import alternating

    image = torch.randn(1, 3, *SIZE)

    def in_torch(model: edgeseg.Pixel2Pixel) -> None:
        with torch.inference_mode():
            model.decode(image)

    model = edgeseg.create_model(name).eval()
    optimized = {"this": edgeseg.optimize(model)}
    in_torch(optimized["this"])
    memory = peak_memory()
    optimized["reference"] = edgeseg.optimize(edgeseg.create_model(REFERENCE).eval())
    turns = alternating({key: partial(in_torch, each) for key, each in optimized.items()}, rounds=9)
    with tempfile.TemporaryDirectory() as folder:
        file = export(model, Path(folder) / "this.onnx")
        megabytes = file.stat().st_size / 1e6
        segmenters = {"this": edgeseg.OnnxSegmenter(file), "reference": edgeseg.OnnxSegmenter(reference)}
        array = image.numpy()
        onnx = alternating({key: partial(each.run, array) for key, each in segmenters.items()}, rounds=9)
    found: Figures = {"memory_mb": round(memory), "onnx_mb": round(megabytes, 1)}
    for where, times in (("torch", turns), ("onnxruntime", onnx)):
        this, other = (statistics.median(times[key]) for key in ("this", "reference"))
        found |= {f"{where}_ms": round(1000 * this, 1), f"{where}_ratio": round(this / other, 2)}
    return found


def render(zoo: Figures) -> str:
    """MODEL_ZOO.md."""
    parts = [
        HEADER,
        *published_tables(zoo["rows"]),
        other_tasks_table(zoo["tasks"]),
        weights_table(zoo["weights"]),
        eight_bit_table(),
        networks_table(zoo),
    ]
    return "\n".join(part for part in parts if part)


HEADER = """\
# Model zoo

`python benchmarks/zoo_table.py` writes this page and the same figures as `benchmarks/results/zoo.json`. "TI's zoo" is
Texas Instruments' edgeai-torchvision (edgeailite) zoo, which edgeseg re-creates.

- **Published** figures are those of TI's table. The mIoU is in percent, on the validation images of the dataset.
- **Computed** figures are counted here, on the network that `edgeseg.create_model(name)` builds. "conv" counts only the
  convolutions, as the Cityscapes and COCO rows of TI's table do. "all" counts every operator, as TI's ADE20K rows do:
  those of RegNetX at full size, those of MobileNetV2 with folded batch norms and without the last upsampling ("all,
  folded").
- **Measured** figures come from training, evaluating or timing here. TI never published weights for Cityscapes.

![mIoU against multiply-accumulates, one panel per dataset](docs/images/zoo.png)
"""


def published_tables(rows: list[Figures]) -> list[str]:
    """TI's table, one dataset at a time."""
    parts = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        lines = [
            f"## {dataset}\n",
            "| system | name | width x height | parameters | GMACs computed, conv | GMACs computed as in TI's table "
            "| GMACs published | agrees | mIoU published |",
            "|---|---|---|--:|--:|--:|--:|---|--:|",
        ]
        chosen = [row for row in rows if row["dataset"] == dataset]
        for row in chosen:
            lines.append(
                f"| {row['system']} | `{row['name']}` | {row['width']}x{row['height']} | {row['parameters']:,} "
                f"| {row['gmacs_computed']:.4f} | {row['gmacs_its_way']:.4f} ({SHORT[row['convention']]}) "
                f"| {row['gmacs']} | {'yes' if row['agrees'] else '**no**'} | {row['miou']} |"
            )
        notes = {row["system"]: row["note"] for row in chosen if row["note"] not in ("", TRUNCATED)}
        if notes:
            lines += ["", "Figures that do not agree with TI's table:", ""]
            by_note: dict[str, list[str]] = {}
            for system, note in notes.items():
                by_note.setdefault(note, []).append(system)
            lines += [f"- {', '.join(systems)}: {note}." for note, systems in by_note.items()]
        parts.append("\n".join(lines) + "\n")
    return parts


def other_tasks_table(rows: list[Figures]) -> str:
    """Networks with several inputs and tasks."""
    lines = [
        "## Multiple inputs and tasks\n",
        "GMACs are for 768x384 and count convolutions only. docs/multitask.md has results of such networks on "
        "synthetic streets.\n",
        "| task | name | inputs | parameters | GMACs computed | GMACs published | agrees | published score |",
        "|---|---|--:|--:|--:|--:|---|---|",
    ]
    for row in rows:
        verdict = "yes" if row["agrees"] else f"**no**: {row['note']}"
        lines.append(
            f"| {row['what']} | `{row['name']}` | {row['inputs']} | {row['parameters']:,} "
            f"| {row['gmacs_computed']:.4f} | {row['gmacs']} | {verdict} | {row['score']} |"
        )
    return "\n".join(lines) + "\n"


def weights_table(rows: list[Figures]) -> str:
    """Trained weights that are published or were trained here, and how each was verified."""
    lines = [
        "## Trained weights\n",
        '`create_model("NAME.TAG")` loads these weights. The state "loads" means that a synthetic file in the '
        "publisher's format was read and gave the same logits. The published files and the datasets to score them on "
        "were not available, so their mIoU is the publisher's. `python benchmarks/zoo_table.py` with the named option "
        "measures it.\n",
        "| name | format | mIoU published | mIoU measured | on | state | licence |",
        "|---|---|--:|--:|---|---|---|",
    ]
    for row in rows:
        published, measured = (f"{m:.2f}" if m else "" for m in (row["miou_published"], row["miou_measured"]))
        state = "measured" if measured else "loads (verified on a synthetic file)"
        tag = row["name"].partition(".")[2].removesuffix("_qat")
        option = next((each for each, (its_tag, *_) in SCORED_ON.items() if its_tag == tag), None)
        if not measured and option:
            measured = f"needs `--{option} PATH`"
        lines.append(
            f"| `{row['name']}` | {row['format']} | {published} | {measured} | {row['protocol']} | {state} "
            f"| {row['license']} |"
        )
    for system, miou in NOT_READ:
        lines.append(
            f"| {system} | .pth, .onnx | {miou:.2f} | | COCO val2017 in 21 classes, 512x512 | not in this zoo | |"
        )
    return "\n".join(lines) + "\n"


def eight_bit_table() -> str:
    """What `benchmarks/int8.py` measured, and the pairs that TI published."""
    path = RESULTS / "int8.json"
    if not path.is_file():
        return ""
    pairs = [
        f"{row.system.removesuffix('-QAT')} {before.miou} -> {row.miou}"
        for row in ROWS
        for before in ROWS
        if row.system == f"{before.system}-QAT" and (row.width, row.dataset) == (before.width, before.dataset)
    ]
    return (
        f"## Int8\n\nThe networks were measured in onnxruntime on CamVid's test frames (`python benchmarks/int8.py`). "
        f"PTQ is post-training quantization, QAT is quantization-aware training. TI published these changes of the "
        f"mIoU on Cityscapes by QAT with power-of-two scales: {', '.join(pairs)}.\n\n"
        f"{int8.table(json.loads(path.read_text()))}\n"
    )


def networks_table(zoo: Figures) -> str:
    """Every network of the zoo at one size."""
    lines = [
        "## All networks\n",
        "Figures are for 19 classes at 768x384 (width x height). GMACs and activations are of the convolutions.\n",
        "| name | decoder | encoder | parameters | GMACs | activations, M | torch, ms (ratio) "
        "| onnxruntime, ms (ratio) | memory in torch, MB | ONNX file, MB |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in zoo["networks"].items():
        if "other name of" in row:
            lines.append(f"| `{name}` | alias of `{row['other name of']}` | | | | | | | | |")
            continue
        times = zoo["measured"].get(name)
        measured = " | | | "
        if times:
            both = ("torch", "onnxruntime")
            parts = [f"{times[f'{where}_ms']:.1f} ({times[f'{where}_ratio']:.2f})" for where in both]
            measured = f"{' | '.join(parts)} | {times['memory_mb']:,} | {times['onnx_mb']:.1f}"
        kind = f"{row['decoder']} | {row['encoder']}" if row["decoder"] else "network for comparison |"
        lines.append(
            f"| `{name}` | {kind} | {row['parameters']:,} | {row['gmacs']:.3f} | {row['activations'] / 1e6:.1f} "
            f"| {measured} |"
        )
    if zoo["measured"]:
        lines += [
            "",
            "Times are for the logits at the decoder's stride, with `edgeseg.optimize` in torch and with an ONNX file "
            f"for this size in onnxruntime. Ratios are relative to `{REFERENCE}`, which ran in "
            f"alternation in the same process. {zoo['machine']}.",
        ]
    return "\n".join(lines) + "\n"


def draw(zoo: Figures, path: Path) -> None:
    """mIoU against multiply-accumulates, with the frontier: a panel per dataset, and one for what was measured here."""
    from matplotlib.figure import Figure

    datasets = list(dict.fromkeys(row["dataset"] for row in zoo["rows"]))
    figure = Figure(figsize=(15, 6), layout="constrained")
    widths = [*(2.2 if dataset == "Cityscapes" else 1 for dataset in datasets), 1]
    panels = figure.subplots(1, len(widths), width_ratios=widths)
    for axis, dataset in zip(panels, datasets, strict=False):
        points = [
            (float(row["gmacs"]), float(row["miou"]), f"{row['system'].replace('EdgeAILite', '')} {row['width']}", row)
            for row in zoo["rows"]
            if row["dataset"] == dataset and row["miou"]
        ]
        own = [p for p in points if p[3]["name"].endswith("edgeailite")]
        peers = [p for p in points if p not in own]
        axis.scatter([p[0] for p in own], [p[1] for p in own], color="tab:blue", label="the zoo's, published")
        axis.scatter([p[0] for p in peers], [p[1] for p in peers], color="tab:gray", marker="s", label="compared with")
        _finish(axis, points, f"{dataset}, published")
    measured = []
    for row in zoo["weights"]:
        name, _, tag = row["name"].partition(".")
        if tag == "camvid" and row["miou_measured"]:
            cost = edgeseg.complexity(edgeseg.create_model(row["name"]), (600, 800)).gmacs
            measured.append((cost, row["miou_measured"], name.partition("_")[0], row))
    panels[-1].scatter([p[0] for p in measured], [p[1] for p in measured], color="tab:red", marker="*", s=120)
    _finish(panels[-1], measured, "CamVid test, measured here, 800x600")
    panels[0].set_ylabel("mIoU, percent")
    figure.savefig(path, dpi=90)


def _finish(axis: Any, points: list[Any], title: str) -> None:
    best, frontier = 0.0, []
    for x, y, _, _ in sorted(points, key=lambda point: (point[0], -point[1])):
        if y > best:
            best = y
            frontier.append((x, y))
    axis.plot(*zip(*frontier, strict=True), color="black", linewidth=0.8, drawstyle="steps-post")
    for x, y, text, _ in points:
        axis.annotate(text, (x, y), fontsize=6, xytext=(3, 3), textcoords="offset points")
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("GMACs", fontsize=8)
    axis.margins(x=0.25)
    axis.grid(alpha=0.3)


def main() -> None:
    """Computes, measures what is asked for, writes or checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--measure", nargs="*", metavar="NAME", help="these networks, without names all")
    for data in SCORED_ON:
        parser.add_argument(f"--{data}", type=Path, metavar="PATH")
    parser.add_argument("--only", metavar="NAME", help="measure one network in this process, beside --reference FILE")
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure_one(options.only, options.reference)))
        return
    before = json.loads(FILE.read_text()) if FILE.is_file() else {}
    scored, measured = before.get("scored", {}), before.get("measured", {})
    on = before.get("machine", "")
    for data in SCORED_ON:
        if path := getattr(options, data):
            scored |= score(data, path)
    networks = computed_networks()
    if options.measure is not None:
        names = options.measure or [name for name, row in networks.items() if "parameters" in row]
        measured, on = measured | measure(names), machine()
    zoo = {
        "rows": computed_rows(),
        "tasks": computed_tasks(),
        "weights": catalog(scored),
        "networks": networks,
        "scored": scored,
        "measured": {name: each for name, each in measured.items() if name in networks},
        "machine": on,
    }
    texts = {ROOT / "MODEL_ZOO.md": render(zoo), FILE: json.dumps(zoo, indent=1) + "\n"}
    if options.check:
        stale = [str(path) for path, text in texts.items() if not path.is_file() or path.read_text() != text]
        if stale:
            raise SystemExit(f"stale: {', '.join(stale)}; run python benchmarks/zoo_table.py")
        return
    RESULTS.mkdir(exist_ok=True)
    for path, text in texts.items():
        path.write_text(text)
    draw(zoo, ROOT / "docs/images/zoo.png")


if __name__ == "__main__":
    main()
