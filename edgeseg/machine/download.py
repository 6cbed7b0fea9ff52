"""Fetches files by address: from the package, from the Hugging Face Hub, or over https into a cache beside the hub's.

All downloads follow the settings of huggingface_hub: HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, progress bars.
No file is trusted: each has a hash that is known beforehand or that was recorded when the file was read as what it
should be, and that is compared whenever the file is asked for.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlunsplit

from edgeseg.machine.files import NotWritten, full_disk_named, replacing
from edgeseg.machine.terminal import warn
from edgeseg.machine.transfer import check_scheme, http_error, pause_after, reason, retrying, split_address, transfer

Check = Callable[[Path], object]  # reads a file, and raises a ValueError if it is not what it should be

HUB = "hf-hub:"
FOLDER = "local-dir:"
PACKAGE = "package:"
SHA256 = re.compile("[0-9a-f]{64}")
GIT_SHA1 = re.compile("[0-9a-f]{40}")
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!--|!doctype|html|head|body|script|\?xml)", re.IGNORECASE)
OFFLINE = "HF_HUB_OFFLINE is set and {} is not in the cache; unset it once, or copy the cache of another machine"


def is_address(source: str | os.PathLike[str]) -> bool:
    """Whether `source` is an address, such as https://..., and not a file of this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(source)) is not None


def public_address(address: str) -> str:
    """`address` without what only its user should know: name, password, and the query, which may have a key."""
    parts = split_address(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def cache_folder() -> Path:
    """The folder of https downloads and converted weights: `$HF_HOME/edgeseg`."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "edgeseg"


def make_in_cache(folder: Path) -> None:
    """Creates a folder of the cache.

    Raises:
        OSError: it cannot be created; says how to choose another place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{folder} cannot be created ({error.strerror or error}); set HF_HOME to a folder that can be written to"
        ) from error


def fetch(addresses: Sequence[str], folder: str, *, sha256: str | None = None, check: Check | None = None) -> Path:
    """Fetches a file from the first of `addresses` that works.

    Args:
        addresses: `package:FILE`, `hf-hub:OWNER/REPO/FILE[@REVISION]` or `https://...`, tried in turn.
        folder: Folder below `cache_folder()` for https downloads.
        sha256: Hex digest that the file must have, or its first digits.
        check: Reads a downloaded file whose whole hash is not known. If it raises a ValueError, the file is removed and
            the next address is tried.

    Returns:
        The path of the file on this machine.

    Raises:
        OSError: no address can be reached; the message gives the reason for each.
        ValueError: an address is not allowed, or the file is not the one it should be and was removed.
    """
    problems: dict[str, Exception] = {}
    for address in addresses:
        try:
            return _fetch_one(address, folder, sha256, check)
        except NotWritten:  # by no mirror
            raise
        except (OSError, ValueError) as error:
            problems[address] = error
    kinds = {str(problem).replace(public_address(address), "") for address, problem in problems.items()}
    first = next(iter(problems.values()))
    if len(problems) == 1:
        raise first
    if len(kinds) == 1:  # such as that there is no network
        raise type(first)(f"{first} (so too for {len(problems) - 1} more addresses of the file)") from first
    kind = ValueError if any(isinstance(problem, ValueError) for problem in problems.values()) else OSError
    raise kind("all addresses of the file failed:\n" + "\n".join(f"- {problem}" for problem in problems.values()))


def _fetch_one(address: str, folder: str, sha256: str | None, check: Check | None) -> Path:
    if address.startswith(PACKAGE):
        path = package_file(address)
        if sha256 and (digest := file_sha256(path)) != sha256:
            raise ValueError(f"{path} has changed: sha256 {digest}, expected {sha256}; install edgeseg again")
        return path
    if address.startswith(HUB):
        return hub_file(address.removeprefix(HUB), sha256=sha256, check=check)
    return download(address, cache_folder() / folder, sha256=sha256, check=check)


def package_file(address: str) -> Path:
    """The path of `package:FILE`."""
    return Path(__file__).parents[1] / "weights" / "files" / address.removeprefix(PACKAGE)


def local_copy(address: str, folder: str) -> Path | None:
    """Where `fetch` has put the file of an address, whatever its content is now; None if it is not on this machine."""
    if address.startswith(HUB):
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        repo, file, revision = _hub_parts(address.removeprefix(HUB))
        try:
            found = try_to_load_from_cache(repo, file, revision=revision)
        except HFValidationError as error:
            raise ValueError(f"{repo!r} cannot be a hub repository: {error}") from error
        return Path(found) if isinstance(found, str) else None
    path = package_file(address) if address.startswith(PACKAGE) else cache_folder() / folder / _file_name(address)
    return path if path.is_file() else None


