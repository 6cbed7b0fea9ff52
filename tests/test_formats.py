"""Formats that people bring: folders, colours, COCO JSON, YOLO and labelme are read, or refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import edgeseg
from edgeseg.cli import main
from edgeseg.data import load_dataset
from edgeseg.storage.checkpoint import read_weights
from edgeseg.weights.load import load_checkpoint

from .conftest import SHARED, TINY

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
        ({0: 0, 1.5: 1}, "VALUE:CLASS pairs"),
        (True, "VALUE:CLASS pairs"),
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
        indexed.putpalette((COLORS[[2, 1, 0]] // 2).tobytes())  # of a palette the indices count
        picture = indexed if mode == "P" else Image.fromarray(COLORS[mask]).convert(mode)
        (tmp_path / "masks/train").mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / f"masks/train/{i}.png")
    lines = [f"{name} {' '.join(map(str, color))}" for name, color in zip("abc", COLORS.tolist(), strict=False)]
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    assert same(read("images_masks", tmp_path), labels)
    assert same(read("images_masks", tmp_path, classes=lines), labels)


def test_palettes_that_contradict_the_colours(tmp_path: Path) -> None:
    """A program that stores a colour picture with a palette numbers the palette in its own way."""
    colors = np.array([(0, 0, 142), (128, 64, 128)], np.uint8)
    ids = np.repeat(np.array([[0], [1]], np.uint8), [20, 12], axis=0).repeat(48, axis=1)
    pairs(tmp_path, [ids])
    (tmp_path / "classes.txt").write_text("car 0 0 142\nroad 128 64 128\n")
    mask = next(tmp_path.glob("masks/train/*"))
    indices = Image.fromarray(1 - ids)
    for order in ([1, 0], [0, 1]):
        indices.putpalette(colors[order].tobytes())
        indices.save(mask)
        if order == [1, 0]:
            with pytest.raises(ValueError, match=r"index 0 is \(128, 64, 128\), the colour of class 1; save the mask"):
                read("images_masks", tmp_path)
            indices.convert("RGB").save(mask)
            assert np.array_equal(read("images_masks", tmp_path)[0], ids)
        else:
            assert np.array_equal(read("images_masks", tmp_path)[0], 1 - ids)


def test_255_means_the_same_in_all_splits(tmp_path: Path) -> None:
    seen, void = np.zeros((32, 48), np.uint8), np.zeros((32, 48), np.uint8)
    seen[:8], void[20:] = 1, 255
    for split, masks in (("train", [seen | void]), ("val", [void])):
        save(tmp_path / f"images/{split}/0.png", np.zeros((32, 48, 3), np.uint8))
        save(tmp_path / f"masks/{split}/0.png", masks[0])
    (tmp_path / "classes.txt").write_text("road\n")
    assert [np.unique(read("images_masks", tmp_path, split)[0]).tolist() for split in ("train", "val")] == [
        [0, 1, 255], [0, 255],
    ]  # fmt: skip
    save(tmp_path / "masks/train/0.png", void)
    assert np.unique(read("images_masks", tmp_path, "val")[0]).tolist() == [0, 1]


def test_colours_of_ignored_pixels(tmp_path: Path) -> None:
    labels = maps(classes=4)
    pairs(tmp_path, [COLORS[mask] for mask in labels])
    lines = ["0 a 128 64 128", "1 b 0 128 0", "2 c 10 20 30"]
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    data = load_dataset("images_masks", tmp_path, "train")
    with pytest.raises(ValueError, match=r"0\.png has 1 colours that belong to no class: \(0, 0, 0\); .*255 void"):
        data[0]
    (tmp_path / "classes.txt").write_text("\n".join([*lines, "255 void 0 0 0"]))
    assert load_dataset("images_masks", tmp_path, "train").task.classes == ("a", "b", "c")
    assert same(read("images_masks", tmp_path), [mask - np.uint8(1) for mask in labels])


def test_masks_of_cvat(tmp_path: Path) -> None:
    """CVAT's export of colour masks, in the layout of VOC, with the list of its colours."""
    labels = maps(8)
    pairs(tmp_path, [COLORS[mask] for mask in labels], photo="JPEGImages/{i}.jpg", mask="SegmentationClass/{i}.png")
    lines = [f"{name}:{','.join(map(str, color))}::" for name, color in zip("abc", COLORS.tolist(), strict=False)]
    (tmp_path / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines]))
    options = {"images": "JPEGImages", "masks": "SegmentationClass", "val_fraction": 0.5}
    found = [*read("images_masks", tmp_path, "train", **options), *read("images_masks", tmp_path, "val", **options)]
    assert len(found) == 8
    assert {mask.tobytes() for mask in found} == {mask.tobytes() for mask in labels}


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


