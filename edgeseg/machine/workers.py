"""The start of DataLoader workers: which signals end them, and what of the main process they leave alone."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def started(loader: Iterable[T]) -> Iterator[T]:
    """Starts the workers of a DataLoader, whose `worker_init_fn` is `start_worker`, and returns its iterator."""
    with _signals_held(), _garbage_left():
        return iter(loader)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Within this context Ctrl-C and SIGTERM wait, also in processes that start here: until their `worker_init_fn`."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _garbage_left() -> Iterator[None]:
    """Within this context no garbage is collected, also in processes that start here: until their `worker_init_fn`."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def start_worker(_: int) -> None:
    """A `worker_init_fn` of DataLoader, by which a worker ignores Ctrl-C, and any SIGTERM not sent by its parent.

    Ctrl-C and many schedulers signal all processes of a group, but workers have to continue until the run is saved.
    DataLoader itself stops its workers by SIGTERM, so that one is obeyed.

    Garbage of the main process is never collected here: an object of a library with threads, such as a converter of
    video frames, would wait for threads that a forked process does not have.
    """
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux; other systems do not tell the sender
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_the_parent, daemon=True).start()
    elif hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _end_with_the_parent() -> None:
    """Waits for a SIGTERM that the parent sends, and then ends this process."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
