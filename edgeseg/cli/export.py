"""edgeseg export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgeseg.cli.model import add_model, load_model

OUTPUTS = ("logits", "labels", "small_logits", "small_labels")


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("export", help="write an ONNX or .pt2 file, checked against the network")
    add_model(verb)
    verb.add_argument("-o", "--output-file", type=Path, required=True, metavar="FILE", help=".onnx or .pt2")
    verb.add_argument(
        "--img-resize", "--img_resize", nargs=2, type=int, metavar=("H", "W"), help="input size, else as trained"
    )
    verb.add_argument("--fixed", action="store_true", help="one image of this size only; else any number and size")
    verb.add_argument(
        "--output", choices=OUTPUTS, default="logits", help="small ones are at the decoder's stride (default logits)"
    )
    verb.add_argument("--preprocess", action="store_true", help="take uint8 pixels and normalize them in the file")
    verb.add_argument("--opset", type=int, help="of ONNX")
    verb.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    import torch

    from edgeseg.deploy.graph import DIMENSIONS
    from edgeseg.deploy.onnx import export_onnx
    from edgeseg.deploy.program import export_program

    suffix = options.output_file.suffix
    if suffix not in (".onnx", ".pt2"):
        raise ValueError(f"{options.output_file}: the suffix is .onnx or .pt2")
    if suffix == ".pt2" and options.opset is not None:
        raise ValueError("--opset is of ONNX")
    model = load_model(options, torch.device(options.device))
    choices: dict[str, Any] = {
        "size": options.img_resize,
        "dynamic": () if options.fixed else DIMENSIONS,
        "output": options.output,
        "preprocess": options.preprocess,
    }
    if suffix == ".onnx":
        done = export_onnx(model, options.output_file, opset=options.opset, **choices)
    else:
        done = export_program(model, options.output_file, **choices)
    unit = "of the pixels" if options.output.endswith("labels") else "standard deviations"
    shapes = ", ".join("x".join(map(str, shape)) for shape in done.sizes)
    for name, difference in done.differences.items():
        print(f"{name}: differs from the network by {difference:.1e} {unit} at {shapes}")
    print(f"{done.path} written, {done.path.stat().st_size / 1e6:.1f} MB")
    return 0
