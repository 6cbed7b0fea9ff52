"""Compares exported files with their networks; a file is kept only if its outputs agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeseg.deploy.graph import Graph, random_inputs
from edgeseg.machine.errors import ExportError
from edgeseg.machine.processor import saturates_in_8_bit
from edgeseg.machine.terminal import progress_bar
from edgeseg.networks.modes import evaluating
from edgeseg.predict.segmenter import FileSegmenter
from edgeseg.spec import Task
from edgeseg.tasks import kind_of

Run = Callable[[Sequence[Tensor]], Sequence[np.ndarray]]  # from one tensor per input to one array per task

# Largest allowed difference: for values in standard deviations of the output, for labels as a share of pixels.
TOLERANCE = {"values": 1e-3, "labels": 1e-3}
# For 8 bit, where a value between two steps may be rounded to either; the difference of values is their mean.
TOLERANCE_8_BIT = {"values": 0.05, "labels": 0.15}
# For weights in float16: rounding the weights of the zoo's FPN in torch already changes a value by up to 0.03.
TOLERANCE_16_BIT = {"values": 0.1, "labels": 0.02}
SATURATES = (
    "; sums of 8-bit products saturate on this processor, which has no VNNI: train with weight_bits=7 "
    "(--weight-bits 7), or export on a processor with VNNI for others like it"
)

# For files that were quantized after training: the smallest share of pixels that keep their class, and the largest mean
# difference of values, in standard deviations.
KEPT = 0.8
MEAN_OF_8_BIT = 0.25


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Args:
        path: The file that was written.
        sizes: Shapes [N, C, H, W] of the photos on which the file was compared with the network.
        differences: Per task, the largest difference (for 8 bits the mean) of logits or values, in standard deviations
            of the output; for labels, the share of pixels whose class differs.
        agreement: Per task with classes of an 8-bit file, the share of the pixels of the calibration images that keep
            the class that the network in float32 gives them.
        was_run: Whether the file was run; False if its runtime does not exist on this system.
    """

    path: Path
    sizes: tuple[tuple[int, ...], ...]
    differences: Mapping[str, float]
    agreement: Mapping[str, float] = field(default_factory=dict)
    was_run: bool = True


def run_of(file: FileSegmenter) -> Run:
    """Runs an exported file on tensors, for `verify` and `verify_8_bit`."""
    return lambda tensors: list(file.run(*(tensor.numpy() for tensor in tensors)).values())


@torch.inference_mode()
def verify(
    graph: Graph,
    run: Run,
    path: Path,
    *,
    tolerance: Mapping[str, float] | None = None,
) -> Exported:
    """Compares a file with the network that it was made from.

    Args:
        graph: What the file contains.
        run: Runs the file on one tensor per input; returns one array per task.
        path: The name that the file will get.
        tolerance: Largest allowed difference of "values" and of "labels"; by default that of float32, or of 8 bit for
            a network that was trained for 8 bits.

    Returns:
        The result of the export.

    Raises:
        RuntimeError: the outputs differ by more than the tolerance.
    """
    quantization = graph.model.config.quantization
    quantized = quantization is not None
    tolerance = tolerance or (TOLERANCE_8_BIT if quantized else TOLERANCE)
    worst = dict.fromkeys(graph.model.tasks, 0.0)
    for shape in graph.ends.sizes:
        inputs = random_inputs(graph, shape)
        with evaluating(graph):
            outputs = graph(*inputs)
        for name, expected, output in zip(worst, outputs, run([image.cpu() for image in inputs]), strict=True):
            value = difference(expected.cpu().numpy(), output, np.mean if quantized else np.max)
            worst[name] = max(worst[name], value)
            limit = tolerance["values" if expected.is_floating_point() else "labels"]
            if not value <= limit:
                saturates = quantization is not None and quantization.weight_bits == 8 and saturates_in_8_bit()
                unit = "standard deviations" if expected.is_floating_point() else "of the pixels"
                raise ExportError(
                    f"{name} in the exported file differs from the network by {value:.2g} {unit}, more than {limit:.0e}"
                    + (SATURATES if saturates else "")
                )
    channels = graph.model.in_channels[-1]
    return Exported(path, tuple((batch, channels, *size) for batch, *size in graph.ends.sizes), worst)


@torch.inference_mode()
def verify_8_bit(
    graph: Graph,
    run: Run,
    path: Path,
    inputs: Sequence[Sequence[Tensor]],
) -> Exported:
    """Compares a file that was quantized after training with the network in float32, on the calibration images.

    Args:
        graph: The network in float32.
        run: Runs the file on one tensor per input; returns one array per task.
        path: The name that the file will get.
        inputs: Per calibration image, one tensor per input of the file.

    Returns:
        The result of the export, with `agreement`.

    Raises:
        RuntimeError: fewer pixels keep their class than `KEPT`, or values differ by more than `MEAN_OF_8_BIT`.
    """
    shapes: dict[tuple[int, ...], None] = {}

    def outputs() -> Iterator[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]]:
        for images in progress_bar(inputs, "comparison", "image"):
            shapes[tuple(images[-1].shape)] = None
            with evaluating(graph):
                before = [output.cpu().numpy() for output in graph(*images)]
            yield before, run([image.cpu() for image in images])

    means, agreement = compare_8_bit(graph.model.tasks, outputs())
    for name in means:
        if name in agreement and not agreement[name] >= KEPT:
            raise ExportError(
                f"only {100 * agreement[name]:.1f} % of the pixels keep their class of {name} in the 8-bit file, fewer "
                f"than {100 * KEPT:.0f} %; calibrate on photos like those that the network will see, or train it for 8 "
                f"bits: edgeseg train --quantize"
            )
        if name not in agreement and not means[name] <= MEAN_OF_8_BIT:
            raise ExportError(
                f"{name} in the 8-bit file differs from the network by {means[name]:.2g} standard deviations in the "
                f"mean, more than {MEAN_OF_8_BIT}"
            )
    return Exported(path, tuple(shapes), means, agreement)


def compare_8_bit(
    tasks: Mapping[str, Task], outputs: Iterable[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Compares what an 8-bit file and its network in float32 make of some images.

    Args:
        tasks: The tasks by name.
        outputs: Per image, one array per task from the network and one from the file.

    Returns:
        Per task the mean `difference`, and per task with classes the share of pixels that keep their class.
    """
    kinds = {name: kind_of(task) for name, task in tasks.items()}
    same: dict[str, list[float]] = {name: [] for name, kind in kinds.items() if kind.has_classes}
    differences: dict[str, list[float]] = {name: [] for name in kinds}
    for expected, found in outputs:
        for name, before, after in zip(kinds, expected, found, strict=True):
            differences[name].append(difference(before, after, np.mean))
            if name in same and before.shape == after.shape:
                if before.dtype.kind == "f":
                    before, after = (np.stack([kinds[name].map(e, e.shape[1:]) for e in x]) for x in (before, after))
                same[name].append(float((before == after).mean()))
    agreement = {name: float(np.mean(shares)) if shares else 0.0 for name, shares in same.items()}
    return {name: float(np.mean(values)) for name, values in differences.items()}, agreement


def difference(expected: np.ndarray, output: np.ndarray, overall: Callable[[np.ndarray], Any] = np.max) -> float:
    """The share of labels that differ, or the largest (or `overall`) difference of values in standard deviations."""
    if expected.shape != output.shape:
        return float("inf")
    if expected.dtype.kind in "iu":
        return float((expected != output).mean())
    return float(overall(np.abs(expected - output)) / max(float(expected.std()), 1e-12))
