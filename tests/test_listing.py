"""One function lists files, for prediction, optical flow, quantization and datasets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgeseg
from edgeseg.cli import main
from edgeseg.data import load_dataset
from edgeseg.vision.listing import PHOTO_SUFFIXES, VIDEO_SUFFIXES, list_files, photo_suffixes

from .conftest import TINY

RANDOM = np.random.default_rng(0)


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return path


def mask(path: Path, form: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.tile(np.array([0, 1, 255], np.uint8), (20, 10))).save(path, form)
    return path


def video(path: Path, frames: int = 2) -> Path:
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            frame = RANDOM.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A dataset of four photos in two folders."""
    root = tmp_path / "own"
    for name in ("day/0", "day/1", "night/0", "night/1"):
        photo(root / f"images/train/{name}.jpg")
        mask(root / f"masks/train/{name}.png")
    (root / "classes.txt").write_text("ground\nvine\n")
    return root


@pytest.fixture
def predict(tmp_path: Path) -> list[str]:
    """The predict command with a small network, but for its files."""
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8, num_classes=2)
    edgeseg.save_checkpoint(model, tmp_path / "tiny.safetensors")
    return ["predict", "--model", "fpn", "--checkpoint", str(tmp_path / "tiny.safetensors"), "--outputs=labels"]


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def clutter(folder: Path) -> None:
    """What macOS, Jupyter and people leave in folders of photos."""
    (folder / "._0.png").write_bytes(b"resource fork")
    (folder / "._0.jpg").write_bytes(b"resource fork")
    (folder / ".DS_Store").write_bytes(b"")
    photo(folder / ".ipynb_checkpoints/0-checkpoint.png")
    (folder / "old.png").mkdir()
    (folder / "old.jpg").mkdir()


# The function


def test_suffixes(tmp_path: Path) -> None:
    assert {".jfif", ".avif", ".jp2", ".ppm", ".tif", ".jpg", ".png", ".webp", ".bmp"} <= PHOTO_SUFFIXES
    assert {".m4v", ".ts", ".3gp", ".mpg", ".mp4", ".avi", ".mkv", ".mov", ".webm"} <= VIDEO_SUFFIXES
    assert not PHOTO_SUFFIXES & VIDEO_SUFFIXES
    assert ".npy" not in photo_suffixes(3)
    assert ".npy" in photo_suffixes(5)
    readable = PHOTO_SUFFIXES - {".heic", ".heif", ".jxl"}  # Pillow needs plugins for these
    for suffix in sorted(readable):
        photo_or_gray = Image.new("1" if suffix == ".pbm" else "RGB", (4, 3))
        photo_or_gray.convert("L" if suffix == ".pgm" else photo_or_gray.mode).save(tmp_path / f"a{suffix.upper()}")
    assert len(list_files(tmp_path, PHOTO_SUFFIXES)) == len(readable)


