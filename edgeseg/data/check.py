"""What is in a dataset: counts of pixels per class, sizes, and the samples that cannot be used, with their reasons."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from edgeseg.arguments import require_choice
from edgeseg.data.base import LabelledDataset, fact_of, facts_of, name_of
from edgeseg.data.samples import checked_sample, require_samples
from edgeseg.labels import IGNORE, class_names
from edgeseg.machine.files import replacing
from edgeseg.machine.terminal import printable, progress_bar
from edgeseg.machine.workers import start_worker, started
from edgeseg.records import Record
from edgeseg.spec import Input, Task
from edgeseg.tasks import kind_of

FORMAT = 3  # of the files of reports
SHOWN = 10  # number of sizes and of problems that a table lists
OnError = Literal["collect", "stop"]
Read = Callable[[int], tuple[Sequence[Tensor], Mapping[str, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class ClassCounts(Record):
    """The ground truth of one task that has classes.

    Args:
        names: Names of the classes, in the order of their ids.
        pixels: Number of pixels per class.
        samples: Number of samples per class in which the class occurs.
        ignored: Number of ignored pixels.
        beside_ignored: Number of samples per class in which both the class and ignored pixels occur.
        doubt: What looks wrong in the whole dataset, although every sample can be used; "" if nothing does.
    """

    names: tuple[str, ...]
    pixels: tuple[int, ...]
    samples: tuple[int, ...]
    ignored: int
    beside_ignored: tuple[int, ...] = ()
    doubt: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the classes that never occur."""
        return tuple(name for name, pixels in zip(self.names, self.pixels, strict=True) if not pixels)


@dataclass(frozen=True, kw_only=True, repr=False)
class DataReport(Record):
    """What is in a dataset; its `repr` is a table.

    Args:
        samples: Number of samples of the dataset.
        checked: Number of samples that were read.
        sizes: Number of samples by "HEIGHTxWIDTH" in pixels.
        channels: Number of samples by the channels of their images, such as "3" or, for two images, "3+3".
        classes: Counts by task, for tasks that have classes.
        known: Number of pixels with a ground truth by task, for tasks that have values instead of classes.
        problems: Why samples cannot be used; each names its sample.
        left_out: Samples that the dataset leaves out itself, and why.
    """

    samples: int
    checked: int
    sizes: Mapping[str, int] = field(default_factory=dict)
    channels: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, ClassCounts] = field(default_factory=dict)
    known: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Says which samples were read, as the end of a sentence."""
        return (
            f"the {self.samples} samples"
            if self.checked == self.samples
            else (f"the {self.checked} of {self.samples} samples that were checked")
        )

    @property
    def errors(self) -> list[str]:
        """What makes training pointless, such as labels that are all ignored, or 0 and 255 instead of 0 and 1."""
        found = []
        labelled = {task: sum(counts.pixels) for task, counts in self.classes.items()} | dict(self.known)
        for task in (task for task, pixels in labelled.items() if not pixels and self.checked > len(self.problems)):
            found.append(
                f"every label of {task!r} is ignored ({IGNORE if task in self.classes else 0}, or not there at all) in "
                f"{self.where}: there is nothing to learn from; look at the label maps, and at the names of the tasks "
                "if the ground truth is a dictionary"
            )
        for task, counts in self.classes.items():
            if labelled[task] and counts.ignored and len(counts.pixels) > 1 and not sum(counts.pixels[1:]):
                other = ", ".join(map(repr, counts.names[1:SHOWN]))
                found.append(
                    f"the labels of {task!r} are only 0 and {IGNORE} in {self.where}. {IGNORE} stands for ignored "
                    f"pixels, so {other} would never be learned; if {IGNORE} is meant as a class, map {IGNORE} to 1 in "
                    "the label maps"
                )
            elif labelled[task] and len(counts.names) - len(counts.missing) == 1 < len(counts.names):
                (only,) = set(counts.names) - set(counts.missing)
                found.append(
                    f"every label of {task!r} is {only!r} in {self.where}: there is nothing to tell apart; look at "
                    "the files of the labels, and whether their names are those of the photos"
                )
        return found

    @property
    def warnings(self) -> list[str]:
        """Classes that never occur, and what looks wrong otherwise, by task."""
        doubts = [f"{task!r} in {self.where}: {counts.doubt}" for task, counts in self.classes.items() if counts.doubt]
        return doubts + [
            f"{'class' if len(counts.missing) == 1 else 'classes'} {', '.join(map(repr, counts.missing))} of {task!r} "
            f"never {'occurs' if len(counts.missing) == 1 else 'occur'} in {self.where}"
            for task, counts in self.classes.items()
            if counts.missing and sum(counts.pixels)
        ]

    @property
    def ok(self) -> bool:
        """Whether every sample can be used, none was left out, and there is something to learn."""
        return not (self.problems or self.left_out or self.errors)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, and "errors" and "warnings", as JSON has them."""
        return {**asdict(self), "errors": self.errors, "warnings": self.warnings, "ok": self.ok}

    def __repr__(self) -> str:
        lines = [f"samples   {self.samples}" + ("" if self.checked == self.samples else f", {self.checked} checked")]
        lines.append(f"sizes     {_tally(self.sizes)} (height x width)")
        lines.append(f"channels  {_tally(self.channels)}")
        for task, counts in self.classes.items():
            lines += _table(task, counts)
        lines += [f"{task}: {pixels:,} pixels with a ground truth" for task, pixels in self.known.items()]
        for title, entries in (
            ("problem", self.problems), ("left out", self.left_out), ("error", self.errors), ("warning", self.warnings)
        ):  # fmt: skip
            lines += [f"{title}: {printable(entry)}" for entry in entries[:SHOWN]]
            lines += [f"... and {len(entries) - SHOWN} more like these"] if len(entries) > SHOWN else []
        return "\n".join(lines)


