"""Exports one network of each kind to every format that is installed: python benchmarks/formats.py [--write]

Writes the table of docs/deployment.md that says which file agreed with its network, and how well. Networks of the
package have their weights; others are trained for a minute on synthetic streets first, since the classes of random
networks change with the least rounding. Needs pip install 'edgeseg[all]'.
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
from edgeseg.engine import TrainConfig, train

SIZE = (128, 160)
PHOTOS = 16
CONFIG = TrainConfig(
    epochs=4,
    img_resize=SIZE,
    rand_crop=SIZE,
    rand_scale=(1, 1),
    keep_aspect=False,
    batch_size=8,
    warmup_epochs=1,
    ema=0,
)
# Keyword arguments of `Streets` by name: the inputs and tasks of the network.
NETWORKS: dict[str, dict[str, Any]] = {
    "fpn_aspp_mobilenetv2_tv_edgeailite.camvid": {},
    "unet_aspp_mobilenetv2_tv_edgeailite.camvid": {},
    "deeplabv3plus_mobilenetv2_tv_edgeailite.camvid": {},
    "bifpn_aspp_mobilenetv2_tv_edgeailite": {},
    "fpnsum_mobilenetv2": {},
    "fpn_aspp_regnetx400mf_edgeailite": {},
    "fpn_aspp_efficientnet_lite0": {},
    "fpn_aspp_mobilenetv4_conv_small": {},
    "espnetv2_s1p0": {},
    "fpn_aspp_mobilenetv2_tv_edgeailite": {
        "inputs": ("image", "flow"),
        "targets": ("semantic", "depth", "motion"),
    },
}


def network(name: str, folder: Path) -> edgeseg.Pixel2Pixel:
    """The network with its weights if its name has a tag, else after some steps on `Streets`."""
    if name.endswith(".camvid"):
        return edgeseg.create_model(name).eval()
    torch.manual_seed(0)
    streets = Streets("train", SIZE, length=320, **NETWORKS[name])
    model = edgeseg.create_model(name, in_channels=dict.fromkeys(streets.inputs, 3), tasks=streets.tasks)
    return train(model, streets, None, CONFIG, folder).eval()


def photos(streets: Streets) -> list[tuple[np.ndarray, ...]]:
    """The images of scenes, one per input of the network."""
    samples = (streets.sample(index)[0].values() for index in range(PHOTOS))
    return [tuple(image.permute(1, 2, 0).numpy() for image in images) for images in samples]


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
        with tempfile.TemporaryDirectory() as folder:
            model = network(name, Path(folder) / "run")
        cells, scenes = [], photos(Streets("val", SIZE, length=PHOTOS, **NETWORKS[name]))
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
