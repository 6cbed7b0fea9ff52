"""The trained weights of the zoo, as data: one row an entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeseg.data.labels import segmentation_task
from edgeseg.spec import Preprocess, Task


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One set of trained weights: what it was trained for, where it is, what was measured.

    Args:
        file: Name of the file in `edgeseg/weights/files/`.
        sha256: Of that file.
        labels: Data set that names the classes and colours, see `edgeseg.data.labels`.
        preprocess: How photos become input tensors.
        miou: Mean IoU in percent, by the protocol in `notes`.
        license: Terms for these weights, data set included.
        default: Taken by `pretrained=True` without a tag.
    """

    file: str
    sha256: str
    labels: str
    preprocess: Preprocess
    miou: float
    license: str
    notes: str
    default: bool = False

    @property
    def path(self) -> Path:
        """The file in the package."""
        return Path(__file__).with_name("files") / self.file

    @property
    def tasks(self) -> Mapping[str, Task]:
        """What the weights predict."""
        return {"segmentation": segmentation_task(self.labels)}


WEIGHTS: dict[str, Weights] = {
    "fpn_aspp_mobilenetv2_tv_edgeailite.camvid": Weights(
        file="fpn_aspp_mobilenetv2_tv_edgeailite.camvid.safetensors",
        sha256="0a515feb59c2a05a5923056e7f38ab1888f61f09d9639e96521f91045576e229",
        labels="camvid",
        preprocess=Preprocess(size=(480, 640), keep_aspect=True),
        miou=64.22,
        license="CC BY-NC 4.0 (CamVid): for non-commercial use",
        notes="CamVid test, 233 frames of 480x360, 11 classes; trained on train+val",
        default=True,
    ),
}
