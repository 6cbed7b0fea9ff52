"""Fetches files by address: from the package, from the Hugging Face Hub, or over https into a cache beside the hub's.

All downloads follow the settings of huggingface_hub: HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, progress bars.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

HUB = "hf-hub:"
FOLDER = "local-dir:"
PACKAGE = "package:"
CHUNK = 1 << 20  # bytes; an interrupted download loses less than this
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OFFLINE = "HF_HUB_OFFLINE is set and {} is not in the cache; unset it once, or copy the cache of another machine"


def is_address(source: str | os.PathLike[str]) -> bool:
    """Whether `source` is an address, such as https://..., and not a file of this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(source)) is not None


def public_address(address: str) -> str:
    """`address` without what only its user should know: name, password, and the query, which may have a key."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def cache_folder() -> Path:
    """The folder of https downloads and converted weights: `$HF_HOME/edgeseg`."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "edgeseg"


def fetch(addresses: Sequence[str], folder: str, *, sha256: str | None = None) -> Path:
    """Fetches a file from the first of `addresses` that works.

    Args:
        addresses: `package:FILE`, `hf-hub:OWNER/REPO/FILE[@REVISION]` or `https://...`, tried in turn.
        folder: Folder below `cache_folder()` for https downloads.
        sha256: Hex digest that the file must have, or its first digits.

    Returns:
        The path of the file on this machine.

    Raises:
        OSError: no address can be reached; the message gives the reason for each.
        ValueError: an address is not allowed, or the file has another hash and was removed.
    """
    problems: dict[str, Exception] = {}
    for address in addresses:
        try:
            return _fetch_one(address, folder, sha256)
        except (OSError, ValueError) as error:
            problems[address] = error
    kinds = {str(problem).replace(address, "") for address, problem in problems.items()}
    first = next(iter(problems.values()))
    if len(problems) == 1:
        raise first
    if len(kinds) == 1:  # such as that there is no network
        raise type(first)(f"{first} (so too for {len(problems) - 1} more addresses of the file)") from first
    kind = ValueError if any(isinstance(problem, ValueError) for problem in problems.values()) else OSError
    raise kind("all addresses of the file failed:\n" + "\n".join(f"- {problem}" for problem in problems.values()))


def _fetch_one(address: str, folder: str, sha256: str | None) -> Path:
    if address.startswith(PACKAGE):
        return Path(__file__).parents[1] / "weights" / "files" / address.removeprefix(PACKAGE)
    if address.startswith(HUB):
        return hub_file(address.removeprefix(HUB), sha256=sha256)
    return download(address, cache_folder() / folder, sha256=sha256)


