"""What libraries say while they work is kept from the user, bars are not, and streams are as before afterwards."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
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
    streams, filters = (sys.stdout, sys.stderr), [list(each.filters) for each in logging.root.handlers]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet_python():
            print("said")
            print("said", file=sys.stderr)
            logging.getLogger("library").error("logged")
            warnings.warn("warned", stacklevel=1)
    assert (sys.stdout, sys.stderr) == streams
    assert [each.filters for each in logging.root.handlers] == filters
    assert (*capsys.readouterr(), caplog.text) == ("", "", "")


BARS = """
import os, sys
from edgeseg.machine.quiet import captured_stderr, quiet_python
from edgeseg.machine.terminal import progress_bar, showing
with quiet_python(), captured_stderr():
    for step in progress_bar(range(2), "seen", "step"):
        print("said by Python", file=sys.stderr)
        os.write(2, b"said by native code")
with showing(remarks=True, bars=False):
    list(progress_bar(range(2), "unseen", "step"))
"""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs terminals of POSIX")
def test_bars_are_seen_while_libraries_are_silenced() -> None:
    own, terminal = os.openpty()
    subprocess.run([sys.executable, "-c", BARS], stderr=terminal, check=True)
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(own, 1 << 16):
            shown += part
    except OSError:  # Linux's sign of the end
        pass
    os.close(own)
    assert b"\rseen:" in shown
    assert b"said" not in shown
    assert b"unseen" not in shown
    assert subprocess.run([sys.executable, "-c", BARS], capture_output=True, check=True).stderr == b""


def test_other_threads_are_not_silenced(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """A server goes on to print and to log while it exports; streams are restored whatever the order."""
    streams = (sys.stdout, sys.stderr)
    inside, done = threading.Event(), threading.Event()

    def export() -> None:
        with quiet_python():
            inside.set()
            done.wait(60)
            print("unseen")
            logging.getLogger("library").error("unseen")

    thread = threading.Thread(target=export)
    thread.start()
    inside.wait(60)
    print("seen")
    print("seen too", file=sys.stderr)
    logging.getLogger("server").error("logged")
    overlapping = ExitStack()
    overlapping.enter_context(quiet_python())
    done.set()
    thread.join()
    print("unseen")
    overlapping.close()
    assert (sys.stdout, sys.stderr) == streams
    assert capsys.readouterr() == ("seen\n", "seen too\n")
    assert [record.getMessage() for record in caplog.records] == ["logged"]
