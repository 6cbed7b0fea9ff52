"""Exports files of torch.export."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeseg.deploy.facts import facts_of
from edgeseg.deploy.graph import DIMENSIONS, Ends, Graph, Output, one_at_a_time, trace_graph
from edgeseg.deploy.verify import Exported, verify
from edgeseg.machine.errors import ExportError
from edgeseg.machine.files import check_file, replacing
from edgeseg.networks.pixel2pixel import Pixel2Pixel


def write(
    model: Pixel2Pixel, path: str | os.PathLike[str], *, precision: str, images: object, **options: Any
) -> Exported:
    """Writes the format for `edgeseg.export`; its only precision is float32."""
    return export_program(model, path, **options)


@one_at_a_time
def export_program(
    model: Pixel2Pixel,
    path: str | os.PathLike[str],
    *,
    size: Sequence[int] | None = None,
    dynamic: Sequence[str] = DIMENSIONS,
    output: Output = "logits",
    preprocess: bool = False,
) -> Exported:
    """Writes a .pt2 file for `torch.export.load`, which needs neither edgeseg nor TorchScript.

    The file is run against the network and kept only if they agree. Its module returns a tuple with one tensor per
    task.

    Args:
        model: Exported as it is in evaluation mode.
        path: The file, `.pt2`.
        size, dynamic, output, preprocess: See `export_onnx`.

    Returns:
        The file, the sizes at which it was compared, and the differences.

    Raises:
        ValueError: a dimension or the output is unknown, or the model is not in float32.
        RuntimeError: the outputs of the file differ from those of the network, or the file does not take the other
            sizes that it is compared at; it is not kept.

    Example:
        >>> import edgeseg, torch
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", channels=32, num_classes=5)
        >>> done = edgeseg.export_program(model, "model.pt2", size=(64, 96))
        >>> network = torch.export.load("model.pt2").module()
        >>> network(torch.zeros(1, 3, 128, 160))[0].shape
        torch.Size([1, 5, 128, 160])
    """
    check_file(path)
    graph = Graph(copy.deepcopy(model).cpu().eval(), Ends.of(model, size, dynamic, output, preprocess))
    program = trace_graph(graph)
    with replacing(Path(path)) as temporary:
        content = BytesIO()  # torch.export.save warns of a path without the suffix .pt2
        torch.export.save(program, content, extra_files=dict(facts_of(graph, size, "stretch")))
        temporary.write_bytes(content.getvalue())
        module = torch.export.load(BytesIO(temporary.read_bytes())).module()

        def run(inputs: Sequence[Tensor]) -> list[np.ndarray]:
            height, width = inputs[-1].shape[-2:]
            try:
                outputs = module(*inputs)
            except AssertionError as error:  # what torch.export assumed of the sizes does not hold
                raise ExportError(
                    f"the file does not take images of {height}x{width}, as the network does: export at a larger size, "
                    f"or at one size alone, with dynamic=() (--fixed): {error}"
                ) from error
            return [tensor.numpy() for tensor in outputs]

        return verify(graph, run, Path(path))
