"""Optical flow as an input: its encoding, its computation, networks that take it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

import edgeseg
from edgeseg.cli import main
from edgeseg.data import Streets
from edgeseg.engine.demo import draw_frame
from edgeseg.vision.flow import encode_flow, farneback_flow, mirror_flow, resize_flow
from edgeseg.vision.preprocess import to_input

from .conftest import TINY


def frames() -> tuple[np.ndarray, np.ndarray]:
    """Two views of one texture, which moves 5 pixels to the right and 2 down."""
    noise = np.random.default_rng(0).integers(0, 256, (160, 200, 3), dtype=np.uint8)
    texture = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)))
    texture = ((texture - 80.0) * 3).clip(0, 255).astype(np.uint8)
    return texture[20:120, 20:160], texture[18:118, 15:155]


def test_encoding() -> None:
    x, y = np.array([[0.0, 3.4, -200.0]]), np.array([[-1.0, 127.0, 500.0]])
    assert encode_flow(x, y).tolist() == [[[128, 127, 128], [131, 255, 128], [0, 255, 128]]]
    assert encode_flow(x, y, np.array([[0.0, 0.5, 1.0]]))[0, :, 2].tolist() == [0, 128, 255]


def test_resized_and_mirrored_as_vectors() -> None:
    flow = encode_flow(np.full((20, 30), 8.0), np.full((20, 30), -4.0))
    half = resize_flow(flow, (10, 15))
    assert half.shape == (10, 15, 3)
    assert half[3, 4].tolist() == [132, 126, 128]
    assert mirror_flow(flow)[3, 4].tolist() == [120, 124, 128]
    place = np.zeros((20, 30))
    place[5, 2] = 3
    assert mirror_flow(encode_flow(place, place))[5, 27].tolist() == [125, 131, 128]
    # What a network gets agrees: 8 pixels become 4, which is 4 / 64 after normalization.
    tensor = torch.from_numpy(flow).permute(2, 0, 1)
    preprocess = edgeseg.Preprocess(size=(10, 15))
    assert to_input(tensor, preprocess, "flow")[0, :, 3, 4].tolist() == [4 / 64, -2 / 64, 0]
    assert to_input(tensor, preprocess, "flow", mirror=True)[0, :, 3, 4].tolist() == [-4 / 64, -2 / 64, 0]
    assert to_input(tensor, preprocess)[0, :, 3, 4].tolist() == [8 / 64, -4 / 64, 0]


def test_farneback_finds_a_known_motion() -> None:
    flow = farneback_flow(*frames())
    inside = flow[10:-10, 10:-10].astype(int)
    assert np.median(inside[..., 0]) == 128 + 5
    assert np.median(inside[..., 1]) == 128 + 2
    assert np.median(inside[..., 2]) > 200
    with pytest.raises(ValueError, match=r"previous \(100, 140\), current \(50, 140\)"):
        farneback_flow(frames()[0], frames()[1][:50])


def test_flow_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for name, frame in zip(("a.png", "b.png"), frames(), strict=True):
        Image.fromarray(frame).save(folder / name)
    assert main(["flow", str(folder / "a.png"), str(folder / "b.png"), "-o", str(tmp_path / "one.png")]) == 0
    assert main(["flow", str(folder), "-o", str(tmp_path / "flows")]) == 0
    assert [path.name for path in (tmp_path / "flows").iterdir()] == ["b.png"]
    expected = farneback_flow(*frames())
    for path in (tmp_path / "one.png", tmp_path / "flows/b.png"):
        assert (np.asarray(Image.open(path)) == expected).all()
    assert main(["flow", str(folder), "-o", str(tmp_path / "flows")]) == 0  # over results of its own
    mine = tmp_path / "masks/b.png"
    mine.parent.mkdir()
    Image.fromarray(frames()[0]).save(mine)
    content = mine.read_bytes()
    for call in (["flow", str(folder), "-o", str(mine.parent)], ["flow", *map(str, folder.iterdir()), "-o", str(mine)]):
        assert main(call) == 2
        assert f"{mine} would be overwritten, which edgeseg did not write" in capsys.readouterr().err
        assert mine.read_bytes() == content
    assert main(["flow", str(tmp_path / "flows"), "-o", str(tmp_path / "none")]) == 2
    assert "has 1 images; flow needs two or more" in capsys.readouterr().err
    assert main(["flow", str(folder / "a.png"), "-o", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A network of two inputs and three tasks."""
    from edgeseg.storage.checkpoint import save_checkpoint

    tasks = Streets(targets=("semantic", "depth", "motion")).tasks
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8, in_channels=(3, 3), tasks=tasks)
    save_checkpoint(model, tmp_path / "two.safetensors")
    return tmp_path / "two.safetensors"


