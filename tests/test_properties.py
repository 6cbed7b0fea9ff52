"""What holds for any input, as hypothesis finds it: it looks for inputs that break a rule, and shows the smallest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.nn.functional import interpolate

import edgeseg
from edgeseg.data.class_maps import read_class_map
from edgeseg.data.classes import read_class_list
from edgeseg.data.shapes import polygons, run_lengths
from edgeseg.machine.download import public_address
from edgeseg.machine.terminal import printable_lines
from edgeseg.vision.images import tiles
from edgeseg.vision.upsample import upsampled_argmax
from edgeseg.vision.visualize import legend

# Each example is independent of the fixtures; the same ones are tried each time.
anything = settings(
    max_examples=200, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
lengths = st.integers(1, 70)
colors = st.tuples(*[st.integers(0, 255)] * 3)


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    """The record of a network with every kind of field."""
    tasks = {"a": edgeseg.Task("segmentation", 2, classes=("x", "y")), "b": edgeseg.Task("depth", range=(0, 80))}
    model = edgeseg.create_model("unet", encoder="mobilenetv2", channels=8, in_channels=(3, 2), tasks=tasks)
    return model.config.to_json()


@anything
@given(data=st.data(), new=values)
def test_records_are_understood_or_refused(record: dict[str, Any], data: st.DataObject, new: Any) -> None:
    """A record with one field replaced, at any depth."""
    content = holder = json.loads(json.dumps(record))
    key = data.draw(st.sampled_from(sorted(holder)))
    while isinstance(holder[key], dict) and holder[key] and data.draw(st.booleans()):
        holder = holder[key]
        key = data.draw(st.sampled_from(sorted(holder)))
    holder[key] = new
    try:
        config = edgeseg.ModelConfig.from_json({k: v for k, v in content.items() if k != "format"}, "here")
    except ValueError:
        return
    again = json.loads(json.dumps(config.to_json()))
    assert edgeseg.ModelConfig.from_json({k: v for k, v in again.items() if k != "format"}) == config


@anything
@given(lines=st.lists(st.text(max_size=30) | st.sampled_from(["0 road 1 2 3", "1 sky", "255 void 0 0 0"]), max_size=6))
@pytest.mark.parametrize("read", [read_class_list, read_class_map])
def test_lists_are_understood_or_refused_by_name(read: Callable[[Path], Any], lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        found = read(path)
    except ValueError as error:
        assert "classes.txt" in str(error)  # noqa: PT017 (which lists are refused is not the subject)
        return
    if read is read_class_list:
        task = found.task
        assert len(task.classes) == len(set(task.classes)) == len(task.palette) == task.class_count


@anything
@given(
    names=st.lists(st.from_regex(r"[a-z\u4e00-\u4eff]{1,9}", fullmatch=True), min_size=2, max_size=9, unique=True),
    rgb=st.data(),
)
def test_lists_are_read_as_written(names: list[str], rgb: st.DataObject, tmp_path: Path) -> None:
    palette = rgb.draw(st.lists(colors, min_size=len(names), max_size=len(names), unique=True))
    path = tmp_path / "classes.txt"
    rows = (" ".join(map(str, (i, name, *color))) for i, (name, color) in enumerate(zip(names, palette, strict=True)))
    path.write_text("\n".join(rows), encoding="utf-8")
    found = read_class_list(path)
    assert found.task.classes == tuple(names)
    assert found.task.palette == tuple(palette)
    assert found.colors == {color: i for i, color in enumerate(palette)}


@anything
@given(size=st.tuples(lengths, lengths), tile=st.tuples(lengths, lengths))
def test_tiles_keep_every_pixel_once(size: tuple[int, int], tile: tuple[int, int]) -> None:
    kept = np.zeros(size, int)
    for outer, inner in tiles(size, tile):
        for whole, own, most in zip(outer, inner, tile, strict=True):
            assert set(own) <= set(whole)
            assert len(whole) <= most
        kept[np.ix_(*inner)] += 1
    assert (kept == 1).all()


@anything
@given(
    logits=arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)),
        elements=st.floats(-8, 8, width=16),
    ),
    size=st.tuples(lengths, lengths),
)
def test_labels_of_upsampled_logits(logits: np.ndarray, size: tuple[int, int]) -> None:
    """The class that is chosen has the highest value that PyTorch interpolates, but for rounding."""
    full = interpolate(torch.from_numpy(logits)[None], size, mode="bilinear", align_corners=False)[0]
    labels = torch.from_numpy(upsampled_argmax(logits, size).astype(np.int64))
    chosen = full.gather(0, labels[None])[0]
    assert bool((chosen >= full.amax(dim=0) - 1e-4).all())


@anything
@given(size=st.tuples(lengths, lengths), data=st.data())
def test_polygons_and_run_lengths_are_those_of_coco(size: tuple[int, int], data: st.DataObject) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    height, width = size
    x, y = (st.floats(0, limit, width=32) for limit in (width, height))
    points = data.draw(st.lists(st.tuples(x, y), min_size=3, max_size=8))
    outline = [value for point in points for value in point]
    (encoded,) = coco.frPyObjects([outline], height, width)
    expected = coco.decode(encoded).astype(bool)
    region = polygons([outline], size, "here")
    drawn = np.zeros(size, bool)
    drawn[region.top : region.top + region.mask.shape[0], region.left : region.left + region.mask.shape[1]] = (
        region.mask
    )
    assert np.array_equal(drawn, expected)
    decoded = run_lengths({"size": list(size), "counts": encoded["counts"].decode()}, size, "here").mask
    assert np.array_equal(decoded, expected)


@anything
@given(text=st.text())
def test_nothing_commands_a_terminal(text: str) -> None:
    shown = printable_lines(text)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert printable_lines(shown) == shown


@anything
@given(
    user=st.text(max_size=9), host=st.from_regex(r"[a-z]{1,9}\.org(:\d{1,4})?", fullmatch=True),
    path=st.from_regex(r"(/[a-z%@:]{0,9}){0,3}", fullmatch=True),
)  # fmt: skip
def test_secrets_of_addresses_are_not_shown(user: str, host: str, path: str) -> None:
    assume(not set(user) & set("/?#[]\\"))
    try:
        shown = public_address(f"https://{user}:SECRET@{host}{path}?token=SECRET#SECRET")
    except ValueError as error:
        shown = str(error)
    assert "SECRET" not in shown


@anything
@given(entries=st.lists(st.tuples(st.text(max_size=40), colors), max_size=12), width=st.integers(1, 300))
@pytest.mark.filterwarnings("ignore:no font of this system")
def test_legends_of_any_names(entries: list[tuple[str, tuple[int, int, int]]], width: int) -> None:
    strip = legend([name for name, _ in entries], [color for _, color in entries], width)
    assert strip.width >= width
    shown = {color for _, color in strip.getcolors(strip.width * strip.height) or []}
    assert {color for _, color in entries} <= shown


@anything
@given(
    photo=st.tuples(st.integers(1, 5000), st.integers(1, 5000)), size=st.tuples(st.integers(1, 2000), lengths),
    keep=st.booleans(),
)  # fmt: skip
def test_sizes_of_inputs(photo: tuple[int, int], size: tuple[int, int], keep: bool) -> None:
    """With the aspect ratio kept, an input has as many pixels as `size`, up to rounding."""
    height, width = edgeseg.Preprocess(size=size, keep_aspect=keep).input_size(photo)
    if not keep:
        assert (height, width) == size
    else:
        scale = (size[0] * size[1] / (photo[0] * photo[1])) ** 0.5
        for side, own in zip((height, width), photo, strict=True):
            assert side == max(round(own * scale), 1)
