"""What libraries say while they work is kept from the user, and the streams of the process are as before afterwards."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from contextlib import ExitStack

import pytest

from edgeseg.machine.quiet import captured_stderr, quiet_python


def test_standard_error_of_native_code() -> None:
    """Callers that overlap, as those of two threads do, restore the stream whatever their order."""
    before = os.fstat(2)
    first, second = ExitStack(), ExitStack()
    one = first.enter_context(captured_stderr())
    os.write(2, b"early ")
    two = second.enter_context(captured_stderr())
    os.write(2, b"late")
    assert (one(), two()) == ("early late", "late")
    first.close()
    assert not os.path.samestat(os.fstat(2), before)  # the second is not done
    second.close()
    assert os.path.samestat(os.fstat(2), before)


def test_what_python_libraries_say(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    streams, disabled = (sys.stdout, sys.stderr), logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet_python():
            print("said")
            print("said", file=sys.stderr)
            logging.getLogger("library").error("logged")
            warnings.warn("warned", stacklevel=1)
    assert (sys.stdout, sys.stderr) == streams
    assert logging.root.manager.disable == disabled
    assert (*capsys.readouterr(), caplog.text) == ("", "", "")
