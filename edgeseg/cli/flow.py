"""edgeseg flow."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgeseg.cli.predict import IMAGE_SUFFIXES


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("flow", help="compute the optical flow that networks of two inputs take")
    verb.add_argument("previous", type=Path, metavar="PREVIOUS|FOLDER", help="the frame before, or a folder of frames")
    verb.add_argument(
        "current", type=Path, nargs="?", help="the frame that is to be labelled; without it PREVIOUS is a folder"
    )
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="FILE|DIR", help=".png, or a folder of them")
    verb.set_defaults(run=_flow)


def _flow(options: argparse.Namespace) -> int:
    """A folder's frames in the order of their names; the first has nothing before it and gets no flow."""
    if options.current is not None:
        _write(options.previous, options.current, options.output)
        return 0
    from itertools import pairwise

    from tqdm import tqdm

    if not options.previous.is_dir():
        raise ValueError(f"{options.previous} is no folder; pass PREVIOUS and CURRENT, or a folder of frames")
    frames = sorted(path for path in options.previous.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if len(frames) < 2:
        raise ValueError(f"{options.previous} has {len(frames)} images; flow needs two or more")
    for previous, current in tqdm(list(pairwise(frames)), unit="frame", disable=None):
        _write(previous, current, options.output / f"{current.stem}.png")
    return 0


def _write(previous: Path, current: Path, target: Path) -> None:
    from PIL import Image

    from edgeseg.vision.flow import farneback_flow
    from edgeseg.vision.images import load_pixels

    flow = farneback_flow(load_pixels(previous), load_pixels(current))
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(flow).save(target, format="png")
