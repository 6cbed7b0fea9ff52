"""The demo: a multi-task network is scored on synthetic streets, and its predictions for one frame are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from edgeseg.data.streets.dataset import FRAMES, Streets
from edgeseg.engine.evaluation import evaluate_tasks
from edgeseg.machine.files import check_file
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.predict.output import require_own, save_png
from edgeseg.tasks import Metric, kind_of, to_map
from edgeseg.tasks.pictures import picture_of
from edgeseg.vision.visualize import beside, colorize_flow, stack

SEED = 7  # a town that the weights were not trained in
GAP = 8  # pixels between columns


def run_demo(
    model: Pixel2Pixel, path: Path, *, sequences: int = 2, seed: int = SEED, progress: str = ""
) -> dict[str, Metric]:
    """Renders synthetic streets, scores a model on them, and writes a picture of one frame.

    Args:
        model: A network that takes "flow" and "image", or "image" alone, and whose tasks are among "semantic", "depth"
            and "motion".
        path: PNG file to write: the inputs, the ground truth and the predictions of the second frame.
        sequences: Number of sequences of four frames each.
        seed: Seed of the town.
        progress: Title of a progress bar, which is shown on a terminal; none if it is empty.

    Returns:
        The metric of each task.

    Raises:
        FileNotFoundError: the folder of `path` does not exist.
        ValueError: `path` does not end in .png, or is a picture that edgeseg did not write; or inputs or tasks that the
            streets do not have.
    """
    path = Path(path)
    check_file(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"the picture is written as a .png file, got {path}")
    require_own(path)
    streets = Streets(
        "test", seed=seed, length=FRAMES * sequences, inputs=tuple(model.inputs), targets=tuple(model.tasks)
    )
    metrics = evaluate_tasks(model, streets, progress=progress)
    save_png(draw_frame(model, streets, 1), path)
    return metrics


def draw_frame(model: Pixel2Pixel, streets: Streets, index: int) -> Image.Image:
    """Draws a sample: the inputs in the first column, then per task a column of ground truth and prediction.

    One input and one task make one row. The legends are below the pictures.

    Args:
        model: As in `run_demo`.
        streets: A dataset with the inputs and tasks of the model.
        index: Number of the sample.
    """
    images, targets = streets.sample(index)
    arrays = {name: image.permute(1, 2, 0).numpy() for name, image in images.items()}
    photo = Image.fromarray(arrays["image"])
    inputs = {"image": photo}
    if "flow" in arrays:
        inputs["flow"] = colorize_flow(arrays["flow"])
    maps = model.predict_tasks(*(images[name].as_subclass(torch.Tensor) for name in images))
    if "depth" in maps:
        # The depth of the sky is unknown, in training too; unknown depth is drawn in black.
        maps["depth"] = np.where(_is_sky(model, maps), 0, maps["depth"].clip(min=0.01))
    columns = [[_titled(picture, title) for title, picture in inputs.items()]]
    for name, values in maps.items():
        both = {f"{name}, ground truth": to_map(targets[name].numpy()), f"{name}, predicted": values}
        columns.append([_titled(picture_of(each, model.tasks[name], photo), title) for title, each in both.items()])
    if len(inputs) == len(maps) == 1:
        columns = [[picture] for column in columns for picture in column]
    elif len(inputs) == 1:
        keys = stack(_keys(model, targets, photo.width))
        if keys.width <= photo.width and keys.height <= columns[0][0].height:
            columns[0].append(keys)
            return beside([stack(column) for column in columns], gap=GAP)
    page = beside([stack(column) for column in columns], gap=GAP)
    first, *others = _keys(model, targets, page.width // 2)
    return stack([page, beside([first, stack(others)]) if others else first])


def _is_sky(model: Pixel2Pixel, maps: Mapping[str, np.ndarray]) -> np.ndarray | bool:
    """The pixels that are predicted as sky, bool [H, W]; False if the model does not have that class."""
    names = model.tasks["semantic"].classes if "semantic" in maps else ()
    return maps["semantic"] == names.index("sky") if "sky" in names else False


def _keys(model: Pixel2Pixel, targets: Mapping[str, Any], width: int) -> list[Image.Image]:
    """The keys of the tasks' colours, as strips of `width` pixels."""
    keys = (kind_of(task).key(to_map(targets[name].numpy()), task, width) for name, task in model.tasks.items())
    return [key for key in keys if key is not None]


def _titled(picture: Image.Image, title: str) -> Image.Image:
    """The picture with a title above it."""
    size = max(picture.width // 14, 11)
    page = Image.new("RGB", (picture.width, picture.height + 2 * size), "white")
    ImageDraw.Draw(page).text((2, size), title, fill="black", font=ImageFont.load_default(size), anchor="lm")
    page.paste(picture, (0, 2 * size))
    return page
