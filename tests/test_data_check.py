"""What is in a dataset is said before training, in Python and by `edgeseg data check`."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgeseg
from edgeseg.cli import main
from edgeseg.data import load_dataset
from edgeseg.data.check import DataReport, check_dataset
from edgeseg.data.samples import checked_sample
from edgeseg.engine import TrainConfig, train
from edgeseg.labels import segmentation_task
from edgeseg.spec import Task

from .conftest import TINY

HEIGHT, WIDTH = 32, 48
TASKS = {"segmentation": Task("segmentation", 3, classes=("road", "sky", "cat"))}
RECIPE = TrainConfig(
    epochs=1, batch_size=2, img_resize=(HEIGHT, WIDTH), rand_crop=(HEIGHT, WIDTH), rand_scale=(1, 1), jitter=0,
    workers=0, bf16=False, evaluate_every=1,
)  # fmt: skip


def write(root: Path, split: str, number: int, labels: np.ndarray, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    photo = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    for folder, picture in (("images", photo), ("masks", labels.astype(np.uint8))):
        path = root / folder / split / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)


def labels_of(*values: int) -> np.ndarray:
    """A label map with one row per value, which the last value fills up."""
    rows = [*values, *[values[-1]] * (HEIGHT - len(values))]
    return np.repeat(np.array(rows, np.uint8)[:, None], WIDTH, axis=1)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Four photos for training and two for validation, of three classes of which "cat" is in one training photo."""
    root = tmp_path / "own"
    for number in range(4):
        write(root, "train", number, labels_of(255, 2 if number == 3 else 1, 0))
    for number in range(2):
        write(root, "val", number, labels_of(1, 0))
    (root / "classes.txt").write_text("road\nsky\ncat\n")
    return root


def network(classes: int = 3) -> edgeseg.Pixel2Pixel:
    return edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=classes)


def samples(*label_maps: np.ndarray) -> list[Any]:
    image = torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8)
    return [(image, torch.from_numpy(labels)) for labels in label_maps]


def test_report(own: Path) -> None:
    report = check_dataset(load_dataset("images_masks", own, "train"))
    assert report.samples == report.checked == 4
    assert dict(report.sizes) == {"32x48": 4}
    assert dict(report.channels) == {"3": 4}
    counts = report.classes["segmentation"]
    assert counts.pixels == (4 * 30 * WIDTH, 3 * WIDTH, WIDTH)
    assert counts.samples == (4, 3, 1)
    assert counts.ignored == 4 * WIDTH
    assert report.ok
    assert not report.warnings
    text = repr(report)
    assert "samples   4\n" in text
    assert "32x48: 4 (height x width)" in text
    assert [line.split() for line in text.splitlines() if "sky" in line] == [["sky", "144", "2.42%", "3"]]
    assert "3.12%" in text  # of ignored pixels
    some = check_dataset(load_dataset("images_masks", own, "train"), limit=2)
    assert some.checked == 2
    val = check_dataset(load_dataset("images_masks", own, "val"), limit=1)
    assert val.ok
    assert val.warnings == ["class 'cat' of 'segmentation' never occurs in the 1 of 2 samples that were checked"]


def test_everything_that_is_wrong_is_listed(own: Path) -> None:
    write(own, "train", 4, labels_of(0, 7))
    write(own, "train", 5, labels_of(0, 1), size=(40, 48))
    write(own, "train", 6, labels_of(0))
    (own / "images/train/6.png").write_bytes(b"no picture")
    report = check_dataset(load_dataset("images_masks", own, "train"))
    assert not report.ok
    assert report.checked == 7
    assert sum(report.sizes.values()) == 4
    ids, size, unreadable = report.problems
    assert "masks/train/4.png" in ids
    assert "ids [7]" in ids
    assert "5.png is (32, 48)" in size
    assert "images/train/6.png" in unreadable
    assert repr(report).count("\nproblem: ") == 3
    with pytest.raises(ValueError, match=r"4\.png has ids \[7\]"):
        check_dataset(load_dataset("images_masks", own, "train"), on_error="stop")
    skipping = check_dataset(load_dataset("images_masks", own, "train", on_error="skip"))
    left_out = "; ".join(skipping.left_out)
    assert len(skipping.left_out) == 3
    assert all(name in left_out for name in ("4.png", "5.png", "6.png"))
    assert not skipping.problems


def test_datasets_without_tasks_and_several_workers() -> None:
    data = samples(labels_of(0, 1), labels_of(2))
    with pytest.raises(ValueError, match="no attribute `tasks`; pass tasks"):
        check_dataset(data)
    alone = check_dataset(data, tasks=TASKS)
    assert alone == check_dataset(data, tasks=TASKS, workers=1)
    assert alone.classes["segmentation"].samples == (1, 1, 1)


