"""Cityscapes (Cordts et al., 2016, https://arxiv.org/abs/1604.01685): 2975 and 500 street scenes."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeseg.data.base import Files, LabelledImages, check_split, read_sixteen_bit, require
from edgeseg.labels import DEPTH, IGNORE, MOTION, segmentation_task
from edgeseg.machine.errors import value_errors
from edgeseg.spec import Input, Task
from edgeseg.vision.listing import list_files, photo_suffixes
from edgeseg.vision.tensors import Depth

LAYOUT = """\
  {root}/leftImg8bit/{{train,val,test}}/<city>/*_leftImg8bit.png          RGB photos
  {root}/gtFine/{{train,val,test}}/<city>/*_gtFine_labelIds.png           label ids, 0 to 33
  {root}/gtFine/.../*_gtFine_labelTrainIds.png                          for the five classes
  {root}/gtFine/.../*_gtFine_labelTrainIds_motion.png                   for motion: 0 static, 255 moving
  {root}/disparity/.../*_disparity.png  {root}/camera/.../*_camera.json   for depth
  {root}/<folder>/{{train,val,test}}/<city>/*.png                         further inputs, one file per photo
Folders like these with other classes or names of files are read by another dataset, such as
  --dataset images_masks --image-dir leftImg8bit --mask-dir gtFine --image-suffix _image.jpg --mask-suffix _label.png
  --classes road car sky"""

FRAME = re.compile(r".*?_\d+_\d+")  # how a file's name begins: city, sequence and frame

# From label id to train id; all other labels are ignored.
TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15,
    31: 16, 32: 17, 33: 18,
}  # fmt: skip
CLASS_WEIGHTS = (
    0.05570516, 0.32337477, 0.08998544, 1.03602707, 1.03413147, 1.68195437, 5.58540548, 3.56563995, 0.12704978, 1.0,
    0.46783719, 1.34551528, 5.29974114, 0.28342531, 0.9396095, 0.81551811, 0.42679146, 3.6399074, 2.78376194,
)  # fmt: skip
FIVE_CLASS_WEIGHTS = (0.22567085, 1.89944273, 5.24032014, 1.0, 0.13516443)
MOTION_WEIGHTS = (0.05, 0.95)

SUFFIXES = {
    "segmentation": "gtFine_labelIds.png",
    "semantic": "gtFine_labelIds.png",
    "five_classes": "gtFine_labelTrainIds.png",
    "motion": "gtFine_labelTrainIds_motion.png",
    "depth": "disparity.png",
}


class Cityscapes(LabelledImages):
    """Street scenes with label maps, depth and motion; a sample may have several inputs.

    Args:
        root: Folder with leftImg8bit, gtFine and the rest.
        split: "train", "val" or "test".
        image_folders: One folder per input; the last has the photos that the targets belong to.
        flow_folders: The folders among them that have optical flow as `edgeseg.vision.flow` stores it.
        targets: Any of "segmentation" (called "semantic" beside others), "five_classes", "depth" and "motion".
        labelled: Whether samples have ground truth.
        options: `channels` (of the inputs that are not optical flow) and `on_error`, see `LabelledImages`.

    Raises:
        FileNotFoundError: a folder or file is missing; prints the layout.
        ValueError: an unknown split or target, or folders with different numbers of images.
    """

    splits = ("train", "val", "test")

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        *,
        image_folders: Sequence[str] = ("leftImg8bit",),
        flow_folders: Sequence[str] = (),
        targets: Sequence[str] = ("segmentation",),
        labelled: bool = True,
        **options: Any,
    ) -> None:
        check_split("Cityscapes", split, self.splits)
        others = [name for name in flow_folders if name not in image_folders[:-1]]
        if others:
            raise ValueError(
                f"flow_folders has {', '.join(others)}, but image_folders does not have it before its last folder"
            )
        unknown = [target for target in targets if target not in SUFFIXES]
        if unknown:
            raise ValueError(f"Cityscapes has no target {', '.join(unknown)}; there are {', '.join(SUFFIXES)}")
        folder = Path(root)
        require([folder / name / split for name in image_folders], LAYOUT, folder)
        suffixes = photo_suffixes(options.get("channels", 3))
        streams = [list_files(folder / name / split, suffixes) for name in image_folders]
        if len({len(stream) for stream in streams}) > 1:
            counts = ", ".join(f"{name} {len(stream)}" for name, stream in zip(image_folders, streams, strict=True))
            raise ValueError(f"every input needs a file for each photo; {split} has {counts}")
        for images in zip(*streams, strict=True):
            if len({_frame(path) for path in images}) > 1:
                raise ValueError(f"{' and '.join(map(str, images))} are not of the same frame; a file is missing")
        if not streams[-1]:
            photos = folder / image_folders[-1] / split
            raise FileNotFoundError(f"{photos} has no photos; expected\n{LAYOUT.format(root=folder)}")
        files = [
            Files(images, {name: _target(folder, split, images[-1], name) for name in targets} if labelled else {})
            for images in zip(*streams, strict=True)
        ]
        if options.get("on_error", "stop") == "stop":
            cameras = [_camera(folder, each.targets["depth"]) for each in files if "depth" in each.targets]
            require([*(path for each in files for path in each.targets.values()), *cameras], LAYOUT, folder)
        self.root, self.image_folders, self.flow_folders = folder, tuple(image_folders), tuple(flow_folders)
        self.class_weights = {
            "segmentation": CLASS_WEIGHTS, "semantic": CLASS_WEIGHTS, "five_classes": FIVE_CLASS_WEIGHTS,
            "motion": MOTION_WEIGHTS, "depth": None,
        }[targets[0]]  # fmt: skip
        super().__init__(files, {name: TASKS[name] for name in targets}, **options)

    @property
    def inputs(self) -> Mapping[str, Input]:
        """The photo is called "image", the first folder of optical flow "flow", and other inputs as their folders."""
        first = next(iter(self.flow_folders), None)
        inputs = {
            "flow" if name == first else name: Input(3, "flow") if name in self.flow_folders else self.photo
            for name in self.image_folders[:-1]
        }
        return inputs | {"image": self.photo}

    def read_labels(self, path: Path) -> Tensor:
        """Reads label ids, which are 0 to 33; others are of another dataset."""
        labels = super().read_labels(path)
        wrong = (labels > 33) & (labels != IGNORE) | (labels < 0)
        if path.name.endswith(SUFFIXES["segmentation"]) and bool(wrong.any()):
            raise ValueError(
                f"{path} has label ids {torch.unique(labels[wrong]).tolist()[:5]}, but Cityscapes has 0 to 33; "
                "masks of other classes are read by images_masks (--dataset images_masks)"
            )
        return labels

    def to_classes(self, name: str, labels: Tensor) -> Tensor:
        """Maps label ids to train ids, and whatever moves to 1."""
        if name == "motion":
            return (labels > 0).to(torch.uint8)
        return labels if name == "five_classes" else _TABLE[labels.long()]

    def read_target(self, name: str, path: Path, files: Files) -> Tensor:
        """Reads a label map, or computes the depth from disparity and camera: metres, 1 to 255, 0 where unknown."""
        if name != "depth":
            return super().read_target(name, path, files)
        camera_path = _camera(self.root, path)
        with value_errors(camera_path, f"{camera_path} is not a camera of Cityscapes"):
            camera = json.loads(camera_path.read_text(encoding="utf-8"))
            scale = float(camera["intrinsic"]["fx"]) * float(camera["extrinsic"]["baseline"])
            if not 0 < scale < math.inf:
                raise ValueError(f"focal length times baseline is {scale}; both must be positive")
        values = read_sixteen_bit(path, "disparity, in pixels times 256 plus 1,")
        disparity = (values - 1) / 256
        meters = scale / disparity.clamp(min=1e-6)
        return Depth(torch.where(values > 0, meters.clamp(1, 255), torch.zeros(())).unsqueeze(0))


def to_label_ids(labels: Tensor) -> Tensor:
    """Maps train ids, 0 to 18, to the label ids that the benchmark's server takes."""
    return _LABEL_IDS[labels.long()]


def _frame(path: Path) -> str:
    """City, sequence and frame of an image, or its folder and name if it is not named by them."""
    named = FRAME.match(path.stem)
    return f"{path.parent.name}/{named[0] if named else path.stem}"


def _target(root: Path, split: str, image: Path, name: str) -> Path:
    stem = image.stem.removesuffix("_leftImg8bit")
    kind = "disparity" if name == "depth" else "gtFine"
    return root / kind / split / image.parent.name / f"{stem}_{SUFFIXES[name]}"


def _camera(root: Path, disparity: Path) -> Path:
    """The camera of a disparity map."""
    name = f"{disparity.stem.removesuffix('_disparity')}_camera.json"
    return root / "camera" / disparity.parent.relative_to(root / "disparity") / name


_TABLE = torch.full((256,), IGNORE, dtype=torch.uint8)
_TABLE[list(TRAIN_IDS)] = torch.tensor(list(TRAIN_IDS.values()), dtype=torch.uint8)
_LABEL_IDS = torch.zeros(256, dtype=torch.uint8)
_LABEL_IDS[list(TRAIN_IDS.values())] = torch.tensor(list(TRAIN_IDS), dtype=torch.uint8)

TASKS = {
    "segmentation": segmentation_task("cityscapes"),
    "semantic": segmentation_task("cityscapes"),
    "five_classes": Task(
        "segmentation",
        5,
        classes=("road", "sky", "pedestrian", "vehicle", "background"),
        palette=segmentation_task("cityscapes").palette[:5],
    ),
    "motion": MOTION,
    "depth": DEPTH,
}
