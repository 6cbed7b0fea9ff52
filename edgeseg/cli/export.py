"""The verb `edgeseg export`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.arguments import device_of
from edgeseg.cli.calibration import add_calibration, calibration_frames, check_calibration
from edgeseg.cli.dataset import load_split
from edgeseg.cli.messages import add_json, add_quiet, print_json
from edgeseg.cli.model import Group, add_encoder, add_model, load_model
from edgeseg.machine.terminal import say, show
from edgeseg.predict.facts import FACTS

if TYPE_CHECKING:
    from edgeseg.deploy.calibration import Frame
    from edgeseg.deploy.formats import Format, Precision
    from edgeseg.deploy.verify import Exported
    from edgeseg.networks.pixel2pixel import Pixel2Pixel
    from edgeseg.predict.predictor import Predictor

DEFAULTS = {"size": None, "output": "logits", "preprocess": False, "fit": "stretch", "opset": None, "ir_version": None}
Scores = Mapping[str, Mapping[str, float]]  # of each task, by the name of the figure
OUTPUTS = ("logits", "labels", "small_logits", "small_labels")


def add(verbs: Any) -> None:
    """Adds the verb and its options."""
    verb = verbs.add_parser(
        "export",
        help="write a file for a runtime, verified against the network",
        description="Writes a file for deployment in the format of its suffix, in float32, float16 or int8, runs it "
        "and verifies that it predicts the same as the network.",
        examples=(
            "edgeseg export --checkpoint runs/mine/best.safetensors -o model.onnx --file-output labels --preprocess",
            "edgeseg export -o model.tflite --int8 --calibration-images photos --img-resize 480 640",
        ),
    )
    add_encoder(add_model(verb))
    group = verb.add_argument_group("file")
    group.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE",
        help=f"file to write: {_list(FACTS)}; with --target the folder",
    )  # fmt: skip
    group.add_argument(
        "--target", choices=list(TARGETS),
        help="write a folder: tidl for the tools of Texas Instruments' devices, web for a page that segments photos in "
        "the browser",
    )  # fmt: skip
    group.add_argument(
        "--bundle", action="store_true",
        help="with --target web: copy onnxruntime-web from npm's registry into the folder; by default the page loads "
        "it from jsDelivr",
    )  # fmt: skip
    group.add_argument(
        "--format", metavar="NAME",
        help="format of the file, if its suffix does not name it: onnx, torch, litert, executorch, openvino or coreml; "
        "tidl and web are as with --target",
    )  # fmt: skip
    precision = group.add_mutually_exclusive_group()
    precision.add_argument(
        "--int8", action="store_true", help="compute in int8: needs --calibration-images or --dataset"
    )
    precision.add_argument("--fp16", action="store_true", help="store the weights in float16")
    add_file_options(group, output="logits")
    verb.set_defaults(file_output=None)  # logits, or with --target what that has by default
    add_calibration(verb).add_argument(
        "--split", default="val", metavar="NAME",
        help="split of --dataset on which an 8-bit file is scored; 'none' skips this (default val)",
    )  # fmt: skip
    add_quiet(verb)
    add_json(verb, "the file, how it was compared with the network, and the scores of an 8-bit file")
    verb.set_defaults(run=_export)


def add_file_options(group: Group, *, output: str) -> None:
    """Adds the options that say what goes into a file; `output` is the default of --file-output."""
    group.add_argument(
        "--img-resize", "--img_resize", nargs=2, type=int, metavar=("H", "W"),
        help="height and width of the input (default: as in training)",
    )  # fmt: skip
    group.add_argument(
        "--fixed",
        action="store_true",
        help="write a file for one image of one size at a time; by default it takes any number of images of any size",
    )
    group.add_argument(
        "--file-output",
        choices=OUTPUTS,
        default=output,
        help="output of the file: logits or class ids, at the size of the input or, if small, at the stride of the "
        f"decoder (default {output})",
    )
    group.add_argument(
        "--preprocess", action="store_true", help="write a file that takes uint8 pixels and normalizes them itself"
    )
    group.add_argument(
        "--fit", choices=["stretch", "letterbox"], default="stretch",
        help="how edgeseg fits photos to a file of fixed size: stretched to it, or with their aspect ratio and borders "
        "(default stretch)",
    )  # fmt: skip
    add_version_options(group)


def add_version_options(group: Group) -> None:
    """Adds --opset and --ir-version."""
    group.add_argument(
        "--opset", type=int, metavar="N", help="opset of an ONNX file, from 11 on (default: that of torch's exporter)"
    )
    group.add_argument(
        "--ir-version", "--ir_version", type=int, metavar="N",
        help="IR version of an ONNX file; older runtimes need 8 or 9 (default: that of torch's exporter)",
    )  # fmt: skip


def version_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the keyword arguments of `export_onnx` that the options of `add_version_options` stand for.

    Raises:
        ValueError: no file can be written with them.
    """
    from edgeseg.deploy.opset import check_versions

    if options.opset is not None or options.ir_version is not None:
        check_versions(options.opset, options.ir_version)
    return {"opset": options.opset, "ir_version": options.ir_version}


