"""The text of MODEL_ZOO.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import int8
from measuring import RESULTS, markdown
from published import ROWS, TRUNCATED
from zoo_choice import chooser, milliseconds
from zoo_figures import REFERENCE, Figures

CONVENTIONS = {"gmacs": "conv", "all_operators": "all", "all_operators_folded": "all, folded"}
# Published by torchvision's trainer next to the zoo's own networks.
NOT_READ = [("DeepLabV3 MobileNetV3-Large-Lite", 60.80), ("LR-ASPP MobileNetV3-Large-Lite", 59.80)]
HEADER = """\
# Model zoo

The networks that have trained weights or a published mIoU, sorted by speed:

{chooser}

- **mIoU** is in percent on Cityscapes' validation images, as published, at 768x384 (width x height) unless the table
  names a larger size. **GMACs** and **ms** are always for 768x384, so a larger size costs more than its row says.
- **GMACs** count convolutions. **ms** are milliseconds in onnxruntime, float32, on {machine}.
  Each network was timed in turns with `{reference}`, and its ms are {pace:.1f} ms, the time of
  that network, multiplied by the ratio of the two times.
- **Weights** are loaded by `edgeseg.create_model("NAME.TAG")`. Their scores are [below](#trained-weights).

[Which model?](docs/choosing.md) chooses by need and by device.

## What the other tables contain

`python benchmarks/zoo_table.py` writes them, and their figures to `benchmarks/results/zoo.json`. Those of int8 come
from `benchmarks/int8.py`.

- **published**: printed in the table of TI's edgeai-torchvision, and of ESPNetv2 stated by its authors; mIoU in percent
  on the dataset's validation images.
- **computed**: counted here, on the network that `edgeseg.create_model(name)` builds. "conv" counts convolutions only,
  which is TI's convention for its Cityscapes and COCO rows; "all" counts every operator, TI's convention for its ADE20K
  rows (of RegNetX at full size; of MobileNetV2 with batch norms folded and without the last upsampling).
- **measured**: trained, scored or timed here. TI never published weights for Cityscapes.

![Published mIoU against multiply-accumulates, one panel per dataset](docs/images/zoo.svg)
"""


def render(zoo: Figures) -> str:
    """Returns the whole text."""
    datasets = list(dict.fromkeys(row["dataset"] for row in zoo["rows"]))
    parts = [
        HEADER.format(
            chooser=chooser(zoo), machine=zoo["machine"], reference=REFERENCE, pace=milliseconds(REFERENCE, zoo)
        ),
        *(published_section(each, [row for row in zoo["rows"] if row["dataset"] == each]) for each in datasets),
        other_tasks_section(zoo["tasks"]),
        weights_section(zoo["weights"]),
        int8_section(),
        networks_section(zoo),
    ]
    return "\n".join(part for part in parts if part)


def published_section(dataset: str, rows: Sequence[Figures]) -> str:
    """Returns TI's table for one dataset, with notes on the figures that do not agree."""
    table = markdown(
        "system | name | width x height | parameters: | GMACs computed, conv: | GMACs computed, TI's convention: | "
        "GMACs published: | agrees | mIoU published:",
        [
            (
                row["system"],
                f"`{row['name']}`",
                f"{row['width']}x{row['height']}",
                f"{row['parameters']:,}",
                f"{row['gmacs_computed']:.4f}",
                f"{row['gmacs_its_way']:.4f} ({CONVENTIONS[row['convention']]})",
                row["gmacs"],
                "yes" if row["agrees"] else "**no**",
                row["miou"],
            )
            for row in rows
        ],
    )
    return f"## {dataset}\n\n{table}\n{_notes(rows)}"


def _notes(rows: Sequence[Figures]) -> str:
    systems: dict[str, list[str]] = {}
    for system, note in dict.fromkeys((row["system"], row["note"]) for row in rows):
        if note not in ("", TRUNCATED):
            systems.setdefault(note, []).append(system)
    lines = [f"- {', '.join(names)}: {note}.\n" for note, names in systems.items()]
    return "".join(["\nFigures that do not agree:\n\n", *lines]) if lines else ""


def other_tasks_section(rows: Sequence[Figures]) -> str:
    """Returns the table of networks with several inputs and tasks."""
    table = markdown(
        "task | name | inputs: | parameters: | GMACs computed: | GMACs published: | agrees | published score",
        [
            (
                row["what"],
                f"`{row['name']}`",
                row["inputs"],
                f"{row['parameters']:,}",
                f"{row['gmacs_computed']:.4f}",
                row["gmacs"],
                "yes" if row["agrees"] else f"**no**: {row['note']}",
                row["score"],
            )
            for row in rows
        ],
    )
    return (
        "## Several inputs and tasks\n\n768x384, convolutions only. Scores of such networks on synthetic streets "
        f"are in [several inputs and tasks](docs/multitask.md).\n\n{table}\n"
    )


def weights_section(rows: Sequence[Figures]) -> str:
    """Returns the table of trained weights: their published and measured mIoU, and what was verified."""
    cells = [_weights_cells(row) for row in rows]
    cells += [
        (system, ".pth, .onnx", f"{miou:.2f}", "", "COCO val2017 in 21 classes, 512x512", "not in this zoo", "")
        for system, miou in NOT_READ
    ]
    table = markdown("name | format | mIoU published: | mIoU measured: | on | state | licence", cells)
    return (
        '## Trained weights\n\nThe weights that `create_model("NAME.TAG")` loads. **loads** means that the '
        "published file, or where it was not available a synthetic file in its format, was read, and that the "
        "network gave the logits of the original one; the datasets to score them on were not available here, so their "
        f"mIoU is the publisher's.\n\n{table}\n"
    )


def _weights_cells(row: Figures) -> tuple[str, ...]:
    published, measured = (f"{miou:.2f}" if miou else "" for miou in (row["miou_published"], row["miou_measured"]))
    state = f"loads (verified on {'the published' if row['file_read'] else 'a synthetic'} file)"
    state = "measured" if measured else state
    return f"`{row['name']}`", row["format"], published, measured, row["protocol"], state, row["license"]


def int8_section() -> str:
    """Returns the results of `benchmarks/int8.py` and the mIoU that TI published before and after quantization."""
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
        "## int8\n\nMeasured in onnxruntime on the test frames of CamVid (`python benchmarks/int8.py`). [Deployment]"
        "(docs/deployment.md#accuracy-and-speed-of-int8) says how. Published on "
        f"Cityscapes, with power-of-two scales: {', '.join(pairs)}.\n\n{int8.table(json.loads(path.read_text()))}\n"
    )