def test_other_ids_in_files_of_cityscapes(tmp_path: Path) -> None:
    photo(tmp_path / "leftImg8bit/train/a/0_leftImg8bit.png")
    save(tmp_path / "gtFine/train/a/0_gtFine_labelIds.png", np.full((32, 48), 40, np.uint8))
    with pytest.raises(ValueError, match=r"0_gtFine_labelIds\.png has label ids \[40\].*--dataset images_masks"):
        load_dataset("cityscapes_segmentation", tmp_path, "train")[0]
    photo(tmp_path / "leftImg8bit/train/a/1_leftImg8bit.png")
    with pytest.raises(FileNotFoundError, match=r"1_gtFine_labelIds\.png is missing; expected"):
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


@pytest.mark.parametrize(
    "options",
    [
        "--dataset images_masks --image-dir leftImg8bit --mask-dir gtFine --image-suffix _image.jpg "
        "--mask-suffix _label.png --classes drivable non-drivable living vehicles roadside far sky",
        "--dataset coco_json --annotations {split}.json --image-dir leftImg8bit/{split}",
    ],
)
def test_training_by_one_command(options: str, tmp_path: Path) -> None:
    idd_like(tmp_path)
    for split, count in (("train", 4), ("val", 2)):
        content = coco(maps(count, 7), run_lengths, names={i: f"{i}/0_image.jpg" for i in range(count)})
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    call = ["train", "--data-path", str(tmp_path), *options.split(), "--model", "fpn_aspp_mobilenetv2_tv_edgeailite"]
    call += ["--epochs", "1", "--batch-size", "2", "--img-resize", "32", "32", "--rand-crop", "32", "32"]
    assert main([*call, "--workers", "0", "-o", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/best.safetensors").is_file()


def test_options_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs(tmp_path, [mask * np.uint8(255) for mask in maps(3, 2)])
    call = ["evaluate", "--dataset", "images_masks", "--data-path", str(tmp_path), "--split", "train"]
    assert main([*call, "--classes", "ground", "vine", "--model", "fpn_aspp_mobilenetv2_tv_edgeailite"]) == 2
    assert "--mask-values 0 255" in capsys.readouterr().err


# COCO JSON


def run_lengths(mask: np.ndarray) -> Any:
    """Uncompressed run lengths, column by column."""
    flat = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    counts = np.diff([0, *ends.tolist(), flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def compressed(mask: np.ndarray) -> Any:
    tools = pytest.importorskip("pycocotools.mask")
    encoded = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def rows(mask: np.ndarray) -> Any:
    """A rectangle per run of a row."""
    found = []
    for y, row in enumerate(mask):
        starts = np.flatnonzero(np.diff([0, *row.astype(int).tolist(), 0]))
        for left, right in starts.reshape(-1, 2).tolist():
            found.append([left, y, right, y, right, y + 1, left, y + 1])
    return found


def coco(
    labels: Sequence[np.ndarray], draw: Callable[[np.ndarray], Any], *, names: dict[int, str] | None = None
) -> dict[str, Any]:
    """The JSON of label maps: categories 3, 6, 9, ..., an annotation per class of a photo."""
    names = names or {i: f"{i}.jpg" for i in range(len(labels))}
    annotations = [
        {"image_id": 100 + i, "category_id": 3 * int(label), "segmentation": draw(mask == label), "iscrowd": 0}
        for i, mask in enumerate(labels)
        for label in np.unique(mask)
        if label > 0
    ]
    return {
        "images": [
            {"id": 100 + i, "file_name": names[i], "height": mask.shape[0], "width": mask.shape[1]}
            for i, mask in enumerate(labels)
        ],
        "annotations": [{"id": 7 * i} | each for i, each in enumerate(annotations)],
        "categories": [{"id": 3 * i, "name": f"thing {i}"} for i in range(6, 0, -1)],
    }


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def cvat(tmp_path: Path) -> Path:
    """Three photos and their annotations in the layout of CVAT."""
    for i in range(3):
        photo(tmp_path / f"images/{i}.jpg")
    write(tmp_path / "annotations/instances_default.json", coco(maps(3, 7), run_lengths))
    return tmp_path


@pytest.mark.parametrize("draw", [run_lengths, compressed, rows])
def test_label_maps_through_coco(draw: Callable[[np.ndarray], Any], cvat: Path) -> None:
    write(cvat / "annotations/instances_default.json", coco(maps(3, 7), draw))
    data = load_dataset("coco_json", cvat, "default")
    assert data.task.classes == ("background", *(f"thing {i}" for i in range(1, 7)))
    assert same([data[i][1].numpy() for i in range(3)], maps(3, 7))
    own = read("coco_json", cvat, "default", background=False)
    assert same(own, [mask - np.uint8(1) for mask in maps(3, 7)])


def test_idd_lite_through_coco(tmp_path: Path) -> None:
    if not IDD.is_dir():
        pytest.skip(f"needs {IDD}, photos that lie beside the checkout")
    data = load_dataset("images_masks", IDD, "val", classes=IDD_CLASSES, **IDD_OPTIONS)
    labels = [data[i][1].numpy() + np.uint8(1) for i in range(0, 40, 10)]  # ignored pixels become 0
    names = {i: data.name(10 * i).replace(str(IDD / "leftImg8bit/val/"), "").lstrip("/") for i in range(4)}
    content = coco(labels, compressed, names=names)
    content["categories"].append({"id": 21, "name": "thing 7"})
    write(tmp_path / "own.json", content)
    options = {"annotations": "own.json", "images": IDD / "leftImg8bit/val", "background": False}
    assert same(read("coco_json", tmp_path, "val", **options), [mask - np.uint8(1) for mask in labels])


@pytest.mark.parametrize(
    ("file", "photos", "name", "split", "options"),
    [
        ("annotations/instances_default.json", "images", "{i}.jpg", "default", {}),
        ("annotations/instances_Train.json", "images/train", "{i}.jpg", "train", {}),
        ("annotations/instances_val.json", "images/val", "val/{i}.jpg", "val", {}),
        ("annotations/instances_train2017.json", "train2017", "{i}.jpg", "train2017", {}),
        ("train/_annotations.coco.json", "train", "{i}.jpg", "train", {}),
        ("valid/_annotations.coco.json", "valid", "{i}.jpg", "val", {}),
        (
            "train/_annotations.coco.json",
            "train",
            "{i}.jpg",
            "train",
            {"annotations": "train/_annotations.coco.json", "val_fraction": 1e-9},
        ),
        ("result.json", "images", "images/{i}.jpg", "train", {"val_fraction": 1e-9}),
        ("result.json", "images", "images\\{i}.jpg", "train", {"val_fraction": 1e-9}),
        ("result.json", "images", "../../data/media/upload/1/{i}.jpg", "train", {"val_fraction": 1e-9}),
        ("a/b.json", "c/train", "{i}.jpg", "train", {"annotations": "a/b.json", "images": "c/{split}"}),
    ],
)
def test_layouts_of_coco(
    file: str, photos: str, name: str, split: str, options: dict[str, Any], tmp_path: Path
) -> None:
    for i in range(3):
        photo(tmp_path / photos / f"{i}.jpg")
    write(tmp_path / file, coco(maps(3, 7), rows, names={i: name.format(i=i) for i in range(3)}))
    assert same(read("coco_json", tmp_path, split, **options), maps(3, 7))


def test_layout_of_coco_is_printed(cvat: Path) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"(?s)train/_annotations\.coco\.json is missing; .*instances_default"
        r"\.json can be divided by val_fraction.*expected\n.*Roboflow",
    ):
        load_dataset("coco_json", cvat, "train")
    with pytest.raises(FileNotFoundError, match=r"x\.json is missing; expected"):
        load_dataset("coco_json", cvat, "train", annotations="x.json")


def square(number: int, category: int, x: float, y: float, side: float, **more: Any) -> dict[str, Any]:
    corners = [x, y, x + side, y, x + side, y + side, x, y + side]
    return {"id": number, "image_id": 1, "category_id": category, "segmentation": [corners], **more}


def one_photo(root: Path, annotations: list[dict[str, Any]], names: Sequence[str] = ("road", "car")) -> Path:
    photo(root / "train/1.jpg")
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 32, "width": 48}],
        "annotations": annotations,
        "categories": [{"id": 1 + i, "name": name} for i, name in enumerate(names)],
    }
    write(root / "train/_annotations.coco.json", content)
    return root


