"""Labels photos of streets in the classes of Cityscapes: python FILE OUT CAMVID IDD_LITE LABELMEFACADE

Each dataset has fewer classes, so that one of its classes stands for several of Cityscapes, such as "vehicles" for cars
and motorcycles. A trained network chooses among them, pixel by pixel, and nowhere against the dataset's own labels.
OUT becomes a dataset of the layout `images_masks` with the splits train and val.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import edgeseg
from edgeseg.data.camvid import CamVid
from edgeseg.data.class_maps import CITYSCAPES_TO_CAMVID, CITYSCAPES_TO_IDD_LITE
from edgeseg.engine import Teacher
from edgeseg.labels import CAMVID, CITYSCAPES, IDD_LITE, IGNORE
from edgeseg.machine.terminal import progress_bar
from edgeseg.vision.images import read_photo

TEACHER = "espnetv2_s2p0.cityscapes"
HELD_OUT = ("davis", "london", "madrid", "gerona")  # places of LabelMeFacade that become val
SEEN = 1 / 255  # the network has to give so much to the class that it chooses, or the pixel is ignored
SURE = 0.7  # and so much where a photo of LabelMeFacade has no label

Item = tuple[str, Path, Path]
"""The split of a photo, the photo and its labels."""


def camvid(folder: Path) -> Iterator[Item]:
    """The frames of train and val, all to learn from: test judges."""
    for files in CamVid(folder, "trainval").files:
        yield "train", Path(files.images[0]), Path(files.targets["segmentation"])


def idd_lite(folder: Path) -> Iterator[Item]:
    """The photos with labels, in their own splits."""
    for labels in sorted(folder.glob("gtFine/*/*/*_label.png")):
        split, drive, name = labels.parts[-3:]
        yield split, folder / "leftImg8bit" / split / drive / name.replace("_label.png", "_image.jpg"), labels


def labelmefacade(folder: Path) -> Iterator[Item]:
    """All photos; val has those of places that train has not."""
    for photo in sorted((folder / "images").iterdir()):
        split = "val" if any(place in photo.stem for place in HELD_OUT) else "train"
        yield split, photo, folder / "labels" / f"{photo.stem}.png"


SOURCES = {
    "camvid": (camvid, CAMVID, CITYSCAPES_TO_CAMVID, None),
    "idd_lite": (idd_lite, IDD_LITE, CITYSCAPES_TO_IDD_LITE, None),
    "labelmefacade": (labelmefacade, CAMVID, CITYSCAPES_TO_CAMVID, SURE),
}
"""Per dataset: its items, its classes, their map, and how sure the network has to be where there is no label."""


def allowed(classes: Mapping[str, object], like: Mapping[str, str]) -> Tensor:
    """Which classes of Cityscapes each class of a dataset may be: bool [classes, 19]."""
    return torch.tensor([[like[name] == own for name in CITYSCAPES] for own in classes])


def chosen(probabilities: Tensor, labels: Tensor, possible: Tensor, sure: float | None) -> Tensor:
    """The classes of Cityscapes of a photo, uint8 [H, W].

    Args:
        probabilities: Of the network, uint8 [19, h, w] in 255ths.
        labels: Of the dataset, uint8 [H, W]; classes that are not among `possible` are no labels.
        possible: As `allowed` returns it.
        sure: Probability from which the network's opinion is taken where there is no label, or None for never.
    """
    seen = F.interpolate(probabilities[None].float() / 255, labels.shape, mode="bilinear", align_corners=False)[0]
    labelled = labels < len(possible)
    mask = possible[labels.long().clamp(max=len(possible) - 1)].permute(2, 0, 1)
    best = torch.where(mask, seen, -1).max(dim=0)
    certain = (best.values >= SEEN) | (mask.sum(dim=0) == 1)  # a class that stands for one needs no opinion
    result = torch.where(labelled & certain, best.indices, IGNORE)
    if sure is not None:
        opinion = seen.max(dim=0)
        result = torch.where(~labelled & (opinion.values >= sure), opinion.indices, result)
    return result.to(torch.uint8)


def main() -> None:
    """Writes the dataset, and prints how many photos it has and the share of each class."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("out", *SOURCES):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    found = {source: list(SOURCES[source][0](getattr(options, source))) for source in SOURCES}
    if empty := [source for source, items in found.items() if not items]:
        parser.error(f"no labelled photos in {', '.join(str(getattr(options, source)) for source in empty)}")
    network = edgeseg.create_model(TEACHER)
    teacher = Teacher([network], network.tasks, mirror=False)
    pixels = torch.zeros(256, dtype=torch.int64)
    for source, (_, classes, like, sure) in SOURCES.items():
        possible = allowed(classes, like)
        for split, photo, labels in progress_bar(found[source], source, "photo"):
            name = f"{source}_{labels.parent.name}_{labels.stem}"
            known = torch.from_numpy(np.asarray(Image.open(labels)).copy())
            result = chosen(
                teacher.probabilities(torch.from_numpy(read_photo(photo)).permute(2, 0, 1)), known, possible, sure
            )
            pixels += result.flatten().long().bincount(minlength=256)
            for folder in ("images", "masks"):
                (options.out / folder / split).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo, options.out / "images" / split / f"{name}{photo.suffix}")
            Image.fromarray(result.numpy()).save(options.out / "masks" / split / f"{name}.png")
    lines = [" ".join([name, *map(str, color)]) for name, color in CITYSCAPES.items()]
    (options.out / "classes.txt").write_text("\n".join(lines) + "\n")
    for name, count in zip(CITYSCAPES, pixels, strict=False):
        print(f"{name}: {count / pixels.sum():.3%}")
    print(f"ignored: {pixels[IGNORE] / pixels.sum():.1%}")


if __name__ == "__main__":
    main()
