"""Runs drills: `python -m tests.drills [NAME ...] [--tries N] [--seed S]`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from datetime import date
from importlib.metadata import distributions
from pathlib import Path

from edgeseg.machine.processor import cpu_name

from .pool import Limits, Result, pool
from .table import DRILLS

LIBRARIES = ("torch", "Pillow", "safetensors", "onnxruntime", "ai-edge-litert", "executorch", "openvino")


def main() -> int:
    """Runs the drills that are asked for, prints a table, and returns 1 if a try fell."""
    parser = argparse.ArgumentParser("python -m tests.drills", description="Reads damaged files of many kinds.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"drills (default all): {', '.join(DRILLS)}")
    parser.add_argument("--tries", type=int, metavar="N", help="tries per drill (default the long form, up to 10,000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed damages files in other ways")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="number of processes")
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="time limit of one try")
    parser.add_argument("--megabytes", type=int, default=3000, metavar="MB", help="memory limit of one try")
    parser.add_argument(
        "--fallen", type=Path, default=Path("build/drills"), metavar="DIR",
        help="folder for the smallest damaged files of each fall (default build/drills)",
    )  # fmt: skip
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in DRILLS]
    if unknown:
        parser.error(f"no drill {', '.join(unknown)}; the drills are {', '.join(DRILLS)}")
    fell, first = 0, time.monotonic()
    print("| drill | tries | correct | refused | failed | seconds |\n|---|--:|--:|--:|--:|--:|", flush=True)
    with pool(options.processes, Limits(options.seconds, options.megabytes), options.fallen) as workers:
        for name in options.names or DRILLS:
            start = time.monotonic()
            drill = DRILLS[name]
            result = workers.run(drill, options.tries or drill.tries, options.seed)
            print(row(result, time.monotonic() - start), flush=True)
            fell += result.fell
    print(f"\n{setting(options.seed, options.processes, time.monotonic() - first)}")
    if fell:
        print(f"the smallest files of each fall are in {options.fallen}")
    return 1 if fell else 0


def row(result: Result, seconds: float) -> str:
    """One row of a Markdown table, and below it one line per kind of fall."""
    refused = result.tries - result.fell - result.right
    cells = (result.name, result.tries, result.right, refused, result.fell, f"{seconds:.0f}")
    falls = [f"    {count} {what}" for what, count in result.falls.most_common()]
    return "\n".join(["| " + " | ".join(map(str, cells)) + " |", *falls])


def setting(seed: int, processes: int, seconds: float) -> str:
    """When, where and with what the drills ran, in a line."""
    versions = ", ".join(f"{each.name} {each.version}" for name in LIBRARIES for each in distributions(name=name))
    return (
        f"{date.today()}, seed {seed}, {processes} processes, {seconds / 60:.0f} minutes. {cpu_name()}, "
        f"{platform.system()}, Python {platform.python_version()}, {versions}."
    )


if __name__ == "__main__":
    sys.exit(main())
