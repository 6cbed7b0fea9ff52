"""Scores networks with the classes of Cityscapes on other datasets: python FILE MODEL [MODEL ...] --camvid DIR ...

Each prediction becomes a class of the dataset by the maps of `edgeseg.data.class_maps`, at the size of the labels.
The photos are those that street_photos.py leaves for val, and the test frames of CamVid.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from street_photos import labelmefacade as street_photos

import edgeseg
from edgeseg.cli.model import load_trained
from edgeseg.data.base import Files, LabelledImages
from edgeseg.data.camvid import CamVid
from edgeseg.data.class_maps import class_map
from edgeseg.data.folder import ImagesMasks
from edgeseg.data.samples import checked_sample
from edgeseg.engine import ConfusionMatrix
from edgeseg.labels import IDD_LITE, class_names, segmentation_task
from edgeseg.machine.terminal import progress_bar


def camvid(root: Path) -> LabelledImages:
    """The test frames."""
    return CamVid(root, "test")


def idd_lite(root: Path) -> LabelledImages:
    """The photos of the split val."""
    return ImagesMasks(
        root, "val", images="leftImg8bit", masks="gtFine", image_suffix="_image.jpg", mask_suffix="_label.png",
        classes=tuple(IDD_LITE),
    )  # fmt: skip


def labelmefacade(root: Path) -> LabelledImages:
    """The photos of some places; the labels are ids of CamVid's classes."""
    held_out = [item for item in street_photos(root) if item[0] == "val"]
    files = [Files((photo,), {"segmentation": labels}) for _, photo, labels in held_out]
    return LabelledImages(files, {"segmentation": segmentation_task("camvid")})


SOURCES = {"camvid": camvid, "idd_lite": idd_lite, "labelmefacade": labelmefacade}


def score(model: edgeseg.Pixel2Pixel, dataset: LabelledImages) -> ConfusionMatrix:
    """The confusion matrix in the classes of a dataset."""
    task = next(iter(dataset.tasks.values()))
    names = [name.casefold() for name in class_names(task)]
    like = class_map(next(iter(model.tasks.values())), task)
    ids = torch.tensor([names.index(own) for own in like.values()])
    matrix = ConfusionMatrix(len(names), names)
    for index in progress_bar(range(len(dataset)), model.name, "photo"):
        images, targets = checked_sample(dataset, index, dataset.tasks, dataset.inputs)
        found = torch.from_numpy(model.predict(images[-1])).long()
        matrix.update(ids[found], next(iter(targets.values())))
    return matrix


def main() -> None:
    """Prints a table per network and dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names with the tag of their weights, or files of weights")
    for name in SOURCES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="DIR")
    options = parser.parse_args()
    for name in options.models:
        model = load_trained(name)
        for source, dataset in SOURCES.items():
            if root := getattr(options, source):
                matrix = score(model, dataset(root))
                miou = float(matrix.iou[matrix.counts.sum(dim=1) > 0].mean())
                print(f"{name} on {source}\n{matrix}\nmIoU over the classes that occur {100 * miou:.2f}", flush=True)


if __name__ == "__main__":
    main()
