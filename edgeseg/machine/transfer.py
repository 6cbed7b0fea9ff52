"""Transfers files over https: with resume, retries, redirects that stay on https, and a progress bar.

The HTTP client is that of huggingface_hub, with its proxies and certificates, and is not changed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

Result = TypeVar("Result")

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses of errors that may pass
RETRIES = 5  # in a row, without a byte more
LONGEST_PAUSE = 60.0  # seconds; a server that asks for more is not waited for
REDIRECTS = 20


def split_address(address: str) -> SplitResult:
    """The parts of an address; a ValueError that has no password and no key if it cannot be split."""
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 - read, since what stands in its place may be a part of a password
    except ValueError:
        known = re.fullmatch(r"(\w+://)([^?#]*@)?([^?#@]*)([?#][^@]*)?", address)
        where = known[1] + known[3] if known else "what was given"
        raise ValueError(f"{where} is not an address: its host or port is malformed") from None
    return parts


def check_scheme(url: str, *, local: bool = True) -> None:
    """Raises a ValueError unless `url` is https, or http to this machine where `local` allows that."""
    parts = split_address(url)
    if parts.scheme != "https" and not (local and parts.scheme == "http" and parts.hostname in LOOPBACK):
        where = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"  # without a password or a key
        raise ValueError(f"refused {where}: weights are downloaded over https only")


def transfer(url: str, partial: Path) -> None:
    """Completes the file `partial`, which an earlier transfer may have begun.

    Errors that may pass, such as a cut connection or the status 500, are followed by a pause and another request.
    `partial.version`, beside the file, tells whether the server still has the file that `partial` is the beginning of.

    Raises:
        OSError: the address cannot be reached, or the file cannot be written.
        ValueError: the address, or one that it redirects to, is not https.
    """
    client_error = http_error()

    def pause(error: Exception, tries: int) -> float | None:
        # A RuntimeError is an answer that ends too early, or another thread has closed the client that all share.
        cut = isinstance(error, (client_error, RuntimeError)) and getattr(error, "response", None) is None
        return 1.0 if cut else pause_after(error, tries)

    try:
        for _ in range(RETRIES):
            if retrying(lambda: _request(url, partial), pause, lambda: _size(partial)):
                return
        raise OSError("the server has another file at each request")
    except (client_error, RuntimeError) as error:
        raise OSError(reason(error)) from error


def retrying(
    action: Callable[[], Result],
    pause: Callable[[Exception, int], float | None],
    progress: Callable[[], int] = lambda: 0,
) -> Result:
    """Calls `action` until it succeeds, or has failed too often without progress.

    Args:
        action: What to do.
        pause: From an error and the number of earlier tries to the seconds to wait; None for an error that stays.
        progress: How far the action has come. If that has grown, tries are counted anew.

    Returns:
        What the action returns.
    """
    tries, furthest = 0, progress()
    while True:
        try:
            return action()
        except Exception as error:
            if (reached := progress()) > furthest:
                tries, furthest = 0, reached
            seconds = pause(error, tries)
            if seconds is None or tries == RETRIES:
                raise
            tries += 1
        time.sleep(seconds)


def pause_after(error: Exception, tries: int) -> float | None:
    """The seconds to wait after an answer with the status of an error: what it asks for, or 1, 2, 4 and 8.

    Returns:
        None if the error has no answer, will not pass, or the server asks for more than `LONGEST_PAUSE`.
    """
    response = getattr(error, "response", None)
    if response is None or response.status_code not in PASSING:
        return None
    asked = _asked_pause(response.headers.get("retry-after", ""))
    seconds = min(2.0**tries, 8.0) if asked is None else asked
    return seconds if seconds <= LONGEST_PAUSE else None


def reason(error: BaseException) -> str:
    """An error of a request in one line, without the address."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answers {response.status_code} {response.reason_phrase}".rstrip()
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _request(url: str, partial: Path) -> bool:
    """Requests what is missing of a file.

    Returns:
        Whether the file is complete; False if the server has no rest of the file that was begun, which is then dropped.
    """
    version_file = partial.with_name(f"{partial.name}.version")
    version = version_file.read_text(encoding="utf-8") if version_file.is_file() else ""
    start = _size(partial) if version else 0
    headers = {"Accept-Encoding": "identity"}  # a part of a compressed answer is of no use
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    with _answer(url, headers) as response:
        part = response.headers.get("content-range", "") if response.status_code == 206 else ""
        rest = part.startswith(f"bytes {start}-")
        if start and response.status_code in (206, 416) and not rest:
            version_file.unlink()
            return False
        response.raise_for_status()
        if not (rest and start):
            version_file.unlink(missing_ok=True)
            partial.write_bytes(b"")
            version_file.write_text(_version(response), encoding="utf-8")
        _receive(response, partial)
    total = part.rpartition("/")[2]
    if total.isdecimal() and _size(partial) != int(total):
        raise RuntimeError("the answer ends too early")
    version_file.unlink()
    return True


def _receive(response: Any, partial: Path) -> None:
    """Appends the content of an answer to a file, and shows the progress."""
    from huggingface_hub.utils.tqdm import tqdm

    start, length = _size(partial), response.headers.get("content-length", "")
    total = start + int(length) if length.isdecimal() else None
    bar = tqdm(
        total=total, initial=start, unit="B", unit_scale=True, desc=partial.name, disable=None,
        name="huggingface_hub.http_get",  # those who hide the bars of huggingface_hub mean this one too
    )  # fmt: skip
    with bar, partial.open("ab") as file:
        for chunk in response.iter_bytes():
            file.write(chunk)
            bar.update(len(chunk))


def _version(response: Any) -> str:
    """What tells the version of a file from others byte by byte; "" if the server does not say."""
    if "content-encoding" in response.headers:
        return ""
    etag = response.headers.get("etag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("last-modified", "")


@contextmanager
def _answer(url: str, headers: dict[str, str]) -> Iterator[Any]:
    """The answer to a request, whose content has not been read, after redirects that are allowed."""
    from huggingface_hub import constants, get_session

    try:
        session = copy(get_session())
    except Exception as error:  # of the client's own kinds
        raise ValueError(f"{error}; check the proxy in HTTPS_PROXY, HTTP_PROXY and ALL_PROXY") from error
    session.cookies = session.cookies  # copies them, so that servers set none in what huggingface_hub shares
    try:
        request = session.build_request("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
    except Exception as error:  # of the client's own kinds
        raise ValueError(f"not an address: {error}") from error
    local = True
    for _ in range(REDIRECTS + 1):
        local = local and request.url.host in LOOPBACK  # others may not redirect to this machine
        check_scheme(str(request.url), local=local)
        response = session.send(request, stream=True, follow_redirects=False)
        try:
            if response.next_request is None:
                yield response
                return
            request = response.next_request
        finally:
            response.close()
    raise OSError(f"more than {REDIRECTS} redirects")


def _asked_pause(text: str) -> float | None:
    """The seconds of the header Retry-After, which has a number or a date."""
    from email.utils import parsedate_to_datetime  # here, since it takes some of the time of importing edgeseg

    if text.isdecimal():
        return float(text)
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(timezone.utc)).total_seconds())
    return None


def http_error() -> type[Exception]:
    """The base of all errors of the HTTP client that huggingface_hub uses."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
