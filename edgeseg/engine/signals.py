"""Stopping: what Ctrl-C and SIGTERM do to a training run and to its DataLoader workers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from edgeseg.engine import distributed


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM and Ctrl-C only raise a flag, in all processes together; a second one stops at once."""
    flag = torch.zeros(1)

    def stop(number: int, _: object) -> None:
        if flag.any():
            raise KeyboardInterrupt(f"signal {number}")
        flag.fill_(1)

    def stopped() -> bool:
        return bool(distributed.total(flag.clone()).any())

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals stay as they are
        yield stopped
        return
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_signals_to_the_main_process(_: int) -> None:
    """A DataLoader's `worker_init_fn`: the worker goes on when all processes are signalled, and ends with its parent.

    Ctrl-C and many schedulers signal the whole group, and training has to go on until it is saved. DataLoader and
    multiprocessing end workers with SIGTERM as well, so the parent's is the one that is obeyed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux; elsewhere the sender is not known
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
