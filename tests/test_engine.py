"""Training and evaluation."""

from __future__ import annotations

import copy
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import edgeseg
from edgeseg.data.camvid import CamVid
from edgeseg.engine import BinaryScores, ConfusionMatrix, DepthErrors, TrainConfig, evaluate, train
from edgeseg.engine.bfloat16 import bfloat16
from edgeseg.engine.optimization import learning_rate_factor
from edgeseg.engine.signals import stoppable
from edgeseg.engine.sync_batch_norm import share_batch_norms, unshare_batch_norms
from edgeseg.labels import IGNORE
from edgeseg.machine.memory import keep_freed_memory
from edgeseg.recipes import ORIGINAL
from edgeseg.storage.checkpoint import read_weights
from edgeseg.tasks.losses import dice_loss, log_class_weights, segmentation_loss

from .conftest import TINY

SMALL = TrainConfig(
    epochs=2, batch_size=2, img_resize=(96, 96), rand_crop=(96, 96), rand_scale=(1, 1), jitter=0, warmup_epochs=0,
    workers=0, bf16=False,
)  # fmt: skip


def make() -> edgeseg.Pixel2Pixel:
    return edgeseg.create_model("fpn", encoder=TINY, channels=32, tasks={"segmentation": CamVid.task})


def test_training_learns(camvid: Path, tmp_path: Path) -> None:
    """The colour tells the class: a few dozen steps suffice to segment frames that were not trained on."""
    torch.manual_seed(1)
    config = replace(SMALL, epochs=60, batch_size=6, lr=0.05, decoder_lr=2.0, ema=0.9)
    model = train(make(), CamVid(camvid), CamVid(camvid, "val"), config, tmp_path / "run")
    assert not model.training
    assert evaluate(model, CamVid(camvid, "test")).miou > 0.6
    log = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in log] == list(range(1, 61))
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    assert [row["epoch"] for row in log if "miou" in row] == [10, 20, 30, 40, 50, 60]
    assert log[-1]["miou"] > 60
    best = edgeseg.create_model("fpn", checkpoint_path=tmp_path / "run/best.safetensors")
    assert evaluate(best, CamVid(camvid, "val")).miou == pytest.approx(
        max(row.get("miou", 0) for row in log) / 100, abs=1e-4
    )
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
    config = replace(SMALL, lr=1e12, epochs=5)
    with pytest.raises(
        FloatingPointError,
        match=r"the (loss|largest gradient) is (nan|inf) in step .*look at .*train/00.\.png, .*\.png",
    ):
        train(make(), CamVid(camvid), None, config, tmp_path)
    config = replace(SMALL, batch_size=64)
    with pytest.raises(ValueError, match="uses 64 images, but the training set has only 6; lower batch_size"):
        train(make(), CamVid(camvid), None, config, tmp_path)


@pytest.mark.parametrize("encoder", ["mobilenetv2", TINY])
def test_batch_norms_are_shared_during_a_run_only(encoder: str) -> None:
    """timm's batch norms have an activation in them; afterwards batch norms can be folded as before."""
    model = edgeseg.create_model("fpn", encoder=encoder, channels=16, num_classes=3).eval()
    image = torch.randn(1, 3, 64, 64)
    expected, keys = model(image)["segmentation"], list(model.state_dict())
    assert torch.equal(expected, copy.deepcopy(model)(image)["segmentation"])
    share_batch_norms(model)
    assert not any(type(each) is torch.nn.BatchNorm2d for each in model.modules())
    assert any(isinstance(each, torch.nn.SyncBatchNorm) for each in model.modules())
    assert torch.equal(model(image)["segmentation"], expected)
    unshare_batch_norms(model)
    assert not any(isinstance(each, torch.nn.SyncBatchNorm) for each in model.modules())
    assert list(model.state_dict()) == keys
    assert torch.equal(model(image)["segmentation"], expected)
    assert "batch norms folded" in str(edgeseg.optimize(model).config.notes["optimized"])


def test_no_task_is_named_as_the_total(camvid: Path, tmp_path: Path) -> None:
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks={"loss": CamVid.task})
    with pytest.raises(ValueError, match="a task is named 'loss', as the total of all losses is"):
        train(model, CamVid(camvid), None, SMALL, tmp_path)


