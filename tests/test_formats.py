"""Formats that people bring: folders, colours, COCO JSON, YOLO and labelme are read, or refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeseg.data import load_dataset

from .conftest import SHARED

IDD = SHARED / "data/idd_lite"
IDD_CLASSES = ("drivable", "non-drivable", "living", "vehicles", "roadside objects", "far objects", "sky")
IDD_OPTIONS = {"images": "leftImg8bit", "masks": "gtFine", "image_suffix": "_image.jpg", "mask_suffix": "_label.png"}
COLORS = np.array([(0, 0, 0), (128, 64, 128), (0, 128, 0), (10, 20, 30)], np.uint8)


def save(path: Path, pixels: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path, **options)
    return path


def photo(path: Path, size: tuple[int, int] = (32, 48)) -> Path:
    return save(path, np.full((*size, 3), 99, np.uint8))


def maps(count: int = 3, classes: int = 3, size: tuple[int, int] = (32, 48), seed: int = 0) -> list[np.ndarray]:
    """Label maps of rough regions and single pixels."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, classes, (count, size[0] // 8, size[1] // 8), dtype=np.uint8)
    labels = blocks.repeat(8, axis=1).repeat(8, axis=2)
    labels[random.random(labels.shape) < 0.05] = classes - 1
    return list(labels)


def pairs(root: Path, masks: Sequence[np.ndarray], **places: str) -> Path:
    """A folder of photos and masks; `places` have {i} for the number."""
    for i, mask in enumerate(masks):
        photo(root / places.get("photo", "images/train/{i}.jpg").format(i=i))
        save(root / places.get("mask", "masks/train/{i}.png").format(i=i), mask)
    return root


def read(name: str, root: Path, split: str = "train", **options: Any) -> list[np.ndarray]:
    data = load_dataset(name, root, split, **options)
    return [data[i][1].numpy() for i in range(len(data))]


