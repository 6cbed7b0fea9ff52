"""Post-training quantization (PTQ) to 8 bit, for onnxruntime and for devices that read QDQ files."""

from __future__ import annotations

import copy
import logging
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from edgeseg.deploy.calibration import ROUNDING_IMAGES, Frame, Prepared, as_frame, check_images, some
from edgeseg.deploy.graph import DIMENSIONS, Ends, Output, one_at_a_time
from edgeseg.deploy.grids import normalized, simplify
from edgeseg.deploy.onnx import export_onnx
from edgeseg.deploy.opset import ONNX_TOOLS, as_asked, check_versions, exporter_opset
from edgeseg.deploy.verify import compare_8_bit
from edgeseg.machine.files import check_file, replacing
from edgeseg.machine.quiet import quiet_logging, quiet_printing
from edgeseg.machine.terminal import progress_bar
from edgeseg.machine.versions import require_modules
from edgeseg.networks.equalize import equalize_channels
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.pixelwise import PixelwiseConv2d, is_pixelwise, last_convolutions
from edgeseg.networks.quantized import pixel_grid
from edgeseg.networks.rounding import round_weights
from edgeseg.predict.onnx import OnnxSegmenter
from edgeseg.predict.segmenter import Fit
from edgeseg.vision.images import ImageLike

Calibration = Literal["minmax", "entropy", "percentile"]
SENSITIVITY_IMAGES = 4
# Otherwise every calibration of onnxruntime keeps all tensors of all images in memory, gigabytes per ten photos.
CALIBRATION: dict[str, Any] = {"CalibStridedMinMax": 1, "CalibPercentile": 99.99}


@dataclass(frozen=True)
class Quantized:
    """The result of a quantization.

    Args:
        path: The file that was written.
        agreement: Per task with classes, the share of pixels of the calibration images that keep their class.
        differences: Per task, the mean difference of the outputs on the calibration images, in standard deviations; for
            labels, the share of pixels whose class differs.
        sensitivity: Per convolution that was tried, what changes if it alone is quantized, the highest first: the share
            of pixels that change their class or, where a task has no classes, its mean difference if that is larger.
            Empty if none was tried.
        kept_float: Convolutions that stay in float32.
    """

    path: Path
    agreement: Mapping[str, float]
    differences: Mapping[str, float]
    sensitivity: Mapping[str, float]
    kept_float: tuple[str, ...]


