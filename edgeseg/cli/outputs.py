"""What edgeseg predict writes per photo and per frame."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.machine.errors import is_out_of_memory

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from edgeseg.predict.predictor import Predictor
    from edgeseg.predict.video import Drawn
    from edgeseg.spec import Task

OUTPUTS = ("labels", "color", "overlay", "label_ids")
DATA = ("labels", "metres_x256", "label_ids")  # endings of files of data
COMPRESSION = 1  # of PNG files: takes about a quarter of the time of Pillow's 6, for 14 to 28 % more bytes


def require_folder(output: Path) -> None:
    """Raises a ValueError if a folder of results cannot be created, or if nothing can be written into it."""
    place = next((each for each in (output, *output.absolute().parents) if os.path.lexists(each)), output)
    if not place.is_dir():
        what = "is a file" if place == output else f"lies below {place}, which is a file"
        raise ValueError(f"--output {output} {what}; pass a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"--output {output}: you may not write into {place}")


def require_outputs(model: Predictor, outputs: Collection[str]) -> None:
    """Raises a ValueError if the model does not have what --outputs asks for."""
    if "label_ids" not in outputs or any(_is_cityscapes(task) for task in model.tasks.values()):
        return
    from edgeseg.labels import class_names
    from edgeseg.tasks import kind_of

    classes = [task for task in model.tasks.values() if kind_of(task).has_classes]
    has = " and ".join(f"{task.channels} ({', '.join(class_names(task)[:3])}, ...)" for task in classes)
    raise ValueError(f"--outputs label_ids needs a model of Cityscapes' 19 classes; this one has {has or 'none'}")


def _is_cityscapes(task: Task) -> bool:
    """Whether a task has Cityscapes' classes, or as many classes without names."""
    from edgeseg.labels import CITYSCAPES
    from edgeseg.tasks import kind_of

    names = tuple(CITYSCAPES)
    return kind_of(task).has_classes and task.channels == len(names) and (task.classes or names) == names


def require_other_files(model: Predictor, files: Sequence[tuple[Path, str]], options: argparse.Namespace) -> None:
    """Raises a ValueError if the results of a file would overwrite those of another, a file of the input, or a picture
    that edgeseg did not write, such as ground truth.
    """
    from edgeseg.predict.output import is_result

    sources = {os.path.realpath(path): path for path, _ in files}  # Path.resolve raises for a loop of links
    endings = {*options.outputs, *DATA} if "labels" in options.outputs else set(options.outputs)
    targets: dict[str, Path] = {}
    for path, name in files:
        for task in model.tasks:
            begin = os.path.realpath(target_of(options.output, name, task, model.tasks))
            if targets.setdefault(begin, path) != path:
                raise ValueError(f"the results of {path} would overwrite those of {targets[begin]}; rename one of them")
            for ending in (f"{begin}_{each}.{suffix}" for each in endings for suffix in ("png", "mkv", "mp4")):
                if ending in sources:
                    raise ValueError(
                        f"the results of {path} would overwrite {sources[ending]}; choose another --output"
                    )
                if not os.path.lexists(ending) or os.path.isdir(ending):
                    continue
                beside = os.path.dirname(ending) == os.path.dirname(os.path.realpath(path))
                ours = is_result(ending) if ending.endswith(".png") else not beside
                if not ours:
                    raise ValueError(
                        f"the results of {path} would overwrite {ending}, which edgeseg did not write; choose another "
                        "--output, or remove that file"
                    )


def target_of(output: Path, name: str, task: str, tasks: Collection[str]) -> Path:
    """Returns what the names of the results of a task begin with."""
    return output / (name if len(tasks) == 1 else f"{name}_{task}")


def drawn(values: np.ndarray, task: Task, photo: Image.Image, outputs: Collection[str]) -> Iterator[Drawn]:
    """Yields what --outputs asks for of one map, without legends."""
    from edgeseg.predict.video import Drawn
    from edgeseg.tasks import kind_of
    from edgeseg.tasks.pictures import picture_of

    for ending, picture in kind_of(task).files(values).items() if "labels" in outputs else ():
        yield Drawn(ending, picture, True)
    if "color" in outputs:
        yield Drawn("color", picture_of(values, task), False)
    if "overlay" in outputs:
        yield Drawn("overlay", picture_of(values, task, photo), False)
    if "label_ids" in outputs and _is_cityscapes(task):
        import torch
        from PIL import Image

        from edgeseg.data.cityscapes import to_label_ids

        yield Drawn("label_ids", Image.fromarray(to_label_ids(torch.from_numpy(values)).numpy()), True)


def draw_frame(
    maps: Mapping[str, np.ndarray], pixels: np.ndarray, model: Predictor, outputs: Collection[str]
) -> Iterator[Drawn]:
    """Yields the pictures of one frame of a video."""
    from edgeseg.vision.visualize import as_picture

    photo = as_picture(pixels)
    for name, values in maps.items():
        for each in drawn(values, model.tasks[name], photo, outputs):
            yield each if len(maps) == 1 else each._replace(ending=f"{name}_{each.ending}")


def write_photo(
    maps: Mapping[str, np.ndarray], pixels: np.ndarray, model: Predictor, name: str, options: argparse.Namespace
) -> None:
    """Writes the pictures of one photo.

    Raises:
        NotWritten: a file cannot be written.
    """
    from edgeseg.predict.output import save_png
    from edgeseg.tasks.pictures import with_key
    from edgeseg.vision.visualize import as_picture

    photo = as_picture(pixels)
    for task, values in maps.items():
        target = target_of(options.output, name, task, model.tasks)
        for ending, picture, lossless in drawn(values, model.tasks[task], photo, options.outputs):
            if ending == "overlay":
                picture = with_key(picture, values, model.tasks[task])
            save_png(picture, target.with_name(f"{target.name}_{ending}.png"), 6 if lossless else COMPRESSION)


@contextmanager
def named_shortage() -> Iterator[None]:
    """Turns a lack of memory into a ValueError that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError("it needs more memory than there is; pass --tile, or a smaller --batch-size") from error
