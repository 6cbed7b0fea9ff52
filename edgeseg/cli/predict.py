"""edgeseg predict."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.cli.messages import add_quiet
from edgeseg.cli.model import accelerated, add_exported, add_model, add_runtime, load_network
from edgeseg.cli.outputs import (
    OUTPUTS,
    draw_frame,
    named_shortage,
    require_folder,
    require_other_files,
    require_outputs,
    write_photo,
)
from edgeseg.machine.terminal import printable, progress_bar, say, show

if TYPE_CHECKING:
    import numpy as np
    import torch

    from edgeseg.predict.predictor import Predictor
    from edgeseg.predict.video import Drawn

FRAMES = 200  # of a video, of which it is not known how many there are
File = tuple[Path, str]  # a file, and what the names of its results begin with
Finder = Callable[[Path, str], Path]  # returns the file of another input for a photo and the name of its results
Steps = Iterator[tuple[File, Exception | None]]  # files that are done, or what went wrong


def add(verbs: Any) -> None:
    """Adds the verb and its options."""
    verb = verbs.add_parser(
        "predict",
        help="segment photos and videos",
        description="Predicts the classes of every pixel of photos and videos, or their depth, and writes them as "
        "pictures. A file that cannot be read is named and left out; the exit status is then 1.",
        examples=(
            "edgeseg predict photo.jpg -o segmented",
            "edgeseg predict photos drive.mp4 -o segmented --outputs labels overlay --batch-size 4",
        ),
    )
    _add_files(verb)
    group = add_model(verb)
    add_exported(group)
    group = verb.add_argument_group("speed and memory")
    add_runtime(group)
    group.add_argument(
        "--tile",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="height and width in pixels of tiles, in which larger photos and frames are segmented",
    )
    group.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="number of photos of one size, or of frames, that go through the network together (default 1)",
    )
    add_quiet(verb)
    verb.set_defaults(run=_predict)


def _add_files(verb: argparse.ArgumentParser) -> None:
    """Adds the options of what is read and what is written."""
    group = verb.add_argument_group("files to read")
    group.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE|FOLDER|VIDEO",
        help="photos, videos, and folders with photos and videos at any depth",
    )
    group.add_argument(
        "--input", action="append", default=[], metavar="NAME=FILE|FOLDER",
        help="another input of a network with several, such as flow=FOLDER with one file per photo; see edgeseg flow",
    )  # fmt: skip
    group.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="height times width up to which photos are read (default: Pillow's limit, about 179 million)",
    )
    group = verb.add_argument_group("files to write")
    group.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the results, created if missing"
    )
    group.add_argument(
        "--outputs",
        nargs="+",
        choices=OUTPUTS,
        default=["labels", "color", "overlay"],
        help="what to write per photo or video: class ids (for depth, 16-bit metres x 256), colours, the photo tinted "
        "by the colours with a legend, or Cityscapes' label ids; of videos, colours and overlays are .mp4 files and "
        "the rest are lossless .mkv files of gray values (default: labels color overlay)",
    )


def _predict(options: argparse.Namespace) -> int:
    """Segments files; under torchrun each process segments its share of them."""
    from edgeseg.engine.distributed import process_group

    _check_options(options)
    missing = _check_files(options)
    with process_group(options.device) as device:
        return _predict_share(options, device, missing)


def _predict_share(options: argparse.Namespace, device: torch.device, missing: list[str]) -> int:
    from edgeseg.engine import distributed
    from edgeseg.machine.files import NotWritten

    model = load_network(options, device)
    photos, videos = _find(options, model.in_channels[-1])
    require_outputs(model, options.outputs)
    require_other_files(model, [*photos, *videos], options)
    beside = _beside(options.input, list(model.inputs)[:-1], [path for path, _ in photos])
    if not photos and not videos and not missing:
        raise ValueError(f"no images in {', '.join(map(str, options.images))} that this model can take")
    step, first = distributed.world_size(), distributed.rank()
    share, clips = photos[first::step], videos[first::step]
    model = accelerated(model, options, len(share) + FRAMES * len(clips))
    done, problems = 0, [] if first else missing
    steps = _segment_photos(model, share, beside, options)
    try:
        bar = progress_bar(steps, "photos", "image", len(share), shown=not first and len(share) > 1)
        for part in (bar, _segment_videos(model, clips, options)):
            for (path, _), error in part:
                if error is None:
                    done += 1
                else:
                    problems.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    except NotWritten as error:
        problems.append(f"{error}; the files after it were not segmented")
    return _report(done, problems, options.output)


def _report(done: int, problems: Sequence[str], output: Path) -> int:
    """Prints what was done and what was not, and returns the exit status."""
    for problem in problems:
        show(f"edgeseg predict: not segmented: {printable(problem)}", file=sys.stderr)
    if done:
        say(f"{done} of {done + len(problems)} segmented into {printable(output)}")
    elif problems:
        show("edgeseg predict: nothing was segmented", file=sys.stderr)
    return 1 if problems else 0


def _check_options(options: argparse.Namespace) -> None:
    """Raises a ValueError for options that no model can work with."""
    if options.max_pixels is not None and options.max_pixels < 1:
        raise ValueError(f"--max-pixels must be at least 1, got {options.max_pixels}")
    if options.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {options.batch_size}")
    if options.tile is not None and min(options.tile) < 1:
        raise ValueError(f"--tile is a height and a width of at least 1, got {' '.join(map(str, options.tile))}")
    if options.exported is not None and options.device != "cpu":
        raise ValueError(f"--exported runs on the CPU; it cannot be combined with --device {options.device}")
    names = [each.partition("=")[0] for each in options.input]
    for name, each in zip(names, options.input, strict=True):
        place = each.partition("=")[2]
        if not name or not place:
            raise ValueError(f"--input is NAME=FILE|FOLDER, got {each!r}")
        if names.count(name) > 1:
            raise ValueError(f"--input {name} is given twice")
        if not Path(place).exists():
            raise ValueError(f"--input {name}: {place}: no such file or folder")
    require_folder(options.output)


def _check_files(options: argparse.Namespace) -> list[str]:
    """Returns a sentence per argument that is missing or has nothing to segment.

    Raises:
        ValueError: none of the arguments can be segmented.
    """
    from edgeseg.vision.listing import VIDEO_SUFFIXES, list_files, photo_suffixes

    problems, suffixes = [], photo_suffixes(0) | VIDEO_SUFFIXES
    for path in options.images:
        if not path.exists():
            address = re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE)  # of which Path leaves one slash
            what = "an address, not a file; download it first" if address else "no such file or folder"
            problems.append(f"{path}: {what}")
        elif path.is_dir() and not list_files(path, suffixes, without=options.output):
            problems.append(f"no images in {path}, and no videos")
    if len(problems) == len(options.images):
        raise ValueError("; ".join(problems))
    return problems


def _find(options: argparse.Namespace, channels: int) -> tuple[list[File], list[File]]:
    """Lists the photos and the videos of the arguments."""
    from edgeseg.vision.listing import VIDEO_SUFFIXES, output_names, photo_suffixes

    paths: list[Path] = options.images
    suffixes = photo_suffixes(channels) | VIDEO_SUFFIXES
    explicit = [path for path in paths if path.exists()]
    files = output_names(paths, suffixes, explicit=explicit, without=options.output)
    photos: list[File] = []
    videos: list[File] = []
    for file in files:
        (videos if file[0].suffix.lower() in VIDEO_SUFFIXES else photos).append(file)
    return photos, videos


def _segment_photos(
    model: Predictor, photos: Sequence[File], beside: Sequence[Finder], options: argparse.Namespace
) -> Steps:
    """Reads, segments and writes photos, and yields each when it is done."""
    from edgeseg.predict.pipeline import overlapped
    from edgeseg.vision.images import read_input

    def read(file: File) -> list[np.ndarray]:
        paths = [*(find(*file) for find in beside), file[0]]
        inputs = zip(paths, model.inputs.values(), strict=True)
        with named_shortage():
            return [read_input(path, each, max_pixels=options.max_pixels) for path, each in inputs]

    def segment(frames: list[list[np.ndarray]]) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        with named_shortage():
            predictions = list(model.predict_frames(frames, tile=options.tile, batch_size=options.batch_size))
        return [(pixels[-1], maps) for pixels, maps in zip(frames, predictions, strict=True)]

    def write(file: File, result: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
        pixels, maps = result
        with named_shortage():
            write_photo(maps, pixels, model, file[1], options)

    return overlapped(
        photos, read, segment, write, failures=(OSError, ValueError), unwritable=(ValueError,),
        batch_size=options.batch_size, alike=lambda frame: frame[-1].shape,
    )  # fmt: skip


def _segment_videos(model: Predictor, videos: Sequence[File], options: argparse.Namespace) -> Steps:
    """Segments videos, and yields each when it is done."""
    from edgeseg.machine.files import NotWritten
    from edgeseg.predict.video import segment_video

    def draw(maps: Mapping[str, np.ndarray], pixels: np.ndarray) -> Iterable[Drawn]:
        return draw_frame(maps, pixels, model, options.outputs)

    for path, name in videos:
        target = options.output / name
        try:
            with named_shortage():
                done = segment_video(model, path, target, draw, tile=options.tile, batch_size=options.batch_size)
        except NotWritten:
            raise
        except (OSError, ValueError, ImportError) as error:
            yield (path, name), error
            continue
        for note in done.notes:
            show(f"edgeseg predict: {printable(path)}: {printable(note)}", file=sys.stderr)
        yield (path, name), None


def _beside(given: Sequence[str], names: Sequence[str], photos: Sequence[Path]) -> list[Finder]:
    """Makes, per input beside the photo, a function that returns its file for a photo and the name of its results."""
    from edgeseg.vision.listing import PHOTO_SUFFIXES, by_stem, list_files

    if given and not photos:
        raise ValueError(
            "--input names files that belong to photos, and there are no photos; the flow of a video is computed"
        )
    paths = dict(each.partition("=")[::2] for each in given)
    wrong = [name for name in names if name not in paths] if photos else []
    if wrong or set(paths) - set(names):
        takes = " and ".join(f"--input {name}=FILE|FOLDER" for name in names) or "no --input"
        raise ValueError(f"this model takes {takes} beside the photos, got {', '.join(paths) or 'none'}")

    stems = Counter(path.stem for path in photos)

    def finder(place: Path) -> Finder:
        if not place.is_dir():
            if len(photos) > 1:
                raise ValueError(f"--input {place} is one file for {len(photos)} photos; pass a folder of files")
            return lambda path, name: place
        files = by_stem(list_files(place, PHOTO_SUFFIXES | {".npy"}), place)

        def find(path: Path, name: str) -> Path:
            # The results of photos of one stem are named with the suffix of the photo.
            for stem in (name, name.removesuffix(path.suffix), path.stem if stems[path.stem] == 1 else name):
                if stem in files:
                    return files[stem]
            raise ValueError(f"there is no file for it in {place}")

        return find

    return [finder(Path(paths[name])) for name in names if name in paths]
