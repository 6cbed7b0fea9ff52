"""Files of classes, as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.data.classes import read_classes

PLAIN = "bare soil 120 80 40\nvine 0 128 0\nsky 1 2 3\n"
COLORS = ((120, 80, 40), (0, 128, 0), (1, 2, 3))


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.encode("utf-16"),
        PLAIN.replace("\n", "\r\n").encode(),
        b"# my classes\n\n" + PLAIN.encode() + b"\n# end\n",
        b"0 bare soil 120 80 40\n1 vine 0 128 0\n2 sky 1 2 3\n",
        b"0: bare soil 120 80 40\n1: vine 0 128 0\n2: sky 1 2 3\n",
        b"bare soil,120,80,40\nvine,0,128,0\nsky,1,2,3",
        b"bare soil, 120, 80, 40\nvine, 0, 128, 0\nsky; 1; 2; 3",
        b"# label:color_rgb:parts:actions\nbare soil:120,80,40::\nvine:0,128,0::\nsky:1,2,3::\n",
    ],
)
def test_forms(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(content)
    task = read_classes(tmp_path / "classes.txt")
    assert task.classes == ("bare soil", "vine", "sky")
    assert task.palette == COLORS


def test_names_alone(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("straße\n0 or 1\nm²\nlabel\nroute 66\n", encoding="utf-8")
    assert read_classes(path).classes == ("straße", "0 or 1", "m²", "label", "route 66")
    path.write_text("lane 1 0 0 255\nlane 2 0 255 255\n")
    assert read_classes(path).classes == ("lane 1", "lane 2")
    path.write_text("lane 0\nlane 1\nbuilding, edifice\n")
    assert read_classes(path).classes == ("lane 0", "lane 1", "building, edifice")
    for text in ("0 ground\n1 tree\n", "0 = ground\n1 = tree\n", "ground:1,2,3:trunk,crown:\ntree:4,5,6::falling\n"):
        path.write_text(text)
        assert read_classes(path).classes == ("ground", "tree")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "has no classes"),
        (b"# only a comment\n", "has no classes"),
        (b"a\nb\na\n", r"line 3: class 'a' stands in line 1 already"),
        (b"name,r,g,b\na,1,2,3\n", r"line 1: 'name,r,g,b' is a heading"),
        (b"id name\n0 a\n", r"line 1: 'id name' is a heading"),
        (b"class_id,class_name\n0,a\n1,b\n", r"line 1: 'class_id,class_name' is a heading"),
        (b"value\n1 a\n2 b\n", r"line 1: 'value' is a heading"),
        (b"vine 1\nground 0\n", r"line 1: 'vine 1' ends with an id"),
        (b"ground=0\nvine=1\n", r"line 1: 'ground=0' ends with an id"),
        (b"ground;0;128;64;128\n", r"line 1: 'ground;0;128;64;128' is not a class"),
        (
            b"road,0,128,64,128\ncar,1,0,0,142\n",
            r"line 1: 'road,0,128,64,128' is not a class; a line is",
        ),
        (b"road 128 64 128 255\ncar 0 0 142 255\n", r"line 1: 'road 128 64 128 255' ends with the alpha 255"),
        (b"road, car\n", r"line 1: 'road, car' has several classes"),
        (b'["road", "car"]\n', r"line 1: .* has several classes"),
        (b"0 a\n2 b\n", r"line 2: '2 b' does not begin with id 1"),
        (b"0 a\nb\n", r"line 2: 'b' does not begin with id 1"),
        (b"1 a\n2 b\n", r"line 1: '1 a' does not begin with id 0"),
        (b"a 0 0 300\n", r"line 1: .*colour beyond 0 to 255"),
        (b"a # the first\n", r"line 1: .*comments stand on lines of their own"),
        (b"a\n" + b"b," * 1000 + b"c\n", "line 2: 2001 characters are too many"),
        (b"stra\xdfe\n", "not UTF-8 text.*save it as UTF-8"),
        ("a\nb\n".encode("utf-16-le"), "not UTF-8 text"),
    ],
)
def test_refused(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"classes\.txt.*{problem}"):
        read_classes(path)
