"""Maps of any kind of task as pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

from edgeseg.spec import Task
from edgeseg.tasks import kind_of
from edgeseg.vision.visualize import stack


def picture_of(values: np.ndarray, task: Task, photo: Image.Image | None = None) -> Image.Image:
    """A map in colours, mixed with the photo where the kind of task does so."""
    return kind_of(task).picture(values, task, photo)


def with_key(picture: Image.Image, values: np.ndarray, task: Task) -> Image.Image:
    """`picture` above what explains its colours, such as a legend of the classes that occur in the map."""
    key = kind_of(task).key(values, task, picture.width)
    return picture if key is None else stack([picture, key])
