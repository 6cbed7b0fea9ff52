"""Helpers for the processes that torchrun starts; in a single process all of them are no-ops."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from edgeseg.arguments import device_of


@contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Joins the process group if torchrun started this process, and leaves it at the end.

    Args:
        device: A device of PyTorch, such as "cpu" or "cuda". Under torchrun "cuda" becomes the GPU of this process, and
            processes on CPUs communicate through gloo.

    Yields:
        The device of this process.

    Raises:
        ValueError: PyTorch does not have such a device.
    """
    own = device_of(device)
    if "LOCAL_RANK" not in os.environ:
        yield own
        return
    if device == "cuda":
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(own)  # that of "cuda" in `total`, and of NCCL
    distributed.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield own
    finally:
        distributed.destroy_process_group()


def require_group(name: str) -> None:
    """Raises a RuntimeError if torchrun started several processes that have not joined a process group."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" in os.environ and not distributed.is_initialized():
        raise RuntimeError(
            f"torchrun has started several processes, and {name} would run in each of them alone; call it within `with "
            'edgeseg.engine.distributed.process_group("cpu") as device:` (or "cuda"), with the model on that device'
        )


def rank() -> int:
    """The number of this process, counted from 0; process 0 is the one that writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, on the device of `value`; `value` itself in a single process."""
    if distributed.is_initialized():
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        moved = value.to(device, copy=True)
        distributed.all_reduce(moved)
        return moved.to(value.device)
    return value


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, as `total`."""
    return total(value) / world_size()


def require_same(value: int, name: str) -> None:
    """Raises a ValueError in every process if a number is not the same in all of them."""
    found = torch.zeros(world_size(), dtype=torch.int64)
    found[rank()] = value
    if len(set(counts := total(found).tolist())) > 1:
        raise ValueError(f"the {name} differs between processes: {', '.join(map(str, counts))}")


def share_buffers(module: nn.Module) -> None:
    """Gives the floating-point buffers of a module, such as the statistics of batch norms, their mean over processes.

    In each process they are otherwise those of its own images.
    """
    if distributed.is_initialized():
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(mean(buffer))


def barrier() -> None:
    """Waits until all processes have reached this call."""
    if distributed.is_initialized():
        distributed.barrier()
