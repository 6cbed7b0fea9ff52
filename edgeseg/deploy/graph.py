"""The content of an exported file: the network between the chosen ends, traced by torch.export."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, ParamSpec, TypeVar, get_args

import torch
from torch import Tensor, nn

from edgeseg.arguments import as_size
from edgeseg.networks.modes import EXPORTING, evaluating
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.tasks import kind_of

P = ParamSpec("P")
R = TypeVar("R")
Output = Literal["logits", "labels", "small_logits", "small_labels"]
AXES = {0: "batch", 2: "height", 3: "width"}
DIMENSIONS = tuple(AXES.values())
DEFAULT_SIZE = (384, 768)


@dataclass(frozen=True)
class Ends:
    """The input and output of a file, and the dimensions that may change from call to call.

    Args:
        size: Height and width of the example images; the only size of a file with fixed dimensions.
        dynamic: Any of "batch", "height" and "width".
        output: See `edgeseg.export_onnx`.
        preprocess: Whether the file takes uint8 pixels and normalizes them.
        smallest: Smallest height and width that the file takes, if they may change.
        coarsest: Stride of the coarsest feature.

    Raises:
        ValueError: a dimension or the output is unknown, or the size is too small.
    """

    size: tuple[int, int]
    dynamic: tuple[str, ...]
    output: Output
    preprocess: bool
    smallest: int = 1
    coarsest: int = 1

    def __post_init__(self) -> None:
        unknown = [name for name in self.dynamic if name not in DIMENSIONS]
        if unknown:
            raise ValueError(f"no dimension named {', '.join(unknown)}; the dimensions are {', '.join(DIMENSIONS)}")
        if self.output not in get_args(Output):
            raise ValueError(f"no output named {self.output!r}; the outputs are {', '.join(get_args(Output))}")
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size must be a positive height and width, got {self.size}")
        if self.dynamic and min(self.size) < self.smallest:
            raise ValueError(
                f"size is at least {self.smallest}x{self.smallest} for this encoder if sizes may change, got "
                f"{self.size[0]}x{self.size[1]}"
            )

    @classmethod
    def of(
        cls,
        model: Pixel2Pixel,
        size: int | Sequence[int] | None,
        dynamic: Sequence[str],
        output: Output,
        preprocess: bool,
    ) -> Ends:
        """The ends for a model; the size is by default that which its weights were trained for.

        Raises:
            ValueError: the model is not in float32, a dimension or the output is unknown, or the size is not positive.
        """
        dtype = next(model.parameters()).dtype
        if dtype != torch.float32:
            raise ValueError(f"{model.name} is in {dtype}; files are exported in float32: call model.float() first")
        if isinstance(dynamic, str) or not isinstance(dynamic, Collection):
            raise ValueError(f"dynamic is a list of dimensions, such as ('height', 'width'), got {dynamic!r}")
        sides = as_size("size", size if size is not None else model.preprocess.size or DEFAULT_SIZE)
        smallest = max(int(getattr(model.encoder, "minimum", 0)), 1)
        coarsest = max(getattr(model.encoder, "strides", None) or [1])
        return cls(sides, tuple(dynamic), output, preprocess, smallest, coarsest)

    @property
    def example(self) -> tuple[int, int, int]:
        """Batch, height and width of the example images.

        Where they may change, there are two images, and two cells of the coarsest feature in height and width, since
        torch.export takes lengths of 1 as fixed.
        """
        lengths = [
            max(length, 2 * self.coarsest) if name in self.dynamic else length
            for name, length in zip(DIMENSIONS[1:], self.size, strict=True)
        ]
        return (2 if "batch" in self.dynamic else 1, lengths[0], lengths[1])

    @property
    def sizes(self) -> list[tuple[int, int, int]]:
        """Batch, height and width at which a file is compared.

        These are the example, the size that was asked for, and a smaller and a larger odd size.
        """
        batch, height, width = self.example
        one = 1 if "batch" in self.dynamic else batch
        others = [
            (
                one,
                max(round(height * scale) // 2 * 2 + 5, self.smallest) if "height" in self.dynamic else height,
                max(round(width * scale) // 2 * 2 + 3, self.smallest) if "width" in self.dynamic else width,
            )
            for scale in (0.5, 1.25)
        ]
        asked = [(one, *self.size)] if self.size != (height, width) else []
        return list(dict.fromkeys([self.example, *asked, *others]))


class Graph(nn.Module):
    """The network between the chosen ends. Its output is a tuple with one tensor per task."""

    def __init__(self, model: Pixel2Pixel, ends: Ends) -> None:
        super().__init__()
        self.model, self.ends = model, ends

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """One tensor per input -> one tensor per task."""
        size = images[-1].shape[-2:]
        inputs = [self.model.preprocess.normalize(image) for image in images] if self.ends.preprocess else images
        outputs = []
        for name, logits in self.model.decode(*inputs).items():
            if not self.ends.output.startswith("small"):
                # Not `resize`, which decides while it is traced whether it has anything to do, for all sizes.
                logits = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
            if self.ends.output.endswith("labels"):
                logits = kind_of(self.model.tasks[name]).in_graph(logits)
            outputs.append(logits)
        return tuple(outputs)


def one_at_a_time(export: Callable[P, R]) -> Callable[P, R]:
    """Lets a function that traces networks wait for other threads: torch.export changes the process while it works."""

    @functools.wraps(export)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with EXPORTING:
            return export(*args, **kwargs)

    return alone


def trace_graph(graph: Graph) -> torch.export.ExportedProgram:
    """Traces a graph with torch.export, in evaluation mode."""
    images = random_inputs(graph, graph.ends.example)
    dims = {axis: torch.export.Dim.DYNAMIC for axis, name in AXES.items() if name in graph.ends.dynamic}
    with torch.no_grad(), evaluating(graph):
        return torch.export.export(graph, tuple(images), dynamic_shapes={"images": tuple(dims for _ in images)})


def random_inputs(graph: Graph, shape: tuple[int, int, int]) -> list[Tensor]:
    """Smooth noise in the form that a file takes. Plain noise would be averaged away within the network.

    Args:
        graph: The content of the file.
        shape: Batch, height and width.
    """
    generator = torch.Generator().manual_seed(0)
    device = next(graph.model.parameters()).device
    inputs = []
    for channels in graph.model.in_channels:
        coarse = torch.rand(shape[0], channels, 8, 8, generator=generator) * 255
        pixels = nn.functional.interpolate(coarse, size=shape[1:], mode="bicubic").clamp(0, 255).to(torch.uint8)
        inputs.append((pixels if graph.ends.preprocess else graph.model.preprocess.normalize(pixels)).to(device))
    return inputs