def check_file(name: str, path: Path) -> None:
    """Raises a ValueError if the folder of the file that the option `name` gives does not exist."""
    if not path.parent.is_dir():
        raise ValueError(f"{name} {path}: there is no folder {path.parent}")


def file_options(options: argparse.Namespace, chosen: Format | None = None) -> dict[str, Any]:
    """Returns the keyword arguments of `export_onnx` that the options of `add_file_options` stand for.

    Raises:
        ValueError: a size is not positive, or no file can be written with these options.
    """
    from edgeseg.deploy.graph import DIMENSIONS

    if options.img_resize is not None and min(options.img_resize) < 1:
        height, width = options.img_resize
        raise ValueError(f"--img-resize must be a positive height and width, got {height} {width}")
    fixed = options.fixed or (chosen is not None and "dynamic" not in chosen.options)
    if options.fit != "stretch" and not fixed:
        raise ValueError(f"--fit {options.fit} applies to files of fixed size: add --fixed")
    return {
        "size": options.img_resize,
        "dynamic": () if options.fixed else DIMENSIONS,
        "output": options.file_output,
        "preprocess": options.preprocess,
        "fit": options.fit,
        **version_options(options),
    }


def _export(options: argparse.Namespace) -> int:
    if options.format in TARGETS and options.target in (None, options.format):
        options.target, options.format = options.format, None
    if options.bundle and options.target != "web":
        raise ValueError("--bundle is for pages: add --target web")
    if options.target:
        return TARGETS[options.target](options)
    from edgeseg.deploy.formats import export, format_of

    options.file_output = options.file_output or "logits"
    chosen = format_of(options.output, options.format)
    check_file("--output", options.output)
    choices = _choices(options, chosen)
    precision: Precision = "int8" if options.int8 else "float16" if options.fp16 else "float32"
    chosen.check_precision(precision)
    if options.int8 and options.dataset and options.split != "none" and options.output.suffix.lower() not in FACTS:
        raise ValueError(
            f"--output {options.output}: the file is scored on --dataset, which needs a suffix that says its format "
            f"({_list(FACTS)}); rename it, or pass --split none"
        )
    _check_calibration(options)
    model = load_model(options, device_of(options.device))
    frames = _frames(options, model)
    exported = export(
        model, options.output, format=options.format, precision=precision, images=frames, **choices
    )  # fmt: skip
    _report(options, exported, options.file_output, partial(_scores, options, model, options.output))
    return 0


def _export_tidl(options: argparse.Namespace) -> int:
    """Writes a folder for TI's tools."""
    from edgeseg.deploy.tidl import IR_VERSION, OPSET, export_tidl

    given = {
        "--int8": options.int8, "--fp16": options.fp16, "--preprocess": options.preprocess, "--format": options.format,
        "--fit letterbox": options.fit != "stretch", "--dataset": options.dataset,
        "--calibration-images": options.calibration_images,
    }  # fmt: skip
    if wrong := [name for name, value in given.items() if value]:
        raise ValueError(
            f"{_list(wrong)} does not apply to --target tidl: TI's tools quantize and normalize; a network that was "
            "trained with --quantize power_of_two keeps its scales"
        )
    check_file("--output", options.output)
    options.file_output = options.file_output or "small_labels"
    choices = file_options(options)
    exported = export_tidl(
        load_model(options, device_of(options.device)), options.output, size=choices["size"],
        output=choices["output"], opset=choices["opset"] or OPSET, ir_version=choices["ir_version"] or IR_VERSION,
    )  # fmt: skip
    _report(options, exported, options.file_output, dict)
    return 0


def _export_web(options: argparse.Namespace) -> int:
    """Writes a page for browsers."""
    from edgeseg.deploy.web import MODEL, export_web

    given = {
        "--fp16": options.fp16, "--preprocess": options.preprocess, "--format": options.format,
        "--fixed": options.fixed, "--fit letterbox": options.fit != "stretch", "--file-output": options.file_output,
        "--opset": options.opset, "--ir-version": options.ir_version,
    }  # fmt: skip
    if wrong := [name for name, value in given.items() if value]:
        raise ValueError(f"{_list(wrong)} does not apply to --target web: the page decides what the file has to be")
    check_file("--output", options.output)
    _check_calibration(options)
    size = file_options(options)["size"]
    model = load_model(options, device_of(options.device))
    exported = export_web(
        model, options.output, size=size, precision="int8" if options.int8 else "float32",
        images=_frames(options, model), bundle=options.bundle,
    )  # fmt: skip
    _report(options, exported, "small_logits", partial(_scores, options, model, options.output / MODEL))
    say(f"to try it: python3 -m http.server -d {options.output}, then open http://localhost:8000")
    return 0


def _choices(options: argparse.Namespace, chosen: Format) -> dict[str, Any]:
    """The options of `edgeseg.export` that are given; raises a ValueError for one that the format does not have."""
    choices = {name: value for name, value in file_options(options, chosen).items() if value != DEFAULTS.get(name, ...)}
    if "dynamic" not in chosen.options:
        del choices["dynamic"]  # files of one size only
    for name in choices:
        if name not in chosen.options:
            shell = {"size": "img-resize", "output": "file-output"}.get(name, name.replace("_", "-"))
            raise ValueError(f"--{shell} does not apply to {chosen.title} files")
    return choices


def _report(options: argparse.Namespace, exported: Exported, output: str, scored: Callable[[], Scores]) -> None:
    """Says how the file was compared with the network, and then scores an 8-bit file and prints the scores."""
    files = [path for path in (exported.path, *exported.path.rglob("*")) if path.is_file()]
    files += [exported.path.with_suffix(".bin")] if exported.path.suffix == ".xml" else []
    size = sum(path.stat().st_size for path in files)
    of_labels = output.endswith("labels")
    if options.json:
        print_json(
            {
                "path": str(exported.path), "bytes": size, "output": output, "was_run": exported.was_run,
                "shapes": exported.sizes, "differences": dict(exported.differences),
                "unit": "share of pixels" if of_labels else "standard deviations",
                "agreement": dict(exported.agreement), "scores": scored(),
            }
        )  # fmt: skip
        return
    unit = "of the pixels" if of_labels else "standard deviations"
    shapes = ", ".join("x".join(map(str, shape)) for shape in exported.sizes)
    if not exported.was_run:
        say("not run here: the runtime of this format does not exist on this system; the file was checked without it")
    for name, difference in exported.differences.items() if exported.was_run else ():
        if name not in exported.agreement:
            say(f"{name}: differs from the network by {difference:.1e} {unit}{f' at {shapes}' if shapes else ''}")
    for name, share in exported.agreement.items():
        say(f"{name}: {100 * share:.2f} % of the pixels keep their float32 class")
    say(f"wrote {exported.path}, {size / 1e6:.1f} MB")
    print_scores("int8", scored(), options.split)


def _check_calibration(options: argparse.Namespace) -> None:
    """Raises a ValueError for images that do not suit an 8-bit file, or any other file that has some."""
    if _has_images(options):
        if not options.int8:
            raise ValueError("--calibration-images and --dataset are for 8-bit files: add --int8")
        check_calibration(options)


def _has_images(options: argparse.Namespace) -> bool:
    return options.calibration_images is not None or options.dataset is not None


def _frames(options: argparse.Namespace, model: Pixel2Pixel) -> Sequence[Frame]:
    """The calibration images of an 8-bit file; a network that was trained for 8 bits needs none."""
    if not options.int8 or (model.config.quantization is not None and not _has_images(options)):
        return ()
    check_calibration(options)
    return calibration_frames(options, model)


def _scores(options: argparse.Namespace, model: Predictor, path: Path) -> Scores:
    """The `scores_on_split` of an 8-bit file; empty for others, and without --dataset."""
    from edgeseg.predict.load import load_segmenter

    if not options.int8 or not options.dataset or options.split == "none":
        return {}
    return scores_on_split(options, model, load_segmenter(path), "evaluation")


def scores_on_split(options: argparse.Namespace, model: Predictor, segmenter: Predictor, title: str) -> Scores:
    """The headline figure of each task of a file on --split, by its name; empty without --dataset.

    Args:
        options: The options of `add_calibration`, and --split.
        model: The network of the file.
        segmenter: Runs the file.
        title: Of the progress bar.
    """
    if not options.dataset or options.split == "none":
        return {}
    from edgeseg.engine import evaluate_tasks

    metrics = evaluate_tasks(segmenter, load_split(options, options.split, model), progress=title)
    return {task: dict([metric.headline("native")]) for task, metric in metrics.items()}


def print_scores(name: str, scores: Scores, split: str) -> None:
    """Prints the figures of `scores_on_split`, each after the name of the file."""
    for task, figures in scores.items():
        for kind, figure in figures.items():
            show(f"{name}: {task} {kind} {figure:.2f} on {split}")


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


# What --target writes. Each is a folder around an ONNX file, whereas a format is a file that edgeseg itself runs.
TARGETS: dict[str, Callable[[argparse.Namespace], int]] = {"tidl": _export_tidl, "web": _export_web}
