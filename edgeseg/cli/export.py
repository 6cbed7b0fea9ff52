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
    verb.add_argument(
        "--opset", type=int, metavar="N", help="opset of an ONNX file (default: that of torch's exporter)"
    )
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


def file_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the keyword arguments of `export_onnx` that the options of `add_file_options` stand for."""
    from edgeseg.deploy.graph import DIMENSIONS

    return {
        "size": options.img_resize,
        "dynamic": () if options.fixed else DIMENSIONS,
        "output": options.file_output,
        "preprocess": options.preprocess,
    }


def _export(options: argparse.Namespace) -> int:
    import torch

    from edgeseg.deploy.onnx import export_onnx
    from edgeseg.deploy.program import export_program

    suffix = options.output.suffix
    if suffix not in (".onnx", ".pt2"):
        raise ValueError(f"--output is a .onnx or .pt2 file, got {options.output}")
    if suffix == ".pt2" and options.opset is not None:
        raise ValueError("--opset applies to .onnx files only")
    model = load_model(options, torch.device(options.device))
    if suffix == ".onnx":
        exported = export_onnx(model, options.output, opset=options.opset, **file_options(options))
    else:
        exported = export_program(model, options.output, **file_options(options))
    unit = "of the pixels" if options.file_output.endswith("labels") else "standard deviations"
    shapes = ", ".join("x".join(map(str, shape)) for shape in exported.sizes)
    for name, difference in exported.differences.items():
        print(f"{name}: differs from the network by {difference:.1e} {unit} at {shapes}")
    print(f"wrote {exported.path}, {exported.path.stat().st_size / 1e6:.1f} MB")
    return 0
