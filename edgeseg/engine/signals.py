"""How Ctrl-C and SIGTERM stop a training run and its DataLoader workers."""

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
    """Within this context, Ctrl-C and SIGTERM set a flag instead of stopping the process. A second one stops at once.

    Outside the main thread signals are left as they are.

    Yields:
        A function that returns whether any process has received a signal. All processes have to call it together.
    """
    flag = torch.zeros(1)

    def stop(number: int, _: object) -> None:
        if flag.any():
            raise KeyboardInterrupt(f"signal {number}")
        flag.fill_(1)

    def stopped() -> bool:
        return bool(distributed.total(flag.clone()).any())

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread
        yield stopped
        return
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_held() -> Iterator[None]:
    """Within this context Ctrl-C and SIGTERM wait, also in processes that start here: until their `worker_init_fn`."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_the_main_process(_: int) -> None:
    """A `worker_init_fn` of DataLoader, by which a worker ignores Ctrl-C, and any SIGTERM not sent by its parent.

    Ctrl-C and many schedulers signal all processes of a group, but workers have to continue until the run is saved.
    DataLoader itself stops its workers by SIGTERM, so that one is obeyed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux; other systems do not tell the sender
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """Waits for a SIGTERM that the parent sends, and then ends this process."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
