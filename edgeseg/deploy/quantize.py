"""Post-training quantization to 8 bit, for onnxruntime and for devices that read QDQ files."""

from __future__ import annotations

import copy
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from edgeseg.deploy.export import DIMENSIONS, Output, export_onnx
from edgeseg.deploy.grids import normalized, simplify
from edgeseg.machine.files import replacing
from edgeseg.networks.equalize import equalize_channels
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.pixelwise import PixelwiseConv2d, is_pixelwise, last_convolutions
from edgeseg.networks.quantized import pixel_grid
from edgeseg.predict.onnx import OnnxSegmenter
from edgeseg.tasks import kind_of
from edgeseg.vision.images import ImageLike

Calibration = Literal["minmax", "entropy", "percentile"]
Frame = ImageLike | tuple[ImageLike, ...]
SENSITIVITY_IMAGES = 4
# Else onnxruntime holds every tensor of every image at once, gigabytes each ten photos. It is for all calibrations.
ONE_AT_A_TIME = {"CalibStridedMinMax": 1}


@dataclass(frozen=True)
class Quantized:
    """What was written.

    Args:
        path: The file.
        agreement: Of each segmentation task the share of pixels, of the calibration images, that keep their class.
        sensitivity: Of each convolution that was tried the share of pixels that change when it alone is quantized,
            most first; empty where none was tried.
        kept_float: Convolutions that were left in float32.
    """

    path: Path
    agreement: Mapping[str, float]
    sensitivity: Mapping[str, float]
    kept_float: tuple[str, ...]


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
) -> Quantized:
    """Writes an ONNX file whose convolutions run in 8 bit (QDQ form), for `edgeseg.OnnxSegmenter`.

    Weights are signed, by default with a scale for each channel; activations unsigned with one scale, whose range is
    that seen on `images`, and channels are equalized, see `edgeseg.networks.equalize`. Logits stay in float32: those of
    8 bit have ties.

    Args:
        model: Trained.
        path: `.onnx`; written whole or not at all.
        images: Typical photos, a hundred or so; of several inputs a tuple each. As of `predict`.
        size, dynamic, output, preprocess: As of `export_onnx`.
        calibration: How ranges follow from what is seen: lowest and highest value, the least loss of information
            (entropy), or leaving out the outermost 0.01 % (percentile).
        power_of_two: Symmetric scales that are powers of two, one a tensor, for weights too: what the original zoo's
            8-bit networks have and Texas Instruments' accelerators want.
        keep_float: That many further convolutions stay in float32: those that alone change most pixels.
        reduce_range: Weights of 7 bit. Without VNNI (x86 before Ice Lake and Zen 4) onnxruntime's 8-bit products
            saturate; on newer processors and on ARM pass False.

    Raises:
        ImportError: without onnxruntime and onnxscript: `pip install edgeseg[onnx]`.
        ValueError: no images, an unknown calibration.
    """
    if not len(images):
        raise ValueError("quantization needs some images to see the ranges of; got none")
    if calibration not in get_args(Calibration):
        raise ValueError(f"no calibration named {calibration!r}; there are {', '.join(get_args(Calibration))}")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        import onnx
        from onnxruntime.quantization.shape_inference import quant_pre_process

        exported = Path(folder) / "float.onnx"
        frames = [image if isinstance(image, tuple) else (image,) for image in images]
        model = _prepared(model, frames, size, equalize=not power_of_two)
        export_onnx(model, exported, size=size, dynamic=dynamic, output=output, preprocess=preprocess)
        segmenter = OnnxSegmenter(exported)
        feeds = [segmenter.feed(*frame) for frame in frames]
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(exported, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        last = [_last_product(graph, name) for name in model.tasks]
        kept = [node.name for node in last if node.op_type == "Conv"]
        pixels = pixel_grid(model.preprocess) if not power_of_two else None
        overrides = {name: _override(pixels[0], pixels[1]) for name in normalized(graph)} if pixels else {}
        run = _Quantizer(prepared, Path(folder), feeds, calibration, power_of_two, reduce_range, overrides)
        expected = [segmenter.session.run(None, feed) for feed in feeds[:SENSITIVITY_IMAGES]]
        sensitivity: dict[str, float] = {}
        if keep_float:
            for node in [node.name for node in graph.node if node.op_type == "Conv" and node.name not in kept]:
                run(Path(folder) / "one.onnx", only=[node])
                found = OnnxSegmenter(Path(folder) / "one.onnx")
                sensitivity[node] = 1 - min(_agreement(found, feeds, expected).values(), default=1.0)
            sensitivity = dict(sorted(sensitivity.items(), key=lambda item: -item[1]))
        kept += list(sensitivity)[:keep_float]
        with replacing(Path(path)) as temporary:
            run(temporary, without=[*kept, *_tail(graph, last)])
            file = onnx.load(temporary)
            simplify(file.graph)
            onnx.save(file, temporary)
            expected = [segmenter.session.run(None, feed) for feed in feeds]
            agreement = _agreement(OnnxSegmenter(temporary), feeds, expected)
    return Quantized(Path(path), agreement, sensitivity, tuple(kept))


class _Quantizer:
    """onnxruntime's static quantization of one file, calibrated once."""

    def __init__(
        self,
        source: Path,
        folder: Path,
        feeds: Sequence[Mapping[str, np.ndarray]],
        calibration: str,
        power_of_two: bool,
        reduce_range: bool,
        overrides: Mapping[str, list[dict[str, Any]]],
    ) -> None:
        self.overrides = dict(overrides)
        self.source, self.feeds, self.calibration = source, feeds, calibration
        self.power_of_two, self.reduce_range = power_of_two, reduce_range
        self.ranges = folder / "ranges.json"

    def __call__(self, path: Path, *, only: Sequence[str] = (), without: Sequence[str] = ()) -> None:
        """Writes the file with only some nodes quantized, or all without some."""
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        method = {
            "minmax": CalibrationMethod.MinMax,
            "entropy": CalibrationMethod.Entropy,
            "percentile": CalibrationMethod.Percentile,
        }[self.calibration]
        options: dict[str, Any] = {"CalibPercentile": 99.99} if self.calibration == "percentile" else {}
        options |= ONE_AT_A_TIME | {"OpTypesToExcludeOutputQuantization": ["MatMul"]}
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
        """Only the ranges."""
        from onnxruntime.quantization import QuantType, quantize_static

        with tempfile.TemporaryDirectory() as folder:
            quantize_static(
                self.source,
                Path(folder) / "unused.onnx",
                _reader(self.feeds),
                activation_type=QuantType.QUInt8,
                calibrate_method=method,
                extra_options=ONE_AT_A_TIME,
                calibration_cache_path=self.ranges,
            )


def _reader(feeds: Sequence[Mapping[str, np.ndarray]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """One image at a time."""

        def __init__(self) -> None:
            self.feeds = iter(feeds)

        def __len__(self) -> int:
            return len(feeds)

        def set_range(self, start_index: int, end_index: int) -> None:
            """What comes next."""
            self.feeds = iter(feeds[start_index:end_index])

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            """The next one, None at the end."""
            return next(self.feeds, None)

    return Reader()


def _powers_of_two(file: Any, ranges: Path) -> dict[str, list[dict[str, Any]]]:
    """Scales of all tensors: unsigned where nothing is below zero, else symmetric about it."""
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
    """As onnxruntime's TensorQuantOverrides has it."""
    from onnxruntime.quantization import QuantType

    kind = QuantType.QInt8 if signed else QuantType.QUInt8
    point = np.array(zero, np.int8 if signed else np.uint8)
    return [{"quant_type": kind, "scale": np.array(scale, np.float32), "zero_point": point}]


def _prepared(
    model: Pixel2Pixel, frames: Sequence[tuple[ImageLike, ...]], size: Sequence[int] | None, *, equalize: bool
) -> Pixel2Pixel:
    """A copy that suits 8 bit better: its channels equalized, its last convolutions as products of matrices."""
    model = copy.deepcopy(model).eval()
    if size is not None:
        model.configure(preprocess=replace(model.preprocess, size=(size[0], size[1])))
    if equalize:
        equalize_channels(model, (model.prepare(*frame) for frame in frames))
    for path, conv in last_convolutions(model).items():
        if is_pixelwise(conv):
            model.set_submodule(path, PixelwiseConv2d(conv))
    return model


def _last_product(graph: Any, output: str) -> Any:
    """The node that an output comes from by way of no other convolution or product."""
    makers = {name: node for node in graph.node for name in node.output}
    node = makers[output]
    while node.op_type not in ("Conv", "MatMul"):
        node = makers[node.input[0]]
    return node


def _tail(graph: Any, last: Sequence[Any]) -> list[str]:
    """What comes after the last products: resizes and argmax, which stay in float32 too."""
    reached = {name for node in last for name in node.output}
    tail = []
    for node in graph.node:
        if reached & set(node.input):
            tail.append(node.name)
            reached |= set(node.output)
    return tail


def _agreement(
    segmenter: OnnxSegmenter, feeds: Sequence[Mapping[str, np.ndarray]], expected: Sequence[Sequence[np.ndarray]]
) -> dict[str, float]:
    """Of each segmentation task the share of pixels that have the class of the float file."""
    same: dict[str, list[float]] = {name: [] for name, task in segmenter.tasks.items() if kind_of(task).has_classes}
    for feed, before in zip(feeds, expected, strict=False):
        after = segmenter.session.run(None, feed)
        for name, a, b in zip(segmenter.tasks, before, after, strict=True):
            if name in same:
                labels = [x if segmenter.output.endswith("labels") else x.argmax(axis=1) for x in (a, b)]
                same[name].append(float((labels[0] == labels[1]).mean()))
    return {name: float(np.mean(values)) for name, values in same.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's quantizer logs to the root logger, and prints, what is said here in a better way."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logger.setLevel(level)
