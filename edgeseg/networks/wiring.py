"""The graph of a network: which operator and which module produces each tensor, and which consume it.

It is recorded in one pass of the network in evaluation mode, so it holds whatever joins the modules: sums,
concatenations, functional activations. Folding, equalization, quantization and the reader of ONNX weights use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgeseg.networks.modes import EXPORTING, evaluating

if TYPE_CHECKING:
    from edgeseg.networks.pixel2pixel import Pixel2Pixel

PROBE_SIZE = 256  # at least twice the coarsest stride of any network


@dataclass(eq=False)
class Op:
    """One call of an operator of PyTorch.

    Args:
        kind: Name of the operator, such as "aten.convolution".
        inputs: Numbers of the values that it takes, without parameters and buffers.
        outputs: Numbers of the values that it returns.
        parameters: Names of the parameters that it takes, in their order.
        arguments: All its arguments.
        results: The tensors that it returned.
    """

    kind: str
    inputs: list[int]
    outputs: list[int]
    parameters: list[str]
    arguments: tuple[Any, ...]
    results: list[Tensor]

    @property
    def module(self) -> str:
        """Name of the module whose first parameter the operator takes; "" for an operator without parameters."""
        return self.parameters[0].rpartition(".")[0] if self.parameters else ""


@dataclass(eq=False)
class Call:
    """One call of a module.

    Args:
        name: Name of the module.
        module: The module.
        inputs: Numbers of the values that it takes.
        output: Number of the value that it returns; None if it does not return a single tensor.
    """

    name: str
    module: nn.Module
    inputs: list[int]
    output: int | None


@dataclass
class Wiring:
    """The graph of a network. Values are tensors, numbered in the order in which they arise.

    Attributes:
        images: Numbers of the images.
        outputs: Numbers of the logits, by task.
        ops: Operators in the order of their calls.
        calls: Modules in the order in which their calls end.
        producers: For each value, the operator that returns it.
        consumers: For each value, the operators that take it.
    """

    images: list[int] = field(default_factory=list)
    outputs: dict[str, int] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    producers: dict[int, Op] = field(default_factory=dict)
    consumers: dict[int, list[Op]] = field(default_factory=dict)

    def only_consumer(self, value: int) -> Op | None:
        """The operator that takes a value, if there is exactly one and the network does not return the value."""
        consumers = self.consumers.get(value, [])
        return consumers[0] if len(consumers) == 1 and value not in self.outputs.values() else None

    def calls_of(self, name: str) -> int:
        """Counts the calls of operators with the parameters of a module."""
        return sum(op.module == name for op in self.ops)


def trace(model: Pixel2Pixel, images: Sequence[Tensor] | None = None) -> Wiring:
    """Records the graph of a network in one pass of `model.decode`; the network stays as it is.

    Args:
        model: In any mode; traced in evaluation mode.
        images: One tensor [N, C, H, W] per input; by default grey images of 256x256 pixels.

    Returns:
        The graph.
    """
    if images is None:
        like = next(model.parameters())
        images = [torch.zeros(1, channels, PROBE_SIZE, PROBE_SIZE).to(like) for channels in model.config.in_channels]
    recorder = _Recorder(model)
    wiring = recorder.wiring
    wiring.images = [recorder.number(image) for image in images]
    handles = []
    for name, module in model.named_modules():
        # Inputs are numbered before the call, since an operator in place gives them new numbers.
        handles.append(module.register_forward_pre_hook(recorder.enters))
        handles.append(module.register_forward_hook(recorder.called(name, module)))
    try:
        # In inference mode PyTorch would not break operators such as conv2d down into aten.convolution.
        with EXPORTING, torch.inference_mode(False), torch.no_grad(), evaluating(model), recorder:
            outputs = model.decode(*images)
    finally:
        for handle in handles:
            handle.remove()
    wiring.outputs = {name: recorder.number(logits) for name, logits in outputs.items()}
    return wiring


class _Recorder(TorchDispatchMode):
    """Sees every operator while it is active. Tensors are kept alive, so that none is taken for another."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.wiring = Wiring()
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.buffers = {id(buffer) for buffer in model.buffers()}
        self.numbers: dict[int, int] = {}
        self.alive: list[Tensor] = []
        self.entered: list[list[int]] = []

    def number(self, tensor: Tensor, *, new: bool = False) -> int:
        """The number of the value that a tensor holds now; an operator in place gives it a new one."""
        if new or id(tensor) not in self.numbers:
            self.numbers[id(tensor)] = len(self.alive)
            self.alive.append(tensor)
        return self.numbers[id(tensor)]

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Records one operator."""
        tensors = [tensor for tensor in _tensors([args, kwargs or {}]) if id(tensor) not in self.buffers]
        inputs = [self.number(tensor) for tensor in tensors if id(tensor) not in self.names]
        parameters = [self.names[id(tensor)] for tensor in tensors if id(tensor) in self.names]
        returned = func(*args, **(kwargs or {}))
        results = _tensors([returned])
        op = Op(str(func.overloadpacket), inputs, [], parameters, args, results)
        op.outputs = [self.number(tensor, new=True) for tensor in results]
        wiring = self.wiring
        wiring.ops.append(op)
        wiring.producers.update(dict.fromkeys(op.outputs, op))
        for value in dict.fromkeys(inputs):
            wiring.consumers.setdefault(value, []).append(op)
        return returned

    def enters(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Notes what a module takes, when its call begins."""
        self.entered.append([self.number(tensor) for tensor in _tensors([inputs])])

    def called(self, name: str, module: nn.Module) -> Callable[..., None]:
        """The hook that notes the call of a module when it ends."""

        def note(_: nn.Module, __: Any, output: Any) -> None:
            value = self.number(output) if isinstance(output, Tensor) else None
            self.wiring.calls.append(Call(name, module, self.entered.pop(), value))

        return note


def _tensors(values: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples and dictionaries."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    if isinstance(values, list | tuple) or type(values).__name__ in ("dict_values", "immutable_list"):
        return [tensor for value in values for tensor in _tensors(value)]
    return []