@one_at_a_time
def quantize_onnx(
    model: Pixel2Pixel,
    path: str | os.PathLike[str],
    images: Sequence[Frame],
    *,
    size: Sequence[int] | None = None,
    dynamic: Sequence[str] = DIMENSIONS,
    output: Output = "small_logits",
    preprocess: bool = False,
    calibration: Calibration = "percentile",
    power_of_two: bool = False,
    keep_float: int = 0,
    reduce_range: bool = True,
    opset: int | None = None,
    ir_version: int | None = None,
    fit: Fit = "stretch",
) -> Quantized:
    """Writes an ONNX file whose convolutions run in 8 bit (QDQ form), by post-training quantization.

    Weights are signed, by default with one scale per channel. Activations are unsigned with one scale per tensor, whose
    range is the one seen on `images`. Unless the scales are powers of two, channels are equalized first (Nagel et
    al., 2019, https://arxiv.org/abs/1906.04721), and the weights of a channel are rounded together (GPTQ: Frantar et
    al., 2023, https://arxiv.org/abs/2210.17323). Logits
    stay in float32, since 8-bit logits have ties. `edgeseg.OnnxSegmenter` runs the file.

    Args:
        model: A trained float network.
        path: The file, `.onnx`; written completely or not at all.
        images: About a hundred typical photos, given as for `predict`; for several inputs, tuples with one image per
            input.
        size, dynamic, output, preprocess, opset, ir_version, fit: See `export_onnx`; photos of the calibration are
            fitted in the same way. Scales per channel need opset 13 or newer.
        calibration: How ranges follow from the values on `images`: the lowest and highest value ("minmax"), the range
            that loses least information ("entropy"), or without the outermost 0.01 % ("percentile").
        power_of_two: Use symmetric scales that are powers of two, one per tensor, for weights too. The 8-bit networks
            of TI's zoo have them, and Texas Instruments' accelerators need them.
        keep_float: Number of further convolutions that stay in float32: those whose quantization changes most pixels.
        reduce_range: Use 7-bit weights. Without VNNI (x86 before Ice Lake and Zen 4) onnxruntime's sums of 8-bit
            products saturate; for newer processors and for ARM pass False.

    Returns:
        The file, how it differs from the network in float32, and the convolutions that stay in float32.

    Raises:
        ImportError: onnxruntime or onnxscript is missing: `pip install 'edgeseg[onnx]'`.
        OSError: a photo cannot be read, or the folder of `path` does not exist.
        RuntimeError: the float32 file that is quantized differs from the network.
        ValueError: the network was trained for 8 bits, there are no images, the calibration is unknown, `keep_float` is
            negative, or an argument of `export_onnx` does not fit.

    Example:
        >>> import edgeseg
        >>> from edgeseg.deploy.quantize import quantize_onnx
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", channels=32, num_classes=5)
        >>> photos = ["photo.jpg"]  # in practice about a hundred, and a trained network
        >>> done = quantize_onnx(model, "model_int8.onnx", photos, size=(64, 96), dynamic=())
        >>> done.path.name, list(done.agreement)
        ('model_int8.onnx', ['segmentation'])
    """
    require_modules("ONNX files need", ONNX_TOOLS, "onnx")
    check_file(path)
    check_versions(opset, ir_version)
    check_opset_of_scales(opset, power_of_two=power_of_two)
    check_images(images)
    if calibration not in get_args(Calibration):
        raise ValueError(
            f"no calibration named {calibration!r}; the calibrations are {', '.join(get_args(Calibration))}"
        )
    if model.config.quantization is not None:
        raise ValueError(f"{model.name} was trained for 8 bits; export_onnx writes a file with its scales")
    if keep_float < 0:
        raise ValueError(f"keep_float is a number of convolutions, got {keep_float}")
    frames = Prepared(images, as_frame)
    import onnx

    with tempfile.TemporaryDirectory() as name, _quiet():
        folder = Path(name)
        model = suited(model, frames, size, equalize=not power_of_two)
        write = partial(
            export_onnx, model, size=size, dynamic=dynamic, output=output, preprocess=preprocess,
            opset=exporter_opset(opset), fit=fit,
        )  # fmt: skip
        write(folder / "float.onnx")
        as_asked(onnx.load(folder / "float.onnx"), opset, ir_version)  # what cannot be written is known now
        plain = OnnxSegmenter(folder / "float.onnx")
        feeds = Prepared(frames, lambda frame: plain.feed(*frame))
        source = folder / "float.onnx"
        if not power_of_two:
            few = progress_bar(some(frames, ROUNDING_IMAGES), "rounding", "image")
            inputs = (model.prepare(*frame) for frame in few)
            round_weights(model, inputs, levels=64 if reduce_range else 127)
            source = folder / "rounded.onnx"
            write(source)
        quantizer = _Quantizer(model, source, feeds, calibration, power_of_two, reduce_range)
        sensitivity = _sensitivity(quantizer, plain, feeds) if keep_float else {}
        kept = [*quantizer.kept, *list(sensitivity)[:keep_float]]
        with replacing(Path(path)) as temporary:
            quantizer(temporary, without=[*kept, *quantizer.tail])
            _simplify(temporary, opset, ir_version)
            whole = OnnxSegmenter(temporary)
            expected = (plain.session.run(None, feed) for feed in feeds)
            differences, agreement = _compare(expected, whole, progress_bar(feeds, "comparison", "image"))
    return Quantized(Path(path), agreement, differences, sensitivity, tuple(kept))


