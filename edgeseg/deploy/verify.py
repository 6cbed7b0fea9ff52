"""Compares exported files with their networks; a file is kept only if its outputs agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeseg.deploy.graph import Graph, random_inputs
from edgeseg.networks.modes import evaluating

# Largest allowed difference: for values in standard deviations of the output, for labels as a share of pixels.
TOLERANCE = {"values": 1e-3, "labels": 1e-3}
# For 8 bit, where a value between two steps may be rounded to either; the difference of values is their mean.
TOLERANCE_8_BIT = {"values": 0.05, "labels": 0.15}


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Args:
        path: The file that was written.
        sizes: Shapes [N, C, H, W] of the photos on which the file was compared with the network.
        differences: Per task, the largest difference (for 8 bit the mean) of logits or values, in standard deviations
            of the output; for labels, the share of pixels whose class differs.
    """

    path: Path
    sizes: tuple[tuple[int, ...], ...]
    differences: Mapping[str, float]


@torch.inference_mode()
def verify(graph: Graph, run: Callable[[Sequence[Tensor]], Sequence[np.ndarray]], path: Path) -> Exported:
    """Compares a file with the network that it was made from.

    Args:
        graph: What the file contains.
        run: Runs the file on one tensor per input; returns one array per task.
        path: The name that the file will get.

    Returns:
        The result of the export.

    Raises:
        RuntimeError: the outputs differ by more than the tolerance.
    """
    quantized = graph.model.config.quantization is not None
    tolerance = TOLERANCE_8_BIT if quantized else TOLERANCE
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
                raise RuntimeError(
                    f"{name} in the exported file differs from the network by {value:.2g}, more than {limit:.0e}"
                )
    channels = graph.model.in_channels[-1]
    return Exported(path, tuple((batch, channels, *size) for batch, *size in graph.ends.sizes), worst)


def difference(expected: np.ndarray, output: np.ndarray, overall: Callable[[np.ndarray], Any] = np.max) -> float:
    """The share of labels that differ, or the largest (or `overall`) difference of values in standard deviations."""
    if expected.shape != output.shape:
        return float("inf")
    if expected.dtype.kind in "iu":
        return float((expected != output).mean())
    return float(overall(np.abs(expected - output)) / max(float(expected.std()), 1e-12))