def hub_file(address: str, *, sha256: str | None = None, check: Check | None = None) -> Path:
    """Fetches the file `OWNER/REPO/FILE[@REVISION]` of the hub, unless huggingface_hub's cache has it already.

    Raises:
        OSError: the file does not exist, is not accessible, or cannot be reached and is not in the cache.
        ValueError: the address is malformed, or the file is not the one it should be and was removed from the cache.
    """
    repo, file, revision = _hub_parts(address)
    earlier = local_copy(f"{HUB}{address}", "")
    path = _hub_download(repo, file, revision)
    intact = _is_intact(path)
    if path == earlier and intact is False:
        warn(f"{path} has changed since it was downloaded, and is downloaded again")
        _remove_from_hub_cache(path)
        path, earlier = _hub_download(repo, file, revision), None
        intact = _is_intact(path)
    problem = "its hash is not the one that the hub states" if intact is False else _problem(path, sha256, check)
    if problem and path == earlier and intact:  # of another library, which can use it
        raise ValueError(f"{HUB}{address} is not the file it should be: {problem}")
    if problem:
        _remove_from_hub_cache(path)
        raise ValueError(f"{HUB}{address} is not the file it should be: {problem}; it was removed")
    return path


def _hub_parts(address: str) -> tuple[str, str, str | None]:
    """Repository, file and revision of `OWNER/REPO/FILE[@REVISION]`."""
    address, _, revision = address.partition("@")
    owner, name, *rest = [*address.split("/", 2), "", ""][:3]
    if not all((owner, name, rest[0])) or ".." in PurePosixPath(address).parts or address.startswith("/"):
        raise ValueError(f"{HUB}{address!r} is not a file of a hub repository; expected OWNER/REPO/FILE")
    return f"{owner}/{name}", rest[0], revision or None


def _hub_download(repo: str, file: str, revision: str | None) -> Path:
    """The file in huggingface_hub's cache; what it has of the latest revision is asked of the hub again."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def pause(error: Exception, tries: int) -> float | None:
        answered = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
        return pause_after(answered, tries) if isinstance(answered, HfHubHTTPError) else None

    address = f"{HUB}{repo}/{file}"
    try:
        check_scheme(constants.ENDPOINT)
    except ValueError as error:
        raise ValueError(f"{error}; set HF_ENDPOINT to an address https://...") from error
    try:
        with full_disk_named(Path(constants.HF_HUB_CACHE)):
            return Path(retrying(lambda: hf_hub_download(repo, file, revision=revision), pause))
    except LocalEntryNotFoundError as error:
        if _offline():
            raise ConnectionError(OFFLINE.format(address)) from error
        raise ConnectionError(f"{address}: the hub cannot be reached and the file is not in the cache") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"no repository {repo} on the hub, or it is private and needs a token (`hf auth login`, or HF_TOKEN)"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"the hub's {repo} has no revision {revision!r}") from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"the hub's {repo} has no file {file}") from error
    except HfHubHTTPError as error:
        raise OSError(f"{address}: {reason(error)}") from error
    except http_error() as error:
        raise ConnectionError(f"{address}: {error}") from error


def _is_intact(path: Path) -> bool | None:
    """Whether a file of huggingface_hub's cache has the hash by which it is called: that of git, if it is small.

    None if its name is not a hash.
    """
    name = path.resolve().name
    if SHA256.fullmatch(name):
        return file_sha256(path) == name
    return _git_sha1(path) == name if GIT_SHA1.fullmatch(name) else None


def _git_sha1(path: Path) -> str:
    """The hash by which git, and thus the hub, knows the content of a file."""
    return _hashed(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


def _remove_from_hub_cache(path: Path) -> None:
    path.resolve().unlink()
    path.unlink(missing_ok=True)


def download(url: str, folder: Path, *, sha256: str | None = None, check: Check | None = None) -> Path:
    """Downloads a file over https, unless `folder` has it already.

    An interrupted download is resumed, even by a later process; two processes wait for each other. The hash of the
    file is recorded in `NAME.sha256` once the file is known to be what it should be. A file that has changed on this
    machine since then is downloaded again, and a later download with another hash is refused.

    Args:
        url: Address of the file; its last part is the name that the file gets.
        folder: Folder of the file, created if it is missing.
        sha256: Hex digest that the file must have, or its first digits; by default those that a name such as
            `mobilenet_v2-b0353104.pth` contains.
        check: As in `fetch`. An empty file and a page of HTML are refused without it.

    Raises:
        OSError: the address cannot be reached, or HF_HUB_OFFLINE is set and the file is not in `folder`.
        ValueError: the address is not https (http is allowed for this machine only) or does not name a file, or the
            file is not the one it should be and was removed.
    """
    from filelock import FileLock

    check_scheme(url)
    path = folder / _file_name(url)
    known = sha256 or _hash_in_name(path.name)
    if has_its_hash(path, known):
        return path
    if _offline() and not path.is_file():
        raise ConnectionError(OFFLINE.format(public_address(url)))
    make_in_cache(folder)
    with FileLock(folder / f".{path.name}.lock"):
        if has_its_hash(path, known):
            return path
        recorded = recorded_sha256(path)
        if path.is_file() and not recorded:  # a process was killed, or a user copied the file
            _accept(path, path, public_address(url), known, check)
            return path
        if path.is_file():
            message = f"{path} has changed since it was downloaded"
            if _offline():
                raise ConnectionError(f"{message}, and HF_HUB_OFFLINE is set; unset it once, to download it again")
            warn(f"{message}, and is downloaded again")
        new = path.with_name(f".new.{path.name}")  # has the suffix that tells what to read
        _download_to(new, path, url)
        if path.is_file() and file_sha256(path) == file_sha256(new):
            recorded = ""  # not the file has changed, but its record
        _accept(new, path, public_address(url), known or recorded, check)
    return path


def _download_to(new: Path, path: Path, url: str) -> None:
    """Downloads the file that is to be `path` as `new`."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with full_disk_named(path):
            transfer(url, partial)
            os.replace(partial, new)
    except NotWritten:
        raise
    except OSError as error:
        raise OSError(f"{public_address(url)}: {error}") from error