CHILD = """
import sys, torch, edgeseg
from pathlib import Path
from edgeseg.data.camvid import CamVid
from edgeseg.engine import TrainConfig, train
torch.manual_seed(0)
model = edgeseg.create_model("fpn", encoder="test_efficientnet", channels=16, tasks={"segmentation": CamVid.task})
config = TrainConfig(epochs=8, batch_size=2, img_resize=(96, 96), rand_crop=(64, 64), workers=WORKERS, bf16=False,
                     save_every=0.0, evaluate_every=3)
try:
    train(model, CamVid(sys.argv[1]), CamVid(sys.argv[1], "val"), config, Path(sys.argv[2]), resume=True)
except KeyboardInterrupt as error:
    kept = error  # and with it, as in a notebook, all that its frames hold: the workers have to leave all the same
    sys.exit(str(error))
"""


def child(camvid: Path, output: Path, workers: int = 0) -> subprocess.Popen[str]:
    code = CHILD.replace("WORKERS", str(workers))
    command = [sys.executable, "-c", code, str(camvid), str(output)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop_at(process: subprocess.Popen[str], output: Path, number: int, step: int) -> None:
    """Sends a signal when the run's state says that a step is done."""
    while process.poll() is None:
        try:
            state = torch.load(output / "run.pt", weights_only=True)
        except (OSError, RuntimeError):
            state = {"step": -1}
        if state["step"] >= step:
            return process.send_signal(number)
        time.sleep(0.01)
    raise AssertionError(process.communicate())


def test_killed_and_resumed_is_never_killed(camvid: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of an epoch, then SIGTERM in another: the weights are those of an undisturbed run."""
    whole = child(camvid, tmp_path / "whole")
    killed = child(camvid, tmp_path / "parts")
    stop_at(killed, tmp_path / "parts", signal.SIGKILL, 5)
    assert killed.wait() == -signal.SIGKILL
    ended = child(camvid, tmp_path / "parts", workers=1)  # the order and the randomness do not depend on the workers
    stop_at(ended, tmp_path / "parts", signal.SIGTERM, 13)
    assert "go on with resume=True" in ended.communicate(timeout=120)[1]
    last = child(camvid, tmp_path / "parts")
    assert last.wait() == 0, last.communicate()
    assert whole.wait() == 0, whole.communicate()
    for name in ("last.safetensors", "best.safetensors"):
        expected, got = (read_weights(tmp_path / run / name) for run in ("whole", "parts"))
        assert all(torch.equal(value, got[key]) for key, value in expected.items()), name
    logs = [(tmp_path / run / "metrics.jsonl").read_text().splitlines() for run in ("whole", "parts")]
    rows = [[{k: v for k, v in json.loads(line).items() if "second" not in k} for line in log] for log in logs]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 8


def test_resume_refuses_another_run(camvid: Path, tmp_path: Path) -> None:
    train(make(), CamVid(camvid), None, SMALL, tmp_path)
    with pytest.raises(ValueError, match=r"another recipe; these options differ: lr 0\.01 -> 0\.5"):
        train(make(), CamVid(camvid), None, replace(SMALL, lr=0.5), tmp_path, resume=True)
    other = edgeseg.create_model("unet", encoder=TINY, tasks={"segmentation": CamVid.task})
    with pytest.raises(ValueError, match=r"cannot resume unet from .*the run trained fpn"):
        train(other, CamVid(camvid), None, SMALL, tmp_path, resume=True)
    wider = edgeseg.create_model("fpn", encoder=TINY, channels=48, tasks={"segmentation": CamVid.task})
    with pytest.raises(ValueError, match="the network of the run differs from this fpn"):
        train(wider, CamVid(camvid), None, SMALL, tmp_path, resume=True)
    # Networks whose tensors have the shapes of the run's.
    active = edgeseg.create_model("fpn", encoder=TINY, channels=32, activation="relu6", tasks=make().tasks)
    with pytest.raises(ValueError, match=r"differs from this fpn: activation .* -> 'relu6'"):
        train(active, CamVid(camvid), None, SMALL, tmp_path, resume=True)
    task = replace(CamVid.task, classes=tuple(reversed(CamVid.task.classes)))
    swapped = edgeseg.create_model("fpn", encoder=TINY, channels=32, tasks={"segmentation": task})
    unnamed = [CamVid(camvid)[index] for index in range(len(CamVid(camvid)))]
    with pytest.raises(ValueError, match=r"differs from this fpn: classes of segmentation \('sky'"):
        train(swapped, unnamed, None, SMALL, tmp_path, resume=True)
    (tmp_path / "run.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match="corrupt or truncated"):
        train(make(), CamVid(camvid), None, SMALL, tmp_path, resume=True)


def test_two_processes_are_one(camvid: Path, tmp_path: Path) -> None:
    """torchrun with two gloo processes against one process with the same global batch, batch norms frozen."""
    options = (
        f"train --dataset camvid --data-path {camvid} --model fpn_aspp_mobilenetv2_tv_edgeailite --epochs 2 "
        "--batch_size 4 --img-resize 64 64 --rand-crop 64 64 --workers 0 --no-bf16 --freeze-bn --evaluate-every 1 "
        "--class-weights none --dice 0 --lr 0.001"
    ).split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "edgeseg"]
    runs = {"two": torchrun, "one": [sys.executable, "-m", "edgeseg"]}
    for folder, start in runs.items():
        command = [*start, *options, "-o", str(tmp_path / folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    two, one = (
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()] for run in runs
    )
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=0.2)
    assert [row["miou"] for row in two] == pytest.approx([row["miou"] for row in one], abs=2.0)


# The published log of the RegNetX runs, ENGINE.md 1.3: rates of the epochs 1 to 7, and of the last.
def test_learning_rates_are_the_originals() -> None:
    config = replace(ORIGINAL, lr=0.1, epochs=60, scheduler="cosine")
    rates = [0.1 * learning_rate_factor(config, epoch) for epoch in range(60)]
    assert rates[:7] == pytest.approx([1e-4, 0.02, 0.04, 0.06, 0.08, 0.1, 0.0976], abs=5e-5)
    assert rates[-1] == pytest.approx(0.0000685, abs=5e-8)
    short = [learning_rate_factor(replace(TrainConfig(), epochs=2, warmup_epochs=5), epoch) for epoch in (0.5, 1, 1.5)]
    assert short[:2] == [0.5, 1]  # at most half of the run warms up
    assert short[2] < 0.2
    steps = replace(ORIGINAL, warmup_epochs=0)
    assert [learning_rate_factor(steps, e) for e in (0, 99, 100, 199, 200)] == [1, 1, 0.25, 0.25, 0.0625]
    poly = replace(ORIGINAL, scheduler="poly", epochs=10, warmup_epochs=0)
    assert learning_rate_factor(poly, 5) == pytest.approx(0.5**0.9)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "lr": 1e-3, "clip_grad": 1.0},
        {"optimizer": "adamw", "lr": 1e-3, "iter_size": 3, "scheduler": "poly", "ema": 0.0},
        {"aux_loss": 0.4, "ohem": 0.7, "label_smoothing": 0.1, "dice": 0.0},
        {"freeze_encoder": True, "freeze_bn": True, "class_weights": "none"},
        {"augmentation": "original", "rand_scale": (1.0, 2.0), "transform_rotation": 5.0, "protocol": "original"},
    ],
    ids=lambda options: "-".join(options),
)
def test_options(options: dict[str, Any], camvid: Path, tmp_path: Path) -> None:
    """Each recipe trains: the loss falls; what is frozen stays."""
    changes: dict[str, Any] = {"epochs": 6, "evaluate_every": 3, "lr": 0.02, **options}
    config = replace(SMALL, **changes)
    model = make()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    after = train(model, CamVid(camvid), CamVid(camvid, "val"), config, tmp_path).state_dict()
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]
    assert set(after) == set(before)  # the auxiliary head is gone
    encoder = [key for key in before if key.startswith("encoder.")]
    assert all(torch.equal(before[key], after[key]) for key in encoder) == ("freeze_encoder" in options)
    assert not torch.equal(after["decoders.segmentation.head.1.weight"], before["decoders.segmentation.head.1.weight"])


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="optimizer is one of sgd, adam, adamw; got 'lion'"):
        TrainConfig(optimizer="lion")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        TrainConfig(epochs=0)


def test_labels_beyond_the_classes_are_named(camvid: Path, tmp_path: Path) -> None:
    few = edgeseg.create_model("fpn", encoder=TINY, num_classes=3)
    with pytest.raises(
        ValueError, match=r"(?s)the training set and the model have different classes.*sky.*class 0, class 1"
    ):
        train(few, CamVid(camvid), None, SMALL, tmp_path)
    data = CamVid(camvid)
    with pytest.raises(
        ValueError, match=r"sample 0: the ground truth of 'segmentation' has ids \d+, .* there are 3 cl"
    ):
        train(few, [data[i] for i in range(6)], None, SMALL, tmp_path)


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
    for wrong in (5, 255, -1):
        with pytest.raises(ValueError, match=rf"predicted ids are .*{wrong}.*there are 5 classes with the ids 0 to 4"):
            matrix.update(torch.tensor([[wrong]]), torch.tensor([[0]]))
    assert int(matrix.counts.sum()) == counted.sum()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"output_size": (8, 8)}, "output_size belongs to the original protocol"),
        ({"output_size": (0, 8), "protocol": "original"}, r"output_size must be a positive height .*, got \(0, 8\)"),
        ({"size": (8, -1)}, "size must be a positive height and width"),
        ({"scales": (1, 0)}, r"scales are positive factors, got \(1, 0\)"),
        ({"scales": ()}, "scales are positive factors"),
        ({"scales": 1.0}, r"scales are positive factors, got 1\.0"),
        ({"size": 512}, "size must be a positive height and width, got 512"),
        ({"protocol": "Native"}, "protocol is one of 'native', 'original', got 'Native'"),
    ],
)
def test_views_that_cannot_be(options: dict[str, Any], problem: str, tiny: edgeseg.Pixel2Pixel) -> None:
    with pytest.raises(ValueError, match=problem):
        evaluate(tiny, [(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(8, 8, dtype=torch.uint8))], **options)


def test_evaluation_leaves_the_random_numbers(tiny: edgeseg.Pixel2Pixel) -> None:
    before = torch.get_rng_state()
    evaluate(tiny, [(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(8, 8, dtype=torch.uint8))])
    assert torch.equal(torch.get_rng_state(), before)


def test_ignored_signals_stay_ignored() -> None:
    """A script ignores Ctrl-C in its background jobs."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable() as stopped:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
            assert not stopped()
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopped()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_evaluate_is_one_matrix_at_the_labels_size(tiny: edgeseg.Pixel2Pixel) -> None:
    torch.manual_seed(0)
    pairs = [
        (torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8), torch.randint(0, 3, (40, 60))),
        (torch.randint(0, 256, (3, 33, 70), dtype=torch.uint8), torch.randint(0, 3, (33, 70))),
    ]
    matrix = evaluate(tiny.train(), pairs)
    assert tiny.training
    by_hand = ConfusionMatrix(3)
    for image, label in pairs:
        by_hand.update(torch.from_numpy(tiny.predict(image)), label)
    assert torch.equal(matrix.counts, by_hand.counts)


def test_the_originals_protocol(tiny: edgeseg.Pixel2Pixel) -> None:
    """Stretched to the network's size, argmax there; label map and prediction to the output size by nearest pixel."""
    pairs = [(torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8), torch.randint(0, 2, (40, 60)).byte())]
    matrix = evaluate(tiny, pairs, protocol="original", size=(32, 48), output_size=(64, 96))
    (image, target), by_hand = pairs[0], ConfusionMatrix(3)
    small = F.interpolate(image[None], size=(32, 48), mode="bilinear", antialias=True)
    with torch.inference_mode():
        labels = tiny((small.float() - 128) / 64)["segmentation"].argmax(dim=1)
    doubled = labels[0].repeat_interleave(2, 0).repeat_interleave(2, 1)
    rows, columns = (torch.arange(n) * m // n for n, m in ((64, 40), (96, 60)))
    by_hand.update(doubled, target[rows][:, columns])
    assert torch.equal(matrix.counts, by_hand.counts)
    assert matrix.miou_of_all == pytest.approx(matrix.iou[:2].sum() / 3)  # class 2 is not in the labels


def test_flip_and_scales_average(tiny: edgeseg.Pixel2Pixel) -> None:
    """A symmetric image gives symmetric answers once the mirrored one is averaged in."""
    half = torch.randint(0, 256, (3, 64, 32), dtype=torch.uint8)
    image = torch.cat([half, half.flip(-1)], dim=-1)
    with torch.inference_mode():
        labels = [
            evaluate(
                tiny,
                [(image, torch.full((64, 64), 255, dtype=torch.uint8).index_fill_(1, torch.tensor([column]), 0))],
                flip=True,
            )
            for column in (5, 58)
        ]
    assert torch.equal(labels[0].counts, labels[1].counts)
    several = evaluate(tiny, [(image, torch.zeros(64, 64).long())], scales=(0.5, 1.0, 1.5))
    assert int(several.counts.sum()) == 64 * 64


def test_frequency_weighted_iou() -> None:
    matrix = ConfusionMatrix(2)
    matrix.counts = torch.tensor([[6, 2], [1, 1]])
    assert matrix.frequency_weighted_iou == pytest.approx(0.8 * 6 / 9 + 0.2 * 1 / 4)


def test_metrics_print_as_tables() -> None:
    matrix = ConfusionMatrix(3, ("sky", "road", "car"))
    matrix.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]))
    assert re.sub(" +", " ", repr(matrix)).splitlines()[:4] == [
        "sky 50.00", "road 50.00", "car -", "mIoU over 2 of 3 classes 50.00",
    ]  # fmt: skip
    depth = DepthErrors()
    depth.update(torch.tensor([2.0]), torch.tensor([4.0]))
    assert "RMSE in metres               2.00" in repr(depth)
    assert "F1 (Dice)" in repr(BinaryScores())
    assert "class 1" in repr(ConfusionMatrix(2))


