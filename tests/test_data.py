"""Data sets on disk, augmentation, colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgeseg.data import load_dataset
from edgeseg.data.camvid import CamVid
from edgeseg.data.labels import IGNORE, LABELS, generic_palette, segmentation_task
from edgeseg.data.transforms import Augmented, augmentation
from edgeseg.visualize import colorize, legend, overlay

from .conftest import SHARED


def test_camvid_layout(camvid: Path) -> None:
    assert [len(CamVid(camvid, split)) for split in CamVid.splits] == [6, 2, 2, 8]
    image, label = load_dataset("camvid", camvid, "val")[1]
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 96, 96))
    assert (label.dtype, tuple(label.shape)) == (torch.uint8, (96, 96))
    assert set(label.unique().tolist()) == {*range(11), IGNORE}
    assert (np.array(Image.open(camvid / "val/001.png")) == image.permute(1, 2, 0).numpy()).all()


def test_camvid_errors(camvid: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no CamVid split 'dev'"):
        CamVid(camvid, "dev")
    with pytest.raises(ValueError, match="no data set named 'kitty'"):
        load_dataset("kitty", camvid, "val")
    with pytest.raises(FileNotFoundError, match=r"expected\n.*train\.txt"):
        CamVid(tmp_path / "empty")
    (camvid / "train" / "000.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"000\.png is missing; expected"):
        CamVid(camvid)
    Image.fromarray(np.full((4, 4), 12, np.uint8)).save(camvid / "valannot" / "000.png")
    with pytest.raises(ValueError, match="has label 12"):
        CamVid(camvid, "val")[0]


def test_real_camvid() -> None:
    root = SHARED / "data/camvid"
    if not root.is_dir():
        pytest.skip(f"needs {root}, the CamVid set that lies beside the checkout")
    counts = [len((root / f"{split}.txt").read_text().splitlines()) for split in ("train", "val", "test")]
    assert counts == [367, 101, 233]


def test_augmentation_moves_image_and_labels_together(camvid: Path) -> None:
    """The image's colour tells the class, so after scaling, cropping and flipping it still must."""
    torch.manual_seed(0)
    samples = Augmented(CamVid(camvid), augmentation((96, 96), (80, 112), (0.5, 2.0), jitter=0))
    padded = 0
    for i in list(range(len(samples))) * 4:
        image, label = samples[i]
        assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 80, 112))
        assert (label.dtype, tuple(label.shape)) == (torch.uint8, (80, 112))
        inside = label != IGNORE
        error = (image[1].float() - (255 - label.float() * 20)).abs()[inside]
        assert (error < 21).float().mean() > 0.9
        padded += int((~inside & (image == 128).all(dim=0)).any())
    assert padded > 0


def test_augmentation_varies_and_repeats(camvid: Path) -> None:
    samples = Augmented(CamVid(camvid), augmentation((96, 96), (64, 64), jitter=0.4))
    torch.manual_seed(3)
    first, second = samples[0][0], samples[0][0]
    torch.manual_seed(3)
    assert torch.equal(first, samples[0][0])
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", LABELS)
def test_labels(name: str) -> None:
    task = segmentation_task(name)
    assert len(set(task.palette)) == task.channels
    assert len(set(task.classes)) == task.channels


def test_generic_palette() -> None:
    for classes in (2, 8, 21, 32, 150):
        assert len(set(generic_palette(classes))) == classes
    assert len(generic_palette(1000)) == 1000


def test_pictures() -> None:
    task = segmentation_task("camvid")
    labels = np.array([[0, 3], [8, IGNORE]], np.uint8)
    colors = colorize(labels, task.palette)
    assert colors.tolist() == [[[128, 128, 128], [128, 64, 128]], [[64, 0, 128], [0, 0, 0]]]
    labels = np.zeros((40, 200), np.uint8)
    labels[:, 100:] = 3
    picture = np.array(overlay(Image.new("RGB", (200, 40), "white"), labels, task, alpha=0.5))
    assert picture[20, 50].tolist() == pytest.approx([191, 191, 191], abs=1)
    assert picture[20, 150].tolist() == pytest.approx([191, 159, 191], abs=1)
    drawn = {tuple(color) for color in picture[40:].reshape(-1, 3).tolist()}
    assert {task.palette[0], task.palette[3]} <= drawn
    assert task.palette[8] not in drawn
    assert legend(task.classes, task.palette, 100).height > legend(task.classes[:2], task.palette[:2], 100).height
