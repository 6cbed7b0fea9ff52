"""Draws the pictures in docs/images: python docs/pictures.py [CAMVID]

The street of README is drawn if the folder of CamVid is given.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from edgeseg import create_model, list_weights
from edgeseg.cli.demo import DEMO_MODEL
from edgeseg.data.streets.dataset import FRAMES, Streets
from edgeseg.engine.demo import SEED, draw_frame
from edgeseg.tasks.pictures import picture_of, with_key
from edgeseg.vision.visualize import beside, colorize_flow, stack

IMAGES = Path(__file__).parent / "images"
EVERYTHING = ("semantic", "depth", "motion")
STREET = "fpn_aspp_mobilenetv2_tv_edgeailite.camvid"
FRAME = "test/Seq05VD_f02190.png"  # in the folder of CamVid, CC BY-NC 4.0


def streets_page(sequences: int = 2, width: int = 300) -> Image.Image:
    """One band of four frames per sequence: image, flow, classes, depth and motion."""
    streets = Streets(
        "val", length=FRAMES * sequences, inputs=("flow", "image"), targets=EVERYTHING
    )
    bands = []
    for sequence in range(sequences):
        columns = []
        for index in range(sequence * FRAMES, (sequence + 1) * FRAMES):
            images, targets = streets.sample(index)
            photo = Image.fromarray(images["image"].permute(1, 2, 0).numpy())
            flow = colorize_flow(images["flow"].permute(1, 2, 0).numpy())
            maps = {name: targets[name].squeeze().numpy() for name in streets.tasks}
            drawn = [
                picture_of(maps[k], task, photo) for k, task in streets.tasks.items()
            ]
            size = (width, width * 3 // 4)
            bilinear = Image.Resampling.BILINEAR
            columns.append(
                stack([p.resize(size, bilinear) for p in (photo, flow, *drawn)])
            )
        bands.append(beside(columns, gap=4))
    return stack(bands)


def street(path: Path) -> Image.Image:
    """A photo beside its classes, their key below both."""
    model = create_model(STREET).eval()
    (task,) = model.tasks.values()
    with Image.open(path) as file:
        photo = file.convert("RGB")
    labels = model.predict(photo)
    pair = beside([photo, picture_of(labels, task, photo)], gap=4)
    return with_key(pair, labels, task)


def main() -> None:
    """Writes all pictures."""
    IMAGES.mkdir(exist_ok=True)
    for folder in sys.argv[1:]:
        street(Path(folder) / FRAME).save(IMAGES / "street.jpg", quality=88)
    streets_page().save(IMAGES / "streets.jpg", quality=80)
    if DEMO_MODEL in list_weights():
        model = create_model(DEMO_MODEL).eval()
        streets = Streets(
            "test",
            seed=SEED,
            length=FRAMES,
            inputs=tuple(model.inputs),
            targets=tuple(model.tasks),
        )
        draw_frame(model, streets, 1).save(IMAGES / "demo.jpg", quality=85)


if __name__ == "__main__":
    main()