def test_ohem_takes_hard_pixels() -> None:
    logits, target = torch.zeros(1, 2, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64)
    logits[:, 0] = 5.0  # all are easy
    logits[0, :, 0, :4] = torch.tensor([-5.0, 5.0])[:, None]  # but four
    easy, hard = F.cross_entropy(logits, target, reduction="none").flatten().sort().values.split([60, 4])
    assert float(segmentation_loss(logits, target, ohem=0.7)) == pytest.approx(float(hard.mean()), rel=1e-4)
    assert float(easy.max()) < 0.1
    logits[0, :, 0, :4] = torch.tensor([5.0, -5.0])[:, None]  # none is hard: the worst 16th is taken
    assert float(segmentation_loss(logits, target, ohem=0.7)) == pytest.approx(float(easy.mean()), rel=1e-3)


def test_label_smoothing_is_torchs() -> None:
    logits, target = torch.randn(2, 4, 6, 5), torch.randint(0, 4, (2, 6, 5))
    expected = F.cross_entropy(logits, target, label_smoothing=0.1)
    torch.testing.assert_close(segmentation_loss(logits, target, label_smoothing=0.1), expected)


def test_ignored_pixels_in_the_denominator() -> None:
    logits, target = torch.randn(1, 4, 4, 4), torch.randint(0, 4, (1, 4, 4))
    target[0, :2] = IGNORE
    plain, original = (segmentation_loss(logits, target, count_ignored=flag) for flag in (False, True))
    torch.testing.assert_close(original, plain / 2)


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


def test_gradients_in_bfloat16() -> None:
    """PyTorch's are wrong for the weights of dilated depthwise convolutions on CPUs, which stay in float32."""
    cpu = torch.device("cpu")
    layers = [torch.nn.Conv2d(64, 64, 3, padding=d, dilation=d, groups=64, bias=False) for d in (1, 2, 6)]
    image = torch.randn(4, 64, 24, 32).contiguous(memory_format=torch.channels_last)
    for layer in layers:
        gradients = []
        for enabled in (False, True):
            with bfloat16(cpu, enabled=enabled):
                output = layer(image)
            assert output.dtype == (torch.bfloat16 if enabled and layer.dilation == (1, 1) else torch.float32)
            [gradient] = torch.autograd.grad(output.float().sum(), [layer.weight])
            gradients.append(gradient)
        assert (gradients[1] - gradients[0]).abs().max() < 0.02 * gradients[0].abs().max()
