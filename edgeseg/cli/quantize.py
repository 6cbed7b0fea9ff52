"""The verb `edgeseg quantize`."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.cli.export import add_file_options, check_file, file_options
from edgeseg.cli.model import add_dataset, add_model, load_model, load_split

if TYPE_CHECKING:
    from edgeseg.deploy.quantize import Frame, Quantized
    from edgeseg.predict.onnx import OnnxSegmenter
    from edgeseg.predict.predictor import Predictor

MORE_NODES = 5  # convolutions whose sensitivity is printed beyond those that stay in float32


def add(verbs: Any) -> None:
    """Adds the verb and its options."""
    verb = verbs.add_parser(
        "quantize",
        help="write an 8-bit ONNX file, compared with the float32 one",
        description="Quantizes a network to 8 bit after training, and writes an ONNX file in QDQ form. Prints its "
        "size, its speed in onnxruntime and, for a dataset, its scores beside those of the float32 file.",
    )
    add_model(verb)
    verb.add_argument(
        "--images", type=Path, metavar="FOLDER",
        help="folder with typical photos for the calibration; by default the training split of --dataset",
    )  # fmt: skip
    add_dataset(verb, required=False)
    verb.add_argument(
        "--calibration-images", type=int, default=100, metavar="N",
        help="number of images that the calibration uses (default 100)",
    )  # fmt: skip
    verb.add_argument(
        "--split", default="val", metavar="NAME",
        help="split of the dataset on which both files are scored; 'none' skips this (default val)",
    )  # fmt: skip
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=".onnx file to write")
    add_file_options(verb, output="small_logits")
    verb.add_argument(
        "--calibration", choices=["minmax", "entropy", "percentile"], default="percentile",
        help="how the range of an activation follows from its values on the images: lowest and highest, least loss of "
        "information, or without the outermost 0.01 %% (default percentile)",
    )  # fmt: skip
    verb.add_argument(
        "--power-of-two", action="store_true", help="use symmetric scales that are powers of two, one per tensor"
    )
    verb.add_argument(
        "--keep-float", type=int, default=0, metavar="N",
        help="keep the N convolutions in float32 whose quantization changes most pixels (default 0)",
    )  # fmt: skip
    verb.add_argument(
        "--full-range", action="store_true",
        help="use 8-bit weights, for ARM and for x86 processors with VNNI; by default weights have 7 bits",
    )  # fmt: skip
    verb.set_defaults(run=_quantize)


def _quantize(options: argparse.Namespace) -> int:
    import torch

    from edgeseg.deploy.onnx import export_onnx
    from edgeseg.deploy.quantize import check_opset_of_scales, quantize_onnx
    from edgeseg.predict.onnx import OnnxSegmenter

    if (options.images is None) == (options.dataset is None):
        raise ValueError("pass --images FOLDER, or --dataset with --data-path, and not both: calibration needs images")
    if options.calibration_images < 1:
        raise ValueError(f"--calibration-images is at least 1, got {options.calibration_images}")
    if options.keep_float < 0:
        raise ValueError(f"--keep-float is at least 0, got {options.keep_float}")
    if options.output.suffix != ".onnx":
        raise ValueError(f"--output is a .onnx file, got {options.output}")
    check_file("--output", options.output)
    choices = file_options(options)
    check_opset_of_scales(options.opset, power_of_two=options.power_of_two)
    model = load_model(options, torch.device("cpu"))
    frames = _frames(options, model)
    quantized = quantize_onnx(
        model, options.output, frames, calibration=options.calibration, power_of_two=options.power_of_two,
        keep_float=options.keep_float, reduce_range=not options.full_range, progress=True, **choices,
    )  # fmt: skip
    _print_sensitivity(quantized, options.keep_float + MORE_NODES)
    with tempfile.TemporaryDirectory() as folder:
        float_file = Path(folder) / "float.onnx"
        export_onnx(model, float_file, **choices)
        files = {"float32": float_file, "int8": options.output}
        segmenters = {name: OnnxSegmenter(path) for name, path in files.items()}
        _print_speed(files, segmenters, frames[0])
        for task, share in quantized.agreement.items():
            print(f"int8: {100 * share:.2f} % of the pixels keep their float32 class ({task})")
        if options.dataset and options.split != "none":
            _print_scores(options, segmenters, model)
    return 0


def _print_sensitivity(quantized: Quantized, count: int) -> None:
    """Prints the `count` convolutions whose quantization changes most pixels."""
    for node, share in list(quantized.sensitivity.items())[:count]:
        kept = "stays in float32" if node in quantized.kept_float else "quantized"
        print(f"{node}: {100 * share:.2f} % of the pixels change if only this convolution is quantized; {kept}")


def _print_speed(files: Mapping[str, Path], segmenters: Mapping[str, OnnxSegmenter], frame: Frame) -> None:
    """Prints the sizes of the files and their times for one frame."""
    from edgeseg.deploy.timing import alternating

    images = frame if isinstance(frame, tuple) else (frame,)
    feed = segmenters["int8"].feed(*images)
    runs = {name: partial(segmenter.session.run, None, feed) for name, segmenter in segmenters.items()}
    seconds = {name: statistics.median(times) for name, times in alternating(runs).items()}
    shape = "x".join(map(str, next(reversed(feed.values())).shape))
    for name, path in files.items():
        print(f"{name}: {path.stat().st_size / 1e6:.1f} MB, {1000 * seconds[name]:.1f} ms at {shape}")
    print(f"int8: {seconds['float32'] / seconds['int8']:.2f} times as fast as float32")


def _print_scores(options: argparse.Namespace, segmenters: Mapping[str, OnnxSegmenter], model: Predictor) -> None:
    """Prints the headline figure of each task on the split, for both files."""
    from edgeseg.engine import evaluate_tasks

    dataset = load_split(options, options.split, model)
    for name, segmenter in segmenters.items():
        for task, metric in evaluate_tasks(segmenter, dataset, progress=f"evaluation of {name}").items():
            kind, figure = metric.headline("native")
            print(f"{name}: {task} {kind} {figure:.2f} on {options.split}")


def _frames(options: argparse.Namespace, model: Predictor) -> list[Frame]:
    """Chooses photos that are spread evenly over the folder or the training split."""
    from edgeseg.data.base import as_sample

    if options.images is not None:
        return list(_photos(options, model))
    data = load_split(options, "train", model)
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
