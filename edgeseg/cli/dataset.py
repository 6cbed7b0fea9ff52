"""Options of datasets that several verbs share, and the datasets that they stand for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.data import DATASETS, load_dataset, options_of

if TYPE_CHECKING:
    from edgeseg.predict.predictor import Predictor

# Options whose names differ from those of the keyword arguments of `load_dataset`.
FLAGS = {
    "images": "--image-dir",
    "masks": "--mask-dir",
    "background": "--no-background",
    "on_unlabelled": "--skip-unlabelled",
    "on_error": "--skip-unreadable",
    "targets": "--tasks",
}


def add_dataset(verb: argparse.ArgumentParser, *, required: bool = True) -> argparse._ArgumentGroup:
    """Adds the options of datasets, in three groups, and returns the first: --dataset, --data-path and their like."""
    group = verb.add_argument_group("dataset")
    group.add_argument(
        "--dataset",
        "--dataset-name",
        "--dataset_name",
        required=required,
        choices=sorted(DATASETS),
        metavar="NAME",
        help=f"dataset, one of: {', '.join(sorted(DATASETS))}",
    )
    group.add_argument(
        "--data-path", "--data_path", type=Path, metavar="DIR",
        help="folder of the dataset; required for all datasets except streets, which is rendered",
    )  # fmt: skip
    group.add_argument(
        "--download", action="store_true", help="download camvid or voc_segmentation if it is not in --data-path"
    )
    group.add_argument("--skip-unreadable", action="store_true", help="leave out samples whose files cannot be used")
    group.add_argument(
        "--channels", type=int, metavar="N", help="channels that photos are read with, such as 1 for gray (default 3)"
    )
    _add_own(verb)
    _add_published(verb)
    return group


def _add_own(verb: argparse.ArgumentParser) -> None:
    """Adds the options of a user's own files: images_masks, coco_json, yolo and labelme."""
    group = verb.add_argument_group("datasets of your own files: images_masks, coco_json, yolo and labelme")
    group.add_argument(
        "--classes", nargs="+", metavar="NAME",
        help="names of the classes of images_masks, yolo and labelme in the order of their ids, instead of classes.txt",
    )  # fmt: skip
    group.add_argument(
        "--val-fraction", type=float, metavar="X",
        help="share of the samples that become the split val, by a hash of their names, where there are no folders of "
        "splits",
    )  # fmt: skip
    group.add_argument(
        "--image-dir", metavar="DIR",
        help="folder of the photos of images_masks and coco_json below --data-path (default images; for coco_json, "
        "where annotation tools put it); {split} in it stands for the name of the split",
    )  # fmt: skip
    group.add_argument(
        "--mask-dir", metavar="DIR",
        help="folder of the masks of images_masks below --data-path (default masks); {split} in it stands for the name "
        "of the split",
    )  # fmt: skip
    group.add_argument(
        "--image-suffix", metavar="SUFFIX", help="ending of the photos' names in images_masks, such as _image.jpg"
    )
    group.add_argument(
        "--mask-suffix", metavar="SUFFIX", help="ending of the masks' names in images_masks, such as _mask.png"
    )
    group.add_argument(
        "--mask-values", nargs="+", metavar="VALUE[:CLASS]",
        help="value of each class in the masks of images_masks, such as 0 255, or pairs such as 0:0 128:255 255:1 "
        "with 255 for ignored pixels",
    )  # fmt: skip
    group.add_argument(
        "--annotations",
        metavar="FILE",
        help="annotations of coco_json, a file below --data-path; {split} in it stands for the name of the split",
    )
    group.add_argument(
        "--no-background", action="store_true",
        help="ignore pixels outside of all objects in coco_json, yolo and labelme, instead of a class background",
    )  # fmt: skip
    group.add_argument(
        "--skip-unlabelled", action="store_true", help="leave out photos without a mask or an annotation"
    )


def _add_published(verb: argparse.ArgumentParser) -> None:
    """Adds the options of Cityscapes, streets and COCO."""
    group = verb.add_argument_group("Cityscapes, streets and COCO")
    group.add_argument(
        "--image-folders", nargs="+", metavar="DIR",
        help="names of Cityscapes' folders of images, one per input; the last has the photos that are labelled",
    )  # fmt: skip
    group.add_argument(
        "--flow-folders", nargs="+", metavar="DIR", help="folders among --image-folders that hold optical flow"
    )
    group.add_argument(
        "--inputs", nargs="+", metavar="NAME", help="inputs of streets: flow and image, or one of them (default image)"
    )
    group.add_argument(
        "--tasks", nargs="+", metavar="NAME",
        help="tasks: of streets any of semantic, depth and motion; of Cityscapes also segmentation and five_classes",
    )  # fmt: skip
    group.add_argument("--length", type=int, metavar="N", help="number of samples of streets (default 400)")
    group.add_argument(
        "--overlap",
        choices=["ignore", "original"],
        help="pixels where objects of COCO overlap: ignore them, or label them as TI's zoo does (default ignore)",
    )


def load_split(options: argparse.Namespace, split: str, model: Predictor | None = None) -> Any:
    """Opens a split of the dataset that the options of `add_dataset` stand for.

    Raises:
        ValueError: no --data-path, an unknown split, or an option that the dataset does not have.
        FileNotFoundError: the files are missing; the message has the layout that is expected.
    """
    if options.data_path is None and options.dataset != "streets":
        raise ValueError(f"--data-path is required for {options.dataset}")
    given, known = dataset_options(options, model), options_of(options.dataset)
    if wrong := [FLAGS.get(name, f"--{name.replace('_', '-')}") for name in given if name not in known]:
        raise ValueError(f"{', '.join(wrong)} does not apply to --dataset {options.dataset}")
    return load_dataset(options.dataset, options.data_path, split, **given)


def dataset_options(options: argparse.Namespace, model: Predictor | None = None) -> dict[str, Any]:
    """Returns the keyword arguments of `load_dataset` that the options of `add_dataset` stand for.

    Args:
        options: Parsed options.
        model: If there is a model already, photos are read with as many channels as it takes.
    """
    channels = options.channels
    if channels is None and model is not None and model.in_channels[-1] != 3:
        channels = model.in_channels[-1]
    given = {
        "channels": channels,
        "classes": options.classes,
        "val_fraction": options.val_fraction,
        "images": options.image_dir,
        "masks": options.mask_dir,
        "image_suffix": options.image_suffix,
        "mask_suffix": options.mask_suffix,
        "mask_values": options.mask_values,
        "annotations": options.annotations,
        "background": False if options.no_background else None,
        "on_unlabelled": "skip" if options.skip_unlabelled else None,
        "download": options.download or None,
        "on_error": "skip" if options.skip_unreadable else None,
        "image_folders": options.image_folders,
        "flow_folders": options.flow_folders,
        "inputs": tuple(options.inputs) if options.inputs else None,
        "targets": tuple(options.tasks) if options.tasks else None,
        "length": options.length,
        "overlap": options.overlap,
    }
    return {name: value for name, value in given.items() if value is not None}
