"""Writes the table of the zoo, MODEL_ZOO.md: python benchmarks/zoo_table.py

Also writes its figures to results/zoo.json and its picture to docs/images/zoo.svg (pip install 'edgeseg[benchmarks]').

- Published figures are read from published.py and from the catalog of weights.
- Computed figures (parameters, multiply-accumulates, activations) are counted anew each time.
- Measured figures are kept from results/zoo.json unless an option asks for them: `--measure` times every network in
  torch and onnxruntime, which takes a quarter of an hour (edgeseg[onnx]); `--camvid PATH` and the other dataset options
  score the weights for that dataset.

`--check` writes nothing, and fails if one of the texts differs from what would be written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from measuring import RESULTS, ROOT, machine, with_table
from zoo_choice import devices, needs, shipped
from zoo_figures import SCORED_ON, Figures, measure, networks, other_tasks, published_rows, score, weights
from zoo_markdown import render
from zoo_picture import draw

FILE = RESULTS / "zoo.json"


def figures(options: argparse.Namespace) -> Figures:
    """Returns all figures. Measured ones are read from results/zoo.json, updated by what the options ask for."""
    before = json.loads(FILE.read_text()) if FILE.is_file() else {}
    scored, measured = before.get("scored", {}), before.get("measured", {})
    measured_on = before.get("machine", "")
    for option in SCORED_ON:
        if path := getattr(options, option):
            scored |= score(option, path)
    all_networks = networks()
    if options.measure is not None:
        names = options.measure or [name for name, row in all_networks.items() if "parameters" in row]
        if unknown := [name for name in names if name not in all_networks]:
            raise SystemExit(f"no networks named {', '.join(unknown)}")
        if measured and measured_on != machine() and options.measure:
            raise SystemExit(f"the other networks were measured on {measured_on}; --measure without names measures all")
        measured, measured_on = measured | measure(names), machine()
    return {
        "rows": published_rows(),
        "tasks": other_tasks(),
        "weights": weights(scored),
        "networks": all_networks,
        "scored": scored,
        "measured": {name: each for name, each in measured.items() if name in all_networks},
        "machine": measured_on,
    }


def main() -> None:
    """Writes or checks the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the files are out of date")
    parser.add_argument("--measure", nargs="*", metavar="NAME", help="time these networks (without names: all)")
    for option, (_, dataset, split) in SCORED_ON.items():
        parser.add_argument(
            f"--{option}", type=Path, metavar="PATH", help=f"score the weights on {dataset}, split {split}, in PATH"
        )
    options = parser.parse_args()
    zoo = figures(options)
    content = json.dumps(zoo, indent=1) + "\n"
    if not options.check:
        FILE.write_text(content)  # before the texts, so that an error there does not cost what was measured
    texts = {ROOT / "MODEL_ZOO.md": render(zoo), FILE: content}
    for path, mark, table in (
        (ROOT / "README.md", "shipped", shipped(zoo, RESULTS / "runtimes.json")),
        (ROOT / "README.md", "needs", needs(zoo)),
        (ROOT / "docs/choosing.md", "needs", needs(zoo)),
        (ROOT / "docs/choosing.md", "devices", devices(RESULTS / "runtimes.json")),
    ):
        texts[path] = with_table(texts.get(path) or path.read_text(), mark, table)
    if options.check:
        stale = [str(path) for path, text in texts.items() if not path.is_file() or path.read_text() != text]
        if stale:
            raise SystemExit(f"out of date: {', '.join(stale)}; run python benchmarks/zoo_table.py")
        return
    for path, text in texts.items():
        path.write_text(text)
    draw(zoo, ROOT / "docs/images/zoo.svg")


if __name__ == "__main__":
    main()
