"""The verb `edgeseg data`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.cli.dataset import add_dataset, load_split
from edgeseg.cli.messages import add_json, add_quiet, print_json
from edgeseg.machine.terminal import say, show

if TYPE_CHECKING:
    from edgeseg.data.check import DataReport

EXAMPLES = (
    "edgeseg data check --dataset images_masks --data-path mine -o samples.png",
    "edgeseg data check --dataset camvid --data-path CamVid --split train --json",
)


def add(verbs: Any) -> None:
    """Adds the verb and its options."""
    data = verbs.add_parser(
        "data", help="look at a dataset before training", description="Looks at datasets.", examples=EXAMPLES
    )
    actions = data.add_subparsers(dest="action", required=True)
    check = actions.add_parser(
        "check",
        help="count classes and find samples that cannot be used",
        description="Reads all samples of a dataset and prints, per split, their number and sizes, the pixels per "
        "class, the share of ignored pixels, classes that never occur, and samples that cannot be used, with the "
        "reason. The exit status is 1 if there are such samples, or labels from which nothing can be learned.",
        examples=EXAMPLES,
    )
    group = add_dataset(check)
    group.add_argument(
        "--split", "--splits", nargs="+", default=["train", "val"], metavar="NAME",
        help="splits of the dataset to check (default train val)",
    )  # fmt: skip
    group.add_argument(
        "--limit", type=int, metavar="N", help="number of samples to read per split, evenly over it (default all)"
    )
    group.add_argument(
        "--workers", type=int, default=1, metavar="N", help="number of processes that decode images (default 1)"
    )
    group.add_argument("--no-cache", action="store_true", help="read the files even if they have not changed")
    group = check.add_argument_group("results")
    group.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=".png file for a page of samples with their ground truth"
    )
    add_json(group, "the reports by split")
    add_quiet(check)
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    if options.output is not None and options.output.suffix.lower() != ".png":
        raise ValueError(f"--output must be a .png file, got {options.output}")
    if options.output is not None and not options.output.parent.is_dir():
        raise ValueError(f"--output: there is no folder {options.output.parent}")
    for name, least in (("limit", 1), ("workers", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    datasets = {split: load_split(options, split) for split in dict.fromkeys(options.split)}
    if options.output is not None:
        _require_other_folder(options.output, datasets.values())
    reports = {split: _report(dataset, split, options) for split, dataset in datasets.items()}
    if options.json:
        print_json({split: report.to_json() for split, report in reports.items()})
    else:
        show("\n\n".join(f"{split}\n{report}" for split, report in reports.items()))
    if options.output is not None:
        from edgeseg.data.overlays import draw_overlays, save_page
        from edgeseg.vision.visualize import stack

        save_page(stack([draw_overlays(data, title=split) for split, data in datasets.items()]), options.output)
        say(f"wrote {options.output}")
    return 0 if all(report.ok for report in reports.values()) else 1


def _require_other_folder(output: Path, datasets: Iterable[Any]) -> None:
    """Raises a ValueError if the page would lie among the files of the datasets, which would then read it."""
    samples = (each for data in datasets for each in getattr(data, "files", ()))
    paths = (path for each in samples for path in (*each.images, *each.targets.values()))
    if output.resolve().parent in {path.resolve().parent for path in paths}:
        raise ValueError(f"--output {output} lies among the files of the dataset; choose another folder")


def _report(dataset: Any, split: str, options: argparse.Namespace) -> DataReport:
    """The report of a split, which is kept in the cache folder for as long as the files stay as they are."""
    from edgeseg.data.check import check_dataset
    from edgeseg.machine.download import cache_folder

    place = f"{options.dataset}-{split}-{Path(os.path.realpath(options.data_path or '.')).name}.json"
    cache = None if options.no_cache else cache_folder() / "data" / place.replace("/", "-")
    return check_dataset(dataset, limit=options.limit, workers=options.workers, cache=cache)
