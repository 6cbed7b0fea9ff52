"""edgeseg predict."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.cli.model import add_model, load_network

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

    from edgeseg.spec import Task

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
VIDEO_SUFFIXES = {".avi", ".mkv", ".mov", ".mp4", ".webm"}
COMPRESSION = 1  # of pictures: about a quarter of the time of Pillow's 6, for 14 to 28 % more bytes
OUTPUTS = ("labels", "color", "overlay", "label_ids")


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("predict", help="segment photos and videos")
    verb.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE|FOLDER|VIDEO", help="folders are searched recursively"
    )
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="made where it is missing")
    add_model(verb)
    verb.add_argument(
        "--onnx", type=Path, metavar="FILE", help="run this file of edgeseg export in onnxruntime instead"
    )
    verb.add_argument(
        "--input", action="append", default=[], metavar="NAME=FILE|FOLDER",
        help="of a network of several inputs, such as flow=FOLDER with a file for each photo; see edgeseg flow",
    )  # fmt: skip
    verb.add_argument(
        "--outputs",
        nargs="+",
        choices=OUTPUTS,
        default=["labels", "color", "overlay"],
        help="what to write of a photo: class ids (of depth: 16 bit, metres x 256), colours, a tinted photo with a "
        "legend, Cityscapes' label ids",
    )
    verb.add_argument(
        "--tile", nargs=2, type=int, metavar=("H", "W"), help="segment large photos in tiles of this size"
    )
    verb.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="photos of one size that go through the network together"
    )
    verb.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    """Under torchrun each process takes its share of the files."""
    from edgeseg.engine.distributed import process_group

    with process_group(options.device) as device:
        return _predict_share(options, device)


def _predict_share(options: argparse.Namespace, device: torch.device) -> int:
    from PIL import Image
    from tqdm import tqdm

    from edgeseg.engine import distributed
    from edgeseg.predict.pipeline import overlapped
    from edgeseg.tasks import kind_of
    from edgeseg.vision.images import load_pixels

    videos = [path for path in options.images if path.suffix.lower() in VIDEO_SUFFIXES]
    files, failed = _find_images([path for path in options.images if path not in videos], options.output)
    done = 0
    model = load_network(options, device)
    beside = _beside(options.input, list(model.inputs)[:-1], needed=bool(files))
    classes = [task.channels for task in model.tasks.values() if kind_of(task).has_classes]
    if "label_ids" in options.outputs and 19 not in classes:
        has = " and ".join(map(str, classes))
        raise ValueError(f"Cityscapes' label ids need a model of its 19 classes, this one has {has or 'none'}")
    for path in videos:
        from edgeseg.predict.video import segment_video

        options.output.mkdir(parents=True, exist_ok=True)
        segment_video(model, path, options.output / f"{path.stem}_overlay.mp4")
        done += 1
    share = files[distributed.rank() :: distributed.world_size()]

    def read(file: tuple[Path, str]) -> list[np.ndarray]:
        path, name = file
        return [load_pixels(found) for found in (*(find(path, name) for find in beside), path)]

    def segment(frames: list[list[np.ndarray]]) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        maps = model.predict_frames(frames, tile=options.tile, batch_size=options.batch_size)
        return [(pixels[-1], found) for pixels, found in zip(frames, maps, strict=True)]

    def write(file: tuple[Path, str], answer: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
        photo, maps = answer
        for task, found in maps.items():
            target = options.output / (file[1] if len(maps) == 1 else f"{file[1]}_{task}")
            _write(found, Image.fromarray(photo), model.tasks[task], target, options.outputs)

    unreadable = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # Pillow raises each of them
    steps = overlapped(
        share, read, segment, write, failures=unreadable, batch_size=options.batch_size,
        alike=lambda frame: frame[-1].shape,
    )  # fmt: skip
    hidden = None if len(share) > 1 and not distributed.rank() else True
    for (path, _), error in tqdm(steps, total=len(share), unit="image", disable=hidden):
        if error is None:
            done += 1
        else:
            failed.append(f"{path}: {error}")
    for problem in failed:
        print(f"edgeseg predict: not read: {problem}", file=sys.stderr)
    print(f"{done} of {done + len(failed)} segmented into {options.output}")
    return 1 if failed else 0


def _write(found: np.ndarray, photo: Image.Image, task: Task, target: Path, outputs: Sequence[str]) -> None:
    """The pictures of one photo and task, their names beginning with `target`."""
    from PIL import Image

    from edgeseg.tasks import kind_of
    from edgeseg.tasks.pictures import picture_of, with_key

    target.parent.mkdir(parents=True, exist_ok=True)
    for ending, picture in kind_of(task).files(found).items() if "labels" in outputs else ():
        picture.save(f"{target}_{ending}.png")
    if "color" in outputs:
        picture_of(found, task).save(f"{target}_color.png", compress_level=COMPRESSION)
    if "overlay" in outputs:
        with_key(picture_of(found, task, photo), found, task).save(f"{target}_overlay.png", compress_level=COMPRESSION)
    if "label_ids" in outputs and task.channels == 19:
        import torch

        from edgeseg.data.cityscapes import to_label_ids

        Image.fromarray(to_label_ids(torch.from_numpy(found)).numpy()).save(f"{target}_label_ids.png")


def _beside(given: Sequence[str], names: Sequence[str], *, needed: bool) -> list[Callable[[Path, str], Path]]:
    """For each input beside the photo a function that finds its file, from the photo's path and the output's name."""
    paths = dict(each.partition("=")[::2] for each in given)
    wrong = [name for name in names if name not in paths] if needed else []
    if wrong or set(paths) - set(names):
        takes = " and ".join(f"--input {name}=FILE|FOLDER" for name in names) or "no --input"
        raise ValueError(f"this model takes {takes} beside the photos, got {', '.join(paths) or 'none'}")

    def finder(place: Path) -> Callable[[Path, str], Path]:
        if not place.is_dir():
            return lambda path, name: place
        known = {str(file.relative_to(place).with_suffix("")): file for file in place.rglob("*")}

        def find(path: Path, name: str) -> Path:
            found = known.get(name) or known.get(path.stem)
            if found is None:
                raise ValueError(f"no file for it in {place}")
            return found

        return find

    return [finder(Path(paths[name])) for name in names if name in paths]


def _find_images(paths: Sequence[Path], output: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    """The image files and the name that each one's pictures begin with; and what is not there."""
    found: list[tuple[Path, Path]] = []  # file, its place below the argument
    for path in paths:
        if path.is_dir():
            inside = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and output not in p.parents
            )
            found += [(file, file.relative_to(path)) for file in inside]
        elif path.exists():
            found.append((path, Path(path.name)))
    stems = Counter(place.with_suffix("") for _, place in found)
    names = [(file, str(place if stems[place.with_suffix("")] > 1 else place.with_suffix(""))) for file, place in found]
    twice = [name for name, count in Counter(name for _, name in names).items() if count > 1]
    if twice:
        raise ValueError(f"several images would be written as {twice[0]}; predict their folders one by one")
    missing = [f"{path}: no such file or folder" for path in paths if not path.exists()]
    if paths and not found and not missing:
        raise ValueError(f"no images in {', '.join(map(str, paths))}")
    return names, missing
