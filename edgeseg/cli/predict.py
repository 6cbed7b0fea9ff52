"""edgeseg predict."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.cli.model import add_model, load_network

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

    from edgeseg.predict.predictor import Predictor
    from edgeseg.spec import Task

COMPRESSION = 1  # of PNG files: takes about a quarter of the time of Pillow's 6, for 14 to 28 % more bytes
OUTPUTS = ("labels", "color", "overlay", "label_ids")
File = tuple[Path, str]  # a file, and what the names of its results begin with
Steps = Iterator[tuple[File, Exception | None]]  # files that are done, or what went wrong


def add(verbs: Any) -> None:
    """Adds the verb and its options."""
    verb = verbs.add_parser("predict", help="segment photos and videos")
    verb.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE|FOLDER|VIDEO",
        help="photos, videos, and folders with photos and videos at any depth",
    )
    verb.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the results, created if missing"
    )
    add_model(verb)
    verb.add_argument(
        "--onnx", type=Path, metavar="FILE", help="run a file of edgeseg export in onnxruntime instead of a model"
    )
    verb.add_argument(
        "--input", action="append", default=[], metavar="NAME=FILE|FOLDER",
        help="another input of a network with several, such as flow=FOLDER with one file per photo; see edgeseg flow",
    )  # fmt: skip
    verb.add_argument(
        "--outputs",
        nargs="+",
        choices=OUTPUTS,
        default=["labels", "color", "overlay"],
        help="what to write per photo: class ids (for depth, 16-bit metres x 256), colours, the photo tinted by the "
        "colours with a legend, or Cityscapes' label ids",
    )
    verb.add_argument(
        "--tile", nargs=2, type=int, metavar=("H", "W"), help="segment larger photos in tiles of this height and width"
    )
    verb.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="number of photos of one size that go through the network together",
    )
    verb.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="height times width up to which photos are read (default: Pillow's limit, about 179 million)",
    )
    verb.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    """Segments files; under torchrun each process segments its share of them."""
    from edgeseg.engine.distributed import process_group

    if options.max_pixels is not None and options.max_pixels < 1:
        raise ValueError(f"--max-pixels is at least 1, got {options.max_pixels}")
    with process_group(options.device) as device:
        return _predict_share(options, device)


def _predict_share(options: argparse.Namespace, device: torch.device) -> int:
    from tqdm import tqdm

    from edgeseg.engine import distributed

    _require_files(options)
    model = load_network(options, device)
    photos, videos = _find(options, model.in_channels[-1])
    _check_label_ids(model, options.outputs)
    step, first = distributed.world_size(), distributed.rank()
    share, clips = photos[first::step], videos[first::step]
    missing = [f"{path}: no such file or folder" for path in options.images if not path.exists()]
    if not photos and not videos and not missing:
        raise ValueError(f"no images in {', '.join(map(str, options.images))} that this model can take")
    done, problems = 0, [] if first else missing
    hidden = None if len(share) > 1 and not first else True
    bar = tqdm(
        _segment_photos(model, share, options, needed=bool(photos)), total=len(share), unit="image", disable=hidden
    )
    for steps in (bar, _segment_videos(model, clips, options)):
        for (path, _), error in steps:
            if error is None:
                done += 1
            else:
                problems.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    for problem in problems:
        print(f"edgeseg predict: not segmented: {problem}", file=sys.stderr)
    print(f"{done} of {done + len(problems)} segmented into {options.output}")
    return 1 if problems else 0


def _require_files(options: argparse.Namespace) -> None:
    """Raises a ValueError if there is nothing to segment, before a model is loaded."""
    from edgeseg.vision.listing import VIDEO_SUFFIXES, list_files, photo_suffixes

    suffixes = photo_suffixes(0) | VIDEO_SUFFIXES
    empty = [path.is_dir() and not list_files(path, suffixes, without=options.output) for path in options.images]
    if all(empty):
        raise ValueError(f"no images in {', '.join(map(str, options.images))}, and no videos")


def _find(options: argparse.Namespace, channels: int) -> tuple[list[File], list[File]]:
    """Lists the photos and the videos of the arguments."""
    from edgeseg.vision.listing import VIDEO_SUFFIXES, output_names, photo_suffixes

    paths: list[Path] = options.images
    videos = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES and path.exists()]
    photos = [path for path in paths if path not in videos and path.exists()]
    return (
        output_names(paths, photo_suffixes(channels), explicit=photos, without=options.output),
        output_names(paths, VIDEO_SUFFIXES, explicit=videos, without=options.output),
    )


def _check_label_ids(model: Predictor, outputs: Sequence[str]) -> None:
    from edgeseg.tasks import kind_of

    classes = [task.channels for task in model.tasks.values() if kind_of(task).has_classes]
    if "label_ids" in outputs and 19 not in classes:
        has = " and ".join(map(str, classes))
        raise ValueError(f"--outputs label_ids needs a model of Cityscapes' 19 classes, this one has {has or 'none'}")


def _segment_photos(model: Predictor, photos: Sequence[File], options: argparse.Namespace, *, needed: bool) -> Steps:
    """Reads, segments and writes photos, and yields each when it is done."""
    from edgeseg.predict.pipeline import overlapped
    from edgeseg.vision.images import read_input
    from edgeseg.vision.visualize import as_picture

    beside = _beside(options.input, list(model.inputs)[:-1], needed=needed)

    def read(file: File) -> list[np.ndarray]:
        paths = [*(find(*file) for find in beside), file[0]]
        inputs = zip(paths, model.inputs.values(), strict=True)
        return [read_input(path, each, max_pixels=options.max_pixels) for path, each in inputs]

    def segment(frames: list[list[np.ndarray]]) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        predictions = model.predict_frames(frames, tile=options.tile, batch_size=options.batch_size)
        return [(pixels[-1], maps) for pixels, maps in zip(frames, predictions, strict=True)]

    def write(file: File, result: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
        pixels, maps = result
        for task, values in maps.items():
            target = options.output / (file[1] if len(maps) == 1 else f"{file[1]}_{task}")
            _write(values, as_picture(pixels), model.tasks[task], target, options.outputs)

    return overlapped(
        photos, read, segment, write, failures=(OSError, ValueError), batch_size=options.batch_size,
        alike=lambda frame: frame[-1].shape,
    )  # fmt: skip


def _segment_videos(model: Predictor, videos: Sequence[File], options: argparse.Namespace) -> Steps:
    """Segments videos, and yields each when it is done."""
    for path, name in videos:
        from edgeseg.predict.video import segment_video

        target = options.output / f"{name}_overlay.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            segment_video(model, path, target)
            yield (path, name), None
        except (OSError, ValueError, ImportError) as error:
            yield (path, name), error


def _write(values: np.ndarray, photo: Image.Image, task: Task, target: Path, outputs: Sequence[str]) -> None:
    """Writes the pictures of one photo and task, under names that begin with `target`."""
    from PIL import Image

    from edgeseg.tasks import kind_of
    from edgeseg.tasks.pictures import picture_of, with_key

    target.parent.mkdir(parents=True, exist_ok=True)
    for ending, picture in kind_of(task).files(values).items() if "labels" in outputs else ():
        picture.save(f"{target}_{ending}.png")
    if "color" in outputs:
        picture_of(values, task).save(f"{target}_color.png", compress_level=COMPRESSION)
    if "overlay" in outputs:
        with_key(picture_of(values, task, photo), values, task).save(
            f"{target}_overlay.png", compress_level=COMPRESSION
        )
    if "label_ids" in outputs and task.channels == 19:
        import torch

        from edgeseg.data.cityscapes import to_label_ids

        Image.fromarray(to_label_ids(torch.from_numpy(values)).numpy()).save(f"{target}_label_ids.png")


def _beside(given: Sequence[str], names: Sequence[str], *, needed: bool) -> list[Callable[[Path, str], Path]]:
    """Makes, per input beside the photo, a function that returns its file for a photo and the name of its results."""
    from edgeseg.vision.listing import PHOTO_SUFFIXES, by_stem, list_files

    paths = dict(each.partition("=")[::2] for each in given)
    wrong = [name for name in names if name not in paths] if needed else []
    if wrong or set(paths) - set(names):
        takes = " and ".join(f"--input {name}=FILE|FOLDER" for name in names) or "no --input"
        raise ValueError(f"this model takes {takes} beside the photos, got {', '.join(paths) or 'none'}")

    def finder(place: Path) -> Callable[[Path, str], Path]:
        if not place.is_dir():
            return lambda path, name: place
        files = by_stem(list_files(place, PHOTO_SUFFIXES | {".npy"}), place)

        def find(path: Path, name: str) -> Path:
            # The results of photos of one stem are named with the suffix of the photo.
            for stem in (name, name.removesuffix(path.suffix), path.stem):
                if stem in files:
                    return files[stem]
            raise ValueError(f"there is no file for it in {place}")

        return find

    return [finder(Path(paths[name])) for name in names if name in paths]