def check_dataset(
    dataset: LabelledDataset,
    *,
    tasks: Mapping[str, Task] | None = None,
    inputs: Mapping[str, Input] | None = None,
    limit: int | None = None,
    on_error: OnError = "collect",
    workers: int = 0,
    cache: str | os.PathLike[str] | None = None,
    read: Read | None = None,
) -> DataReport:
    """Reads the samples of a dataset and reports what is in them.

    Args:
        dataset: See `edgeseg.data.base.LabelledDataset`.
        tasks: What the ground truth is; by default the `tasks` of the dataset.
        inputs: The images of a sample; by default the `inputs` of the dataset, and without these any images.
        limit: Number of samples to read, evenly over the dataset; None reads all.
        on_error: "collect" lists samples that cannot be used as `problems`; "stop" raises the error of the first.
        workers: Number of processes that read.
        cache: A JSON file for the report. It is read instead of the dataset if the names, sizes and modification times
            of all files are still the same; only for the datasets of edgeseg, which are files.
        read: Returns a sample by its number as `checked_sample` does, for example from memory.

    Raises:
        OSError: a file cannot be read, and `on_error` is "stop".
        ValueError: no tasks, or a sample that cannot be used, and `on_error` is "stop".
    """
    require_samples(dataset)
    require_choice("on_error", on_error, OnError)
    tasks = tasks if tasks is not None else fact_of(dataset, "tasks")
    if not tasks:
        raise ValueError('the dataset has no attribute `tasks`; pass tasks, such as {"segmentation": Task(channels=3)}')
    inputs = inputs if inputs is not None else fact_of(dataset, "inputs")
    count = len(dataset)
    indices = (
        range(count) if limit is None else sorted({*np.linspace(0, count - 1, min(limit, count)).astype(int).tolist()})
    )
    key = fingerprint(dataset, tasks, inputs, indices) if cache is not None else ""
    known = _cached(Path(cache), key) if cache is not None and key else None
    if known is not None:
        return known
    facts = _Facts(dataset, tasks, inputs, indices, read, stop=on_error == "stop")
    left_out = tuple(each for skipped in facts_of(dataset, "skipped") for each in skipped)
    # Without workers no DataLoader, which would draw a random number.
    read_facts: Iterable[_Fact | str] = (
        started(
            DataLoader(
                facts, batch_size=None, num_workers=workers, worker_init_fn=start_worker, generator=torch.Generator()
            )
        )
        if workers else (facts[i] for i in range(len(facts)))
    )  # fmt: skip
    steps = progress_bar(read_facts, "checking samples", "sample", len(indices), delay=2)
    report = _report(steps, tasks, count, len(indices), left_out)
    if cache is not None and key:
        _store(Path(cache), key, report)
    return report


@dataclass(frozen=True)
class _Fact:
    """What a report needs of one sample. Counts of pixels are by class, with the ignored pixels last.

    The fields are those of `DataReport`.
    """

    size: str
    channels: str
    pixels: dict[str, Tensor]
    known: dict[str, int]


class _Facts(torch.utils.data.Dataset["_Fact | str"]):
    """The facts of samples, or the reason why a sample cannot be used."""

    def __init__(
        self,
        dataset: LabelledDataset,
        tasks: Mapping[str, Task],
        inputs: Mapping[str, Input] | None,
        indices: Sequence[int],
        read: Read | None,
        *,
        stop: bool,
    ) -> None:
        self.dataset, self.tasks, self.inputs, self.indices = dataset, tasks, inputs, indices
        self.read, self.stop = read, stop

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> _Fact | str:
        index = self.indices[place]
        try:
            read = self.read or (lambda i: checked_sample(self.dataset, i, self.tasks, self.inputs))
            images, targets = read(index)
        except (OSError, ValueError) as error:
            if self.stop:
                raise
            name = name_of(self.dataset, index)
            return str(error) if name in str(error) else f"{name}: {error}"
        size = images[-1].shape[-2:]
        pixels, known = {}, {}
        for name, task in self.tasks.items():
            target = targets[name].as_subclass(Tensor) if name in targets else kind_of(task).empty_target(task, size)
            ids = kind_of(task).class_ids(task)
            if ids:
                pixels[name] = _counts(target, ids)
            else:
                metric = kind_of(task).metric(task)
                metric.update(target, target)
                known[name] = metric.counted
        return _Fact(f"{size[0]}x{size[1]}", "+".join(str(image.shape[0]) for image in images), pixels, known)


