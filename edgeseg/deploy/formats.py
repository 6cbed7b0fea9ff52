"""The formats that networks are exported to, one row each, and the function that writes any of them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeseg.arguments import require_network
from edgeseg.deploy.calibration import Frame, given_images
from edgeseg.deploy.graph import one_at_a_time
from edgeseg.deploy.opset import ONNX_TOOLS
from edgeseg.deploy.verify import Exported
from edgeseg.machine.files import check_folder
from edgeseg.machine.versions import require_modules
from edgeseg.networks.pixel2pixel import Pixel2Pixel

Precision = Literal["float32", "float16", "int8"]
SIZES = ("size", "output", "preprocess")


@dataclass(frozen=True)
class Format:
    """One format.

    Args:
        name: What `format=` and `--format` call it.
        title: What people call it.
        writer: Module and function that write a file: `write(model, path, precision=..., images=..., **options)`.
        options: Names of the options that it has.
        precisions: What its numbers can be.
        tools: Modules that write and run its files.
        reason: Why it does not have the others, where that is worth saying.
    """

    name: str
    title: str
    writer: str
    options: tuple[str, ...]
    precisions: tuple[Precision, ...] = ("float32",)
    tools: tuple[str, ...] = ()
    reason: str = ""

    def check_precision(self, precision: str) -> None:
        """Raises a ValueError for a precision that the format does not have."""
        if precision not in self.precisions:
            because = f": {self.reason}" if self.reason else ""
            raise ValueError(f"{self.title} files have no {precision}; they have {', '.join(self.precisions)}{because}")

    def require_tools(self) -> None:
        """Raises an ImportError with the command that installs the tools, unless they are installed."""
        require_modules(f"{self.title} files need", self.tools, self.name)


# fmt: off
FORMATS = {
    ".onnx": Format("onnx", "ONNX", "edgeseg.deploy.formats:write_onnx",
                    (*SIZES, "dynamic", "fit", "opset", "ir_version"), ("float32", "int8"),
                    ONNX_TOOLS),
    ".pt2":  Format("torch", "torch.export", "edgeseg.deploy.program:write", (*SIZES, "dynamic")),
    ".tflite": Format("litert", "LiteRT", "edgeseg.deploy.litert:write", (*SIZES, "fit"),
                      ("float32", "float16", "int8"), ("litert_torch", "ai_edge_quantizer", "ai_edge_litert")),
    ".pte":  Format("executorch", "ExecuTorch", "edgeseg.deploy.executorch:write", (*SIZES, "fit"),
                    ("float32", "int8"), ("executorch", "torchao")),
    ".xml":  Format("openvino", "OpenVINO", "edgeseg.deploy.openvino:write", (*SIZES, "dynamic", "fit"),
                    ("float32", "float16", "int8"), ("openvino", "onnxscript")),
    ".mlpackage": Format("coreml", "Core ML", "edgeseg.deploy.coreml:write", (*SIZES, "fit"), ("float32", "float16"),
                         ("coremltools",), "ranges of 8-bit activations can be measured on macOS only"),
}
# fmt: on


@one_at_a_time
def export(
    model: Pixel2Pixel,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    precision: Precision = "float32",
    images: Sequence[Frame] = (),
    **options: Any,
) -> Exported:
    """Writes a file for a runtime, runs it against the network, and keeps it only if they agree.

    The file contains its classes, colours, preprocessing, and the origin and licence of its weights.
    `edgeseg.load_segmenter` opens it, and `torch.export.load` a .pt2 file. Other threads may use the model meanwhile,
    and exports wait for each other.

    Args:
        model: Exported as it is in evaluation mode.
        path: The file, whose suffix names the format: .onnx (ONNX), .pt2 (torch.export), .tflite (LiteRT), .pte
            (ExecuTorch), .xml (OpenVINO), .mlpackage (Core ML).
        format: Name of the format, for another suffix: "onnx", "torch", "litert", "executorch", "openvino", "coreml".
        precision: "float32"; "float16" halves the size of the file; "int8" computes in 8 bit, by quantization after
            training. A network that was trained for 8 bits keeps its scales where the format can take them.
        images: About a hundred typical photos for "int8", given as for `predict`; for several inputs, tuples. A network
            that was trained for 8 bits needs none.
        options: Those of `edgeseg.export_onnx` as far as the format has them: `size`, `output` and `preprocess`
            everywhere, `fit` for files of fixed size, `dynamic` where sizes may change.

    Returns:
        The file; the sizes at which it was compared (empty for an int8 ONNX file), and the differences; and for int8
        the share of pixels that keep their class.

    Raises:
        ImportError: the tools of the format are missing; the message has the command that installs them.
        FileNotFoundError: the folder of `path` does not exist.
        ValueError: an unknown format, or a precision or option that it does not have; says what it has.
        RuntimeError: the network cannot be converted, or the file differs from it by more than the tolerance; the file
            is not kept.

    Example:
        >>> import edgeseg
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", channels=32, num_classes=5)
        >>> done = edgeseg.export(model, "model.onnx", size=(64, 96), dynamic=())
        >>> done.path.name, max(done.differences.values()) < 1e-3
        ('model.onnx', True)
    """
    require_network("export", model)
    if not isinstance(model, Pixel2Pixel):
        raise ValueError(f"an exported file cannot be exported again, got a {type(model).__name__}; export its network")
    chosen = format_of(path, format)
    chosen.check_precision(precision)
    unknown = [name for name in options if name not in chosen.options]
    if unknown:
        raise ValueError(
            f"{chosen.title} files have no option {', '.join(unknown)}; they have {', '.join(chosen.options)}"
        )
    images = given_images(precision, images, trained=model.config.quantization is not None)
    check_folder(path)
    chosen.require_tools()
    module, function = chosen.writer.split(":")
    write = getattr(importlib.import_module(module), function)
    result: Exported = write(model, path, precision=precision, images=images, **options)
    return result


def format_of(path: str | os.PathLike[str], name: str | None = None) -> Format:
    """The format with this name or, without a name, with the suffix of the file.

    Raises:
        ValueError: an unknown name or suffix; lists those that are known.
    """
    if name is not None:
        named = {each.name: each for each in FORMATS.values()}
        if name not in named:
            raise ValueError(f"no format named {name!r}; the formats are {', '.join(named)}")
        return named[name]
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"no format with the suffix of {path}; exported files end in {', '.join(FORMATS)}")
    return FORMATS[suffix]


def write_onnx(
    model: Pixel2Pixel, path: str | os.PathLike[str], *, precision: Precision, images: Sequence[Frame], **options: Any
) -> Exported:
    """Writes an ONNX file; "int8" by `quantize_onnx` with its usual settings, unless the network has scales already."""
    from edgeseg.deploy.onnx import export_onnx

    if precision == "float32" or model.config.quantization is not None:
        return export_onnx(model, path, **options)
    from edgeseg.deploy.quantize import quantize_onnx

    done = quantize_onnx(model, path, images, **{"output": "logits", **options})
    return Exported(done.path, (), done.differences, done.agreement)
