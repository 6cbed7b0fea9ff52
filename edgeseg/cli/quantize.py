"""edgeseg quantize."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.cli.export import OUTPUTS
from edgeseg.cli.model import add_dataset, add_model, dataset_options, load_model

if TYPE_CHECKING:
    from edgeseg.deploy.quantize import Frame
    from edgeseg.predict.predictor import Predictor


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("quantize", help="write an 8-bit ONNX file, compared with the float one")
    add_model(verb)
    verb.add_argument(
        "--images", type=Path, metavar="FOLDER", help="typical photos, to see the ranges of; else --dataset"
    )
    add_dataset(verb, required=False)
    verb.add_argument("--calibration-images", type=int, default=100, metavar="N", help="how many (default 100)")
    verb.add_argument(
        "--split", default="val", help="of the data set, to compare the mIoU on; 'none' for no comparison"
    )
    verb.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help=".onnx")
    verb.add_argument("--img-resize", "--img_resize", nargs=2, type=int, metavar=("H", "W"), help="else as trained")
    verb.add_argument("--fixed", action="store_true", help="one image of this size only; else any number and size")
    verb.add_argument("--output", choices=OUTPUTS, default="small_logits", help="see edgeseg export")
    verb.add_argument("--preprocess", action="store_true", help="take uint8 pixels and normalize them in the file")
    verb.add_argument(
        "--calibration", choices=["minmax", "entropy", "percentile"], default="percentile", help="default percentile"
    )
    verb.add_argument("--power-of-two", action="store_true", help="symmetric power-of-two scales, one a tensor")
    verb.add_argument("--keep-float", type=int, default=0, metavar="N", help="leave the N most sensitive convolutions")
    verb.add_argument(
        "--full-range", action="store_true", help="8 bit of weights: for processors with VNNI, and ARM; else 7"
    )
    verb.set_defaults(run=_quantize)


def _quantize(options: argparse.Namespace) -> int:
    import torch

    from edgeseg.data import load_dataset
    from edgeseg.deploy.graph import DIMENSIONS
    from edgeseg.deploy.onnx import export_onnx
    from edgeseg.deploy.quantize import quantize_onnx
    from edgeseg.deploy.timing import alternating
    from edgeseg.engine import evaluate_tasks
    from edgeseg.predict.onnx import OnnxSegmenter

    if (options.images is None) == (options.dataset is None):
        raise ValueError("pass --images FOLDER, or --dataset with --data-path: what to see the ranges of")
    if options.calibration_images < 1:
        raise ValueError(f"--calibration-images is at least 1, got {options.calibration_images}")
    model = load_model(options, torch.device("cpu"))
    frames = _frames(options, model)
    choices: dict[str, Any] = {
        "size": options.img_resize,
        "dynamic": () if options.fixed else DIMENSIONS,
        "output": options.output,
        "preprocess": options.preprocess,
    }
    done = quantize_onnx(
        model, options.out, frames, calibration=options.calibration, power_of_two=options.power_of_two,
        keep_float=options.keep_float, reduce_range=not options.full_range, **choices,
    )  # fmt: skip
    for node, share in list(done.sensitivity.items())[: options.keep_float + 5]:
        kept = "stays float32" if node in done.kept_float else "quantized"
        print(f"{node}: {100 * share:.2f} % of the pixels change when it alone is quantized; {kept}")
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "float.onnx"
        export_onnx(model, plain, **choices)
        files = {"float32": plain, "int8": options.out}
        segmenters = {name: OnnxSegmenter(path) for name, path in files.items()}
        first = frames[0] if isinstance(frames[0], tuple) else (frames[0],)
        feed = segmenters["int8"].feed(*first)
        turns = alternating({name: partial(each.session.run, None, feed) for name, each in segmenters.items()})
        seconds = {name: statistics.median(values) for name, values in turns.items()}
        shape = "x".join(map(str, next(reversed(feed.values())).shape))
        for name, path in files.items():
            print(f"{name}: {os.stat(path).st_size / 1e6:.1f} MB, {1000 * seconds[name]:.1f} ms at {shape}")
        print(
            f"int8 is {seconds['float32'] / seconds['int8']:.2f} times as fast, and gives the class of float32 to",
            end=" ",
        )
        print(", ".join(f"{100 * share:.2f} % of the pixels ({name})" for name, share in done.agreement.items()))
        if options.dataset and options.split != "none":
            data = load_dataset(options.dataset, options.data_path, options.split, **dataset_options(options, model))
            for name, segmenter in segmenters.items():
                for task, metric in evaluate_tasks(segmenter, data).items():
                    kind, figure = metric.headline("native")
                    print(f"{name}: {task} {kind} {figure:.2f} on {options.split}")
    return 0


def _frames(options: argparse.Namespace, model: Predictor) -> list[Frame]:
    """Chooses photos that are spread evenly over the folder or the training split."""
    from edgeseg.data import load_dataset
    from edgeseg.data.base import as_sample

    if options.images is not None:
        return list(_photos(options, model))
    data = load_dataset(options.dataset, options.data_path, "train", **dataset_options(options, model))
    chosen = range(0, len(data), max(len(data) // options.calibration_images, 1))[: options.calibration_images]
    return [as_sample(data[index], "")[0] for index in chosen]


def _photos(options: argparse.Namespace, model: Predictor) -> list[Path]:
    """Chooses photos of --images; with --skip-unreadable those that can be read."""
    from edgeseg.vision.images import read_photo
    from edgeseg.vision.listing import list_files, photo_suffixes

    channels = model.in_channels[-1]
    if not options.images.is_dir():
        raise ValueError(f"--images {options.images} is not a folder")
    files = list_files(options.images, photo_suffixes(channels))
    chosen = files[:: max(len(files) // options.calibration_images, 1)][: options.calibration_images]
    if options.skip_unreadable:
        readable = []
        for path in chosen:
            try:
                read_photo(path, channels)
                readable.append(path)
            except (OSError, ValueError) as error:
                print(f"edgeseg quantize: left out: {error}", file=sys.stderr)
        chosen = readable
    if not chosen:
        raise ValueError(f"there are no {'readable ' if files else ''}images in --images {options.images}")
    return chosen