def _counts(labels: Tensor, ids: int) -> Tensor:
    """Number of pixels per class, and of ignored pixels at the end."""
    counts = torch.bincount(labels.flatten().long(), minlength=IGNORE + 1)
    return torch.cat([counts[:ids], counts[IGNORE:]])


def _report(
    facts: Iterable[_Fact | str], tasks: Mapping[str, Task], samples: int, checked: int, left_out: tuple[str, ...]
) -> DataReport:
    sizes, channels, problems = Counter[str](), Counter[str](), []
    known = dict.fromkeys((name for name in tasks if name not in _ids(tasks)), 0)
    totals = {name: torch.zeros(3, ids + 1, dtype=torch.int64) for name, ids in _ids(tasks).items()}
    for fact in facts:
        if isinstance(fact, str):
            problems.append(fact)
            continue
        sizes[fact.size] += 1
        channels[fact.channels] += 1
        for name, pixels in fact.pixels.items():
            occurs = (pixels > 0).long()
            totals[name] += torch.stack([pixels, occurs, occurs * occurs[-1]])
        for name, number in fact.known.items():
            known[name] += number
    classes = {}
    for name, (pixels, occurrences, beside) in ((name, total.tolist()) for name, total in totals.items()):
        classes[name] = ClassCounts(
            names=tuple(class_names(tasks[name])),
            pixels=tuple(pixels[:-1]),
            samples=tuple(occurrences[:-1]),
            ignored=pixels[-1],
            beside_ignored=tuple(beside[:-1]),
            doubt=kind_of(tasks[name]).doubtful_dataset(occurrences[:-1], beside[:-1]),
        )
    return DataReport(
        samples=samples, checked=checked, sizes=dict(sizes.most_common()), channels=dict(channels.most_common()),
        classes=classes, known=known, problems=tuple(problems), left_out=left_out,
    )  # fmt: skip


def _ids(tasks: Mapping[str, Task]) -> dict[str, int]:
    """Number of class ids by task, for the tasks that have classes."""
    numbers = {name: kind_of(task).class_ids(task) for name, task in tasks.items()}
    return {name: ids for name, ids in numbers.items() if ids}


def fingerprint(
    dataset: LabelledDataset, tasks: Mapping[str, Task], inputs: Mapping[str, Input] | None, indices: Sequence[int]
) -> str:
    """Returns a hash of everything that a report depends on; "" for a dataset that is not made of files by edgeseg."""
    files = getattr(dataset, "files", None)
    if not files or not type(dataset).__module__.startswith("edgeseg."):
        return ""
    options = {name: value for name, value in vars(dataset).items() if name != "files"}
    parts = [FORMAT, type(dataset).__qualname__, sorted(options.items()), dict(tasks), dict(inputs or {}), [*indices]]
    digest = hashlib.sha256(_in_full(parts).encode())
    for path in (path for each in files for path in (*each.images, *each.targets.values())):
        try:
            state = os.stat(path)
        except OSError:
            return ""  # reading it says what is wrong
        digest.update(os.fsencode(path) + f"\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _in_full(value: Any) -> str:
    """A value with everything in it; the `repr` of a record shortens what is long."""
    if is_dataclass(value):
        value = {"": type(value).__qualname__, **{each.name: getattr(value, each.name) for each in fields(value)}}
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_in_full(key)}: {_in_full(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_in_full, value)) + "]"
    return repr(value)


def _cached(path: Path, key: str) -> DataReport | None:
    """The report in a file, if it is of the same dataset."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return DataReport.from_json(content["report"]) if content["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a damaged file is written anew


def is_report(path: Path) -> bool:
    """Whether a file is one in which `check_dataset` keeps a report."""
    try:
        return set(json.loads(path.read_text(encoding="utf-8"))) == {"key", "report"}
    except (OSError, ValueError, TypeError):
        return False


def _store(path: Path, key: str, report: DataReport) -> None:
    # Without a place to keep it, the dataset is read again the next time.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"key": key, "report": asdict(report)}, indent=1) + "\n", encoding="utf-8")


def _tally(counts: Mapping[str, int]) -> str:
    shown = [f"{name}: {count}" for name, count in list(counts.items())[:SHOWN]]
    return ", ".join(shown) + (f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else "") if shown else "-"


def _table(task: str, counts: ClassCounts) -> list[str]:
    """Rows of pixels, share and samples per class. Shares of the classes are of the pixels that count."""
    counted, everything = sum(counts.pixels), sum(counts.pixels) + counts.ignored
    names = [printable(name) for name in counts.names]
    width = max(len(task), len("(ignored)"), *map(len, names)) + 2
    rows = [f"{task:{width}} {'pixels':>14} {'share':>8} {'samples':>8}"]
    for name, pixels, samples in zip(names, counts.pixels, counts.samples, strict=True):
        rows.append(f"  {name:{width - 2}} {pixels:14,} {_share(pixels, counted):>8} {samples:8}")
    return [*rows, f"  {'(ignored)':{width - 2}} {counts.ignored:14,} {_share(counts.ignored, everything):>8}"]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "-"
