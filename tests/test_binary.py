"""Binary segmentation: one class of interest, one logit per pixel, from masks to int8."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import edgeseg
from edgeseg import Task
from edgeseg.cli import main
from edgeseg.config import read_config
from edgeseg.data import load_dataset
from edgeseg.deploy.graph import Output
from edgeseg.deploy.quantize import quantize_onnx
from edgeseg.engine import BinaryScores, TrainConfig, choose_threshold, evaluate, evaluate_tasks, train
from edgeseg.labels import class_names, palette_of
from edgeseg.tasks import kind_of
from edgeseg.tasks.losses import binary_loss, segmentation_loss, two_classes
from edgeseg.tasks.table import TITLES

from .conftest import TINY

SIZE = (32, 48)
RECIPE = TrainConfig(
    epochs=20, batch_size=4, img_resize=SIZE, rand_crop=SIZE, rand_scale=(1, 1), jitter=0, lr=0.05, workers=0,
    evaluate_every=20, ema=0.9, warmup_epochs=0.5, bf16=False,
)  # fmt: skip
ROAD = Task("binary", classes=("road",), palette=((255, 0, 255),))


class Blobs(torch.utils.data.Dataset[Any]):
    """Bright rectangles on dark noise; the mask is the rectangle, with a border that is ignored."""

    def __init__(self, length: int, seed: int = 0, *, task: Task = ROAD, depth: bool = False) -> None:
        self.length, self.seed, self.depth = length, seed, depth
        self.tasks = {"road": task, "depth": Task("depth", range=(0, 10))} if depth else {"road": task}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        labels = np.zeros(SIZE, np.uint8)
        top, left = int(rng.integers(0, 14)), int(rng.integers(0, 22))
        labels[top : top + 16, left : left + 24] = 1
        image = rng.integers(0, 60, (3, *SIZE)) + 160 * labels
        target = torch.from_numpy(np.where(np.arange(SIZE[1]) == 0, 255, labels).astype(np.uint8))
        if not self.depth:
            return torch.from_numpy(image.astype(np.uint8)), target
        metres = torch.from_numpy(2.0 + 3 * labels).float()[None]
        return torch.from_numpy(image.astype(np.uint8)), {"road": target, "depth": metres}


class Masks(Blobs):
    """Blobs with other labels: `change` maps uint8 [H, W] to the ground truth."""

    def __init__(self, length: int, change: Any, *, name: str = "road") -> None:
        super().__init__(length)
        self.change, self.called = change, name

    def __getitem__(self, index: int) -> Any:
        image, labels = super().__getitem__(index)
        return image, self.change(labels)

    def name(self, index: int) -> str:
        return f"mask {index}"


def new_model(tasks: dict[str, Task] | None = None) -> edgeseg.Pixel2Pixel:
    return edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks=tasks or {"road": ROAD})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run."""
    folder = tmp_path_factory.mktemp("binary")
    torch.manual_seed(0)
    train(new_model(), Blobs(16), Blobs(4, seed=1), RECIPE, folder)
    return folder


@pytest.fixture
def trained(run: Path) -> edgeseg.Pixel2Pixel:
    return edgeseg.create_model("fpn", checkpoint_path=run / "last.safetensors").eval()


