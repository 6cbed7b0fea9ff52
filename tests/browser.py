"""Chromium without a window, driven by its debugging protocol over two pipes (https://chromedevtools.github.io)."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream", "--remote-debugging-pipe",
)  # fmt: skip
SECONDS = 120  # that an answer may take


def find_chromium() -> str | None:
    """The program, if it is installed."""
    return next((path for path in map(shutil.which, PROGRAMS) if path), None)


class Browser:
    """A running browser.

    Args:
        program: Path of Chromium.
        profile: An empty folder.
        flags: Further flags of the command line.
    """

    def __init__(self, program: str, profile: Path, flags: Sequence[str] = ()) -> None:
        (for_browser, self._to), (self._from, of_browser) = os.pipe(), os.pipe()
        # Above 9, so that neither is in the way of 3 and 4, on which the browser reads and writes.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (for_browser, of_browser)]
        wired = ["bash", "-c", f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', "chromium"]
        command = [*wired, program, *FLAGS, *flags, f"--user-data-dir={profile}"]
        log = (profile.parent / f"{profile.name}.log").open("wb")
        self.process = subprocess.Popen(command, pass_fds=ends, stdout=log, stderr=log)
        for end in (for_browser, of_browser, *ends):
            os.close(end)
        log.close()
        self.events: list[Mapping[str, Any]] = []
        self._answers: queue.Queue[Mapping[str, Any]] = queue.Queue()
        self._count = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        rest = b""
        while chunk := os.read(self._from, 1 << 16):
            *messages, rest = (rest + chunk).split(b"\0")
            for message in map(json.loads, messages):
                (self._answers.put if "id" in message else self.events.append)(message)

    def call(self, method: str, session: str = "", **parameters: Any) -> Any:
        """The result of a method of the protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        os.write(self._to, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._answers.get(timeout=SECONDS)
            if answer["id"] == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def open(self, address: str, width: int = 1280, height: int = 900, **media: str) -> Page:
        """A new page; `media` are features such as `prefers_color_scheme="dark"`."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        page = Page(self, target, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for domain in ("Page", "Runtime", "DOM"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        page.call("Emulation.setEmulatedMedia", features=features)
        page.go(address)
        return page

    def close(self) -> None:
        """Ends the browser."""
        self.process.terminate()
        self.process.wait(SECONDS)


class Page:
    """A page of a browser."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self.browser, self.target, self.session = browser, target, session

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a method of the protocol, for this page."""
        return self.browser.call(method, self.session, **parameters)

    def go(self, address: str) -> None:
        """Opens an address."""
        self.call("Page.navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        """The value of JavaScript, which is awaited if it is a promise."""
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def text(self, name: str) -> str:
        """The text that a person can read in an element; nothing if it is not shown."""
        found: str = self.evaluate(f"document.getElementById('{name}')?.checkVisibility({{visibilityProperty: true}})"
                                   f" ? document.getElementById('{name}').innerText : ''")  # fmt: skip
        return found

    def problem(self) -> str:
        """What the page reports; nothing while it only has the words that it shows until it has started.

        A page that takes more than five seconds to load shows these for a moment, which a busy machine does.
        """
        started = self.evaluate("!document.getElementById('problem')?.classList.contains('later')")
        return self.text("problem") if started else ""

    def wait_for(self, name: str, words: str) -> str:
        """Waits until an element shows these words; returns its text.

        Raises:
            AssertionError: it does not, or the page reports another problem than before; says what it shows.
        """
        end, before = time.monotonic() + SECONDS, self.problem()
        while time.monotonic() < end:
            text = self.text(name)
            if words in text:
                return text
            problem = self.problem()
            assert name == "problem" or problem in ("", before), problem
            time.sleep(0.05)
        raise AssertionError(f"{words!r} is not in {text!r}")

    def choose(self, name: str, path: Path) -> None:
        """Chooses a file, as the dialogue of the browser does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=f"#{name}")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def press(self, key: str) -> None:
        """Presses a key, such as "Tab"."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def close(self) -> None:
        """Closes the page."""
        self.browser.call("Target.closeTarget", targetId=self.target)
