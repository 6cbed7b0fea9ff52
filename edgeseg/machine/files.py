"""Atomic writes: a file appears complete or not at all, and an error of writing names it."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

# Errors of the system that mean a full disk, or that a limit of the user or of the file system is reached.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PROBE = 1 << 20  # bytes
LONGEST = 190  # bytes of a file's name in its temporary name; most file systems allow 255


class NotWritten(OSError):
    """A file cannot be written, for instance because the disk is full; names the file."""

    def __init__(self, path: Path, number: int) -> None:
        meaning = " (the disk is full)" if number == errno.ENOSPC else ""
        super().__init__(f"cannot write {path}: {os.strerror(number)}{meaning}")
        self.errno = number


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raises a FileNotFoundError if the folder of a file that will be written does not exist."""
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {Path(path).parent}")


def check_file(path: str | os.PathLike[str]) -> None:
    """Raises an OSError if a file cannot be written: it is not a file, or its folder is missing or read-only."""
    check_folder(path)
    if Path(path).is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder")
    if Path(path).exists() and not Path(path).is_file():
        raise OSError(f"cannot write {path}: it is a device or a pipe, and a file would take its place")
    if not os.access(Path(path).parent, os.W_OK):
        raise PermissionError(f"cannot write {path}: the folder {Path(path).parent} is read-only for this user")


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary file to write. It replaces `path` when the block ends, and is deleted if the block fails.

    The file gets the permissions of the one that it replaces, or those of any new file: some libraries, safetensors
    among them, write files that only their owner can read. A link stays, and the file that it names is replaced.
    Temporary files that killed processes have left in the folder are removed.

    Args:
        path: The file.
        durable: Wait until the disk has the file, so that a power cut leaves it or the one before. By default the
            system decides when files reach the disk, and after a power cut a file of the last seconds may be empty.

    Raises:
        NotWritten: the block failed because the disk is full, whatever error the writing library raised.
    """
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    _remove_left(target.parent.absolute())
    temporary = target.with_name(f".{_short(target.name)}.{_writer()}.tmp")
    try:
        with full_disk_named(path, temporary):
            temporary.touch()
            mode = stat.S_IMODE((target if target.exists() else temporary).stat().st_mode)
            temporary.unlink()
            yield temporary
            if durable:
                _flush(temporary)
            temporary.chmod(mode)
            os.replace(temporary, target)
            if durable:
                with suppress(OSError):  # systems and file systems that do not flush folders
                    _flush(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, *, content: str) -> Iterator[Path]:
    """As `replacing`, for a folder with the suffix of `path`. An earlier folder is removed once the new one is there.

    Args:
        path: The folder.
        content: Name of a file that the earlier folder has, so that no other folder is removed.

    Raises:
        FileExistsError: what is at `path` has no such file and is not an empty folder.
        NotWritten: as in `replacing`.
    """
    path = Path(os.path.abspath(path))  # "." has no name, and a link is not followed
    if path in (here := Path.cwd(), *here.parents):
        raise FileExistsError(f"{path} is the current folder, or contains it; choose a new one, such as {path / 'new'}")
    _remove_left(path.parent)
    if (
        path.is_symlink()
        or path.is_file()
        or (path.is_dir() and any(path.iterdir()) and not (path / content).is_file())
    ):
        raise FileExistsError(f"{path} is not a folder with a file {content}, and is not replaced")
    temporary, earlier = (path.with_name(f".{path.stem}.{_writer()}.{kind}{path.suffix}") for kind in ("tmp", "old"))
    try:
        with full_disk_named(path, temporary / "probe"):
            yield temporary
        if path.exists():
            os.replace(path, earlier)
        try:
            os.replace(temporary, path)
        except OSError:
            if earlier.exists():
                os.replace(earlier, path)
            raise
    finally:
        for left in (temporary, earlier):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def full_disk_named(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Turns an error of the block into a `NotWritten` that names `path`, if the disk is full.

    Args:
        path: The file that the block writes, for the message.
        temporary: A file that may be written to find out, if the error does not tell.
    """
    try:
        yield
    except NotWritten:
        raise
    except Exception as error:
        number = _full_disk(error, temporary)
        if number is None:
            raise
        raise NotWritten(path, number) from error


def _flush(path: Path) -> None:
    """Waits until the disk has a file, or the names in a folder."""
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _full_disk(error: BaseException | None, temporary: Path | None) -> int | None:
    """The number of the system's error if a block failed because the disk is full, and None otherwise.

    Libraries in other languages raise errors of their own: those in Rust quote the number, and torch does not give it.
    The disk is still full while the temporary file is there, so that writing a little more tells.
    """
    while error is not None:
        quoted = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else int(quoted[1]) if quoted else None
        if number in FULL:
            return number
        if isinstance(error, OSError):
            return None
        error = error.__cause__ or error.__context__
    if temporary is None:
        return None
    try:
        with temporary.open("ab") as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as probe:
        return probe.errno if probe.errno in FULL else None
    return None


def _short(name: str) -> str:
    """The beginning of a name, so that a temporary name is not too long for the file system."""
    while len(os.fsencode(name)) > LONGEST:
        name = name[:-1]
    return name


def _writer() -> str:
    """The part of a temporary name that no other thread, process or machine uses."""
    return f"{_machine()}-{os.getpid()}-{threading.get_native_id()}"


@cache
def _machine() -> str:
    """Tells apart machines and containers that write to one folder, since the ids of their processes may be equal."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        namespace = ""
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:8]


@cache
def _remove_left(folder: Path) -> None:
    """Removes what killed processes of this machine have left in a folder: once, since folders may be large."""
    pattern = re.compile(rf"\.(.+)\.{_machine()}-(\d+)-\d+\.(tmp|old)(\.\w+)?")
    try:
        names = os.listdir(folder)
    except OSError:  # the folder does not exist, or cannot be listed
        return
    for name in names:
        match = pattern.fullmatch(name)
        if match is None or _is_alive(int(match[2])):
            continue
        left, whole = folder / name, folder / f"{match[1]}{match[4] or ''}"
        with suppress(OSError):
            if match[3] == "old" and not whole.exists():  # killed between the two renames of `replacing_folder`
                os.replace(left, whole)
            elif left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def _is_alive(process: int) -> bool:
    """Whether a process of this machine exists, as far as can be told."""
    if os.name != "posix":  # where os.kill ends the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
