"""Legends, palettes and what is printed: any script, any number of classes, nothing twice."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgeseg
from edgeseg.data.classes import read_classes
from edgeseg.engine.report import print_scores
from edgeseg.labels import LABELS, distinct_palette, generic_palette, palette_of
from edgeseg.machine.terminal import printable, show
from edgeseg.tasks.pictures import picture_of, with_key
from edgeseg.vision import fonts
from edgeseg.vision.fonts import text_and_font
from edgeseg.vision.visualize import depth_scale, legend

WORDS = ("straße", "дорога", "δρόμος", "طريق", "route à gauche")  # in DejaVu Sans


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """No test sees the fonts that another one has found."""
    caches = (fonts._warn, fonts._path_for, fonts._fonts)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def ink(picture: Image.Image) -> int:
    return int((np.asarray(picture.convert("L")) < 128).sum())


# Scripts


@pytest.mark.parametrize("word", WORDS)
def test_words_of_other_scripts_are_drawn(word: str) -> None:
    pytest.importorskip("matplotlib")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text, font = text_and_font(word, 20)
    assert text == word
    missing = bytes(font.getmask(fonts.UNASSIGNED))
    assert all(bytes(font.getmask(c)) != missing for c in word if c != " ")


def test_ascii_is_drawn_as_ever() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text, font = text_and_font("traffic light", 20)
    assert text == "traffic light"
    assert font.getlength("traffic light") > 20


def test_what_no_font_has_is_escaped_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_fonts", lambda: ())
    with pytest.warns(UserWarning, match=r"no font of this system has all characters.*Noto"):
        assert text_and_font("道路 road", 20)[0] == r"\u9053\u8def road"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert text_and_font("天空", 20)[0] == r"\u5929\u7a7a"
    monkeypatch.setattr(fonts, "_fonts", lambda: (Path("no font.ttf"), Path(__file__)))
    assert text_and_font("ß", 20)[0] == r"\xdf"


def test_fonts_of_the_system_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    source = Path(matplotlib.get_data_path()) / "fonts/ttf"
    for name in ("DejaVuSans-Bold.ttf", "DejaVuSans.ttf", "STIXGeneral.ttf"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "broken-sans.ttf").write_bytes(b"no font")
    monkeypatch.setattr(fonts, "PLACES", (str(tmp_path),))
    monkeypatch.setattr(fonts, "_of_matplotlib", lambda: ())
    assert [path.name for path in fonts._fonts()][:2] == ["DejaVuSans.ttf", "broken-sans.ttf"]
    assert fonts._path_for(frozenset("ß")) == tmp_path / "DejaVuSans.ttf"


# Legends


def test_legend_of_150_classes_is_legible() -> None:
    names = [f"class number {i}" for i in range(150)]
    strip = legend(names, distinct_palette(150), 480)
    assert strip.width == 480
    assert strip.height < 60 * 20  # in columns, not in 150 lines
    pixels = {tuple(pixel) for row in np.asarray(strip) for pixel in row.tolist()}
    assert set(distinct_palette(150)) <= pixels


def test_legend_repeats_nothing() -> None:
    once, twice = (legend(["road", "sky", *more], [(1, 2, 3), (4, 5, 6), *colors], 200) for more, colors in (
        ([], []), (["road"], [(1, 2, 3)]),
    ))  # fmt: skip
    assert (np.asarray(once) == np.asarray(twice)).all()


def test_narrow_pictures_have_legible_legends() -> None:
    wide = legend(["a long name of a class"], [(9, 9, 9)], 400)
    narrow = legend(["a long name of a class"], [(9, 9, 9)], 8)
    assert narrow.width > 100
    assert ink(narrow) == ink(wide)
    assert legend(["very " * 100 + "long"], [(9, 9, 9)], 8).width < 400
    assert legend([], [], 50).width == 50


def test_depth_maps_of_any_width() -> None:
    task = edgeseg.Task("depth", 1, range=(0, 128))
    for width in (1, 5, 65, 66, 500):
        values = np.full((4, width), 8, np.float32)
        assert with_key(picture_of(values, task), values, task).width == max(width, depth_scale(1).width)


# Palettes


@pytest.mark.parametrize("classes", [1, 2, 7, 8, 27, 64, 150, 1000])
def test_classes_without_colours_get_distinct_ones(classes: int) -> None:
    palette = palette_of(edgeseg.Task("segmentation", classes))
    assert len(set(palette)) == classes
    assert all(sum(color) >= 64 for color in palette[:63])


def test_palettes_of_the_zoo_are_as_they_were() -> None:
    assert tuple(LABELS["coco21"].values()) == generic_palette(21)
    assert generic_palette(3) == ((0, 0, 0), (0, 0, 255), (0, 255, 0))
    assert next(iter(LABELS["voc"].values())) == (0, 0, 0)


def test_own_classes_are_not_black(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("ground\nvine 1 2 3\n")
    assert read_classes(tmp_path / "classes.txt").palette == ((128, 0, 0), (1, 2, 3))


# Terminals


def test_control_characters_are_escaped() -> None:
    assert printable("a\x1b[31mred\nb\u202ec") == r"a\x1b[31mred\nb\u202ec"
    assert printable(Path("straße 道路.jpg")) == "straße 道路.jpg"
    assert printable("\ud800") == r"\ud800"
    stream = io.TextIOWrapper(io.BytesIO(), "ascii", newline="\n")
    show("straße\n道", file=stream)  # LC_ALL=C, or a pipe on Windows
    stream.seek(0)
    assert stream.read() == "stra\\xdfe\n\\u9053\n"
    assert text_and_font("two\nlines", 20)[0] == r"two\nlines"


def test_names_of_classes_are_escaped_in_tables(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores({"iou": {"a\x1b[2J": 50.0}, "miou": 50.0}, title="task\x07")
    assert capsys.readouterr().out.splitlines() == [r"task\x07", r"a\x1b[2J   50.00", "mIoU       50.00"]