def hub_file(address: str, *, sha256: str | None = None) -> Path:
    """Fetches the file `OWNER/REPO/FILE[@REVISION]` of the hub, unless huggingface_hub's cache has it already.

    Raises:
        OSError: the file does not exist, is not accessible, or cannot be reached and is not in the cache.
        ValueError: the address is malformed, or the file has another hash and was removed from the cache.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    address, _, revision = address.partition("@")
    owner, name, *rest = [*address.split("/", 2), "", ""][:3]
    repo, file = f"{owner}/{name}", rest[0]
    if not all((owner, name, file)) or ".." in PurePosixPath(address).parts or address.startswith("/"):
        raise ValueError(f"{HUB}{address!r} is not a file of a hub repository; expected OWNER/REPO/FILE")
    try:
        path = Path(hf_hub_download(repo, file, revision=revision or None))
    except HFValidationError as error:
        raise ValueError(f"{repo!r} cannot be a hub repository: {error}") from error
    except LocalEntryNotFoundError as error:
        if _offline():
            raise ConnectionError(OFFLINE.format(f"{HUB}{address}")) from error
        raise ConnectionError(f"{HUB}{address}: the hub cannot be reached and the file is not in the cache") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"no repository {repo} on the hub, or it is private and needs a token (`hf auth login`, or HF_TOKEN)"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"the hub's {repo} has no revision {revision!r}") from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"the hub's {repo} has no file {file}") from error
    except HfHubHTTPError as error:
        raise OSError(f"{HUB}{address}: {_first_line(error)}") from error
    if sha256 and not (digest := file_sha256(path)).startswith(sha256):
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise ValueError(_hash_problem(f"{HUB}{address}", digest, sha256))
    return path


def download(url: str, folder: Path, *, sha256: str | None = None) -> Path:
    """Downloads a file over https, unless `folder` has it already.

    An interrupted download is resumed, even by a later process; two processes wait for each other. The hash of the
    first download is stored in `NAME.sha256`, and a later download with another hash is refused.

    Args:
        url: Address of the file; its last part is the name that the file gets.
        folder: Folder of the file, created if it is missing.
        sha256: Hex digest that the file must have, or its first digits; by default those that a name such as
            `mobilenet_v2-b0353104.pth` contains.

    Raises:
        OSError: the address cannot be reached, or HF_HUB_OFFLINE is set and the file is not in `folder`.
        ValueError: the address is not https (http is allowed for this machine only) or does not name a file, or the
            file has another hash and was removed.
    """
    from filelock import FileLock
    from huggingface_hub.errors import HfHubHTTPError

    _check_scheme(url)
    name = PurePosixPath(urlsplit(url).path).name
    if name in ("", ".."):
        raise ValueError(f"{url} is not the address of a file: its path ends without a file name")
    path = folder / name
    if path.is_file():
        return path
    if _offline():
        raise ConnectionError(OFFLINE.format(url))
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}.lock"):
        if path.is_file():
            return path
        partial = folder / f".{name}.partial"
        try:
            try:
                _download_partial(url, partial)
            except HfHubHTTPError as error:
                if error.response.status_code != 416:  # 416: the file is complete, but was not renamed
                    raise
                partial.unlink()
                _download_partial(url, partial)
        except network_errors() as error:
            raise OSError(f"{url}: {_first_line(error)}") from error
        record = folder / f"{name}.sha256"
        expected = sha256 or _hash_in_name(name) or (record.read_text().strip() if record.is_file() else "")
        digest = file_sha256(partial)
        if not digest.startswith(expected):
            partial.unlink()
            raise ValueError(_hash_problem(url, digest, expected))
        record.write_text(f"{digest}\n")
        os.replace(partial, path)
    return path


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, as hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _download_partial(url: str, partial: Path) -> None:
    """Completes `partial` with huggingface_hub's own downloader, which retries, resumes and shows the progress."""
    from huggingface_hub.file_download import http_get

    version_file = partial.with_name(f"{partial.name}.version")
    version = version_file.read_text() if version_file.is_file() and partial.is_file() else ""
    if not version:  # the file may be the beginning of another version
        partial.unlink(missing_ok=True)
    with _watched(version_file), partial.open("ab") as file:
        headers = {"If-Range": version} if version else {}
        http_get(url, file, resume_size=file.tell(), headers=headers, displayed_filename=partial.name)
    version_file.unlink(missing_ok=True)


@contextmanager
def _watched(version_file: Path) -> Iterator[None]:
    """Inside, every request of this thread, redirected or not, must be https; responses store the file's version."""
    from huggingface_hub import constants, get_session

    session, thread = get_session(), threading.get_ident()

    def on_request(request: Any) -> None:
        if threading.get_ident() == thread:
            _check_scheme(str(request.url))

    def on_response(response: Any) -> None:
        if threading.get_ident() == thread and response.status_code == 200:
            version_file.write_text(response.headers.get("etag") or response.headers.get("last-modified") or "")

    before, chunk = session.event_hooks, constants.DOWNLOAD_CHUNK_SIZE
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK  # the default of 10 MB is as large as many files of the zoo
    session.event_hooks = {
        "request": [*before["request"], on_request],
        "response": [*before["response"], on_response],
    }
    try:
        yield
    finally:
        session.event_hooks = before
        constants.DOWNLOAD_CHUNK_SIZE = chunk


def _check_scheme(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ValueError(f"refused {url}: weights are downloaded over https only")


def _hash_in_name(name: str) -> str:
    """The first digits of the hash, which torchvision writes into the file name; "" if there are none."""
    match = re.search(r"-([0-9a-f]{8,})\.", name)
    return match[1] if match else ""


def _hash_problem(where: str, digest: str, expected: str) -> str:
    return (
        f"{where} is not the file it should be: sha256 {digest}, expected {expected}; it was removed. "
        f"If the publisher changed it on purpose, delete the .sha256 file beside it in {cache_folder()}"
    )


def network_errors() -> tuple[type[BaseException], ...]:
    """The exceptions that a request raises: OSError, and the HTTPError of the httpx that huggingface_hub uses."""
    from huggingface_hub.errors import HfHubHTTPError

    return tuple(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ in ("HTTPError", "OSError"))


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