def test_the_task() -> None:
    assert Task("binary").classes == ("background", "foreground")
    assert Task("binary").channels == 1
    assert ROAD.classes == ("background", "road")
    assert palette_of(ROAD) == ((0, 0, 0), (255, 0, 255))
    assert len(palette_of(Task("binary"))) == 2
    assert class_names(Task("binary", classes=("grass", "road"))) == ("grass", "road")
    assert ROAD.class_count == 2
    assert Task("segmentation", 5).class_count == 5
    assert Task.from_json(json.loads(json.dumps({"kind": "binary", "classes": ["road"]}))) == Task(
        "binary", classes=("road",)
    )
    for wrong, message in (
        ({"threshold": 0.0}, "Task.threshold must be between 0 and 1, got 0.0"),
        ({"classes": ("a", "b", "c")}, "3 class names for a task of 2 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            Task("binary", **wrong)


def test_num_classes_1_means_it() -> None:
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=1)
    assert model.tasks == {"segmentation": Task("binary")}
    assert model(torch.zeros(1, 3, 32, 48))["segmentation"].shape == (1, 1, 32, 48)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("segmentation", 1), r"at least 2 for segmentation.*name the background.*Task\('binary'\)"),
        (Task("segmentation", 2, threshold=0.4), "threshold is for binary tasks only"),
        (Task("depth", threshold=0.4), "threshold is for binary tasks only"),
        (Task("binary", range=(0, 1)), "range is for regressed maps"),
        (Task("binary", 2), "channels is 1 for binary"),
    ],
)
def test_tasks_that_are_refused(task: Task, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        edgeseg.create_model("fpn", encoder=TINY, tasks={"road": task})
    with pytest.raises(ValueError, match=message):  # a network that is not built from a spec
        edgeseg.create_model("erfnet", tasks={"road": task})


def test_the_record_of_other_tasks_stays_as_it_was(tiny: edgeseg.Pixel2Pixel) -> None:
    assert "threshold" not in tiny.config.to_json()["tasks"]["segmentation"]
    config = replace(tiny.config, tasks={"road": replace(ROAD, threshold=0.25)})
    assert config.to_json()["tasks"]["road"]["threshold"] == 0.25
    assert read_config(json.dumps(config.to_json()), "here") == config


def test_a_network_keeps_its_channels(tiny: edgeseg.Pixel2Pixel) -> None:
    for tasks in ({"segmentation": ROAD}, {"road": tiny.tasks["segmentation"]}):
        with pytest.raises(ValueError, match=r"built for the channels {'segmentation': 3} by task"):
            tiny.configure(tasks=tasks)
    with pytest.raises(ValueError, match="threshold is for binary tasks only"):
        tiny.configure(tasks={"segmentation": replace(tiny.tasks["segmentation"], threshold=0.2)})


def test_map_is_the_bilinear_logit_above_the_threshold() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 1, 7, 9)
    for threshold in (0.5, 0.3):
        kind = kind_of(replace(ROAD, threshold=threshold))
        for size in ((7, 9), (28, 36), (31, 50), (5, 4)):
            resized = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[:, 0]
            expected = (resized.sigmoid() > threshold).to(torch.uint8)
            found = kind.predictions([logits], size)
            assert found.dtype == torch.uint8
            assert found.shape == (2, *size)
            assert (found != expected).float().mean() < 1e-3
            assert np.array_equal(kind.map(logits[0].numpy(), size), found[0].numpy())
        assert torch.equal(kind.in_graph(logits), kind.predictions([logits], (7, 9)))


def test_views_average_probabilities() -> None:
    """Not logits: of probabilities 0.999 and 0.2, the mean is above 0.5; of 0.001 and 0.6 below."""
    views = [torch.tensor([0.999, 0.001]).logit(), torch.tensor([0.2, 0.6]).logit()]
    shaped = [view.reshape(1, 1, 1, 2) for view in views]
    assert kind_of(ROAD).predictions(shaped, (1, 2)).tolist() == [[[1, 0]]]
    certain = [torch.full((1, 1, 1, 1), 40.0)] * 2
    assert kind_of(ROAD).scored(certain, (1, 1)).isfinite().all()


def test_loss() -> None:
    """BCE with logits plus Dice of the foreground; the options are those of two classes."""
    logits = torch.randn(2, 1, 6, 8, requires_grad=True)
    target = torch.randint(0, 2, (2, 6, 8))
    target[0, 0] = 255
    counted = target != 255
    plain = F.binary_cross_entropy_with_logits(logits[:, 0][counted], target[counted].float())
    torch.testing.assert_close(binary_loss(logits, target.byte()), plain)
    probabilities, true = logits[:, 0].sigmoid()[counted], target[counted]
    dice = 1 - (2 * (probabilities * true).sum() + 1) / (probabilities.sum() + true.sum() + 1)
    torch.testing.assert_close(binary_loss(logits, target, dice=0.5), plain + 0.5 * dice)
    weights = torch.tensor([0.5, 1.5])
    weighted = F.binary_cross_entropy_with_logits(
        logits[:, 0][counted], true.float(), weight=weights[true], reduction="sum"
    )
    torch.testing.assert_close(binary_loss(logits, target, class_weights=weights), weighted / weights[true].sum())
    smooth = F.binary_cross_entropy_with_logits(logits[:, 0][counted], 0.9 * true + 0.05)
    torch.testing.assert_close(binary_loss(logits, target, label_smoothing=0.1), smooth)
    for options in ({"ohem": 0.4}, {"count_ignored": True}):
        expected = segmentation_loss(two_classes(logits), target, **options)
        torch.testing.assert_close(binary_loss(logits, target, **options), expected)
    ignored = binary_loss(logits, torch.full_like(target, 255), dice=1.0)
    assert float(ignored.detach()) == 0
    ignored.backward()