def same(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> bool:
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# Folders, suffixes and splits


@pytest.mark.parametrize(
    ("places", "options"),
    [
        ({"photo": "photos/train/{i}.jpg", "mask": "labels/train/{i}.png"}, {"images": "photos", "masks": "labels"}),
        (
            {"photo": "train/images/{i}.jpg", "mask": "train/masks/{i}.png"},
            {"images": "{split}/images", "masks": "{split}/masks"},
        ),
        (
            {"photo": "a/train/x/{i}_image.png", "mask": "b/train/x/{i}_label.png"},
            {"images": "a", "masks": "b", "image_suffix": "_image.png", "mask_suffix": "_label.png"},
        ),
        (
            {"photo": "train/{i}.png", "mask": "train/{i}_mask.png"},
            {"images": ".", "masks": ".", "mask_suffix": "_mask.png"},
        ),
        ({"photo": "train/{i}.jpg", "mask": "train/{i}.png"}, {"images": ".", "masks": ".", "image_suffix": ".jpg"}),
        (
            {"photo": "train/{i}.png", "mask": "train/masks/{i}.png"},
            {"images": "{split}", "masks": "{split}/masks"},
        ),
    ],
)
def test_folders_and_suffixes(places: dict[str, str], options: dict[str, str], tmp_path: Path) -> None:
    labels = maps()
    pairs(tmp_path, labels, **places)
    assert same(read("images_masks", tmp_path, classes=("a", "b", "c"), **options), labels)


def test_one_folder_and_one_suffix(tmp_path: Path) -> None:
    photo(tmp_path / "train/0.png")
    with pytest.raises(ValueError, match=r"folder of photos and of masks.*--image-suffix"):
        load_dataset("images_masks", tmp_path, "train", images=".", masks=".", classes=("a", "b"))


def test_wrong_names_of_folders_and_suffixes(tmp_path: Path) -> None:
    pairs(tmp_path, maps())
    with pytest.raises(FileNotFoundError, match=r"(?s)classes\.txt is missing; expected.*--classes"):
        load_dataset("images_masks", tmp_path, "train")
    with pytest.raises(ValueError, match=r"classes is a list of names such as .*got 'ground,vine'"):
        load_dataset("images_masks", tmp_path, "train", classes="ground,vine")
    with pytest.raises(ValueError, match=r"no samples here: .*images/train has no photos whose names end with _x\.jpg"):
        load_dataset("images_masks", tmp_path, "train", classes=("a", "b", "c"), image_suffix="_x.jpg")
    with pytest.raises(ValueError, match="image_suffix is the ending of an image file"):
        load_dataset("images_masks", tmp_path, "train", classes=("a", "b", "c"), image_suffix="_x")
    with pytest.raises(FileNotFoundError, match=r"(?s)images/val is missing; .*\['train'\].*--val-fraction"):
        load_dataset("images_masks", tmp_path, "val", classes=("a", "b", "c"))


def test_split_by_names(tmp_path: Path) -> None:
    labels = maps(40)
    pairs(tmp_path, labels, photo="images/{i}.jpg", mask="masks/{i}.png")
    options = {"classes": ("a", "b", "c"), "val_fraction": 0.25}

    def names(split: str) -> set[str]:
        data = load_dataset("images_masks", tmp_path, split, **options)
        return {Path(data.name(i)).stem for i in range(len(data))}

    train, val = names("train"), names("val")
    assert train | val == {str(i) for i in range(40)}
    assert not train & val
    assert 4 <= len(val) <= 16
    pairs(tmp_path, maps(20), photo="images/new{i}.jpg", mask="masks/new{i}.png")
    assert train <= names("train")
    assert val <= names("val")
    with pytest.raises(ValueError, match="divides into train and val; there is no split 'test'"):
        names("test")
    options["val_fraction"] = 1.5
    with pytest.raises(ValueError, match=r"val_fraction .* is between 0 and 1, got 1\.5"):
        names("train")
    options["val_fraction"] = 1e-6
    with pytest.raises(ValueError, match="none of the 60 samples falls into val"):
        names("val")
    photo(tmp_path / "images/train/0.jpg")
    with pytest.raises(ValueError, match=r"has the folder 'train', so val_fraction"):
        names("val")


# Values


def test_values(tmp_path: Path) -> None:
    labels = maps(3, 2)
    pairs(tmp_path, [mask * np.uint8(255) for mask in labels])
    options: dict[str, Any] = {"classes": ("ground", "vine")}
    with pytest.raises(ValueError, match=r"no values but 0 and 255.*mask_values=\(0, 255\) \(--mask-values 0 255\)"):
        load_dataset("images_masks", tmp_path, "train", **options)
    forms: list[Any] = [(0, 255), {0: 0, 255: 1}, "0:0,255:1", "0 255", ["0", "255"], ["0:0", "255:1"]]
    for values in forms:
        assert same(read("images_masks", tmp_path, mask_values=values, **options), labels)
    ignored = read("images_masks", tmp_path, mask_values="0:0 1:1 255:255", **options)
    assert same(ignored, [mask * np.uint8(255) for mask in labels])
    save(tmp_path / "masks/train/0.png", labels[0] * np.uint8(128))
    with pytest.raises(ValueError, match=r"0\.png has ids \[128\].*--mask-values"):
        load_dataset("images_masks", tmp_path, "train", **options)[0]
    with pytest.raises(ValueError, match=r"0\.png has values \[128\] that mask_values .* does not list"):
        load_dataset("images_masks", tmp_path, "train", mask_values=(0, 255), **options)[0]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ("0:0:1", "VALUE:CLASS pairs"),
        ("0 255:1", "VALUE:CLASS pairs"),
        (("a", "b"), "VALUE:CLASS pairs"),
        (7, "VALUE:CLASS pairs"),
        ((0, 0), "a value stands twice"),
        ((0, 1, 2), r"class ids \[2\]; there are 2 classes"),
        ({0: 0}, r"no value for the classes \[1\]"),
    ],
)
def test_values_that_are_none(values: Any, problem: str, tmp_path: Path) -> None:
    pairs(tmp_path, maps(1, 2))
    with pytest.raises(ValueError, match=problem):
        load_dataset("images_masks", tmp_path, "train", classes=("a", "b"), mask_values=values)


