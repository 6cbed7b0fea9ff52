"""Fonts for the text in pictures: the first font of this system that has all characters of a text."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont, features

from edgeseg.machine.terminal import printable, warn

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PLACES = (
    "~/.local/share/fonts", "~/.fonts", "/usr/share/fonts", "/usr/local/share/fonts", "~/Library/Fonts",
    "/Library/Fonts", "/System/Library/Fonts", "C:/Windows/Fonts",
)  # fmt: skip
"""Folders where systems keep fonts."""
SPECIAL = ("bold", "italic", "oblique", "mono", "serif", "light", "thin", "condensed", "black")  # styles, taken last
UNASSIGNED = "\U0010ffff"  # no font has it, so that it is drawn as every character that a font lacks
TRIED_AT = 20  # pixels


def text_and_font(text: str, size: int) -> tuple[str, Font]:
    r"""Returns a text as it can be drawn, and the font for it.

    Pillow's own font has ASCII. For other characters the fonts of matplotlib and of the system are tried. If none has
    them all, the missing characters are escaped (`\u4e2d`), and a warning says so once per process.

    Args:
        text: Any text; control characters are escaped.
        size: Height of the font in pixels.
    """
    text = printable(text)
    characters = frozenset(text) - {" "}
    if all(c.isascii() for c in characters):
        return text, _load(None, size)
    path = _path_for(characters)
    if path is None:
        _warn()
        return text.encode("ascii", "backslashreplace").decode(), _load(None, size)
    return text, _load(path, size)


@lru_cache(maxsize=1)
def _warn() -> None:
    """Warns, in the first call only."""
    warn(
        "no font of this system has all characters of the class names, so the missing ones are escaped in legends; "
        "install a font that has them, such as Noto Sans (on Debian: apt install fonts-noto-core fonts-noto-cjk)"
    )


@lru_cache(maxsize=256)
def _load(path: Path | None, size: int) -> Font:
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(os.fspath(path), size)


@lru_cache(maxsize=4096)
def _path_for(characters: frozenset[str]) -> Path | None:
    """The first font that has all characters."""
    from_the_right = any(unicodedata.bidirectional(c) in ("R", "AL") for c in characters)
    if from_the_right and not features.check("raqm"):  # which joins and orders the letters
        return None
    return next((path for path in _fonts() if _has(path, characters)), None)


def _has(path: Path, characters: frozenset[str]) -> bool:
    try:
        font = ImageFont.truetype(os.fspath(path), TRIED_AT, layout_engine=ImageFont.Layout.BASIC)
        missing = bytes(font.getmask(UNASSIGNED))
        return all(bytes(font.getmask(c)) != missing for c in characters)
    except (OSError, ValueError):  # no font after all, or one of bitmaps
        return False


@lru_cache(maxsize=1)
def _fonts() -> tuple[Path, ...]:
    """The font files of matplotlib and of the system; upright sans-serif ones first."""
    return tuple(_of_matplotlib()) + tuple(sorted(_of_system(), key=_rank))


def _of_matplotlib() -> Iterator[Path]:
    """DejaVu Sans, with Latin, Greek, Cyrillic and Arabic letters."""
    spec = find_spec("matplotlib")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if path.is_file():
            yield path


def _of_system() -> Iterator[Path]:
    for place in PLACES:
        for folder, _, names in os.walk(Path(place).expanduser()):
            yield from (Path(folder) / name for name in names if name.lower().endswith((".ttf", ".otf", ".ttc")))


def _rank(path: Path) -> tuple[bool, bool, str]:
    name = path.name.lower()
    return any(style in name.replace("sansserif", "") for style in SPECIAL), "sans" not in name, str(path)