def _accept(new: Path, path: Path, where: str, expected: str, check: Check | None) -> None:
    """Puts a file in its place and records its hash if it is what it should be; else removes it, for a ValueError."""
    if problem := _problem(new, expected, check):
        new.unlink()
        advice = ""
        if expected and expected == recorded_sha256(path):
            advice = f". If the publisher changed it on purpose, delete {record_file(path)}"
        raise ValueError(f"{where} is not the file it should be: {problem}; it was removed{advice}")
    os.replace(new, path)
    record_sha256(path)


def _problem(path: Path, expected: str | None, check: Check | None) -> str:
    """Why a file is not what it should be; "" if it is. A file whose whole hash is not known has to be readable."""
    if expected:
        digest = file_sha256(path)
        if digest == expected:
            return ""
        if not digest.startswith(expected):
            return f"sha256 {digest}, expected {expected}"
    with path.open("rb") as file:
        start = file.read(1024)
    if not start:
        return "it is empty"
    if PAGE.match(start):
        return "it is a page for a browser, such as that of a login or an error"
    try:
        if check is not None:
            check(path)
    except OSError:
        raise
    except Exception as error:  # a reader that does not expect the content
        return str(error) or type(error).__name__
    return ""


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, as hex digits."""
    return _hashed(path, hashlib.sha256())


def _hashed(path: Path, digest: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def record_sha256(path: Path, source: str = "") -> None:
    """Records the hash of a file, which is known to be whole, and that of the file that it was made from, if any."""
    with replacing(record_file(path)) as temporary:
        temporary.write_text(f"{file_sha256(path)}\n{source}".rstrip() + "\n", encoding="utf-8")


def recorded_sha256(path: Path) -> str:
    """The hash of a file when it was known to be whole, as recorded here or by huggingface_hub; "" if there is none."""
    digest = _recorded(path)[0] if record_file(path).is_file() else path.resolve().name
    return digest if SHA256.fullmatch(digest) else ""


def recorded_source(path: Path) -> str:
    """The recorded hash of the file that a file was made from; "" if there is none."""
    return _recorded(path)[1]


def _recorded(path: Path) -> list[str]:
    """The two lines of the record of a file; empty ones for those that are missing."""
    record = record_file(path)
    text = record.read_text(encoding="utf-8", errors="replace") if record.is_file() else ""
    return [line.strip() for line in (text + "\n\n").split("\n")[:2]]


def has_its_hash(path: Path, known: str = "") -> bool:
    """Whether a file is there with the hash that was recorded, which begins with the digits that are known."""
    expected = recorded_sha256(path)
    return path.is_file() and expected != "" and expected.startswith(known) and file_sha256(path) == expected


def record_file(path: Path) -> Path:
    """Where the hash of a file is recorded: `NAME.sha256`, beside it."""
    return path.with_name(f"{path.name}.sha256")


def _file_name(url: str) -> str:
    """The last part of an address; a ValueError if it names no file."""
    name = PurePosixPath(split_address(url).path).name
    if name in ("", "..") or Path(name).name != name:  # on Windows, other parts of a path may be in it
        raise ValueError(f"{public_address(url)} is not the address of a file: its path ends without a file name")
    return name


def _hash_in_name(name: str) -> str:
    """The first digits of the hash, which torchvision writes into the file name; "" without, or of a date."""
    match = re.search(r"-(?!\d+\.)([0-9a-f]{8,})\.", name)
    return match[1] if match else ""


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE
