"""The verb `edgeseg export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgeseg.cli.model import add_encoder, add_model, load_model

OUTPUTS = ("logits", "labels", "small_logits", "small_labels")


def add(verbs: Any) -> None:
    """Adds the verb and its options."""
    verb = verbs.add_parser(
        "export",
        help="write an ONNX or .pt2 file, verified against the network",
        description="Writes a file for deployment, as ONNX or as .pt2 of torch.export, and verifies that it predicts "
        "the same as the network.",
    )
    add_model(verb)
    add_encoder(verb)
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=".onnx or .pt2 file to write")
    add_file_options(verb, output="logits")
    verb.set_defaults(run=_export)


def add_file_options(verb: argparse.ArgumentParser, *, output: str) -> None:
    """Adds the options that say what goes into a file; `output` is the default of --file-output."""
    verb.add_argument(
        "--img-resize", "--img_resize", nargs=2, type=int, metavar=("H", "W"),
        help="height and width of the input (default: as in training)",
    )  # fmt: skip
    verb.add_argument(
        "--fixed",
        action="store_true",
        help="write a file for one image of that size at a time; by default it takes any number of images of any size",
    )
    verb.add_argument(
        "--file-output",
        choices=OUTPUTS,
        default=output,
        help="output of the file: logits or class ids, at the size of the input or, if small, at the stride of the "
        f"decoder (default {output})",
    )
    verb.add_argument(
        "--preprocess", action="store_true", help="write a file that takes uint8 pixels and normalizes them itself"
    )
    verb.add_argument(
        "--fit", choices=["stretch", "letterbox"], default="stretch",
        help="how edgeseg fits photos to a file of fixed size: stretched to it, or with their aspect ratio and borders "
        "(default stretch)",
    )  # fmt: skip
    add_version_options(verb)


def add_version_options(verb: argparse.ArgumentParser) -> None:
    """Adds --opset and --ir-version."""
    verb.add_argument(
        "--opset", type=int, metavar="N", help="opset of an ONNX file, from 11 on (default: that of torch's exporter)"
    )
    verb.add_argument(
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


def file_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the keyword arguments of `export_onnx` that the options of `add_file_options` stand for.

    Raises:
        ValueError: a size is not positive, or no file can be written with these options.
    """
    from edgeseg.deploy.graph import DIMENSIONS

    if options.img_resize is not None and min(options.img_resize) < 1:
        height, width = options.img_resize
        raise ValueError(f"--img-resize is a positive height and width, got {height} {width}")
    if options.fit != "stretch" and not options.fixed:
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
    import torch

    from edgeseg.deploy.onnx import export_onnx
    from edgeseg.deploy.program import export_program

    suffix = options.output.suffix
    if suffix not in (".onnx", ".pt2"):
        raise ValueError(f"--output is a .onnx or .pt2 file, got {options.output}")
    check_file("--output", options.output)
    choices = file_options(options)
    if suffix == ".pt2":
        _refuse_onnx_options(choices)
    model = load_model(options, torch.device(options.device))
    exported = (export_onnx if suffix == ".onnx" else export_program)(model, options.output, **choices)
    unit = "of the pixels" if options.file_output.endswith("labels") else "standard deviations"
    shapes = ", ".join("x".join(map(str, shape)) for shape in exported.sizes)
    for name, difference in exported.differences.items():
        print(f"{name}: differs from the network by {difference:.1e} {unit} at {shapes}")
    print(f"wrote {exported.path}, {exported.path.stat().st_size / 1e6:.1f} MB")
    return 0


def _refuse_onnx_options(choices: dict[str, Any]) -> None:
    """Takes the options out of `choices` that apply to ONNX files only; raises a ValueError if one was given."""
    for name, default in (("opset", None), ("ir_version", None), ("fit", "stretch")):
        if choices.pop(name) != default:
            raise ValueError(f"--{name.replace('_', '-')} applies to .onnx files only")
