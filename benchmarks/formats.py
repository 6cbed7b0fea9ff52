"""Exports one network of each kind to every format that is installed: python benchmarks/formats.py [--write]

Writes the table of docs/deployment.md that says which file agreed with its network, and how well. Networks of the
package have their weights, others random ones with the statistics of the photos. Needs pip install edgeseg[all].
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import markdown, write_table

import edgeseg
from edgeseg.data import Streets
from edgeseg.deploy.formats import FORMATS, Precision
from edgeseg.labels import DEPTH, MOTION
from edgeseg.spec import Task

SIZE = (128, 160)
PHOTOS = 16
THREE_TASKS = {"semantic": Task("segmentation", 19), "depth": DEPTH, "motion": MOTION}
# Keyword arguments of `create_model` by name.
NETWORKS: dict[str, dict[str, Any]] = {
    "fpn_aspp_mobilenetv2_tv_edgeailite.camvid": {},
    "unet_aspp_mobilenetv2_tv_edgeailite.camvid": {},
    "deeplabv3plus_mobilenetv2_tv_edgeailite.camvid": {},
    "bifpn_aspp_mobilenetv2_tv_edgeailite": {},
    "fpn_aspp_regnetx400mf_edgeailite": {},
    "fpn_aspp_efficientnet_lite0": {},
    "fpn_aspp_mobilenetv4_conv_small": {},
    "espnetv2_s1p0": {},
    "fpn_aspp_mobilenetv2_tv_edgeailite": {"in_channels": (3, 3), "tasks": THREE_TASKS},
}


def photos(model: edgeseg.Pixel2Pixel) -> list[tuple[np.ndarray, ...]]:
    """Synthetic street scenes, with the same picture for every input of the model."""
    streets = Streets("val", size=SIZE, length=PHOTOS)
    scenes = [streets[index][0].permute(1, 2, 0).numpy() for index in range(PHOTOS)]
    return [(scene,) * len(model.inputs) for scene in scenes]


def settle(model: edgeseg.Pixel2Pixel, scenes: Sequence[tuple[np.ndarray, ...]]) -> None:
    """Gives the batch norms the statistics of the scenes.

    With those of a new network, random weights shrink features to a millionth, which no scale of 8-bit files can hold.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    inputs = [torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) for images in zip(*scenes, strict=True)]
    model.train()
    with torch.no_grad():
        model(*map(model.preprocess.normalize, inputs))
    model.eval()


def cell(
    model: edgeseg.Pixel2Pixel,
    suffix: str,
    precision: Precision,
    scenes: Sequence[tuple[np.ndarray, ...]],
    folder: Path,
) -> str:
    """Exports a network, and says how well the file agrees."""
    images = scenes if precision == "int8" else ()
    fixed: dict[str, Any] = {"dynamic": ()} if "dynamic" in FORMATS[suffix].options else {}
    try:
        done = edgeseg.export(model, folder / f"model{suffix}", precision=precision, images=images, size=SIZE, **fixed)
    except (RuntimeError, ValueError) as error:
        print(f"{model.name}{suffix} {precision}: {error}", file=sys.stderr)
        return "refused"
    if not done.was_run:
        return "written, not run"
    if precision == "int8":
        shares = [f"{100 * share:.1f} %" for share in done.agreement.values()]
        return ", ".join(shares)
    return f"{max(done.differences.values()):.0e}"


def rows(names: Sequence[str]) -> list[tuple[str, ...]]:
    """One row per network: its cells by format and precision."""
    found = []
    for name in names:
        torch.manual_seed(0)
        model = edgeseg.create_model(name, **NETWORKS[name]).eval()
        cells, scenes = [], photos(model)
        if not name.endswith(".camvid"):
            settle(model, scenes)
        for suffix, each in FORMATS.items():
            for precision in each.precisions:
                if precision != "float16":
                    with tempfile.TemporaryDirectory() as folder:
                        cells.append(cell(model, suffix, precision, scenes, Path(folder)))
                        print(name, suffix, precision, cells[-1], file=sys.stderr)
        inputs = " of image and flow, three tasks" if len(model.inputs) > 1 else ""
        found.append((f"`{name}`{inputs}", *cells))
    return found


def main() -> None:
    """Exports all networks to all formats."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS), metavar="NAME")
    parser.add_argument("--write", action="store_true", help="write the table of docs/deployment.md")
    options = parser.parse_args()
    for each in FORMATS.values():
        each.require_tools()
    titles = [
        f"{each.title} {precision}"
        for each in FORMATS.values() for precision in each.precisions if precision != "float16"
    ]  # fmt: skip
    table = markdown(" | ".join(["network", *titles]), rows(options.networks))
    if options.write:
        write_table("deployment.md", "formats", table)
    else:
        print(table)


if __name__ == "__main__":
    main()