def test_clutter_and_links(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    photo(folder / "b/1.png")
    photo(folder / "a.PNG")
    photo(tmp_path / "elsewhere/deep/2.png")
    clutter(folder)
    clutter(folder / "b")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(tmp_path)  # leads to the folder itself
    (folder / "b/up").symlink_to(folder)
    (tmp_path / "elsewhere/deep/back").symlink_to(tmp_path / "elsewhere")
    names = [str(path.relative_to(folder)) for path in list_files(folder, PHOTO_SUFFIXES)]
    assert names == ["a.PNG", "b/1.png", "link/deep/2.png", "loop/elsewhere/deep/2.png"]
    (folder / "gone.png").symlink_to(tmp_path / "nothing.png")
    assert folder / "gone.png" in list_files(folder, PHOTO_SUFFIXES)  # so that it is named when it is read
    assert [path.name for path in list_files(folder, PHOTO_SUFFIXES, recursive=False)] == ["a.PNG", "gone.png"]
    with pytest.raises(FileNotFoundError, match="no-folder"):
        list_files(tmp_path / "no-folder", PHOTO_SUFFIXES)


# Datasets


def test_clutter_in_a_dataset(own: Path) -> None:
    for folder in ("images/train", "images/train/day", "masks/train", "masks/train/day"):
        clutter(own / folder)
    data = load_dataset("images_masks", own, "train")
    assert len(data) == 4
    assert all(data[i][0].shape == (3, 20, 30) for i in range(4))


def test_linked_folders_of_a_dataset(own: Path, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (own / f"{kind}/train/day").rename(tmp_path / f"{kind}_elsewhere")
        (own / f"{kind}/train/day").symlink_to(tmp_path / f"{kind}_elsewhere")
    assert len(load_dataset("images_masks", own, "train")) == 4


def test_photos_of_one_stem(own: Path) -> None:
    photo(own / "images/train/day/0.png")
    with pytest.raises(ValueError, match=r"day/0\.jpg and .*day/0\.png have the same name"):
        load_dataset("images_masks", own, "train")


def test_names_of_masks(own: Path) -> None:
    for path in own.glob("masks/train/*/0.png"):
        path.rename(path.with_name("0_mask.PNG"))
    with pytest.raises(FileNotFoundError, match=r"(?s)day/0\.png; .*night/0\.png are missing; expected"):
        load_dataset("images_masks", own, "train")
    for path in own.glob("masks/train/*/1.png"):
        path.rename(path.with_name("1_mask.png"))
    data = load_dataset("images_masks", own, "train", mask_suffix="_mask.png")
    assert len(data) == 4
    assert data[0][1].unique().tolist() == [0, 1, 255]
    for path in list(own.glob("masks/train/*/*")):
        path.rename(path.with_name(f"{path.name[0]}.PNG"))
    assert len(load_dataset("images_masks", own, "train")) == 4
    with pytest.raises(ValueError, match=r"mask_suffix is the ending of an image file.*got '_mask'"):
        load_dataset("images_masks", own, "train", mask_suffix="_mask")


def test_photos_without_masks(own: Path) -> None:
    (own / "masks/train/day/1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"(?s)masks/train/day/1\.png is missing; expected"):
        load_dataset("images_masks", own, "train")
    with pytest.warns(UserWarning, match=r"1 samples were left out because their masks are missing: .*day/1\.jpg"):
        data = load_dataset("images_masks", own, "train", on_unlabelled="skip")
    assert (len(data), len(data.skipped)) == (3, 1)
    with pytest.raises(ValueError, match="on_unlabelled is 'stop' or 'skip'"):
        load_dataset("images_masks", own, "train", on_unlabelled="no")


def test_evaluate_command_with_names_of_masks(own: Path, predict: list[str]) -> None:
    (own / "masks/train/day/1.png").unlink()
    for path in list(own.glob("masks/train/*/*")):
        path.rename(path.with_name(f"{path.stem}_gt.png"))
    call = ["evaluate", "--dataset", "images_masks", "--data-path", str(own), "--split", "train", "--workers", "0"]
    with pytest.warns(UserWarning, match="1 samples were left out"):
        assert main([*call, "--mask-suffix", "_gt.png", "--skip-unlabelled", *predict[1:5]]) == 0
    assert main([*call, *predict[1:5]]) == 2


def test_clutter_in_published_datasets(tmp_path: Path) -> None:
    """ADE20K, Cityscapes and KITTI, copied by macOS."""
    photo(tmp_path / "ade/images/training/ADE_1.jpg")
    mask(tmp_path / "ade/annotations/training/ADE_1.png")
    clutter(tmp_path / "ade/images/training")
    assert len(load_dataset("ade20k_segmentation", tmp_path / "ade", "train")) == 1
    city = tmp_path / "city/leftImg8bit/train/aachen"
    photo(city / "a_leftImg8bit.png")
    mask(tmp_path / "city/gtFine/train/aachen/a_gtFine_labelIds.png")
    clutter(city)
    data = load_dataset("cityscapes_segmentation", tmp_path / "city", "train")
    assert len(data) == 1
    assert data[0][0].shape == (3, 20, 30)
    drive = tmp_path / "kitti/drive"
    photo(drive / "image_02/data/1.png")
    mask(drive / "proj_depth/groundtruth/image_02/1.png")
    clutter(drive / "image_02/data")
    clutter(drive / "proj_depth/groundtruth/image_02")
    (tmp_path / "kitti/train.txt").write_text("drive\n")
    assert len(load_dataset("kitti_depth", tmp_path / "kitti", "train")) == 1


# Prediction


def test_predict_passes_clutter_over(predict: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    photo(folder / "a.jpg")
    photo(folder / "b.JFIF")
    photo(tmp_path / "elsewhere/c.ppm")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    clutter(folder)
    assert main([*predict, str(folder), "-o", str(tmp_path / "out")]) == 0
    assert written(tmp_path / "out") == ["a_labels.png", "b_labels.png", "link/c_labels.png"]


@pytest.mark.parametrize("form", ["absolute", "relative", "dots", "linked"])
def test_the_output_folder_is_no_input(
    form: str, predict: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    photo(folder / "a.jpg")
    monkeypatch.chdir(tmp_path)
    output = {
        "absolute": str(folder / "out"), "relative": "photos/out", "dots": "photos/../photos/out", "linked": "link",
    }[form]  # fmt: skip
    if form == "linked":
        (folder / "out").mkdir()
        (tmp_path / "link").symlink_to(folder / "out")
    for source in ("photos", str(folder)):  # the second run passes the results of the first over
        assert main([*predict, source, "-o", output]) == 0
    assert written(folder / "out") == ["a_labels.png"]


def test_the_output_folder_is_the_input(predict: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    photo(folder / "a.jpg")
    for output in (str(folder), str(folder / ".." / "photos")):
        assert main([*predict, str(folder), "-o", output]) == 2
        assert "is both the input and the output folder" in capsys.readouterr().err
    assert written(folder) == ["a.jpg"]
    # A file may lie in the output folder, and the output folder may lie above the photos.
    assert main([*predict, str(folder / "a.jpg"), "-o", str(folder)]) == 0
    photo(folder / "deep/b.jpg")
    assert main([*predict, str(folder / "deep"), "-o", str(folder)]) == 0
    assert written(folder) == ["a.jpg", "a_labels.png", "b_labels.png", "deep/b.jpg"]


def test_videos_of_one_stem_and_in_folders(
    predict: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "drive"
    for name in ("a.mp4", "a.avi", "deep/b.MKV"):
        video(folder / name)
    photo(folder / "a.jpg")
    (folder / "deep/broken.ts").write_text("let x = 1")
    output = tmp_path / "out"
    assert main([*predict, str(folder), "-o", str(output)]) == 1
    expected = ["a.avi_labels.mkv", "a.jpg_labels.png", "a.mp4_labels.mkv", "deep/b_labels.mkv"]
    assert written(output) == expected
    out, err = capsys.readouterr()
    assert "4 of 5" in out
    assert "broken.ts" in err
    (folder / "deep/broken.ts").unlink()
    files = [str(folder / name) for name in ("a.mp4", "a.avi", "a.jpg")]
    assert main([*predict, *files, "-o", str(tmp_path / "flat")]) == 0
    assert written(tmp_path / "flat") == expected[:3]


@pytest.mark.slow
def test_videos_are_shared_among_processes(predict: list[str], tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        video(tmp_path / f"drive/{name}.mp4")
        photo(tmp_path / f"drive/{name}.png")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "edgeseg"]
    command += [*predict, str(tmp_path / "drive"), "-o", str(tmp_path / "out")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = sorted(line for line in done.stdout.splitlines() if "segmented into" in line)
    assert [line.split(" segmented")[0] for line in lines] == ["2 of 2", "4 of 4"]
    assert len(written(tmp_path / "out")) == 6


# Optical flow and quantization


def test_flow_command_lists_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2")
    folder = tmp_path / "frames"
    for name in ("0.png", "1.PNG", "2.ppm"):
        photo(folder / name)
    clutter(folder)
    assert main(["flow", str(folder), "-o", str(folder / "flow")]) == 0
    assert main(["flow", str(folder), "-o", str(folder / "flow")]) == 0
    assert written(folder / "flow") == ["1.png", "2.png"]
    before = (folder / "0.png").read_bytes()
    assert main(["flow", str(folder), "-o", str(folder)]) == 2
    assert "both the input and the output" in capsys.readouterr().err
    assert main(["flow", str(folder / "1.PNG"), str(folder / "0.png"), "-o", str(folder / "0.png")]) == 2
    assert "would overwrite a frame" in capsys.readouterr().err
    assert (folder / "0.png").read_bytes() == before
    photo(folder / "0.jpg")
    assert main(["flow", str(folder), "-o", str(tmp_path / "flow")]) == 2
    assert "0.jpg and " in capsys.readouterr().err


def test_files_beside_photos_of_one_stem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--input flow=FOLDER` finds the flow of `a.jpg` and `a.png`, and names flows that cannot be told apart."""
    options: dict[str, Any] = {"encoder": TINY, "channels": 8, "num_classes": 2, "in_channels": (2, 3)}
    edgeseg.save_checkpoint(edgeseg.create_model("fpn", **options), tmp_path / "two.safetensors")
    for name in ("photos/deep/a.jpg", "photos/deep/a.png", "flows/deep/a.png"):
        photo(tmp_path / name)
    clutter(tmp_path / "flows")
    call = ["predict", str(tmp_path / "photos"), "-o", str(tmp_path / "out"), "--outputs", "labels", "--model", "fpn"]
    call += ["--checkpoint", str(tmp_path / "two.safetensors"), "--input", f"flow={tmp_path / 'flows'}"]
    assert main(call) == 0
    assert written(tmp_path / "out") == ["deep/a.jpg_labels.png", "deep/a.png_labels.png"]
    photo(tmp_path / "flows/deep/a.tif")
    assert main(call) == 2
    assert "have the same name" in capsys.readouterr().err


def test_quantize_lists_photos(predict: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    clutter(photo(tmp_path / "photos/a.jfif").parent)
    call = ["quantize", *predict[1:5], "--calibration", "minmax", "--img-resize", "32", "32", "--fixed", "-o"]
    assert main([*call, str(tmp_path / "int8.onnx"), "--images", str(tmp_path / "photos")]) == 0
    (tmp_path / "empty").mkdir()
    assert main([*call, str(tmp_path / "int8.onnx"), "--images", str(tmp_path / "empty")]) == 2
    assert "there are no images in --calibration-images" in capsys.readouterr().err


def test_folders_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as lost+found at the top of a mounted disk; the other photos are found."""
    photos = [photo(tmp_path / name) for name in ("a.png", "b/c.png")]
    photo(tmp_path / "lost+found/d.png")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "lost" not in str(path) and access(path, mode))
    with pytest.warns(UserWarning, match=r"lost\+found is passed over: this user may not read it"):
        assert list_files(tmp_path, PHOTO_SUFFIXES) == photos