def test_divergence_is_that_of_two_bernoulli_distributions() -> None:
    student, teacher = torch.randn(2, 1, 4, 5), torch.randn(2, 1, 4, 5)
    p, q = teacher.sigmoid(), student.sigmoid()
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(kind_of(ROAD).divergence(student, teacher), expected)


def test_metric_at_every_threshold() -> None:
    torch.manual_seed(1)
    logits = 2 * torch.randn(40, 50)
    target = (logits + torch.randn(40, 50) > 1).to(torch.uint8)
    target[0] = 255
    metric = BinaryScores(0.5)
    metric.update(logits, target)

    def iou(threshold: float) -> float:
        limit = torch.tensor(threshold, dtype=torch.float64).logit().float()
        predicted, true, counted = logits > limit, target == 1, target != 255
        return float((predicted & true & counted).sum() / ((predicted | true) & counted).sum())

    by_threshold = metric.iou_by_threshold
    assert len(by_threshold) == 255
    for threshold in (1 / 256, 0.25, 0.5, 0.625, 255 / 256):
        assert by_threshold[threshold] == pytest.approx(iou(threshold))
    best = metric.best_threshold
    assert best is not None
    assert best > 0.5
    assert by_threshold[best] == max(by_threshold.values())
    at_best = BinaryScores(best)
    at_best.update(logits, target)
    assert at_best.foreground_iou == pytest.approx(by_threshold[best])
    assert metric.foreground_iou == pytest.approx(iou(0.5))
    tp, fp, fn = (int(metric.counts[i, j]) for i, j in ((1, 1), (0, 1), (1, 0)))
    assert metric.f1 == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert metric.precision == pytest.approx(tp / (tp + fp))
    assert metric.recall == pytest.approx(tp / (tp + fn))
    assert metric.headline("native") == ("iou", 100 * metric.foreground_iou)
    scores = metric.scores(ROAD, "native")
    assert list(scores["iou"]) == ["road"]
    assert scores["best_iou"] >= scores["iou"]["road"]
    assert {"f1", "precision", "recall", "pixel_accuracy", "threshold", "best_threshold", "best_iou"} <= set(scores)
    assert {name for name in scores if name not in ("protocol", "iou")} <= set(TITLES)


def test_metric_of_labels_does_not_know_other_thresholds() -> None:
    metric = BinaryScores(0.5)
    metric.update(torch.tensor([[0, 1]], dtype=torch.uint8), torch.tensor([[0, 1]], dtype=torch.uint8))
    assert metric.foreground_iou == 1
    assert metric.iou_by_threshold == {}
    assert "best_threshold" not in metric.scores(ROAD, "native")


def test_metric_without_foreground() -> None:
    metric = BinaryScores(0.5)
    metric.update(torch.full((2, 2), -1.0), torch.zeros(2, 2, dtype=torch.uint8))
    scores = metric.scores(ROAD, "native")
    assert scores["iou"] == {"road": None}
    assert scores["precision"] is None
    assert scores["pixel_accuracy"] == 100
    assert "best_threshold" not in scores


def test_of_equal_thresholds_the_nearest_to_a_half() -> None:
    metric = BinaryScores(0.5)
    metric.update(torch.tensor([[-4.0, 4.0]]), torch.tensor([[0, 1]]))
    assert metric.best_threshold == 0.5


def test_it_learns(run: Path, trained: edgeseg.Pixel2Pixel) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["iou"] > 90
    assert (run / "samples.png").is_file()
    assert (run / "best.safetensors").is_file()
    metric = evaluate(trained, Blobs(4, seed=1))
    assert isinstance(metric, BinaryScores)
    assert 100 * metric.foreground_iou == pytest.approx(rows[-1]["iou"], abs=0.1)
    for options in ({"protocol": "original"}, {"flip": True, "scales": (1.0, 1.25)}):
        assert evaluate(trained, Blobs(4, seed=1), **options).headline("native")[1] > 85
    image, target = Blobs(4, seed=1)[0]
    labels = trained.predict(image)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1}
    assert (labels == target.numpy())[:, 1:].mean() > 0.9


