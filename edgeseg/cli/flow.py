"""edgeseg flow."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(verbs: Any) -> None:
    """Adds the verb and its options."""
    verb = verbs.add_parser("flow", help="compute the optical flow that networks of two inputs take")
    verb.add_argument(
        "previous", type=Path, metavar="PREVIOUS|FOLDER", help="the previous frame, or a folder of frames"
    )
    verb.add_argument("current", type=Path, nargs="?", help="the frame to segment; not given with a folder of frames")
    verb.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE|DIR", help="a .png file, or a folder for such files"
    )
    verb.set_defaults(run=_flow)


def _flow(options: argparse.Namespace) -> int:
    """Computes the flow of two frames, or of the successive frames of a folder in the order of their names.

    The first frame of a folder has no previous frame and gets no flow.
    """
    if options.current is not None:
        if options.output.resolve() in (options.previous.resolve(), options.current.resolve()):
            raise ValueError(f"--output {options.output} would overwrite a frame; choose another name")
        _write(options.previous, options.current, options.output)
        return 0
    from itertools import pairwise

    from tqdm import tqdm

    from edgeseg.vision.listing import PHOTO_SUFFIXES, by_stem, list_files

    folder: Path = options.previous
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; pass PREVIOUS and CURRENT, or a folder of frames")
    frames = by_stem(list_files(folder, PHOTO_SUFFIXES, without=options.output, recursive=False), folder)
    if len(frames) < 2:
        raise ValueError(f"{folder} has {len(frames)} images; flow needs two or more")
    for (_, previous), (stem, current) in tqdm(list(pairwise(frames.items())), unit="frame", disable=None):
        _write(previous, current, options.output / f"{stem}.png")
    return 0


def _write(previous: Path, current: Path, target: Path) -> None:
    from PIL import Image

    from edgeseg.vision.flow import farneback_flow
    from edgeseg.vision.images import read_photo

    flow = farneback_flow(read_photo(previous), read_photo(current))
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(flow).save(target, format="png")