def test_overlaps(tmp_path: Path) -> None:
    """The smaller lies on top, of equal ones the later, and crowds below."""
    car, road = square(1, 2, 4, 4, 8), square(2, 1, 0, 0, 20)
    for order in ([car, road], [road, car]):
        (labels,) = read("coco_json", one_photo(tmp_path, order))
        assert [labels[y, x].item() for x, y in ((2, 2), (6, 6), (30, 30))] == [1, 2, 0]
    (labels,) = read("coco_json", one_photo(tmp_path, [car | {"iscrowd": 1}, road]))
    assert labels[6, 6] == 1
    (labels,) = read("coco_json", one_photo(tmp_path, [car, car | {"id": 5, "category_id": 1}]))
    assert labels[6, 6] == 1


def test_polygons_are_those_of_coco() -> None:
    tools = pytest.importorskip("pycocotools.mask")
    from edgeseg.data.shapes import polygons

    random = np.random.default_rng(0)
    for trial in range(200):
        height, width = random.integers(1, 40, 2).tolist()
        parts = [
            (random.random((n, 2)) * (width + 1.8, height + 1.8) - 0.9).round([0, 1, 6][trial % 3]).reshape(-1).tolist()
            for n in random.integers(3, 9, 2)
        ]
        expected = tools.decode(tools.merge(tools.frPyObjects(parts, height, width))) > 0
        drawn = np.zeros((height, width), bool)
        mask, top, left = polygons(parts, (height, width), "")
        drawn[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
        assert np.array_equal(drawn, expected)


def test_categories_of_tools(tmp_path: Path) -> None:
    """A background of one's own is class 0; Roboflow's group of all others is no class."""
    names = ("road", "Background", "car")
    data = load_dataset("coco_json", one_photo(tmp_path, [square(1, 3, 0, 0, 9)], names), "train")
    assert data.task.classes == ("Background", "road", "car")
    assert data[0][1][4, 4] == 2
    path = tmp_path / "train/_annotations.coco.json"
    content = json.loads(path.read_text())
    content["categories"] = [
        {"id": 0, "name": "signs", "supercategory": "none"},
        {"id": 3, "name": "stop", "supercategory": "signs"},
        {"id": 5, "name": "yield", "supercategory": "signs"},
    ]
    write(path, content)
    assert load_dataset("coco_json", tmp_path, "train").task.classes == ("background", "stop", "yield")


def test_no_classes_and_other_types(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"_annotations\.coco\.json has no classes"):
        load_dataset("coco_json", one_photo(tmp_path, [], ()), "train")
    with pytest.raises(ValueError, match=r"has 256 classes; there are 1 to 255"):
        load_dataset("coco_json", one_photo(tmp_path, [], [str(i) for i in range(255)]), "train")
    with pytest.raises(ValueError, match="background is True or False, got 'no'"):
        load_dataset("coco_json", one_photo(tmp_path, []), "train", background="no")
    with pytest.raises(ValueError, match="on_unlabelled is 'background' or 'skip', got 'stop'"):
        load_dataset("coco_json", one_photo(tmp_path, []), "train", on_unlabelled="stop")
    with pytest.raises(ValueError, match="classes is a list of names"):
        load_dataset("labelme", tmp_path, "train", classes=3)


def test_photos_without_annotations(cvat: Path) -> None:
    path = cvat / "annotations/instances_default.json"
    content = json.loads(path.read_text())
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] != 101]
    write(path, content)
    with pytest.warns(
        UserWarning, match=r"1 photos do not have annotations and are background.*--skip-unlabelled.*1\.jpg"
    ):
        labels = read("coco_json", cvat, "default")
    assert len(labels) == 3
    assert not labels[1].any()
    with pytest.warns(UserWarning, match="1 photos do not have annotations and are left out"):
        data = load_dataset("coco_json", cvat, "default", on_unlabelled="skip")
    assert len(data) == 2
    assert data.skipped == [f"{cvat / 'images/1.jpg'}: no annotations"]


