"""Several processes, as torchrun starts them; alone, everything here does nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed


@contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Joins the processes of torchrun, when it started this one; gives the device of this process.

    Args:
        device: "cuda" becomes the GPU of this process; on a CPU the processes talk over gloo.
    """
    try:
        own = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"cannot use device {device}: {error}") from error
    if "LOCAL_RANK" not in os.environ:
        yield own
        return
    if device == "cuda":
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield own
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Number of this process, 0 for the one that writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    if distributed.is_initialized():
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        moved = value.to(device)
        distributed.all_reduce(moved)
        return moved.to(value.device)
    return value


def barrier() -> None:
    """Waits for all processes."""
    if distributed.is_initialized():
        distributed.barrier()
