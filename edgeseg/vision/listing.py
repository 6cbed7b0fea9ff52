"""Lists the photos and videos of folders: the one list for prediction, optical flow, quantization and datasets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from edgeseg.machine.terminal import warn

# Pillow reads .heic, .heif and .jxl with plugins only; without these, such photos are errors that name them.
PHOTO_SUFFIXES = frozenset(
    {
        ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg",
        ".jpg", ".jpx", ".jxl", ".mpo", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".sgi", ".tga", ".tif",
        ".tiff", ".webp",
    }
)  # fmt: skip
VIDEO_SUFFIXES = frozenset(
    {
        ".3g2", ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg",
        ".mpg", ".mts", ".mxf", ".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv",
    }
)  # fmt: skip


def photo_suffixes(channels: int = 3) -> frozenset[str]:
    """Returns the suffixes of photos with a number of channels; arrays count where image files have no such pixels."""
    return PHOTO_SUFFIXES if channels in (1, 3) else PHOTO_SUFFIXES | {".npy"}


def list_files(
    folder: Path, suffixes: Collection[str], *, without: Path | None = None, recursive: bool = True
) -> list[Path]:
    """Lists the files of a folder, sorted by their paths.

    Names that begin with a dot are passed over, such as macOS's `._photo.png` and `.ipynb_checkpoints`. Linked folders
    are followed, except back into a folder that they lie in. Links that lead nowhere are listed, so that reading them
    fails by name. Sub-folders that this user may not read are passed over with a warning.

    Args:
        folder: Where to look.
        suffixes: Suffixes in lower case; files may have them in upper case too.
        without: A folder that is passed over, however it is written: absolute, relative or linked.
        recursive: Look into sub-folders too.

    Raises:
        OSError: a folder is missing or cannot be read; names it.
        ValueError: `without` is the folder itself.
    """
    excluded = None if without is None else real(without)
    if real(folder) == excluded:
        raise ValueError(
            f"{folder} is both the input and the output folder, so that the next run would read the pictures of this "
            f"one; choose another output folder, such as {folder / 'output'}"
        )
    files = _walk(folder, frozenset([real(folder)]), excluded, recursive)
    return sorted(path for path in files if path.suffix.lower() in suffixes)


def real(path: Path) -> Path:
    """`path` without links and dots, as `Path.resolve`, which raises a RuntimeError for a loop of links."""
    return Path(os.path.realpath(path))


def _walk(folder: Path, above: frozenset[Path], excluded: Path | None, recursive: bool) -> Iterator[Path]:
    """Yields files; `above` are the resolved folders that `folder` lies in, and itself."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            resolved = real(path)
            if recursive and resolved != excluded and resolved not in above:
                if os.access(path, os.R_OK | os.X_OK):
                    yield from _walk(path, above | {resolved}, excluded, recursive)
                else:  # such as lost+found of a mounted disk
                    warn(f"{path} is passed over: this user may not read it")
        elif path.is_file() or not path.exists():
            yield path


def by_stem(files: Sequence[Path], folder: Path, ending: str = "") -> dict[str, Path]:
    """Maps the paths of files below `folder`, without their suffix or another ending, to the files.

    Args:
        files: Files in `folder`.
        folder: What the keys are relative to.
        ending: Ending of the names that the keys lack, such as "_mask.png"; by default the suffix.

    Raises:
        ValueError: two files have one key; names both.
    """
    found: dict[str, Path] = {}
    for path in files:
        place = path.relative_to(folder)
        key = str(place)[: -len(ending)] if ending else str(place.with_suffix(""))
        if key in found:
            raise ValueError(f"{found[key]} and {path} have the same name; remove one of them or rename it")
        found[key] = path
    return found


def output_names(
    arguments: Sequence[Path], suffixes: Collection[str], *, explicit: Sequence[Path], without: Path
) -> list[tuple[Path, str]]:
    """Lists files and what the names of their results begin with: the path below the argument, without the suffix.

    Files that differ in their suffixes only keep them: `a.jpg` and `a.png` become "a.jpg" and "a.png".

    Args:
        arguments: Files and folders.
        suffixes: Suffixes of the files that are taken from folders.
        explicit: Arguments that are such files.
        without: Output folder, which is passed over.

    Raises:
        ValueError: results would overwrite each other, or a folder is the output folder.
    """
    places: list[tuple[Path, Path]] = []
    for argument in arguments:
        if argument.is_dir():
            places += [(path, path.relative_to(argument)) for path in list_files(argument, suffixes, without=without)]
        elif argument in explicit:
            places.append((argument, Path(argument.name)))
    seen: dict[tuple[Path, Path], tuple[Path, Path]] = {}
    for path, place in places:  # a file may be given twice
        seen.setdefault((real(path), place), (path, place))
    places = list(seen.values())
    stems = Counter(place.with_suffix("") for _, place in places)
    names = [
        (path, str(place if stems[place.with_suffix("")] > 1 else place.with_suffix(""))) for path, place in places
    ]
    counts = Counter(name for _, name in names)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        both = " and ".join(str(path) for path, name in names if name == twice)
        raise ValueError(
            f"the results of {both} would have the same name, {twice}; pass the folder that holds both, whose "
            "sub-folders are kept, or give each an --output of its own"
        )
    return names
