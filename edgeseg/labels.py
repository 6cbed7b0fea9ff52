"""Class names and palettes of datasets. This module does not import torch."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.spec import Color, Task

IGNORE = 255
"""The label of pixels that losses and metrics ignore."""

# fmt: off
CITYSCAPES: dict[str, Color] = {
    "road":          (128,  64, 128),
    "sidewalk":      (244,  35, 232),
    "building":      ( 70,  70,  70),
    "wall":          (102, 102, 156),
    "fence":         (190, 153, 153),
    "pole":          (153, 153, 153),
    "traffic light": (250, 170,  30),
    "traffic sign":  (220, 220,   0),
    "vegetation":    (107, 142,  35),
    "terrain":       (152, 251, 152),
    "sky":           (  0, 130, 180),  # as in TI's zoo; the colour of Cityscapes itself is (70, 130, 180)
    "person":        (220,  20,  60),
    "rider":         (255,   0,   0),
    "car":           (  0,   0, 142),
    "truck":         (  0,   0,  70),
    "bus":           (  0,  60, 100),
    "train":         (  0,  80, 100),
    "motorcycle":    (  0,   0, 230),
    "bicycle":       (119,  11,  32),
}

# In the colours of Cityscapes, which are easier to tell apart than those of CamVid's own masks.
CAMVID: dict[str, Color] = {
    name: CITYSCAPES[like]
    for name, like in {
        "sky": "sky", "building": "building", "pole": "pole", "road": "road", "pavement": "sidewalk",
        "tree": "vegetation", "sign": "traffic sign", "fence": "fence", "car": "car", "pedestrian": "person",
        "bicyclist": "rider",
    }.items()
}

IDD_LITE: dict[str, Color] = {
    "drivable":         (128,  64, 128),
    "non-drivable":     (244,  35, 232),
    "living things":    (220,  20,  60),
    "vehicles":         (  0,   0, 142),
    "roadside objects": (220, 190,  40),
    "far objects":      ( 70,  70,  70),
    "sky":              ( 70, 130, 180),
}

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)

ADE20K32_CLASSES = (
    "other", "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet",
    "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water",
    "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair",
)
# fmt: on


def voc_color(label: int) -> Color:
    """Computes the colour that Pascal VOC gives a label.

    Each group of three bits of the label sets one bit of red, green and blue, from the highest bit down.

    Args:
        label: Class id, from 0 to 2**24 - 1.

    Returns:
        RGB, 0 to 255.
    """
    bits = [[label >> (3 * place + channel) & 1 for place in range(8)] for channel in range(3)]
    red, green, blue = (sum(bit << (7 - place) for place, bit in enumerate(channel)) for channel in bits)
    return red, green, blue


def distinct_palette(classes: int) -> tuple[Color, ...]:
    """Returns distinct colours for classes without colours of their own: those of Pascal VOC, without its black."""
    return tuple(voc_color(label + 1) for label in range(classes))


def generic_palette(classes: int) -> tuple[Color, ...]:
    """Returns the colours that TI's zoo gives classes without a palette: a grid over RGB, black first."""
    step = 255 if classes < 8 else 127 if classes < 27 else 63 if classes < 64 else 31
    grid = _grid(step)
    return tuple(grid[i % len(grid)] for i in range(classes))


def grid_palette(classes: int) -> tuple[Color, ...]:
    """Returns the colours that TI's zoo uses for ADE20K: `classes` colours taken evenly from a grid over RGB."""
    grid = _grid(int(256 / round(classes ** (1 / 3), 9)))
    return tuple(grid[round(i * len(grid) / classes)] for i in range(classes))


def _grid(step: int) -> list[Color]:
    """All colours whose channels are multiples of `step`, in the order of red, green and blue."""
    levels = range(0, 256, step)
    return [(r, g, b) for r in levels for g in levels for b in levels]


LABELS: dict[str, dict[str, Color]] = {
    "camvid": CAMVID,
    "cityscapes": CITYSCAPES,
    "idd_lite": IDD_LITE,
    "voc": {name: voc_color(label) for label, name in enumerate(VOC_CLASSES)},
    "coco21": dict(
        zip(VOC_CLASSES, generic_palette(21), strict=True)
    ),  # objects of COCO with the classes of Pascal VOC
    "ade20k32": dict(zip(ADE20K32_CLASSES, grid_palette(32), strict=True)),
}

MOTION = Task("segmentation", 2, classes=("static", "moving"), palette=((0, 0, 0), (119, 11, 32)))
DEPTH = Task("depth", 1, range=(0, 128))


def segmentation_task(labels: str) -> Task:
    """Returns the task of segmenting into the classes of a dataset.

    Args:
        labels: A key of `LABELS`, such as "camvid".
    """
    colors = LABELS[labels]
    return Task("segmentation", len(colors), classes=tuple(colors), palette=tuple(colors.values()))


def palette_of(task: Task) -> tuple[Color, ...]:
    """Returns the colours of a task's classes; distinct ones if the task does not define any.

    The background that a binary task has besides its channel is black.
    """
    background = ((0, 0, 0),) * (task.class_count - task.channels)
    return task.palette or (*background, *distinct_palette(task.channels))


def class_names(task: Task) -> tuple[str, ...]:
    """Returns the names of a task's classes; "class 0", "class 1", ... if the task does not define any."""
    return task.classes or tuple(f"class {i}" for i in range(task.class_count))


def task_of_classes(names: Sequence[str] = (), palette: Sequence[Color] = (), *, count: int | None = None) -> Task:
    """Returns the task that classes mean: segmentation, or a binary task for a single class.

    Args:
        names: Names of the classes.
        palette: Their colours; none or one per name.
        count: Number of classes; by default that of the names.

    Raises:
        ValueError: there are no classes, or the names and colours do not fit.
    """
    count = len(names) if count is None else count
    return Task("binary" if count == 1 else "segmentation", count, classes=tuple(names), palette=tuple(palette))
