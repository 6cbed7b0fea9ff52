"""How Ctrl-C and SIGTERM stop a training run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from edgeseg.engine import distributed


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Within this context, Ctrl-C and SIGTERM set a flag instead of stopping the process. A second one stops at once.

    Outside the main thread nothing changes. A signal that the process already ignores stays ignored, as Ctrl-C is in a
    script's background jobs.

    Yields:
        A function that returns whether any process has received a signal. All processes have to call it together.
    """
    flag = torch.zeros(1)

    def stop(number: int, _: object) -> None:
        if flag.any():
            raise KeyboardInterrupt(f"signal {number}")
        flag.fill_(1)

    def stopped() -> bool:
        return bool(distributed.total(flag).any())

    try:
        before = {
            number: signal.signal(number, stop)
            for number in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(number) is not signal.SIG_IGN
        }
    except ValueError:  # not in the main thread
        yield stopped
        return
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
