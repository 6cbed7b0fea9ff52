"""Prints the published table of the original zoo beside what this zoo computes: python benchmarks/zoo_table.py

With `--output FILE` it writes MODEL_ZOO.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from published import CLASSES, OTHER_TASKS, ROWS, TRUNCATED, Row, agrees

import edgeseg

HEADER = """\
# Model zoo

Written by `python benchmarks/zoo_table.py --output MODEL_ZOO.md`.

- **published**: printed in the original zoo's table, mIoU in percent on the set's validation images.
- **computed**: counted here, on the network that `edgeseg.create_model(name)` builds. "conv" counts the convolutions
  only, which is how the original's Cityscapes and COCO rows were counted; "all" is every operator, the convention of
  its ADE20K rows (of RegNetX at full size; of MobileNetV2 with batch norm folded and without the last upsample).
- **measured**: trained and scored here. The original never published Cityscapes weights.

"""
SHORT = {"gmacs": "conv", "all_operators": "all", "all_operators_folded": "all, folded"}


def published_table() -> str:
    """The rows of the original, published GMACs beside computed ones."""
    lines = [
        "## The original's table\n",
        "| data set | system | name | width x height | parameters | GMACs computed, conv | GMACs computed, its way "
        "| GMACs published | agrees | mIoU published |",
        "|---|---|---|---|--:|--:|--:|--:|---|--:|",
        *(published_line(row) for row in ROWS),
        "",
        "Figures that do not agree:",
        "",
    ]
    notes = {(r.system, r.width): r.note for r in ROWS if r.note not in ("", TRUNCATED)}
    lines += [f"- {system} at {width} wide: {note}; no convention gives it." for (system, width), note in notes.items()]
    return "\n".join(lines) + "\n"


def published_line(row: Row) -> str:
    """One row, computed where the zoo has the network."""
    size = f"{row.width}x{row.height}"
    if not row.name:
        return f"| {row.dataset} | {row.system} | not in this zoo | {size} | | | | {row.gmacs} | | {row.miou} |"
    model = edgeseg.create_model(row.name, num_classes=CLASSES[row.dataset])
    width, height = row.counted or (row.width, row.height)
    cost = edgeseg.complexity(model, (height, width))
    value = getattr(cost, row.convention)
    verdict = "yes" if agrees(value, row.gmacs) else "**no**"
    return (
        f"| {row.dataset} | {row.system} | `{row.name}` | {size} | {cost.params:,} | {cost.gmacs:.4f} "
        f"| {value:.4f} ({SHORT[row.convention]}) | {row.gmacs} | {verdict} | {row.miou} |"
    )


def other_tasks_table() -> str:
    """Networks of several inputs and tasks."""
    lines = [
        "## Several inputs and tasks\n",
        "768x384, convolutions only. What these networks do on synthetic streets is in docs/multitask.md.\n",
        "| task | name | inputs | parameters | GMACs computed | GMACs published | agrees | published score |",
        "|---|---|--:|--:|--:|--:|---|---|",
    ]
    for row in OTHER_TASKS:
        tasks = {f"task{i}": edgeseg.Task(channels=channels) for i, channels in enumerate(row.channels)}
        model = edgeseg.create_model(row.name, tasks=tasks, in_channels=(3,) * row.inputs)
        cost = edgeseg.complexity(model, (384, 768))
        verdict = "yes" if agrees(cost.gmacs, row.gmacs) else f"**no**: {row.note}"
        lines.append(
            f"| {row.what} | `{row.name}` | {row.inputs} | {cost.params:,} | {cost.gmacs:.4f} | {row.gmacs} "
            f"| {verdict} | {row.score} |"
        )
    return "\n".join(lines) + "\n"


FORMATS = {"edgeseg": "safetensors", "checkpoint": "the original's .pth", "onnx": "the original's .onnx"}
# Published beside the zoo's own networks, by torchvision's trainer.
NOT_READ = [
    ("DeepLabV3 MobileNetV3-Large-Lite", "60.80"),
    ("LR-ASPP MobileNetV3-Large-Lite", "59.80"),
]


def weights_table() -> str:
    """Trained weights that are published or were trained here, and what was seen of each."""
    lines = [
        "## Trained weights\n",
        'What `create_model("NAME.TAG")` loads. **loads** says that a synthetic file in the publisher\'s format is '
        "read and gives the same logits; the published files themselves were not at hand, "
        "and their mIoU is the publisher's.\n",
        "| name | format | mIoU published | mIoU measured | on | state | licence |",
        "|---|---|--:|--:|---|---|---|",
    ]
    for name in edgeseg.list_weights():
        entry = edgeseg.weights_info(name)
        published, measured = (f"{m:.2f}" if m else "" for m in (entry.published_miou, entry.measured_miou))
        state = "measured" if entry.measured_miou else "loads (verified on a synthetic file)"
        kind = FORMATS[entry.format]
        lines.append(f"| `{name}` | {kind} | {published} | {measured} | {entry.protocol} | {state} | {entry.license} |")
    for system, miou in NOT_READ:
        lines.append(f"| {system} | .pth, .onnx | {miou} | | COCO val2017 in 21 classes, 512x512 | not in this zoo | |")
    return "\n".join(lines) + "\n"


def names_table() -> str:
    """Every network of the zoo at one size."""
    lines = [
        "## All names\n",
        "19 classes, 768x384 (width x height), convolutions only.\n",
        "| name | decoder | encoder | parameters | GMACs |",
        "|---|---|---|--:|--:|",
    ]
    for name in edgeseg.list_models():
        info = edgeseg.model_info(name)
        if info.name != name:
            lines.append(f"| `{name}` | another name of `{info.name}` | | | |")
            continue
        cost = edgeseg.complexity(edgeseg.create_model(name), (384, 768))
        parts = f"{info.spec.decoder} | {info.spec.encoder}" if info.spec else "a system to compare with |"
        lines.append(f"| `{name}` | {parts} | {cost.params:,} | {cost.gmacs:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the table, or writes MODEL_ZOO.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="write the whole of MODEL_ZOO.md here")
    output = parser.parse_args().output
    if output is None:
        print(published_table())
    else:
        output.write_text(HEADER + "\n".join([published_table(), other_tasks_table(), weights_table(), names_table()]))


if __name__ == "__main__":
    main()