@pytest.mark.parametrize(
    "changes",
    [
        {"class_weights": "none", "label_smoothing": 0.1, "ohem": 0.7},
        {"class_weights": "dataset", "count_ignored": True, "aux_loss": 0.4, "dice": 0.0},
        {"class_weights_probability": 0.5, "augmentation": "original", "keep_aspect": False, "protocol": "original"},
    ],
)
def test_options_of_the_recipe(changes: dict[str, Any], tmp_path: Path) -> None:
    data = Blobs(8)
    data.class_weights = [0.5, 2.0]  # type: ignore[attr-defined]
    recipe = replace(RECIPE, **{"epochs": 2, "evaluate_every": 2, **changes})
    train(new_model(), data, Blobs(2, seed=1), recipe, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert 0 < rows[-1]["loss"] < 4
    assert 0 <= rows[-1]["iou"] <= 100


def test_class_weights_that_do_not_fit(tmp_path: Path) -> None:
    data = Blobs(8)
    data.class_weights = [1.0] * 19  # type: ignore[attr-defined]
    recipe = replace(RECIPE, class_weights="dataset")
    with pytest.raises(ValueError, match="19 class weights, and road has 2 classes; set class_weights to log or none"):
        train(new_model(), data, None, recipe, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels.masked_fill(labels == 1, 255), "If 255 means foreground.*mask_values"),
        (torch.zeros_like, r"every pixel of the ground truth is background \(0\)"),
        (torch.ones_like, r"every pixel of the ground truth is foreground \(1\)"),
        (lambda labels: torch.full_like(labels, 255), "every pixel of the ground truth is 255"),
        (lambda labels: labels * 2 % 254, "mask 0: the ground truth of 'road' has the ids 2; a binary task has 0"),
        (lambda labels: labels == 1, "mask 0.*is torch.bool, and class ids are integers"),
        (lambda labels: labels.float(), "mask 0.*is torch.float32, and class ids are integers"),
    ],
)
def test_masks_that_cannot_be_learned(change: Any, message: str, tmp_path: Path) -> None:
    """Before the first step, in the training and the validation set alike; and in evaluation."""
    wrong = Masks(4, change)
    for recipe in (RECIPE, replace(RECIPE, class_weights="none", cache=False)):
        with pytest.raises(ValueError, match=message):
            train(new_model(), wrong, None, recipe, tmp_path)
        with pytest.raises(ValueError, match=message):
            train(new_model(), Blobs(4), wrong, recipe, tmp_path)
    assert not (tmp_path / "last.safetensors").exists()


def test_scores_of_0_and_255_are_refused(trained: edgeseg.Pixel2Pixel) -> None:
    wrong = Masks(2, lambda labels: labels.masked_fill(labels == 1, 255))
    with pytest.raises(ValueError, match=r"road: no pixel of the ground truth is foreground.*labels == 255"):
        evaluate_tasks(trained, wrong)


def test_threshold_is_chosen_and_stored(trained: edgeseg.Pixel2Pixel, run: Path, tmp_path: Path) -> None:
    data = Blobs(4, seed=1)
    trained.configure(tasks={"road": replace(ROAD, threshold=0.999)})
    shy = evaluate(trained, data).headline("native")[1]
    threshold = choose_threshold(trained, data)
    assert 0.1 < threshold < 0.9
    assert trained.tasks["road"].threshold == threshold
    assert trained.tasks["road"].classes == ROAD.classes
    better = evaluate(trained, data).headline("native")[1]
    assert better > max(shy, 90)
    trained.save_pretrained(tmp_path / "hub", license="mit")
    assert f"threshold {threshold:.4g}" in (tmp_path / "hub/README.md").read_text()
    image, _ = data[0]
    expected = trained.predict(image)
    loaded = edgeseg.create_model(f"local-dir:{tmp_path / 'hub'}").eval()
    assert np.array_equal(loaded.predict(image), expected)
    edgeseg.save_checkpoint(trained, tmp_path / "stored.safetensors")
    again = edgeseg.create_model("fpn", checkpoint_path=tmp_path / "stored.safetensors").eval()
    assert again.tasks["road"].threshold == threshold
    optimized = edgeseg.optimize(trained)
    assert (optimized.predict(image) != expected).mean() < 0.01


