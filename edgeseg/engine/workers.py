"""DataLoader workers and signals."""

from __future__ import annotations

import os
import signal
import threading


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