def _sensitivity(
    quantizer: _Quantizer, plain: OnnxSegmenter, feeds: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """Per convolution, what changes if it alone is quantized, as in `Quantized`; the highest first."""
    few = list(feeds[:SENSITIVITY_IMAGES])
    expected = [plain.session.run(None, feed) for feed in few]
    changes = {}
    for node in progress_bar(quantizer.convolutions, "sensitivity", "convolution"):
        path = quantizer.folder / "one.onnx"
        quantizer(path, only=[node])
        differences, agreement = _compare(expected, OnnxSegmenter(path), few)
        changes[node] = max(1 - agreement[name] if name in agreement else differences[name] for name in differences)
    return dict(sorted(changes.items(), key=lambda item: -item[1]))


def _simplify(path: Path, opset: int | None, ir_version: int | None) -> None:
    import onnx

    file = onnx.load(path)
    simplify(file.graph)
    file = as_asked(file, opset, ir_version)
    onnx.checker.check_model(file)
    onnx.save(file, path)


def check_opset_of_scales(opset: int | None, *, power_of_two: bool) -> None:
    """Raises a ValueError if an opset does not have the scales of an 8-bit file."""
    if opset is not None and opset < 13 and not power_of_two:
        raise ValueError(
            f"scales per channel need opset 13 or newer, got {opset}; power_of_two (--power-of-two) has one per tensor"
        )


class _Quantizer:
    """Quantizes a float file with onnxruntime, beside which it writes its own; calibration happens once.

    Attributes:
        convolutions: Names of the convolutions that may be quantized.
        kept: Names of the last convolutions, which compute logits and stay in float32.
        tail: Names of the nodes after the last products, such as resizes and argmax; they stay in float32 too.
    """

    def __init__(
        self,
        model: Pixel2Pixel,
        file: Path,
        feeds: Sequence[Mapping[str, np.ndarray]],
        calibration: str,
        power_of_two: bool,
        reduce_range: bool,
    ) -> None:
        import onnx
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self.folder, self.feeds, self.calibration = file.parent, feeds, calibration
        self.power_of_two, self.reduce_range = power_of_two, reduce_range
        self.source, self.ranges = self.folder / "prepared.onnx", self.folder / "ranges.json"
        quant_pre_process(file, self.source, skip_symbolic_shape=True)
        graph = onnx.load(self.source).graph
        pixels = pixel_grid(model.preprocess) if not power_of_two else None
        self.overrides = {name: _override(pixels[0], pixels[1]) for name in normalized(graph)} if pixels else {}
        last = last_products(graph, list(model.tasks))
        self.kept = [node.name for node in last if node.op_type == "Conv"]
        self.tail = _tail(graph, last)
        self.convolutions = [n.name for n in graph.node if n.op_type == "Conv" and n.name not in self.kept]

    def __call__(self, path: Path, *, only: Sequence[str] = (), without: Sequence[str] = ()) -> None:
        """Writes the file with `only` these nodes quantized, or all nodes `without` these."""
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        method = {
            "minmax": CalibrationMethod.MinMax,
            "entropy": CalibrationMethod.Entropy,
            "percentile": CalibrationMethod.Percentile,
        }[self.calibration]
        options = CALIBRATION | {"OpTypesToExcludeOutputQuantization": ["MatMul"]}
        if self.power_of_two:
            if not self.ranges.is_file():
                self._calibrate(method)
            self.overrides = _powers_of_two(onnx.load(self.source), self.ranges)
        options["TensorQuantOverrides"] = self.overrides
        quantize_static(
            self.source,
            path,
            _reader(self.feeds),
            quant_format=QuantFormat.QDQ,
            per_channel=not self.power_of_two,
            reduce_range=self.reduce_range and not self.power_of_two,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=list(only),
            nodes_to_exclude=list(without),
            calibrate_method=method,
            extra_options=options,
            calibration_cache_path=self.ranges,
        )

    def _calibrate(self, method: Any) -> None:
        """Measures the ranges without keeping a file."""
        from onnxruntime.quantization import QuantType, quantize_static

        with tempfile.TemporaryDirectory() as folder:
            quantize_static(
                self.source,
                Path(folder) / "unused.onnx",
                _reader(self.feeds),
                activation_type=QuantType.QUInt8,
                calibrate_method=method,
                extra_options=CALIBRATION,
                calibration_cache_path=self.ranges,
            )


def _reader(feeds: Sequence[Mapping[str, np.ndarray]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    def shown(part: Sequence[Mapping[str, np.ndarray]]) -> Iterator[Mapping[str, np.ndarray]]:
        yield from progress_bar(part, "calibration", "image")  # from the first image on

    class Reader(CalibrationDataReader):
        """Passes the inputs of one run at a time to onnxruntime."""

        def __init__(self) -> None:
            self.feeds = shown(feeds)

        def __len__(self) -> int:
            return len(feeds)

        def set_range(self, start_index: int, end_index: int) -> None:
            """Starts again with a part of the inputs."""
            self.feeds = shown(feeds[start_index:end_index])

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            """The inputs of the next run; None at the end."""
            return next(self.feeds, None)

    return Reader()


def _powers_of_two(file: Any, ranges: Path) -> dict[str, list[dict[str, Any]]]:
    """Power-of-two scales of all tensors: unsigned if no value is negative, otherwise symmetric about zero."""
    from onnx import numpy_helper
    from onnxruntime.quantization.calibrate import load_tensors_data

    def limit(top: float) -> float:
        return 2.0 ** math.ceil(math.log2(max(top, 2.0**-16)))

    overrides = {}
    for name, data in load_tensors_data(ranges).data.items():
        low, high = (float(np.asarray(value).reshape(-1)[0]) for value in data.range_value)
        signed = low < 0
        overrides[name] = _override(limit(max(-low, high)) / (128 if signed else 256), 128 if signed else 0)
    weights = {node.input[1] for node in file.graph.node if node.op_type in ("Conv", "MatMul")}
    for tensor in file.graph.initializer:
        if tensor.name in weights:
            top = float(np.abs(numpy_helper.to_array(tensor)).max())
            overrides[tensor.name] = _override(limit(top) / 128, 0, signed=True)
    return overrides


def _override(scale: float, zero: int, *, signed: bool = False) -> list[dict[str, Any]]:
    """The scale and zero point of a tensor, in the form of onnxruntime's TensorQuantOverrides."""
    from onnxruntime.quantization import QuantType

    kind = QuantType.QInt8 if signed else QuantType.QUInt8
    point = np.array(zero, np.int8 if signed else np.uint8)
    return [{"quant_type": kind, "scale": np.array(scale, np.float32), "zero_point": point}]


def equalized(model: Pixel2Pixel, frames: Sequence[tuple[ImageLike, ...]], size: Sequence[int] | None) -> Pixel2Pixel:
    """A copy that suits 8 bit better, where one range per tensor has to fit all channels.

    Args:
        model: A float network.
        frames: Typical photos, one image per input.
        size: Height and width that photos are resized to; None for that of the weights.
    """
    model = copy.deepcopy(model).eval()
    if size is not None:
        model.configure(preprocess=replace(model.preprocess, size=Ends.of(model, size, (), "logits", False).size))
    equalize_channels(model, (model.prepare(*frame) for frame in progress_bar(frames, "equalization", "image")))
    return model


def suited(
    model: Pixel2Pixel, frames: Sequence[tuple[ImageLike, ...]], size: Sequence[int] | None, *, equalize: bool
) -> Pixel2Pixel:
    """Copies a network and prepares it for 8-bit ONNX: equalizes channels, makes last convolutions matrix products."""
    model = equalized(model, frames, size) if equalize else copy.deepcopy(model).eval()
    for path, conv in last_convolutions(model).items():
        if is_pixelwise(conv):
            model.set_submodule(path, PixelwiseConv2d(conv))
    return model


def last_products(graph: Any, outputs: Sequence[str]) -> list[Any]:
    """The last convolutions or matrix products before the outputs; several where scores are added."""
    producers = {name: node for node in graph.node for name in node.output}
    wanted, last = [*outputs], {}
    while wanted:
        node = producers.get(wanted.pop())
        if node is None or node.op_type == "Shape":  # a constant, or the size that scores are resized to
            continue
        if node.op_type in ("Conv", "MatMul"):
            last[node.name] = node
        else:
            wanted += node.input
    return list(last.values())


def _tail(graph: Any, last: Sequence[Any]) -> list[str]:
    """Names of the nodes after the last products, such as resizes and argmax."""
    reached = {name for node in last for name in node.output}
    tail = []
    for node in graph.node:
        if reached & set(node.input):
            tail.append(node.name)
            reached |= set(node.output)
    return tail


def _compare(
    expected: Iterable[Sequence[np.ndarray]], file: OnnxSegmenter, feeds: Iterable[Mapping[str, np.ndarray]]
) -> tuple[dict[str, float], dict[str, float]]:
    """What `compare_8_bit` finds between the outputs of the file in float32 and those of one in 8 bit."""
    found = (file.session.run(None, feed) for feed in feeds)
    return compare_8_bit(file.tasks, zip(expected, found, strict=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the quantizer of onnxruntime, which prints and logs to the root logger; errors are still logged."""
    with quiet_printing(), quiet_logging(logging.WARNING):
        yield
