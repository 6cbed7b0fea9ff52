"""Draws the pictures in docs/images: python docs/pictures.py"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from edgeseg.cli.demo import DEMO_MODEL
from edgeseg.data.streets.dataset import FRAMES, Streets
from edgeseg.engine.demo import SEED, draw_frame
from edgeseg.tasks.pictures import picture_of
from edgeseg.vision.visualize import beside, colorize_flow, stack
from edgeseg.zoo.registry import create_model, list_weights

IMAGES = Path(__file__).parent / "images"
EVERYTHING = ("semantic", "depth", "motion")


def streets_page(sequences: int = 2, width: int = 300) -> Image.Image:
    """One band of four frames per sequence, each frame with image, flow, classes, depth and motion."""
    streets = Streets("val", length=FRAMES * sequences, inputs=("flow", "image"), targets=EVERYTHING)
    bands = []
    for sequence in range(sequences):
        columns = []
        for index in range(sequence * FRAMES, (sequence + 1) * FRAMES):
            images, targets = streets.sample(index)
            photo, flow = (images[name].permute(1, 2, 0).numpy() for name in ("image", "flow"))
            pictures = [Image.fromarray(photo), colorize_flow(flow)]
            for name, task in streets.tasks.items():
                pictures.append(picture_of(targets[name].squeeze().numpy(), task, Image.fromarray(photo)))
            columns.append(stack([p.resize((width, width * 3 // 4), Image.Resampling.BILINEAR) for p in pictures]))
        bands.append(beside(columns, gap=4))
    return stack(bands)


def main() -> None:
    """Writes all pictures."""
    IMAGES.mkdir(exist_ok=True)
    streets_page().save(IMAGES / "streets.jpg", quality=80)
    if DEMO_MODEL in list_weights():
        model = create_model(DEMO_MODEL).eval()
        streets = Streets("test", seed=SEED, length=FRAMES, inputs=tuple(model.inputs), targets=tuple(model.tasks))
        draw_frame(model, streets, 1).save(IMAGES / "demo.jpg", quality=85)


if __name__ == "__main__":
    main()
