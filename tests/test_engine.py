"""Training and evaluation."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import edgeseg
from edgeseg.data.camvid import CamVid
from edgeseg.data.labels import IGNORE
from edgeseg.engine import ConfusionMatrix, TrainConfig, evaluate, train
from edgeseg.engine.losses import dice_loss, log_class_weights, segmentation_loss
from edgeseg.engine.memory import keep_freed_memory

from .conftest import TINY

SMALL = TrainConfig(
    epochs=2, batch_size=2, size=(96, 96), crop=(96, 96), scale=(1, 1), jitter=0, warmup_epochs=0, workers=0, bf16=False
)


def make() -> edgeseg.Pixel2Pixel:
    return edgeseg.create_model("fpn", encoder=TINY, channels=32, tasks={"segmentation": CamVid.task})


def test_training_learns(camvid: Path, tmp_path: Path) -> None:
    """The colour tells the class: a few dozen steps suffice to segment frames that were not trained on."""
    torch.manual_seed(1)
    config = TrainConfig(
        **{**vars(SMALL), "epochs": 60, "batch_size": 6, "lr": 0.05, "decoder_lr": 2.0, "ema": 0.9, "dice": 0.5}
    )
    model = train(make(), CamVid(camvid), CamVid(camvid, "val"), config, tmp_path / "run")
    assert not model.training
    assert evaluate(model, CamVid(camvid, "test")).miou > 0.6
    log = (tmp_path / "run/log.csv").read_text().splitlines()
    assert len(log) == 61
    assert float(log[60].split(",")[1]) < 0.5 * float(log[1].split(",")[1])
    assert log[1].endswith(",")  # scored every tenth epoch and at the end
    assert float(log[60].split(",")[3]) > 60
    assert model.preprocess.size == (96, 96)
    reloaded = make()
    edgeseg.load_checkpoint(reloaded, tmp_path / "run/last.safetensors")
    assert evaluate(reloaded, CamVid(camvid, "test")).miou > 0.6


def test_same_seed_same_weights(camvid: Path, tmp_path: Path) -> None:
    def run(folder: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return train(make(), CamVid(camvid), None, SMALL, tmp_path / folder).state_dict()

    first, second = run("a"), run("b")
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_nan_stops(camvid: Path, tmp_path: Path) -> None:
    config = TrainConfig(**{**vars(SMALL), "lr": 1e12, "epochs": 5})
    with pytest.raises(FloatingPointError, match="the loss is nan in epoch"):
        train(make(), CamVid(camvid), None, config, tmp_path)
    config = TrainConfig(**{**vars(SMALL), "batch_size": 64})
    with pytest.raises(ValueError, match="6 training images make no batch of 64"):
        train(make(), CamVid(camvid), None, config, tmp_path)


def test_confusion_matrix_against_numpy() -> None:
    rng = np.random.default_rng(0)
    matrix = ConfusionMatrix(5)
    truth, guess = rng.integers(0, 4, (2, 3, 40, 50))
    truth[rng.random(truth.shape) < 0.1] = IGNORE
    for t, g in zip(truth, guess, strict=True):
        matrix.update(torch.from_numpy(g), torch.from_numpy(t))
    counted = truth != IGNORE
    iou = [((truth == c) & (guess == c)).sum() / (((truth == c) | (guess == c)) & counted).sum() for c in range(4)]
    assert matrix.iou[:4].tolist() == pytest.approx(iou)
    assert matrix.iou[4].isnan()  # neither there nor predicted: left out of the mean
    assert matrix.miou == pytest.approx(np.mean(iou))
    assert matrix.pixel_accuracy == pytest.approx((truth == guess)[counted].mean())
    assert int(matrix.counts.sum()) == counted.sum()


def test_evaluate_is_one_matrix_at_the_labels_size(tiny: edgeseg.Pixel2Pixel) -> None:
    torch.manual_seed(0)
    pairs = [
        (torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8), torch.randint(0, 3, (40, 60))),
        (torch.randint(0, 256, (3, 33, 70), dtype=torch.uint8), torch.randint(0, 3, (33, 70))),
    ]
    matrix = evaluate(tiny.train(), pairs)  # type: ignore[arg-type]
    assert tiny.training
    by_hand = ConfusionMatrix(3)
    for image, label in pairs:
        by_hand.update(torch.from_numpy(tiny.predict(image)), label)
    assert torch.equal(matrix.counts, by_hand.counts)


def test_cross_entropy_is_torchs() -> None:
    logits, weights = torch.randn(2, 4, 6, 5), torch.tensor([1.0, 2.0, 0.5, 3.0])
    target = torch.randint(0, 4, (2, 6, 5))
    target[0, :2] = IGNORE
    expected = F.cross_entropy(logits, target, weights, ignore_index=IGNORE)
    torch.testing.assert_close(segmentation_loss(logits, target.byte(), class_weights=weights), expected)
    torch.testing.assert_close(segmentation_loss(logits, target), F.cross_entropy(logits, target, ignore_index=IGNORE))
    nothing = torch.full_like(target, IGNORE)
    assert float(segmentation_loss(logits, nothing, dice=1.0)) == 0.0


def test_dice() -> None:
    target = torch.randint(0, 3, (2, 8, 8))
    target[:, :3] = IGNORE
    right = F.one_hot(target.masked_fill(target == IGNORE, 0), 4).permute(0, 3, 1, 2).float()
    assert float(dice_loss(right, target)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(right.roll(1, dims=1), target)) > 0.9
    # What is predicted on ignored pixels does not matter.
    changed = right.clone()
    changed[:, :, :3] = 0.25
    torch.testing.assert_close(dice_loss(changed, target), dice_loss(right, target))
    uniform = torch.full((1, 2, 2, 2), 0.5)
    half = torch.tensor([[[0, 0], [1, 1]]])
    assert float(dice_loss(uniform, half)) == pytest.approx(1 - (2 * 1 + 1) / (2 + 2 + 1))


def test_class_weights() -> None:
    weights = log_class_weights(torch.tensor([900.0, 90.0, 10.0]))
    assert float(weights.mean()) == pytest.approx(1)
    assert weights.tolist() == sorted(weights.tolist())
    assert float(weights[2] / weights[0]) == pytest.approx(np.log(1.1 + 0.9) / np.log(1.1 + 0.01))


def test_allocator_setting() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