def test_predict_with_flow_and_all_tasks(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, flows, out = tmp_path / "photos", tmp_path / "flows", tmp_path / "out"
    for folder in (photos, flows):
        (folder / "drive").mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(frames()[0]).save(photos / f"drive/{name}.png")
    Image.fromarray(farneback_flow(*frames())).save(flows / "drive/b.png")
    call = ["predict", str(photos), "--checkpoint", str(checkpoint), "-o", str(out)]
    assert main([*call, "--input", f"flow={flows}"]) == 1
    assert "a.png: there is no file for it in" in capsys.readouterr().err
    written = sorted(path.name for path in (out / "drive").iterdir())
    assert written == [
        *(f"b_depth_{what}.png" for what in ("color", "metres_x256", "overlay")),
        *(f"b_{task}_{what}.png" for task in ("motion", "semantic") for what in ("color", "labels", "overlay")),
    ]
    model = edgeseg.create_model("fpn", checkpoint_path=checkpoint)
    expected = model.predict_tasks(flows / "drive/b.png", photos / "drive/b.png")
    metres = np.asarray(Image.open(out / "drive/b_depth_metres_x256.png")) / 256
    assert np.abs(metres - expected["depth"]).max() <= 1 / 256
    assert (np.asarray(Image.open(out / "drive/b_semantic_labels.png")) == expected["semantic"]).all()
    assert main(call) == 2
    assert "takes --input flow=FILE|FOLDER beside the photos, got none" in capsys.readouterr().err


def test_each_photo_has_its_own_flow(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = Image.fromarray(frames()[1])
    for place in ("photos/a", "photos/b", "flow"):
        (tmp_path / place).mkdir(parents=True)
        pixels.save(tmp_path / place / "1.png")
    command = ["predict", str(tmp_path / "photos"), "--checkpoint", str(checkpoint), "-o", str(tmp_path / "out")]
    assert main([*command, "--input", f"flow={tmp_path / 'flow/1.png'}"]) == 2
    assert "is one file for 2 photos; pass a folder of files" in capsys.readouterr().err
    assert main([*command, "--input", f"flow={tmp_path / 'flow'}"]) == 1
    assert capsys.readouterr().err.count("there is no file for it in") == 2


def test_frames_without_leading_zeros(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("f2", "f10"):
        Image.fromarray(frames()[1]).save(tmp_path / f"{name}.png")
    assert main(["flow", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "no leading zeros, so that f10 comes before f2" in capsys.readouterr().err


def test_video_computes_its_flow(checkpoint: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "drive.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 140, 100, "yuv420p"
        for frame in (*frames(), *frames()):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        file.mux(stream.encode())
    call = ["predict", str(tmp_path / "drive.mp4"), "--checkpoint", str(checkpoint), "-o", str(tmp_path)]
    assert main(call) == 0
    for task in ("semantic", "depth", "motion"):
        with av.open(str(tmp_path / f"drive_{task}_overlay.mp4")) as file:
            assert sum(1 for _ in file.decode(video=0)) == 4


def test_demo(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "demo.png"
    call = ["demo", "--model", "fpn", "--checkpoint", str(checkpoint), "--sequences", "1", "-o", str(path)]
    assert main(call) == 0
    out = capsys.readouterr().out
    assert "on 4 synthetic frames" in out
    assert "\n\ndepth\n" in out
    for title in ("semantic", "depth", "motion", "mIoU", "relative error"):
        assert title in out
    assert main(call) == 0  # over the picture of its own
    capsys.readouterr()
    Image.new("RGB", (8, 8)).save(tmp_path / "mine.png")
    assert main([*call[:-1], str(tmp_path / "mine.png")]) == 2
    assert "mine.png would be overwritten, which edgeseg did not write" in capsys.readouterr().err
    with Image.open(path) as picture:
        assert picture.width >= 4 * 480
        assert 2 * 360 <= picture.height < 3 * 360


@pytest.mark.parametrize(("targets", "columns", "rows"), [(("semantic",), 3, 1), (("semantic", "depth"), 3, 2)])
def test_picture_of_a_network_of_one_input(targets: tuple[str, ...], columns: int, rows: int) -> None:
    streets = Streets("test", size=(240, 320), length=1, inputs=("image",), targets=targets)
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8, tasks=streets.tasks).eval()
    picture = draw_frame(model, streets, 0)
    # With titles and keys, which are less than one more picture.
    assert columns == picture.width // 320
    assert rows == picture.height // 240
