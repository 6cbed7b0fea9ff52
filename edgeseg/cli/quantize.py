"""The verb `edgeseg quantize`."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.cli.calibration import add_calibration, calibration_frames, check_calibration
from edgeseg.cli.export import add_file_options, check_file, file_options, print_scores, scores_on_split
from edgeseg.cli.messages import add_json, add_quiet, print_json
from edgeseg.cli.model import add_model, load_model
from edgeseg.machine.terminal import show

if TYPE_CHECKING:
    from edgeseg.deploy.calibration import Frame
    from edgeseg.predict.onnx import OnnxSegmenter

MORE_NODES = 5  # convolutions whose sensitivity is printed beyond those that stay in float32


def add(verbs: Any) -> None:
    """Adds the verb and its options."""
    verb = verbs.add_parser(
        "quantize",
        help="write an 8-bit ONNX file, compared with the float32 one",
        description="Quantizes a network to int8 after training, and writes an ONNX file in QDQ form. Prints its "
        "size, its speed in onnxruntime and, for a dataset, its scores beside those of the float32 file.",
        examples=(
            "edgeseg quantize --checkpoint runs/mine/best.safetensors --images photos -o model_int8.onnx",
            "edgeseg quantize --dataset camvid --data-path CamVid --split test --keep-float 2 -o model_int8.onnx",
        ),
    )
    add_model(verb)
    group = verb.add_argument_group("file")
    group.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=".onnx file to write")
    add_file_options(group, output="small_logits")
    _add_scheme(verb)
    add_calibration(verb).add_argument(
        "--split", default="val", metavar="NAME",
        help="split of the dataset on which both files are scored; 'none' skips this (default val)",
    )  # fmt: skip
    add_quiet(verb)
    add_json(verb, "the file, its size, speed and scores beside those in float32, and how sensitive convolutions are")
    verb.set_defaults(run=_quantize)


def _add_scheme(verb: argparse.ArgumentParser) -> None:
    """Adds the options that say how numbers are rounded."""
    group = verb.add_argument_group("quantization")
    group.add_argument(
        "--calibration", choices=["minmax", "entropy", "percentile"], default="percentile",
        help="how the range of an activation follows from its values on the images: lowest and highest, least loss of "
        "information, or without the outermost 0.01 %% (default percentile)",
    )  # fmt: skip
    group.add_argument(
        "--power-of-two", action="store_true", help="use symmetric scales that are powers of two, one per tensor"
    )
    group.add_argument(
        "--keep-float", type=int, default=0, metavar="N",
        help="keep in float32 the N convolutions whose quantization changes most pixels (default 0)",
    )  # fmt: skip
    group.add_argument(
        "--full-range", action="store_true",
        help="use 8-bit weights, for ARM and for x86 processors with VNNI; by default weights have 7 bits",
    )  # fmt: skip


def _quantize(options: argparse.Namespace) -> int:
    import torch

    from edgeseg.deploy.formats import FORMATS
    from edgeseg.deploy.onnx import export_onnx
    from edgeseg.deploy.quantize import check_opset_of_scales, quantize_onnx
    from edgeseg.predict.onnx import OnnxSegmenter

    FORMATS[".onnx"].require_tools()
    check_calibration(options)
    if options.keep_float < 0:
        raise ValueError(f"--keep-float must be at least 0, got {options.keep_float}")
    if options.output.suffix != ".onnx":
        raise ValueError(f"--output is a .onnx file, got {options.output}")
    check_file("--output", options.output)
    choices = file_options(options)
    check_opset_of_scales(options.opset, power_of_two=options.power_of_two)
    model = load_model(options, torch.device("cpu"))
    frames = calibration_frames(options, model)
    quantized = quantize_onnx(
        model, options.output, frames, calibration=options.calibration, power_of_two=options.power_of_two,
        keep_float=options.keep_float, reduce_range=not options.full_range, **choices,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        float_file = Path(folder) / "float.onnx"
        export_onnx(model, float_file, **choices)
        files = {"float32": float_file, "int8": options.output}
        segmenters = {name: OnnxSegmenter(path) for name, path in files.items()}
        shape, milliseconds = _times(segmenters, frames[0])
        report: dict[str, Any] = {
            "path": str(options.output), "shape": shape, "agreement": dict(quantized.agreement),
            "differences": dict(quantized.differences), "sensitivity": dict(quantized.sensitivity),
            "kept_float": quantized.kept_float,
        }  # fmt: skip
        for name, path in files.items():
            report[name] = {"bytes": path.stat().st_size, "milliseconds": milliseconds[name]}
        if not options.json:
            _print(report, options.keep_float + MORE_NODES)
        for name, segmenter in segmenters.items():
            report[name]["scores"] = scores_on_split(options, model, segmenter, f"evaluation of {name}")
            if not options.json:
                print_scores(name, report[name]["scores"], options.split)
    if options.json:
        print_json(report)
    return 0


def _print(report: Mapping[str, Any], count: int) -> None:
    """Prints a report for people, with the `count` convolutions whose quantization changes most pixels."""
    shares, differences = report["agreement"], report["differences"]
    units = [*["the pixels"] * bool(shares), *["a standard deviation"] * (len(differences) > len(shares))]
    for node, change in list(report["sensitivity"].items())[:count]:
        kept = "stays in float32" if node in report["kept_float"] else "quantized"
        show(
            f"{node}: {100 * change:.2f} % of {' or of '.join(units)} change if only this convolution is quantized; "
            f"{kept}"
        )
    shape = "x".join(map(str, report["shape"]))
    both = {name: report[name] for name in ("float32", "int8")}
    for name, file in both.items():
        show(f"{name}: {file['bytes'] / 1e6:.1f} MB, {file['milliseconds']:.1f} ms at {shape}")
    show(f"int8: {both['float32']['milliseconds'] / both['int8']['milliseconds']:.2f} times as fast as float32")
    for task, difference in differences.items():
        if task in shares:
            show(f"int8: {100 * shares[task]:.2f} % of the pixels keep their float32 class ({task})")
        else:
            show(f"int8: differs from float32 by {difference:.2g} standard deviations in the mean ({task})")


def _times(segmenters: Mapping[str, OnnxSegmenter], frame: Frame) -> tuple[list[int], dict[str, float]]:
    """The shape of the input that one frame becomes, and the median milliseconds of each file for it."""
    from edgeseg.deploy.timing import alternating

    images = frame if isinstance(frame, tuple) else (frame,)
    feed = segmenters["int8"].feed(*images)
    runs = {name: partial(segmenter.session.run, None, feed) for name, segmenter in segmenters.items()}
    milliseconds = {name: 1000 * statistics.median(times) for name, times in alternating(runs).items()}
    return list(next(reversed(feed.values())).shape), milliseconds
