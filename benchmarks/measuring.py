"""The harness of all benchmarks: ways measured in turns and in separate processes, and tables in the documents."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import torch

from edgeseg.machine.processor import cpu_facts, cpu_name

P = ParamSpec("P")
T = TypeVar("T")
Case = Callable[[argparse.Namespace], float]

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
# Children start from nothing: they inherit neither the memory nor the caches of their parent.
SPAWN = multiprocessing.get_context("spawn")


class Round(NamedTuple):
    """What one process measured."""

    images_per_second: float
    peak_mb: float


def run_alone(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """Calls a function of a module in a new process, and returns its result and the peak memory of the process in MB.

    What the process prints goes to stderr.
    """
    with ProcessPoolExecutor(1, SPAWN, initializer=os.dup2, initargs=(2, 1)) as process:
        return process.submit(function, *args, **kwargs).result(), process.submit(peak_memory).result()


class Worker:
    """A separate process that prepares one way once and then runs it on request.

    Args:
        prepare: A function of a module. It is called in the process and returns the function to measure.
        arguments: The arguments of `prepare`.
    """

    def __init__(self, prepare: Callable[..., Callable[[], object]], *arguments: object) -> None:
        self.process = ProcessPoolExecutor(1, SPAWN, initializer=_prepare, initargs=(prepare, arguments))

    def seconds(self) -> float:
        """Runs the way once and returns the seconds that it took."""
        return self.process.submit(_timed).result()

    def growth(self) -> float:
        """Returns by how many MB the peak memory of the process exceeds its memory before `prepare` was called."""
        return self.process.submit(_growth).result()

    def close(self) -> float:
        """Ends the process and returns its peak memory in MB."""
        peak = self.process.submit(peak_memory).result()
        self.process.shutdown()
        return peak


_way: Callable[[], object]  # the function that a worker's process measures
_before: float  # MB in use by a worker's process before it prepared its way


def _prepare(prepare: Callable[..., Callable[[], object]], arguments: Sequence[object]) -> None:
    global _way, _before
    os.dup2(2, 1)
    _before = _status("VmRSS")
    _way = prepare(*arguments)


def _growth() -> float:
    return peak_memory() - _before


def _timed() -> float:
    start = time.perf_counter()
    _way()
    return time.perf_counter() - start


def in_turns(workers: Mapping[str, Worker], rounds: int) -> dict[str, list[float]]:
    """Runs every worker once per round. Returns the seconds of each worker, in the order of the rounds."""
    turns = [{name: worker.seconds() for name, worker in workers.items()} for _ in range(rounds)]
    return {name: [turn[name] for turn in turns] for name in workers}


def measure(cases: Mapping[str, Case], options: argparse.Namespace, rounds: int) -> dict[str, list[Round]]:
    """Runs every case once per round, each time in a new process."""
    results: dict[str, list[Round]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, case in cases.items():
            results[name].append(Round(*run_alone(case, options)))
            print(f"round {number + 1}, {name}: {results[name][-1]}", file=sys.stderr)
    return results


def compare_ways(cases: Mapping[str, Case], parser: argparse.ArgumentParser, document: str) -> None:
    """Runs a whole benchmark: parses the command line, measures, and writes the table.

    Args:
        cases: The functions to compare, by name; the first is the baseline. Each returns images per second.
        parser: Parser with the benchmark's own options, which the functions receive.
        document: A file in docs/ with a table that is marked with the name of the script.
    """
    parser.add_argument("--rounds", type=int, default=3, help="number of processes per way (default 3)")
    parser.add_argument("--only", choices=tuple(cases), help="run this way once, print its figures as JSON, and exit")
    options = parser.parse_args()
    if options.only:
        (only,) = measure({options.only: cases[options.only]}, options, 1)[options.only]
        print(json.dumps(only._asdict()))
        return
    results = measure(cases, options, options.rounds)
    medians = {name: _median_rate(rounds) for name, rounds in results.items()}
    baseline = next(iter(medians.values()))
    rows = [
        (
            name,
            spread(each.images_per_second for each in rounds),
            f"{medians[name] / baseline:.2f}",
            f"{statistics.median(each.peak_mb for each in rounds):,.0f}",
        )
        for name, rounds in results.items()
    ]
    table = markdown(" | images/s (lowest to highest) | ratio | peak memory, MB", rows)
    write_table(document, Path(sys.argv[0]).stem, f"{table}\n\n{machine()}.")


def _median_rate(rounds: Sequence[Round]) -> float:
    return statistics.median(each.images_per_second for each in rounds)


def peak_memory() -> float:
    """Returns the peak memory of this process in MB: on the GPU if the process used one, else its resident memory."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    # Not from getrusage, which on Linux counts the parent's memory too.
    return _status("VmHWM")


def _status(key: str) -> float:
    """Returns a memory figure of this process from Linux, in MB."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, f"/proc/self/status does not have {key}"
    return int(found[1]) / 1e3


def spread(values: Iterable[float]) -> str:
    """Returns the median, the lowest and the highest value as text."""
    values = sorted(values)
    return f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})"


def machine(device: str = "cpu", libraries: Sequence[str] = ("torch",)) -> str:
    """Names the GPU, or the processor with its instruction sets and the number of threads, and library versions."""
    name = torch.cuda.get_device_name() if torch.device(device).type == "cuda" else _processor()
    return ", ".join([name, *(f"{library} {version(library).partition('+')[0]}" for library in libraries)])


def _processor() -> str:
    flags = cpu_facts().get("flags", "").split()
    instructions = ", ".join(each for each in INSTRUCTIONS if each in flags)
    return f"{cpu_name()} ({instructions}), {torch.get_num_threads()} threads"


def markdown(heading: str, rows: Iterable[Sequence[object]]) -> str:
    """Returns a Markdown table.

    Args:
        heading: The column names, separated by " | ". Columns whose name ends in ":" are aligned to the right.
        rows: The cells of each row.
    """
    names = heading.split(" | ")
    rule = "|".join("--:" if name.endswith(":") else "---" for name in names)
    first, *rest = [[name.removesuffix(":") for name in names], *rows]
    return "\n".join([_line(first), f"|{rule}|", *map(_line, rest)])


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def with_table(document: str, mark: str, text: str) -> str:
    """Returns a document with other text between `<!-- MARK -->` and `<!-- end -->`."""
    place = rf"(?s)(<!-- {mark} -->\n).*?(?=<!-- end -->)"
    assert re.search(place, document), f"the document does not have the mark <!-- {mark} -->"
    return re.sub(place, lambda match: f"{match[1]}{text.strip()}\n", document, count=1)


def write_table(document: str, mark: str, text: str) -> None:
    """Replaces the text between `<!-- MARK -->` and `<!-- end -->` in a file in docs/, and prints it."""
    path = ROOT / "docs" / document
    path.write_text(with_table(path.read_text(), mark, text))
    print(text)
