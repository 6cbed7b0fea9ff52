"""How Ctrl-C and SIGTERM end a command: by an exception, with which temporary files and started processes end too."""

from __future__ import annotations

import signal
import sys
from types import FrameType

IMPORTING = "<frozen importlib._bootstrap>"
TIMER = hasattr(signal, "setitimer")  # not on Windows


class Stops:
    """Handlers of Ctrl-C and SIGTERM, which raise an exception, and raise it again if it was lost.

    A library may take any exception for its own: while it tries whether a module can be imported, in a destructor, or
    in C++. So nothing is raised during imports, and again after a second in which the exception has disappeared.

    Attributes:
        error: The exception that was raised last, or None.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def install(self) -> None:
        """Handles the signals of this process, from its main thread."""
        signal.signal(signal.SIGTERM, self._handle)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores Ctrl-C
            signal.signal(signal.SIGINT, self._handle)

    def end(self) -> None:
        """Raises nothing any more by itself."""
        if self.error is not None and TIMER:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        error = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        if TIMER:
            signal.signal(signal.SIGALRM, lambda _, later: self._handle_again(error, later))
        self._raise(error, frame)

    def _handle_again(self, error: BaseException, frame: FrameType | None) -> None:
        """Raises an exception that has waited for an import, or that was lost; one that is on its way goes on."""
        on_its_way = sys.exc_info()[1]
        while on_its_way is not None and on_its_way is not error:
            on_its_way = on_its_way.__context__
        if on_its_way is None:
            self._raise(error, frame)
        else:
            signal.setitimer(signal.ITIMER_REAL, 1)

    def _raise(self, error: BaseException, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code.co_filename != IMPORTING:
            frame = frame.f_back
        if TIMER:
            signal.setitimer(signal.ITIMER_REAL, 1 if frame is None else 0.05)
            if frame is not None:
                return
        self.error = error
        raise error
