"""The options that choose the calibration images of an 8-bit file, and the images that they stand for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.cli.dataset import add_dataset, load_split
from edgeseg.machine.terminal import show

if TYPE_CHECKING:
    from edgeseg.deploy.calibration import Frame
    from edgeseg.predict.predictor import Predictor


def add_calibration(verb: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds --calibration-images and --calibration-count, and the options of datasets; returns the group of these."""
    group = verb.add_argument_group("calibration")
    group.add_argument(
        "--calibration-images", "--images", type=Path, metavar="FOLDER",
        help="folder with typical photos, on which the ranges of an 8-bit file are measured; by default the training "
        "split of --dataset",
    )  # fmt: skip
    group.add_argument(
        "--calibration-count", type=int, default=100, metavar="N",
        help="number of images that the calibration uses (default 100)",
    )  # fmt: skip
    return add_dataset(verb, required=False)


def check_calibration(options: argparse.Namespace) -> None:
    """Raises a ValueError unless the options name one source of images and a positive number of them."""
    if (options.calibration_images is None) == (options.dataset is None):
        raise ValueError(
            "pass --calibration-images FOLDER, or --dataset with --data-path, and not both: the int8 ranges are "
            "measured on images"
        )
    if options.calibration_count < 1:
        raise ValueError(f"--calibration-count must be at least 1, got {options.calibration_count}")


def calibration_frames(options: argparse.Namespace, model: Predictor) -> Sequence[Frame]:
    """Chooses photos that are spread evenly over the folder or the training split."""
    from edgeseg.data.base import as_sample
    from edgeseg.deploy.calibration import Prepared

    if options.calibration_images is not None:
        return _photos(options, model)
    data = load_split(options, "train", model)
    chosen = _spread(len(data), options.calibration_count)
    return Prepared(chosen, lambda index: as_sample(data[index], "")[0])


def _spread(length: int, count: int) -> list[int]:
    """At most `count` indices, spread evenly."""
    return [i * length // min(count, length) for i in range(min(count, length))]


def _photos(options: argparse.Namespace, model: Predictor) -> list[Path]:
    """Chooses photos of --calibration-images; with --skip-unreadable those that can be read."""
    from edgeseg.data.base import split_readable
    from edgeseg.vision.images import read_photo
    from edgeseg.vision.listing import list_files, photo_suffixes

    channels = model.in_channels[-1]
    if len(model.in_channels) > 1:
        raise ValueError(
            "--calibration-images has photos for networks of a single input; pass --dataset, or tuples in Python"
        )
    if not options.calibration_images.is_dir():
        raise ValueError(f"--calibration-images {options.calibration_images} is not a folder")
    files = list_files(options.calibration_images, photo_suffixes(channels))
    chosen = [files[index] for index in _spread(len(files), options.calibration_count)]
    if options.skip_unreadable:
        chosen, wrong = split_readable(chosen, partial(read_photo, channels=channels))
        for error in wrong:
            show(f"edgeseg: left out: {error}", file=sys.stderr)
    if not chosen:
        raise ValueError(
            f"there are no {'readable ' if files else ''}images in --calibration-images {options.calibration_images}"
        )
    return chosen