def test_all_that_is_wrong_is_listed(cvat: Path) -> None:
    path = cvat / "annotations/instances_default.json"
    content = json.loads(path.read_text())
    whole = json.dumps(content)
    for each in content["annotations"]:
        each["segmentation"] = "damaged"
    write(path, content)
    count = len({each["image_id"] for each in content["annotations"]})
    assert count == 3
    with pytest.raises(ValueError, match=r"(annotation .*){3}"):
        load_dataset("coco_json", cvat, "default")
    path.write_text(whole)
    for photo in cvat.glob("images/**/*.jpg"):
        photo.unlink()
    with pytest.raises(FileNotFoundError, match=r"(the photo .* is missing; ){3}looked in"):
        load_dataset("coco_json", cvat, "default")


def test_what_is_wrong_is_counted(tmp_path: Path) -> None:
    for i in range(6):
        photo(tmp_path / f"train/{i}.jpg")
        (tmp_path / f"train/{i}.json").write_text("{")
    with pytest.raises(ValueError, match=r"0\.json is not JSON: .*2\.json is not JSON: .*; and 3 more$"):
        load_dataset("labelme", tmp_path, "train", classes=["road"])


def _change(key: str, **changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content[key][1].update(changes)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda content: content.pop("categories"), r"has no list 'categories'"),
        (lambda content: content["images"].append(7), r"entry 3 of images has no id"),
        (_change("images", id=100), r"two entries of images have the id 100"),
        (_change("images", file_name=None), r"image 101 has no file_name"),
        (_change("images", file_name="0.jpg"), r"images 100 and 101 are the same photo"),
        (_change("images", file_name="gone.jpg"), r"the photo 'gone\.jpg' of image 101 is missing; looked in"),
        (_change("images", height=None), r"image 101 has no height and width, got None"),
        (_change("categories", name=""), r"category 15 has no name"),
        (_change("categories", name="thing 6"), r"several classes named 'thing 6'"),
        (_change("annotations", image_id=9), r"annotation 7 belongs to image 9, which is not listed"),
        (_change("annotations", category_id=4), r"annotation 7 has category 4, which is not listed"),
        (_change("annotations", segmentation=[]), r"annotation 7 has no polygons; a box alone"),
        (_change("annotations", segmentation=None), r"annotation 7 has no polygons"),
        (_change("annotations", segmentation=[[1, 2, 3, 4, 5, 6, 7]]), r"annotation 7: .* three pairs.*got 7 values"),
        (_change("annotations", segmentation=[[1, 2, 3, 4]]), r"annotation 7: .* got 4 values"),
        (_change("annotations", segmentation=[[1, 2, 3, 4, 5, "x"]]), r"annotation 7: .* of numbers"),
        (_change("annotations", segmentation=[[1, 2, 99, 4, 5, 6]]), r"annotation 7: the point \[99\.0, 4\.0\] is out"),
        (_change("annotations", segmentation=[[1, 2, float("nan"), 4, 5, 6]]), r"annotation 7: the point \[nan"),
        (_change("annotations", segmentation=[[1, 2, 10**400, 4, 5, 6]]), r"annotation 7: the point .* is out"),
        (_change("annotations", segmentation="polygon"), r"annotation 7 has no polygons"),
        (_change("annotations", segmentation=["polygon"]), r"annotation 7: a polygon is"),
        (_change("annotations", image_id=[100]), r"annotation 7 belongs to image \[100\], which is not listed"),
        (_change("annotations", category_id={}), r"annotation 7 has category {}, which is not listed"),
        (_change("annotations", segmentation={"counts": [5], "size": 5}), r"annotation 7: .* the size 5"),
        (_change("annotations", segmentation={"counts": [5, 6]}), r"annotation 7: its run lengths fill 11 pixels"),
        (_change("annotations", segmentation={"counts": "~"}), r"annotation 7: '~' does not occur"),
        (_change("annotations", segmentation={"counts": None}), r"annotation 7: run lengths are"),
        (_change("annotations", segmentation={"size": [1, 1], "counts": [1]}), r"annotation 7: .* the size \[1, 1\]"),
    ],
)
def test_damaged_coco_is_named(damage: Callable[[dict[str, Any]], Any], problem: str, cvat: Path) -> None:
    path = cvat / "annotations/instances_default.json"
    content = json.loads(path.read_text())
    damage(content)
    write(path, content)
    with pytest.raises((ValueError, FileNotFoundError), match=r"instances_default\.json.*" + problem):
        load_dataset("coco_json", cvat, "default")


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", '{"a": ' * 100_000])
def test_files_that_are_no_coco(text: str, cvat: Path) -> None:
    (cvat / "annotations/instances_default.json").write_text(text)
    with pytest.raises(ValueError, match=r"instances_default\.json (is not JSON|must hold a dictionary)"):
        load_dataset("coco_json", cvat, "default")


