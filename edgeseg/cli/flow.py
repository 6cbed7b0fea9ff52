"""edgeseg flow."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.cli.messages import add_quiet
from edgeseg.cli.outputs import require_folder
from edgeseg.machine.terminal import printable, progress_bar, show

if TYPE_CHECKING:
    import numpy as np

DIGITS = re.compile(r"(\d+)")


def add(verbs: Any) -> None:
    """Adds the verb and its options."""
    verb = verbs.add_parser(
        "flow",
        help="compute the optical flow that networks of two inputs take",
        description="Computes the optical flow between two frames, or between the successive frames of a folder in the "
        "order of their names, and writes it as .png files for edgeseg predict --input flow=FOLDER. The first frame of "
        "a folder gets no flow.",
        examples=("edgeseg flow frames -o flow", "edgeseg flow before.jpg now.jpg -o now_flow.png"),
    )
    group = verb.add_argument_group("frames")
    group.add_argument(
        "previous", type=Path, metavar="PREVIOUS|FOLDER", help="the previous frame, or a folder of frames"
    )
    group.add_argument(
        "current", type=Path, nargs="?", metavar="CURRENT", help="the frame to segment; not given with a folder"
    )
    verb.add_argument_group("results").add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE|DIR",
        help="a .png file, or a folder for such files; for two frames, the folder must exist",
    )
    add_quiet(verb)
    verb.set_defaults(run=_flow)


def _flow(options: argparse.Namespace) -> int:
    from edgeseg.vision.flow import require_opencv

    require_opencv()
    return _flow_of_folder(options) if options.current is None else _flow_of_two(options)


def _flow_of_two(options: argparse.Namespace) -> int:
    from PIL import Image

    from edgeseg.machine.files import NotWritten
    from edgeseg.predict.output import require_own, save_png
    from edgeseg.vision.flow import farneback_flow
    from edgeseg.vision.images import read_photo

    target: Path = options.output / f"{options.current.stem}.png" if options.output.is_dir() else options.output
    if target.suffix.lower() != ".png":
        raise ValueError(f"--output {target}: flow is written as .png; choose such a name, or an existing folder")
    if os.path.realpath(target) in map(os.path.realpath, (options.previous, options.current)):
        raise ValueError(f"--output {target} would overwrite a frame; choose another name")
    require_folder(target.parent)
    require_own(target)
    flow = farneback_flow(read_photo(options.previous), read_photo(options.current))
    try:
        save_png(Image.fromarray(flow), target)
    except NotWritten as error:
        show(f"edgeseg flow: {printable(error)}", file=sys.stderr)
        return 1
    return 0


def _flow_of_folder(options: argparse.Namespace) -> int:
    from edgeseg.predict.output import require_own
    from edgeseg.vision.listing import PHOTO_SUFFIXES, by_stem, list_files

    folder: Path = options.previous
    if not folder.is_dir():
        if not folder.exists():
            raise ValueError(f"{folder}: no such file or folder")
        raise ValueError(f"{folder} is not a folder; pass PREVIOUS and CURRENT, or a folder of frames")
    require_folder(options.output)
    frames = by_stem(list_files(folder, PHOTO_SUFFIXES, without=options.output, recursive=False), folder)
    natural = sorted(frames, key=_by_numbers)
    if list(frames) != natural:
        first, second = next(pair for pair in zip(frames, natural, strict=True) if pair[0] != pair[1])
        raise ValueError(
            f"{folder}: the names of the frames have no leading zeros, so that {first} comes before {second} in their "
            "order; rename them to numbers of the same length"
        )
    if len(frames) < 2:
        raise ValueError(f"{folder} has {len(frames)} images; flow needs two or more")
    for stem in frames:
        require_own(options.output / f"{stem}.png")
    steps = progress_bar(_steps(list(frames.items()), options.output), "flow", "frame", len(frames))
    problems = [problem for problem in steps if problem]
    for problem in problems:
        show(f"edgeseg flow: {printable(problem)}", file=sys.stderr)
    return 1 if problems else 0


def _by_numbers(name: str) -> list[str | int]:
    """A key by which f2 comes before f10: text and numbers in turn."""
    return [int(part) if i % 2 else part for i, part in enumerate(DIGITS.split(name))]


def _steps(frames: Sequence[tuple[str, Path]], output: Path) -> Iterator[str | None]:
    """Writes the flow of each frame since the one before it, and yields None per frame, or what is wrong."""
    from PIL import Image

    from edgeseg.machine.files import NotWritten
    from edgeseg.predict.output import save_png
    from edgeseg.vision.flow import farneback_flow
    from edgeseg.vision.images import read_photo

    previous: np.ndarray | None = None
    before: Path | None = None
    for stem, path in frames:
        try:
            current = read_photo(path)
        except (OSError, ValueError) as error:
            previous, before = None, path
            yield str(error) if str(path) in str(error) else f"{path}: {error}"
            continue
        try:
            if previous is not None:
                save_png(Image.fromarray(farneback_flow(previous, current)), output / f"{stem}.png")
            yield (
                f"{path} gets no flow, since {before} before it cannot be read" if before and previous is None else None
            )
        except NotWritten as error:
            yield f"{error}; the frames after it get no flow"
            return
        except ValueError as error:
            yield f"{path}: {error}"
        previous, before = current, path