def test_gray_masks_stored_in_colour(tmp_path: Path) -> None:
    labels = maps()
    pairs(tmp_path, [np.stack([mask] * 3, axis=-1) for mask in labels])
    assert same(read("images_masks", tmp_path, classes=("a", "b", "c")), labels)


# Colours


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours(mode: str, tmp_path: Path) -> None:
    labels = maps()
    for i, mask in enumerate(labels):
        photo(tmp_path / f"images/train/{i}.jpg")
        indexed = Image.fromarray(mask)
        indexed.putpalette(COLORS[[2, 1, 0]].tobytes())  # of a palette the indices count
        picture = indexed if mode == "P" else Image.fromarray(COLORS[mask]).convert(mode)
        (tmp_path / "masks/train").mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / f"masks/train/{i}.png")
    lines = [f"{name} {' '.join(map(str, color))}" for name, color in zip("abc", COLORS.tolist(), strict=False)]
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    assert same(read("images_masks", tmp_path), labels)
    assert same(read("images_masks", tmp_path, classes=lines), labels)


def test_colours_of_ignored_pixels(tmp_path: Path) -> None:
    labels = maps(classes=4)
    pairs(tmp_path, [COLORS[mask] for mask in labels])
    lines = ["0 a 128 64 128", "1 b 0 128 0", "2 c 10 20 30"]
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    data = load_dataset("images_masks", tmp_path, "train")
    with pytest.raises(ValueError, match=r"train/0\.png has 1 colours that are no class: \(0, 0, 0\); .*255 void"):
        data[0]
    (tmp_path / "classes.txt").write_text("\n".join([*lines, "255 void 0 0 0"]))
    assert load_dataset("images_masks", tmp_path, "train").task.classes == ("a", "b", "c")
    assert same(read("images_masks", tmp_path), [mask - np.uint8(1) for mask in labels])


@pytest.mark.parametrize("lines", ["a 0 0 0\nb 0 0 0\nc 1 1 1", "a 0 0 0\nb\nc 1 1 1", "a\nb\nc"])
def test_colours_that_cannot_decode(lines: str, tmp_path: Path) -> None:
    pairs(tmp_path, [COLORS[mask] for mask in maps()])
    (tmp_path / "classes.txt").write_text(lines)
    with pytest.raises(ValueError, match=r"train/0\.png is a colour picture.*all different"):
        load_dataset("images_masks", tmp_path, "train")[0]


# Cityscapes-like folders


def idd_like(root: Path) -> Path:
    for split, count in (("train", 4), ("val", 2)):
        places = {"photo": f"leftImg8bit/{split}/{{i}}/0_image.jpg", "mask": f"gtFine/{split}/{{i}}/0_label.png"}
        pairs(root, maps(count, 7), **places)
    return root


def test_cityscapes_like_folders(tmp_path: Path) -> None:
    idd_like(tmp_path)
    assert same(read("images_masks", tmp_path, "val", classes=IDD_CLASSES, **IDD_OPTIONS), maps(2, 7))
    with pytest.raises(FileNotFoundError, match=r"(?s)expected\n.*gtFine.*--dataset images_masks --image-dir"):
        load_dataset("cityscapes_segmentation", tmp_path, "train")
    for path in tmp_path.glob("leftImg8bit/train/*/*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"(?s)has no photos; expected\n.*gtFine.*--dataset images_masks"):
        load_dataset("cityscapes_segmentation", tmp_path, "train")


def test_idd_lite_as_it_lies() -> None:
    if not IDD.is_dir():
        pytest.skip(f"needs {IDD}, photos that lie beside the checkout")
    for split, count in (("train", 1403), ("val", 204)):
        data = load_dataset("images_masks", IDD, split, classes=IDD_CLASSES, **IDD_OPTIONS)
        assert len(data) == count
        image, labels = data[0]
        assert image.shape[1:] == labels.shape == (227, 320)
        assert set(labels.unique().tolist()) <= {*range(7), 255}