def test_other_size_and_skipping(cvat: Path) -> None:
    photo(cvat / "images/1.jpg", (20, 20))
    with pytest.raises(ValueError, match=r"default\.json is \(32, 48\) and .*1\.jpg is \(20, 20\)"):
        read("coco_json", cvat, "default")
    (cvat / "images/2.jpg").write_bytes(b"no photo")
    with pytest.warns(UserWarning, match=r"2 samples were left out.*1\.jpg is \(20, 20\).*2\.jpg"):
        assert len(load_dataset("coco_json", cvat, "default", on_error="skip")) == 1


def test_coco_seg21_refuses_other_categories(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    photo(tmp_path / "images/val2017/0.jpg")
    content = coco(maps(1, 2), run_lengths)
    content["categories"] = [{"id": 1, "name": "drivable"}, {"id": 3, "name": "car"}]
    write(tmp_path / "annotations/instances_val2017.json", content)
    with pytest.raises(
        ValueError,
        match=r"instances_val2017\.json has categories that are not COCO's: 'drivable' \(id 1\)"
        r"; .*--dataset coco_json",
    ):
        load_dataset("coco_seg21", tmp_path, "val")


# YOLO and labelme


def yolo(root: Path, images: str = "images/train", labels: str = "labels/train") -> Path:
    """Two photos; in the first a car (class 1) on a road (class 0)."""
    for i in range(2):
        photo(root / f"{images}/{i}.jpg")
    (root / labels).mkdir(parents=True)
    (root / f"{labels}/0.txt").write_text("1 0 0 0.25 0 0.25 0.5 0 0.5\n\n0 0 0 0.5 0 0.5 1 0 1\n")
    (root / f"{labels}/1.txt").write_text("0 0 0 0.5 0 0.5 1 0 1\n")
    return root


@pytest.mark.parametrize(
    "names", ["names: ['road', \"car\"]", "names:\n  - road\n  - car\nnc: 2", "names:\n  0: road\n  1: car"]
)
def test_yolo(names: str, tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(f"train: images/train\n{names}\n")
    data = load_dataset("yolo", tmp_path, "train")
    assert data.task.classes == ("background", "road", "car")
    labels = data[0][1].numpy()
    assert np.array_equal(labels[:16], np.tile(np.repeat([2, 1, 0], [12, 12, 24]), (16, 1)))
    assert np.array_equal(labels[16:], np.tile(np.repeat([1, 0], [24, 24]), (16, 1)))
    (first, _) = read("yolo", tmp_path, background=False)
    assert np.unique(first).tolist() == [0, 1, 255]


def test_names_of_yolo_in_another_order(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text("names:\n  1: road\n  0: car\n")
    assert load_dataset("yolo", tmp_path, "train").task.classes == ("background", "car", "road")
    (tmp_path / "data.yaml").write_text("names:\n\n  - lane 1 2 3  # of four\n  - 'it''s'\n  - no\n")
    assert load_dataset("yolo", tmp_path, "train").task.classes == ("background", "lane 1 2 3", "it's", "no")
    (tmp_path / "data.yaml").write_text("names: ['road, wet', \"car's\", driver's seat,lane]\n")
    names = load_dataset("yolo", tmp_path, "train").task.classes
    assert names == ("background", "road, wet", "car's", "driver's seat", "lane")
    for text in ("names: {1: road}", "names: []", "names: [", "nc: 2", "[]", "names: [[road]]"):
        (tmp_path / "data.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"data\.yaml has no list of names"):
            load_dataset("yolo", tmp_path, "train")


def test_yolo_of_one_class(tmp_path: Path) -> None:
    yolo(tmp_path)
    for path in (tmp_path / "labels/train").iterdir():
        path.write_text("0 0 0 0.5 0 0.5 1 0 1\n")
    (tmp_path / "data.yaml").write_text("names: [road]\n")
    data = load_dataset("yolo", tmp_path, "train")
    assert data.task.classes == ("background", "road")
    assert np.array_equal(data[0][1].numpy()[0], np.repeat([1, 0], [24, 24]))
    assert np.array_equal(read("yolo", tmp_path, background=False)[0][0], np.repeat([0, 255], [24, 24]))
    (tmp_path / "labels/train/0.txt").write_text("1 0 0 0.5 0 0.5 1 0 1\n")
    with pytest.raises(ValueError, match=r"0\.txt, line 1: there is no class 1"):
        data[0]


def test_layouts_of_yolo(tmp_path: Path) -> None:
    yolo(tmp_path / "a", "valid/images", "valid/labels")
    assert len(read("yolo", tmp_path / "a", "val", classes=("road", "car"))) == 2
    yolo(tmp_path / "b", "images", "labels")
    assert len(read("yolo", tmp_path / "b", "train", classes=("road", "car"), val_fraction=1e-9)) == 2
    with pytest.raises(FileNotFoundError, match=r"(?s)images/train; .*data\.yaml are missing; expected"):
        load_dataset("yolo", tmp_path / "b", "train")
    (tmp_path / "b/images/val").mkdir()
    with pytest.raises(ValueError, match=r"has the folder 'val', so val_fraction"):
        load_dataset("yolo", tmp_path / "b", "train", classes=("road", "car"), val_fraction=0.5)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("7 0 0 1 0 1 1", "there is no class 7; there are 2 classes"),
        ("0 0.5 0.5 0.2 0.2", "is a box"),
        ("0 0 0 1 0 1", "at least three pairs"),
        ("0 0 0 40 0 40 40", r"outside of the picture of 48 x 32 pixels"),
        ("road 0 0 1 0 1 1", "a line is a class id"),
        ("0 a b", "a line is a class id"),
    ],
)
def test_damaged_yolo_is_named(line: str, problem: str, tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "labels/train/0.txt").write_text(f"0 0 0 1 0 1 1\n{line}\n")
    with pytest.raises(ValueError, match=rf"train/0\.txt, line 2.*{problem}"):
        load_dataset("yolo", tmp_path, "train", classes=("road", "car"))[0]
    with pytest.warns(UserWarning, match=r"1 samples were left out.*0\.txt, line 2"):
        assert len(load_dataset("yolo", tmp_path, "train", classes=("road", "car"), on_error="skip")) == 1
    (tmp_path / "labels/train/0.txt").unlink()
    with pytest.warns(UserWarning, match="1 photos do not have annotations"):
        load_dataset("yolo", tmp_path, "train", classes=("road", "car"))


def labelme(root: Path, shapes: list[dict[str, Any]], **content: Any) -> Path:
    photo(root / "train/a/0.jpg")
    write(root / "train/a/0.json", {"imagePath": "0.jpg", "shapes": shapes, "imageData": "AAAA", **content})
    (root / "labels.txt").write_text("__ignore__\n_background_\nroad\ncar\n")
    return root


def test_labelme(tmp_path: Path) -> None:
    road = {"label": "road", "points": [[0, 0], [20, 0], [20, 20], [0, 20]], "shape_type": "polygon"}
    car = {"label": "car", "points": [[4, 4], [8, 8]], "shape_type": "rectangle"}
    void = {"label": "__ignore__", "points": [[30, 0], [40, 0], [40, 30]]}
    data = load_dataset("labelme", labelme(tmp_path, [road, car, void]), "train")
    assert data.task.classes == ("_background_", "road", "car")
    labels = data[0][1]
    assert [labels[y, x].item() for x, y in ((2, 2), (6, 6), (39, 10), (47, 31))] == [1, 2, 255, 0]
    (later,) = read("labelme", labelme(tmp_path, [car, road], imagePath="..\\a\\gone.jpg"))
    assert later[6, 6] == 1
    assert len(read("labelme", tmp_path / "train", "train", classes=("road", "car"), val_fraction=1e-9)) == 1


def test_damaged_files_of_labelme(tmp_path: Path) -> None:
    """They are named, or left out on request."""
    labelme(tmp_path, [{"label": "road", "points": [[0, 0], [8, 0], [8, 8]]}])
    (tmp_path / "train/damaged.json").write_text('{"shapes": [')
    with pytest.raises(ValueError, match=r"damaged\.json"):
        load_dataset("labelme", tmp_path, "train")
    with pytest.warns(UserWarning, match=r"because their JSON files cannot be read: .*damaged\.json"):
        data = load_dataset("labelme", tmp_path, "train", on_error="skip")
    assert len(data) == 1
    assert len(data.skipped) == 1


def test_rectangles_of_labelme(tmp_path: Path) -> None:
    """X-AnyLabeling writes all four corners."""
    car = {"label": "car", "points": [[4, 4], [8, 4], [8, 8], [4, 8]], "shape_type": "rectangle"}
    (four,) = read("labelme", labelme(tmp_path, [car]))
    (two,) = read("labelme", labelme(tmp_path, [{**car, "points": [[4, 4], [8, 8]]}]))
    assert (four == 2).sum() == 16
    assert np.array_equal(four, two)


def test_photos_of_labelme_that_are_not_certain(tmp_path: Path) -> None:
    car = {"label": "car", "points": [[4, 4], [8, 8]], "shape_type": "rectangle"}
    labelme(tmp_path, [car])
    write(tmp_path / "train/a/copy.json", {"imagePath": "0.jpg", "shapes": [car]})
    with pytest.raises(ValueError, match=r"0\.jpg is the photo of several JSON files"):
        load_dataset("labelme", tmp_path, "train")
    photo(tmp_path / "train/a/copy.jpg")
    with pytest.raises(ValueError, match=r"copy\.json has the imagePath '0\.jpg', and the photo .*copy\.jpg lies"):
        load_dataset("labelme", tmp_path, "train")


def test_labelme_of_another_size(tmp_path: Path) -> None:
    car = {"label": "car", "points": [[4, 4], [8, 8]], "shape_type": "rectangle"}
    assert len(read("labelme", labelme(tmp_path, [car], imageHeight=32, imageWidth=48))) == 1
    with pytest.raises(ValueError, match=r"0\.json is \(64, 96\) and .*0\.jpg is \(32, 48\)"):
        read("labelme", labelme(tmp_path, [car], imageHeight=64, imageWidth=96))


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ({"label": "tree", "points": [[0, 0], [1, 0], [1, 1]]}, "shape 1 has the label 'tree', which is not a class"),
        ({"label": "car", "points": [[0, 0], [1, 1]], "shape_type": "circle"}, "shape 1 is a circle"),
        ({"label": "car", "points": [[0, 0], [1, 1]]}, "shape 1 is a polygon of the points"),
        ({"label": "car", "points": [[0, 0]] * 3, "shape_type": "rectangle"}, "shape 1 is a rectangle of the points"),
        ({"label": "car", "points": [[0, 0], [99, 0], [1, 1]]}, "shape 1: the point .* is outside"),
        ({"label": "car"}, "shape 1 is a polygon of the points None"),
        ({"label": [], "points": []}, "shape 1 has the label"),
        ({"label": "car", "points": [[0, 0], [1, 0], ["x", 1]]}, "shape 1: a polygon is"),
        ({"label": "car", "points": [[0, 0], [1, 0]], "shape_type": []}, r"shape 1 is a \[\]"),
        (7, "has no list of shapes"),
    ],
)
def test_damaged_labelme_is_named(shape: Any, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"a/0\.json.*{problem}"):
        load_dataset("labelme", labelme(tmp_path, [shape]), "train")[0]
    (tmp_path / "train/a/0.jpg").unlink()
    labelme(tmp_path, [])
    (tmp_path / "train/a/0.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"a/0\.json: the photo .*0\.jpg is missing"):
        load_dataset("labelme", tmp_path, "train")


# Checkpoints of wrappers


@pytest.mark.parametrize(
    ("prefix", "extra", "said"),
    [
        ("module.", {}, None),
        ("module.", {"n_averaged": 1}, r"removed the prefix module\. .*left out .*n_averaged"),
        ("net.", {"criterion.weight": 3}, r"removed the prefix net\. .*left out .*criterion\.weight"),
        ("model.", {}, r"removed the prefix model\. of a wrapper"),
        ("_orig_mod.", {}, r"removed the prefix _orig_mod\."),
        ("model._orig_mod.", {}, r"removed the prefix model\., _orig_mod\."),
        ("ema.module.", {}, r"removed the prefix ema\., module\."),
    ],
)
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_checkpoints_of_wrappers(
    prefix: str, extra: dict[str, int], said: str | None, suffix: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=3)
    state = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
    state |= {key: torch.zeros(size) for key, size in extra.items()}
    path = tmp_path / f"x{suffix}"
    if suffix == ".ckpt":
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        save_file(state, path)
    other = edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=3, checkpoint_path=path)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
    texts = [str(each.message) for each in recwarn if "prefix" in str(each.message)]
    assert len(texts) == (said is not None)
    assert said is None or re.search(said, texts[0])