def networks_section(zoo: Figures) -> str:
    """Returns the table of all networks of the zoo at one size."""
    table = markdown(
        "name | decoder | encoder | parameters: | GMACs: | activations, M: | torch, ms (ratio): | "
        "onnxruntime, ms (ratio): | memory in torch, MB: | ONNX file, MB:",
        [
            _network_cells(name, row, zoo["measured"].get(name))
            for name, row in zoo["networks"].items()
            if "other name of" not in row
        ],
    )
    aliases = [
        f"`{name}` is `{row['other name of']}`" for name, row in zoo["networks"].items() if "other name of" in row
    ]
    times = (
        "\nTimes are to the logits at the decoder's stride, of `edgeseg.optimize` and of an ONNX file for this size; "
        f"ratios are relative to `{REFERENCE}` in the same process, in turns. {zoo['machine']}.\n"
    )
    heading = "## All names\n\n19 classes, 768x384 (width x height), convolutions only."
    return f"{heading}\n\n{table}\n{times if zoo['measured'] else ''}\nOther names: {', '.join(aliases)}.\n"


def _network_cells(name: str, row: Figures, measured: Mapping[str, float] | None) -> tuple[str, ...]:
    kind = (row["decoder"], row["encoder"]) if row["decoder"] else ("only for comparison", "")
    costs = f"{row['parameters']:,}", f"{row['gmacs']:.3f}", f"{row['activations'] / 1e6:.1f}"
    if not measured:
        return f"`{name}`", *kind, *costs, *4 * [""]
    times = [f"{measured[f'{x}_ms']:.1f} ({measured[f'{x}_ratio']:.2f})" for x in ("torch", "onnxruntime")]
    return f"`{name}`", *kind, *costs, *times, f"{measured['memory_mb']:,}", f"{measured['onnx_mb']:.1f}"
