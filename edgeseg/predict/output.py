"""Files of results: each appears whole or not at all, and errors of writing name it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from edgeseg.machine.files import NotWritten, replacing

MARK = ("Software", "edgeseg")  # the text in a PNG file that says who wrote it
OWN = (errno.ENAMETOOLONG, errno.EISDIR)  # errors of one file, which do not concern those after it


@contextmanager
def named_writing(path: Path) -> Iterator[None]:
    """Turns errors of the system into a `NotWritten` that names the file. Errors of FFmpeg count if they are such.

    Raises:
        NotWritten: nothing can be written there.
        ValueError: the name of this file is too long, or is that of a folder.
    """
    try:
        yield
    except NotWritten:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        if not isinstance(number, int) or number not in errno.errorcode or number == errno.EINVAL:
            raise
        if number in OWN:
            raise ValueError(f"cannot write {path}: {os.strerror(number)}") from error
        raise NotWritten(path, number) from error


def require_place(path: Path) -> None:
    """Creates the folder of a file.

    Raises:
        NotWritten: the folder cannot be created.
        ValueError: the file is a folder.
    """
    with named_writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def is_result(path: str | os.PathLike[str]) -> bool:
    """Whether `save_png` wrote a file."""
    try:
        with Image.open(path) as picture:
            return bool(picture.info.get(MARK[0]) == MARK[1])
    except Exception:  # Pillow raises errors of many types
        return False


def require_own(path: Path) -> None:
    """Raises a ValueError if there is a file that `save_png` did not write, such as ground truth of the same name."""
    if path.is_file() and not is_result(path):
        raise ValueError(
            f"{path} would be overwritten, which edgeseg did not write; choose another --output, or remove that file"
        )


def save_png(picture: Image.Image, path: Path, compression: int = 6) -> None:
    """Writes a PNG file that says that edgeseg wrote it, and creates its folder.

    Args:
        picture: What to write.
        path: The file.
        compression: From 0 to 9; higher is smaller and slower.

    Raises:
        NotWritten: the file cannot be written.
        ValueError: its name is too long, or is that of a folder.
    """
    require_place(path)
    mark = PngInfo()
    mark.add_text(*MARK)
    with named_writing(path), replacing(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=compression, pnginfo=mark)