def test_the_report_is_kept_until_a_file_changes(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "deep/report.json"
    reads: list[int] = []

    def counted(dataset: Any, index: int, *options: Any) -> Any:
        reads.append(index)
        return checked_sample(dataset, index, *options)

    monkeypatch.setattr("edgeseg.data.check.checked_sample", counted)

    def report(**options: Any) -> DataReport:
        reads.clear()
        return check_dataset(load_dataset("images_masks", own, "train"), cache=cache, **options)

    first = report()
    assert len(reads) == 4
    assert report() == first
    assert not reads
    assert report(limit=2).checked == len(reads) == 2
    report()
    mask = own / "masks/train/0.png"
    state = mask.stat()
    os.utime(mask, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    report()
    assert len(reads) == 4
    write(own, "train", 9, labels_of(0))
    assert report().samples == len(reads) == 5
    cache.write_text("{")
    assert report().samples == len(reads) == 5
    report(tasks={"segmentation": Task("segmentation", 5)})
    assert len(reads) == 5
    names = ["road", "sky", "cat", "dog", "cow", "pig"]
    for order in (names, [*names[:4], "pig", "cow"]):
        (own / "classes.txt").write_text("\n".join(order))
        assert report().classes["segmentation"].names == tuple(order)


def test_datasets_of_others() -> None:
    """Errors of any type name the sample, and attributes of the same names are something else."""

    class Others(list[Any]):
        inputs, tasks, skipped = ("a.png", "b.png"), ["segmentation"], 3

        def __getitem__(self, index: Any) -> Any:
            if index == 1:
                raise KeyError("b.png")
            return super().__getitem__(index)

    sample = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8), torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    report = check_dataset(Others([sample, sample]), tasks=TASKS)
    assert (report.checked, report.left_out) == (2, ())
    assert report.problems == ("sample 1: KeyError: 'b.png'",)
    with pytest.raises(ValueError, match="has no attribute `tasks`"):
        check_dataset(Others([sample]))
    with pytest.raises(ValueError, match="on_error is one of 'collect', 'stop', got 'skip'"):
        check_dataset([sample], tasks=TASKS, on_error="skip")  # type: ignore[arg-type]


def test_a_class_that_never_occurs_is_said_before_training(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_set, val_set = (load_dataset("images_masks", own, split) for split in ("train", "val"))
    with pytest.warns(UserWarning, match="validation set: class 'class 2' of 'segmentation' never occurs in the 2 sam"):
        train(network(), train_set, val_set, RECIPE, tmp_path / "run")
    out = capsys.readouterr().out
    parts = ["training set, for cpu\nsamples   4", "validation set, for cpu\nsamples   2", "epoch 1"]
    assert [out.index(part) for part in parts] == sorted(out.index(part) for part in parts)
    logged = json.loads((tmp_path / "run/data_training.json").read_text())
    assert logged["report"]["classes"]["segmentation"]["samples"] == [4, 3, 1]
    with pytest.warns(UserWarning, match="training set: classes 'class 2', 'class 3' of 'segmentation' never occur in"):
        train(network(4), samples(labels_of(0, 1), labels_of(0)), None, RECIPE, tmp_path / "two")


@pytest.mark.parametrize("weights", ["log", "none"])
def test_masks_of_0_and_255(weights: str, tmp_path: Path) -> None:
    wrong, right = samples(labels_of(0, 255), labels_of(255, 0)), samples(labels_of(0, 1), labels_of(0, 1))
    config = TrainConfig(**{**RECIPE.__dict__, "class_weights": weights})
    message = r"labels of 'segmentation' are only 0 and 255 .*255 stands for ignored .*map 255 to 1"
    with pytest.raises(ValueError, match=f"^the training set: the {message}"):
        train(network(2), wrong, None, config, tmp_path)
    with pytest.raises(ValueError, match=f"^the validation set: the {message}"):
        train(network(2), right, wrong, config, tmp_path)
    with pytest.raises(ValueError, match=r"'class 1', 'class 2' would never be learned; .*map 255 to 1 in the label"):
        train(network(3), wrong, None, config, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_binary_masks_of_two_conventions() -> None:
    """0 and 1 in some masks, 0 and 255 in others: each is fine alone, together one of them is a mistake."""
    image, ones = np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=np.uint8)
    border = ones.copy()
    border[0] = 255
    road = {"road": Task("binary")}
    mixed = check_dataset([(image, ones), (image, ones * 255)], tasks=road)
    assert mixed.ok
    assert "1 masks have foreground (1) and no ignored pixels, and 1 have ignored pixels (255)" in repr(mixed)
    assert "--mask-values 0:0 1:1 255:1" in mixed.warnings[0]
    for proper in ([(image, ones)] * 2, [(image, border), (image, ones * 255)], [(image, border), (image, ones)]):
        assert not check_dataset(proper, tasks=road).warnings


@pytest.mark.parametrize("weights", ["log", "none"])
def test_every_label_is_ignored(weights: str, tmp_path: Path) -> None:
    config = TrainConfig(**{**RECIPE.__dict__, "class_weights": weights})
    ignored = samples(labels_of(255), labels_of(255))
    with pytest.raises(ValueError, match="the training set: every label of 'segmentation' is ignored"):
        train(network(), ignored, None, config, tmp_path)
    with pytest.raises(ValueError, match="the validation set: every label of 'segmentation' is ignored"):
        train(network(), samples(labels_of(0, 1, 2), labels_of(1)), ignored, config, tmp_path)
    other = [(image, {"mask": labels}) for image, labels in samples(labels_of(0, 1), labels_of(1))]
    with pytest.raises(ValueError, match=r"every label of 'segmentation' is ignored .* names of the tasks"):
        train(network(), other, None, config, tmp_path)


def test_rare_labels_are_looked_for_in_all_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the samples without the foreground is no reason to stop."""
    monkeypatch.setattr("edgeseg.engine.data_check.SAMPLED", 2)
    data = samples(labels_of(0, 255), labels_of(0, 1), labels_of(0, 255))
    config = replace(RECIPE, class_weights="none", cache=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(network(2), data, data, config, tmp_path)
    late = [*samples(*[labels_of(0, 1)] * 3), *samples(labels_of(0, 9)), *samples(labels_of(0, 1))]
    assert check_dataset(late, tasks={"s": Task(channels=2)}, limit=2).ok
    with pytest.raises(ValueError, match=r"sample 3: .*ids 9"):
        train(network(2), data, late, replace(config, check_data=True), tmp_path / "all")


def test_a_run_whose_dataset_has_grown(own: Path, tmp_path: Path) -> None:
    def run(**options: Any) -> edgeseg.Pixel2Pixel:
        return train(network(), load_dataset("images_masks", own, "train"), None, RECIPE, tmp_path / "run", **options)

    run()
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    run(resume=True)
    write(own, "train", 4, labels_of(0, 1, 2))
    with pytest.raises(ValueError, match=r"run had 4 training samples, and now there are 5; .*last\.safetensors"):
        run(resume=True)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def call(own: Path, *options: str) -> list[str]:
    return ["data", "check", "--dataset", "images_masks", "--data-path", str(own), "--workers", "0", *options]


def test_command(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.png"
    assert main(call(own, "-o", str(page))) == 0
    out = capsys.readouterr().out
    assert out.index("train\nsamples   4") < out.index("val\nsamples   2")
    assert "warning: class 'cat' of 'segmentation' never occurs in the 2 samples" in out
    with Image.open(page) as picture:
        assert picture.width > 800
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50
    write(own, "val", 2, labels_of(0, 5))
    assert main(call(own, "--json")) == 1
    reports = json.loads(capsys.readouterr().out)
    assert reports["train"]["ok"]
    assert not reports["val"]["ok"]
    assert "ids [5]" in reports["val"]["problems"][0]
    assert reports["val"]["classes"]["segmentation"]["pixels"] == [2 * 31 * WIDTH, 2 * WIDTH, 0]


def test_command_on_0_and_255(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        write(own, "val", number, labels_of(0, 255))
    assert main(call(own, "--split", "val")) == 2
    assert "no values but 0 and 255" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "elsewhere"], "elsewhere"),
        (["-o", "page.jpg"], "--output must be a .png file, got page.jpg"),
        (["-o", "nowhere/page.png"], "nowhere"),
        (["--limit", "0"], "--limit must be at least 1, got 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_calls(options: list[str], message: str, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(call(own, *options)) == 2
    assert message in capsys.readouterr().err


def test_evaluate_compares_the_classes(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks={"segmentation": segmentation_task("camvid")})
    edgeseg.save_checkpoint(model, tmp_path / "camvid.safetensors")
    data = ["--dataset", "images_masks", "--data-path", str(own), "--workers", "0"]
    assert main(["evaluate", *data, "--checkpoint", str(tmp_path / "camvid.safetensors")]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert "dataset (3): road, sky, cat" in captured.err
    assert "model (11): sky, building, pole, road" in captured.err