def test_compiled_parts_and_several_networks(tmp_path: Path) -> None:
    state = edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=3).state_dict()
    torch.save(
        {key.replace("encoder.", "encoder._orig_mod.", 1): value for key, value in state.items()}, tmp_path / "a.pt"
    )
    with pytest.warns(UserWarning, match=r"removed the prefix _orig_mod\."):
        assert set(read_weights(tmp_path / "a.pt")) == set(state)
    both = {f"{prefix}.{key}": value for key, value in state.items() for prefix in ("net", "ema")}
    torch.save(both, tmp_path / "b.pt")
    with pytest.raises(ValueError, match=r"b\.pt has several networks: net\.\*, ema\.\*; save the one"):
        read_weights(tmp_path / "b.pt")


def test_prefixes_of_ones_own(tmp_path: Path) -> None:
    """A module whose own part is called net keeps the name."""
    module = torch.nn.Sequential()
    module.add_module("net", torch.nn.Linear(2, 3))
    torch.save(module.state_dict(), tmp_path / "own.pt")
    assert load_checkpoint(module, tmp_path / "own.pt").matched == ["net.bias", "net.weight"]


@pytest.mark.parametrize(("mode", "foreground"), [("L", 1), ("L", 255), ("1", 255)])
def test_one_class_of_interest(mode: str, foreground: int, tmp_path: Path) -> None:
    """Masks of 0 and 1 or of 0 and 255, or of 1 bit, for a single class."""
    for split in ("train", "val"):
        for i in range(2):
            mask = np.zeros((8, 10), np.uint8)
            mask[2 + i :] = foreground
            for folder, picture in (("images", Image.new("RGB", (10, 8))), ("masks", Image.fromarray(mask))):
                path = tmp_path / folder / split / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                (picture.convert(mode) if folder == "masks" else picture).save(path)
    dataset = load_dataset("images_masks", tmp_path, "train", classes=("road",))
    assert dataset.task.kind == "binary"
    assert dataset.task.classes == ("background", "road")
    for i in range(2):
        assert dataset[i][1].unique().tolist() == [0, 1]
        assert int(dataset[i][1].sum()) == (6 - i) * 10
