"""Pictures of the maps of any kind of task."""

from __future__ import annotations

import numpy as np
from PIL import Image

from edgeseg.spec import Task
from edgeseg.tasks import kind_of
from edgeseg.vision.visualize import stack


def picture_of(values: np.ndarray, task: Task, photo: Image.Image | None = None) -> Image.Image:
    """Draws a map in colours.

    Args:
        values: The map, as `predict` returns it.
        task: The task of the map.
        photo: Photo of the same size that the colours are mixed with, if the kind of task does so.
    """
    return kind_of(task).picture(values, task, photo)


def with_key(picture: Image.Image, values: np.ndarray, task: Task) -> Image.Image:
    """Adds the legend of the colours below a picture, such as one of the classes that occur in the map.

    Args:
        picture: Picture of the map.
        values: The map, as `predict` returns it.
        task: The task of the map.
    """
    key = kind_of(task).key(values, task, picture.width)
    return picture if key is None else stack([picture, key])
