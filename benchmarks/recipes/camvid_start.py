"""Writes weights for CamVid that start from weights for Cityscapes: python FILE NAME.TAG OUT

The classes start as the classes of Cityscapes that they are nearest to, and everything else as it is.
"""

from __future__ import annotations

import sys

import edgeseg
from edgeseg.data.camvid import CamVid

NEAREST = {
    "pavement": "sidewalk", "tree": "vegetation", "sign": "traffic sign", "pedestrian": "person", "bicyclist": "rider",
}  # fmt: skip


def main(name: str, output: str) -> None:
    """Writes the file."""
    source = edgeseg.create_model(name)
    model = edgeseg.create_model(name, tasks={"segmentation": CamVid.task})
    classes = source.tasks["segmentation"].classes
    rows = [classes.index(NEAREST.get(each, each)) for each in CamVid.task.classes]
    weights = model.state_dict()
    for key, value in source.state_dict().items():
        weights[key] = value if weights[key].shape == value.shape else value[rows]
    model.load_state_dict(weights)
    edgeseg.save_checkpoint(model, output, **model.config.notes)


if __name__ == "__main__":
    main(*sys.argv[1:])
