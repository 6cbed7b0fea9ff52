"""Exports OpenVINO files, for Intel's processors and their graphics and neural units."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from edgeseg.deploy.calibration import Frame, calibration_inputs
from edgeseg.deploy.facts import check_fit, facts_of
from edgeseg.deploy.graph import DIMENSIONS, Ends, Graph, Output
from edgeseg.deploy.onnx import export_onnx
from edgeseg.deploy.quantize import quantize_onnx
from edgeseg.deploy.verify import TOLERANCE_16_BIT, Exported, run_of, verify, verify_8_bit
from edgeseg.machine.errors import ExportError
from edgeseg.machine.files import check_file, replacing
from edgeseg.machine.quiet import quiet_python
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.predict.openvino import OpenVINOSegmenter, digest
from edgeseg.predict.segmenter import Fit


def write(
    model: Pixel2Pixel,
    path: str | os.PathLike[str],
    *,
    precision: str,
    images: Sequence[Frame],
    size: Sequence[int] | None = None,
    dynamic: Sequence[str] = DIMENSIONS,
    output: Output = "logits",
    preprocess: bool = False,
    fit: Fit = "stretch",
) -> Exported:
    """Writes an OpenVINO file (.xml with its weights in .bin), runs it, and keeps it only if it agrees.

    It is made from the ONNX file of `export_onnx`, and for "int8" from that of `quantize_onnx`. "float16" stores the
    weights in float16; the computation stays in float32 on CPUs. A network that was trained for 8 bits keeps its
    scales, with "float32" as with "int8".

    Args:
        model: Exported as it is in evaluation mode.
        path: The file, `.xml`; the weights get the same name with the suffix `.bin`.
        precision: "float32", "float16" or "int8".
        images: Typical photos for "int8", given as for `predict`; for several inputs, tuples.
        size, dynamic, output, preprocess, fit: See `edgeseg.export_onnx`.

    Returns:
        The file, the sizes at which it was compared, the differences, and for int8 the share of pixels that keep their
        class.

    Raises:
        ImportError: openvino or what ONNX files need is missing: `pip install 'edgeseg[openvino]'`.
        OSError: the file cannot be written, or its `.bin` is there without it, maybe from another program.
        ValueError: the file does not end in .xml, float16 for a network that was trained for 8 bits, or an argument of
            `export_onnx` does not fit.
        RuntimeError: the outputs of the file differ from those of the network, or OpenVINO crashes on it; the file is
            not kept.
    """
    model = copy.deepcopy(model).cpu()
    trained = model.config.quantization is not None
    _check(path, precision, trained=trained)
    graph = Graph(model, Ends.of(model, size, dynamic, output, preprocess))
    check_fit(fit, graph.ends.dynamic)
    inputs = calibration_inputs(graph, images, size=size, fit=fit) if len(images) else []
    options: dict[str, Any] = {"size": size, "dynamic": dynamic, "output": output, "preprocess": preprocess, "fit": fit}
    if precision == "int8" and not trained:
        converted = _converted(lambda file: quantize_onnx(model, file, images, **options))
    else:
        converted = _converted(lambda file: export_onnx(model, file, **options))
    half, risky = precision == "float16", precision == "int8" or trained
    with _written(converted, Path(path), facts_of(graph, size, fit), half=half, risky=risky) as file:
        run = run_of(file)
        if not inputs:
            return verify(graph, run, Path(path), tolerance=TOLERANCE_16_BIT if precision == "float16" else None)
        if trained:
            verify(graph, run, Path(path))
        elif dynamic:
            verify_8_bit(graph, run, Path(path), _other_sizes(graph, inputs[0]))
        return verify_8_bit(graph, run, Path(path), inputs)


def _check(path: str | os.PathLike[str], precision: str, *, trained: bool) -> None:
    """Raises the errors that are known before work starts."""
    try:
        with quiet_python():
            __import__("openvino")
    except ImportError as error:
        raise ImportError("OpenVINO files need openvino: pip install 'edgeseg[openvino]'") from error
    check_file(path)
    if Path(path).suffix.lower() != ".xml":
        raise ValueError(f"OpenVINO files end in .xml, with their weights beside them in .bin, got {path}")
    for file in (Path(path), Path(path).with_suffix(".bin")):
        if file.is_dir():
            raise IsADirectoryError(f"cannot write {file}: it is a folder")
    weights = Path(path).with_suffix(".bin")
    if weights.exists() and not Path(path).exists():
        raise FileExistsError(
            f"{weights}, which would become the weights of {path}, is there without it, so another program may have "
            "written it; choose another name, or remove it"
        )
    if trained and precision == "float16":
        raise ValueError("a network that was trained for 8 bits is written with its scales: float32 or int8")


def _converted(write_onnx: Callable[[Path], object]) -> Any:
    """What an ONNX file contains, as a model of OpenVINO."""
    import onnx
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(path)
        file = onnx.load(path)
    del file.metadata_props[:]  # OpenVINO would copy them, and the facts stand in their own place
    return openvino.Core().read_model(file.SerializeToString(), b"")


def _other_sizes(graph: Graph, image: Sequence[Tensor]) -> list[list[Tensor]]:
    """A calibration image, repeated and cropped to the sizes at which float files are compared."""
    return [
        [tensor.repeat(batch, 1, 1, 1)[..., :height, :width].contiguous() for tensor in image]
        for batch, height, width in graph.ends.sizes
    ]


def _try_in_a_process(file: Path) -> None:
    """Opens a file in another process: OpenVINO 2026.4 crashes on 8-bit files of some networks, such as ESPNetv2.

    Raises:
        RuntimeError: the process crashed.
    """
    code = "import openvino, sys; openvino.Core().compile_model(sys.argv[1], 'CPU')"
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise ExportError(f"OpenVINO cannot open the 8-bit file of this network ({reason}); export it to ONNX instead")


@contextmanager
def _written(model: Any, path: Path, facts: dict[str, str], *, half: bool, risky: bool) -> Iterator[OpenVINOSegmenter]:
    """Yields the file that was written, opened. It gets its name when the block ends, if the block does not fail."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.xml"
        for _ in range(2):  # the second time with what is known of the .bin only then
            for name, fact in facts.items():
                model.set_rt_info(fact, ["edgeseg", name])
            openvino.save_model(model, file, compress_to_fp16=half)
            facts = {"weights_sha256": digest(file.with_suffix(".bin").read_bytes())}
        if risky:
            _try_in_a_process(file)
        # The block inside ends first: the .bin is there before the .xml that states its digest.
        with replacing(path) as xml, replacing(path.with_suffix(".bin")) as weights:
            shutil.copyfile(file, xml)
            shutil.copyfile(file.with_suffix(".bin"), weights)
            yield OpenVINOSegmenter(file)
