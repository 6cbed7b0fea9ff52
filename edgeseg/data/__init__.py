"""Datasets by name. Importing a dataset imports torch; `edgeseg.labels` has the class names without it."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseg.data.streets.dataset import Streets

__all__ = ["DATASETS", "Streets", "load_dataset"]

FLOW_FOLDER = "leftImg8bit_flow_confidence_768x384"
FLOW = {"image_folders": (FLOW_FOLDER, "leftImg8bit"), "flow_folders": (FLOW_FOLDER,)}

# From a name to a class and its options; the names are those of TI's zoo if it has the dataset.
DATASETS: dict[str, tuple[str, dict[str, Any]]] = {
    "camvid": ("camvid:CamVid", {}),
    "images_masks": ("folder:ImagesMasks", {}),
    "coco_json": ("coco_json:CocoJson", {}),
    "yolo": ("yolo:YoloPolygons", {}),
    "labelme": ("labelme:LabelMe", {}),
    "streets": ("streets.dataset:Streets", {}),
    "voc_segmentation": ("voc:VOC", {}),
    "ade20k_segmentation": ("ade20k:ADE20K", {}),
    "ade20k_seg_class32": ("ade20k:ADE20K", {"classes": 32}),
    "coco_seg21": ("coco:COCO21", {}),
    "kitti_depth": ("kitti:KITTIDepth", {}),
    "cityscapes_segmentation": ("cityscapes:Cityscapes", {}),
    "cityscapes_segmentation_measure": ("cityscapes:Cityscapes", {}),
    "cityscapes_segmentation_infer": ("cityscapes:Cityscapes", {"labelled": False}),
    "cityscapes_segmentation_five_class": ("cityscapes:Cityscapes", {"targets": ("five_classes",)}),
    "cityscapes_segmentation_multi_input": ("cityscapes:Cityscapes", FLOW),
    "cityscapes_depth": ("cityscapes:Cityscapes", {"targets": ("depth",)}),
    "cityscapes_motion_multi_input": ("cityscapes:Cityscapes", {**FLOW, "targets": ("motion",)}),
    "cityscapes_depth_semantic_motion_multi_input": (
        "cityscapes:Cityscapes",
        {**FLOW, "targets": ("depth", "semantic", "motion")},
    ),
}


def load_dataset(name: str, root: str | os.PathLike[str] | None, split: str, **options: Any) -> Any:
    """Loads a split of a dataset.

    Args:
        name: Name of the dataset, one of `DATASETS`.
        root: Folder of the dataset; ignored for the synthetic "streets", which has no files.
        split: Name of the split.
        options: Keyword arguments of the dataset's class, such as `download`, `channels`, `on_error` or `overlap`.

    Returns:
        A dataset with a length, whose samples are an image uint8 [3, H, W] and labels uint8 [H, W] by default; see
        `edgeseg.data.base.LabelledDataset`.

    Raises:
        ImportError: a package that the dataset needs is not installed; names the extra.
        OSError: a download failed.
        ValueError: an unknown name, split or option, or a dataset without samples.
        FileNotFoundError: files are missing; prints the layout that is expected.

    Example:
        >>> from edgeseg.data import load_dataset
        >>> streets = load_dataset("streets", None, "val", size=(96, 128), length=2)
        >>> image, labels = streets[0]
        >>> tuple(image.shape), tuple(labels.shape)
        ((3, 96, 128), (96, 128))
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(DATASETS)}"
        raise ValueError(f"there is no dataset named {name!r}; {hint}")
    kind, fixed = _class_of(name), DATASETS[name][1]
    known = options_of(name)
    if unknown := [each for each in options if each not in known]:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    if root is None and name != "streets":
        raise ValueError(f"{name} needs its folder; pass root (--data-path)")
    place = () if name == "streets" else (root,)
    return kind(*place, split, **{**fixed, **options})


def options_of(name: str) -> list[str]:
    """The names of the options of a dataset: the arguments of its class and of those that it inherits from."""
    names: dict[str, None] = {}
    for kind in _class_of(name).__mro__:
        if "__init__" in vars(kind):
            parameters = inspect.signature(kind.__init__).parameters.values()
            names |= {each.name: None for each in parameters if each.kind is not each.VAR_KEYWORD}
    return [each for each in names if each not in ("self", "root", "split", "files", "tasks", "args")]


def _class_of(name: str) -> Any:
    module, _, class_name = DATASETS[name][0].partition(":")
    return getattr(importlib.import_module(f"edgeseg.data.{module}"), class_name)


def __getattr__(name: str) -> Any:
    if name != "Streets":
        raise AttributeError(f"module 'edgeseg.data' has no attribute {name!r}")
    return importlib.import_module("edgeseg.data.streets.dataset").Streets
