"""Ways of doing one thing, each in processes of its own, in turns: medians, spread and the ratio to the first."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from reporting import machine, peak_memory, write_table

Case = Callable[[argparse.Namespace], float]


def measure(cases: Iterable[str], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Figures of every round, by case: of this script with `--only CASE`, which is to call `run_one`."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, figures in found.items():
            call = [sys.executable, *sys.argv, "--only", name]
            output = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True).stdout
            figures.append(json.loads(output.splitlines()[-1]))
            print(f"round {number + 1}  {name}: {figures[-1]}", file=sys.stderr)
    return found


def run_one(case: Case, options: argparse.Namespace) -> None:
    """Prints the figures of one case as JSON."""
    print(json.dumps({"images_per_second": case(options), "peak_mb": peak_memory()}))


def compare(cases: Mapping[str, Case], parser: argparse.ArgumentParser, document: str) -> None:
    """The main function of a benchmark: writes a Markdown table.

    Args:
        cases: What each way is called, and the function that does it and answers images per second. It runs in a fresh
            process, so that neither memory settings nor caches of one way serve another.
        parser: With the benchmark's own options, which the functions get.
        document: Of docs/, with the script's name as a mark.
    """
    parser.add_argument("--rounds", type=int, default=3, help="processes for each way (default 3)")
    parser.add_argument("--only", choices=tuple(cases), help="run one way once, and print its figures as JSON")
    options = parser.parse_args()
    if options.only:
        run_one(cases[options.only], options)
        return
    found = measure(cases, options.rounds)
    reference = statistics.median(each["images_per_second"] for each in next(iter(found.values())))
    lines = ["| | images/s (lowest to highest) | ratio | peak memory, MB |", "|---|---|---|---|"]
    for name, figures in found.items():
        rates = [each["images_per_second"] for each in figures]
        rate, peak = statistics.median(rates), statistics.median(each["peak_mb"] for each in figures)
        spread = f"{rate:.2f} ({min(rates):.2f} to {max(rates):.2f})"
        lines.append(f"| {name} | {spread} | {rate / reference:.2f} | {peak:,.0f} |")
    write_table(document, Path(sys.argv[0]).stem, "\n".join([*lines, "", f"{machine()}."]))