@pytest.mark.parametrize(
    "output",
    ["labels", *(pytest.param(each, marks=pytest.mark.slow) for each in ("logits", "small_logits", "small_labels"))],
)
def test_files_have_the_threshold(output: Output, trained: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    trained.configure(tasks={"road": replace(ROAD, threshold=0.8)})
    data = Blobs(2, seed=1)
    image, _ = data[0]
    expected, figure = trained.predict(image), evaluate(trained, data).headline("native")[1]
    dynamic = ("batch", "height", "width") if output == "labels" else ()
    edgeseg.export_onnx(trained, tmp_path / "road.onnx", size=SIZE, output=output, dynamic=dynamic)
    segmenter = edgeseg.OnnxSegmenter(tmp_path / "road.onnx")
    assert segmenter.tasks["road"].threshold == 0.8
    found = segmenter.predict(image)
    assert found.dtype == np.uint8
    coarse = output == "small_labels"  # which are enlarged by nearest neighbour
    assert (found != expected).mean() < (0.15 if coarse else 0.005)
    scores = evaluate_tasks(segmenter, data)["road"].headline("native")[1]
    assert scores == pytest.approx(figure, abs=25 if coarse else 0.5)
    with pytest.raises(ValueError, match="threshold of an exported file is fixed"):
        choose_threshold(segmenter, data)  # type: ignore[arg-type]


def test_program(trained: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    result = edgeseg.export_program(trained, tmp_path / "road.pt2", size=SIZE, dynamic=(), output="labels")
    assert result.differences["road"] < 1e-3


def test_threshold_needs_a_binary_task(tiny: edgeseg.Pixel2Pixel, trained: edgeseg.Pixel2Pixel) -> None:
    with pytest.raises(ValueError, match=r"needs one binary task.*segmentation \(segmentation\)"):
        choose_threshold(tiny, Blobs(1))
    with pytest.raises(ValueError, match="no pixel of road is foreground"):
        choose_threshold(trained, Masks(1, torch.zeros_like))


def test_int8(trained: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    data = Blobs(6, seed=1)
    photos = [data[index][0] for index in range(6)]
    trained.configure(tasks={"road": replace(ROAD, threshold=0.3)})
    result = quantize_onnx(trained, tmp_path / "int8.onnx", photos, output="labels", dynamic=())
    assert 0.9 < result.agreement["road"] <= 1
    segmenter = edgeseg.OnnxSegmenter(tmp_path / "int8.onnx")
    assert evaluate_tasks(segmenter, data)["road"].headline("native")[1] > 80
    assert set(np.unique(segmenter.predict(photos[0]))) == {0, 1}


def test_agreement_counts_pixels_that_change_sides(tmp_path: Path) -> None:
    """An untrained network, whose 8-bit file differs: an argmax over one channel would call everything equal."""
    model = new_model().eval()
    photos = [Blobs(2)[index][0] for index in range(2)]
    small = model.decode(*model.prepare(photos[0]))["road"]
    middle = float(small.median().sigmoid())
    model.configure(tasks={"road": replace(ROAD, threshold=middle)})
    result = quantize_onnx(model, tmp_path / "int8.onnx", photos, size=SIZE, power_of_two=True, dynamic=())
    assert result.agreement["road"] < 1


def test_quantization_aware_training_with_distillation(trained: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=2, evaluate_every=2, lr=0.005, quantize="per_channel", distillation=0.5)
    quantized = train(trained, Blobs(8), Blobs(4, seed=1), recipe, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["iou"] > 85
    choose_threshold(quantized, Blobs(4, seed=1))
    path = tmp_path / "int8.onnx"
    edgeseg.export_onnx(quantized, path, output="labels", preprocess=True, dynamic=())
    assert evaluate_tasks(edgeseg.OnnxSegmenter(path), Blobs(4, seed=1))["road"].headline("native")[1] > 80


@pytest.mark.parametrize("balancing", ["fixed", "uncertainty"])
def test_beside_depth(balancing: Literal["fixed", "uncertainty"], tmp_path: Path) -> None:
    data = Blobs(8, depth=True)
    model = new_model(data.tasks)
    recipe = replace(RECIPE, epochs=3, evaluate_every=3, balancing=balancing, aux_loss=0.2)
    trained = train(model, data, Blobs(2, seed=1, depth=True), recipe, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"road_iou", "depth_ard"} <= set(rows[-1])
    maps = trained.predict_tasks(data[0][0])
    assert maps["road"].dtype == np.uint8
    assert maps["depth"].dtype == np.float32
    choose_threshold(trained, data)


def test_pictures() -> None:
    kind, photo = kind_of(ROAD), Image.new("RGB", (4, 2), (100, 150, 200))
    values = np.array([[0, 0, 1, 1]] * 2, np.uint8)
    overlay = np.asarray(kind.picture(values, ROAD, photo))
    assert (overlay[:, :2] == (100, 150, 200)).all()
    assert (overlay[:, 2:] != (100, 150, 200)).all()
    assert np.asarray(kind.picture(values, ROAD)).tolist() == values.tolist()
    assert kind.key(values, ROAD, 200) is not None
    assert np.asarray(kind.files(values)["labels"]).tolist() == values.tolist()


def written(root: Path, values: tuple[int, int] = (0, 1)) -> Path:
    """Blobs as a folder of images and masks, with masks of every form: gray, palette, 1 bit."""
    (root / "classes.txt").parent.mkdir(parents=True)
    (root / "classes.txt").write_text("road\n")
    for split, count in (("train", 8), ("val", 4)):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for index in range(count):
            image, labels = Blobs(8, seed=split == "val")[index]
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / "images" / split / f"{index}.png")
            mask = Image.fromarray(np.array(values, np.uint8)[(labels == 1).long().numpy()])
            if index % 3 == 1 and values[1] == 1:
                mask.putpalette([0, 0, 0, 255, 0, 0])
            elif index % 3 == 2 and values[1] == 1:
                mask = mask.point([0] + [255] * 255).convert("1")
            mask.save(root / "masks" / split / f"{index}.png")
    return root


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], photo: Path) -> None:
    """One name in classes.txt is a binary task; the threshold is printed and stored."""
    root, out = written(tmp_path / "own"), tmp_path / "run"
    dataset = ["--dataset", "images_masks", "--data-path", str(root)]
    short = "--epochs 2 --batch-size 4 --img-resize 32 48 --rand-crop 32 48 --lr 0.05 --workers 0".split()  # noqa: SIM905
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=1)
    edgeseg.save_checkpoint(model, tmp_path / "start.safetensors")

    @edgeseg.register_model
    def small(config: edgeseg.ModelConfig) -> edgeseg.Pixel2Pixel:
        parts = edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks=config.tasks)
        return edgeseg.Pixel2Pixel(parts.encoder, dict(parts.decoders.items()), config)

    assert main(["train", *dataset, "--model", "small", *short, "-o", str(out)]) == 0
    checkpoint = ["--checkpoint", str(out / "last.safetensors")]
    stored = tmp_path / "stored.safetensors"
    capsys.readouterr()
    assert main(["evaluate", *dataset, *checkpoint, "--workers", "0", "--store-threshold", str(stored)]) == 0
    text = capsys.readouterr().out
    assert "best threshold" in text
    assert "F1 (Dice)" in text
    loaded = edgeseg.create_model("small", checkpoint_path=stored)
    assert loaded.tasks["segmentation"].classes == ("background", "road")
    assert f"with the threshold {loaded.tasks['segmentation'].threshold:.4g}" in text
    assert main(["predict", str(photo), "--checkpoint", str(stored), "-o", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out/photo_labels.png") as labels:
        assert labels.size == (90, 60)
        assert set(np.unique(np.asarray(labels))) <= {0, 1}
    with Image.open(tmp_path / "out/photo_overlay.png") as overlay:
        assert overlay.height > 60
    for arguments, message in (
        (["--store-threshold", "x.pth"], "takes a .safetensors file"),
        (["--store-threshold", "x.safetensors", "--onnx", "x.onnx"], "cannot be combined with --exported"),
        (["--store-threshold", "x.safetensors", "--runtime", "onnxruntime"], "needs probabilities, which PyTorch"),
    ):
        assert main(["evaluate", *dataset, *checkpoint, *arguments]) == 2
        assert message in capsys.readouterr().err
    many = edgeseg.create_model("small", num_classes=2)
    edgeseg.save_checkpoint(many, tmp_path / "two.safetensors")
    arguments = ["--checkpoint", str(tmp_path / "two.safetensors"), "--store-threshold", str(stored)]
    assert main(["evaluate", *dataset, *arguments]) == 2
    assert "needs a model with one binary task" in capsys.readouterr().err


def test_folder_of_0_and_255(tmp_path: Path) -> None:
    """In masks of 0 and 255 alone, 255 is the one class of the folder."""
    dataset = load_dataset("images_masks", written(tmp_path / "own", (0, 255)), "train")
    assert dataset[0][1].unique().tolist() == [0, 1]


def test_two_classes_of_a_dataset_suit_a_binary_model(trained: edgeseg.Pixel2Pixel) -> None:
    """Its ids are 0 and 1 too."""
    two = Blobs(2, task=Task("segmentation", 2, classes=("other", "road")))
    target: Tensor = two[0][1]
    assert target.max() == 255
    assert evaluate(trained, two).counted > 0
