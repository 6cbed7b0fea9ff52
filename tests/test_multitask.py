"""Several inputs and tasks: losses and errors of depth, training and scoring on the synthetic streets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import edgeseg
from edgeseg.data import Streets
from edgeseg.engine import ConfusionMatrix, DepthErrors, TrainConfig, evaluate, evaluate_tasks, train
from edgeseg.tasks import kind_of
from edgeseg.tasks.depth_losses import LOSSES, depth_loss
from edgeseg.vision.images import read_input

from .conftest import TINY

SIZE = (64, 96)
EVERYTHING: dict[str, Any] = {"inputs": ("flow", "image"), "targets": ("semantic", "depth", "motion")}
SMALL = TrainConfig(
    epochs=2, batch_size=4, img_resize=SIZE, rand_crop=SIZE, rand_scale=(1, 1), keep_aspect=False, warmup_epochs=0,
    workers=0, bf16=False, ema=0.0, evaluate_every=1,
)  # fmt: skip


def make(data: Any) -> edgeseg.Pixel2Pixel:
    channels = (3,) * len(data.inputs)
    return edgeseg.create_model("fpn", encoder=TINY, channels=32, tasks=data.tasks, in_channels=channels)


def test_depth_losses() -> None:
    """Each against its formula, over the known pixels only."""
    prediction, target = torch.rand(2, 1, 6, 5) * 20 + 1, torch.rand(2, 1, 6, 5) * 20 + 1
    target[0, 0, :3] = 0
    known = target > 0
    x, y = prediction[known].double().numpy(), target[known].double().numpy()
    d = np.abs(x - y)
    c = np.sort(d)[(len(d) - 1) // 2]
    log = np.log(x) - np.log(y)
    expected = {
        "smooth_l1": np.where(d < 1, 0.5 * d**2, d - 0.5).mean(),
        "scale": ((x.mean() - y.mean()) ** 2 + 1e-6) ** 0.45 - 1e-3**0.9,
        "error_variance": (x - y).var(),
        "relative": (d / y).mean(),
        "berhu": np.where(d <= c, d, (d**2 + c**2) / (2 * c)).mean(),
        "silog": (log**2).mean() - 0.5 * log.mean() ** 2,
    }
    assert set(expected) == set(LOSSES)
    for name, value in expected.items():
        assert float(depth_loss(prediction, target, {name: 1.0})) == pytest.approx(value, rel=1e-4), name
    both = depth_loss(prediction, target, {"smooth_l1": 2.0, "silog": 3.0})
    assert float(both) == pytest.approx(2 * expected["smooth_l1"] + 3 * expected["silog"], rel=1e-4)
    nothing = depth_loss(prediction.requires_grad_(), torch.zeros_like(target), {"scale": 1.0})
    nothing.backward()
    assert float(nothing.detach()) == 0
    with pytest.raises(ValueError, match="no depth loss named l3; there are smooth_l1, scale"):
        depth_loss(prediction, target, {"l3": 1.0})


def test_depth_errors() -> None:
    errors = DepthErrors((0, 128))
    target = torch.tensor([[0.0, 2.0, 10.0, 40.0, 200.0]])
    errors.update(torch.tensor([[5.0, 1.0, 11.0, 60.0, 100.0]]), target)
    assert errors.counted == 4
    assert errors.ard == pytest.approx(100 * np.mean([0.5, 0.1, 0.5, 0.5]))
    assert errors.ard_3_to_80 == pytest.approx(
        100 * np.mean([0.0, 0.1, 0.5, 0.0])
    )  # the last is cut at 80 on both sides
    assert errors.rmse == pytest.approx(np.sqrt(np.mean([1, 1, 400, 10000])))
    assert errors.delta == pytest.approx(25.0)
    assert errors.outside == pytest.approx(25.0)


def test_all_tasks_learn(tmp_path: Path) -> None:
    """Two inputs and three tasks on synthetic scenes: each task gets better, and the first decides what is best."""
    data, unseen = Streets("train", SIZE, length=24, **EVERYTHING), Streets("val", SIZE, length=8, **EVERYTHING)
    config = replace(
        SMALL, epochs=25, evaluate_every=5, lr=0.02, decoder_lr=2.0, clip_grad=10.0, depth_factors=(0.05, 0.05)
    )
    model = train(make(data), data, unseen, config, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    first, last = log[4], log[-1]
    assert last["loss"] < 0.7 * log[0]["loss"]
    # Two dozen scenes are too few to get steadily better on unseen ones, except in depth.
    for task in ("semantic", "motion"):
        assert 100 * evaluate(model, data, task=task).miou > first[f"{task}_miou"] + 10
    metrics = evaluate_tasks(model, unseen)
    assert isinstance(metrics["depth"], DepthErrors)
    assert isinstance(metrics["motion"], ConfusionMatrix)
    assert isinstance(metrics["semantic"], ConfusionMatrix)
    known = torch.cat([unseen[i][1]["depth"].flatten() for i in range(len(unseen))])
    assert metrics["depth"].rmse < 0.9 * float(known[known > 0].std())  # better than the best constant
    assert 100 * metrics["semantic"].miou == pytest.approx(last["semantic_miou"], abs=0.01)
    assert metrics["depth"].ard == pytest.approx(last["depth_ard"], rel=1e-3)
    best = edgeseg.create_model("fpn", checkpoint_path=tmp_path / "best.safetensors")
    assert best.in_channels == (3, 3)
    assert 100 * evaluate(best, unseen).miou == pytest.approx(max(r.get("semantic_miou", 0) for r in log), abs=0.01)
    with pytest.raises(ValueError, match="'depth' is neither a segmentation nor a binary task"):
        evaluate(model, unseen, task="depth")


def test_depth_alone(tmp_path: Path) -> None:
    data = Streets("train", SIZE, length=8, targets=("depth",))
    config = replace(SMALL, epochs=8, evaluate_every=4, lr=0.005, depth_losses=("berhu",), depth_factors=(1.0,))
    train(make(data), data, data, config, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["ard"] < log[3]["ard"]
    assert (tmp_path / "best.safetensors").is_file()


def test_depth_beyond_its_range_comes_back() -> None:
    """It is clamped, in training too, but a step still moves it."""
    tasks = {"depth": edgeseg.Task("depth", range=(90, 99))}
    model, image = edgeseg.create_model("fpn", encoder=TINY, channels=8, tasks=tasks), torch.randn(2, 3, 32, 32)
    model.decode(image)["depth"].sub(95).abs().mean().backward()
    for mode in (True, False):
        found = model.train(mode).decode(image)["depth"]
        assert (found - 90).abs().max() < 1e-4  # a network that has just begun answers about 0
    gradient = model.get_parameter("decoders.depth.head.1.weight").grad
    assert gradient is not None
    assert (gradient != 0).any()


class Partly:
    """Scenes of which every second one has no depth."""

    def __init__(self, data: Streets) -> None:
        self.data, self.tasks, self.inputs = data, data.tasks, data.inputs

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        images, targets = self.data[index]
        if index % 2:
            del targets["depth"]
        return images, targets


def test_samples_without_a_task(tmp_path: Path) -> None:
    data = Partly(Streets("train", SIZE, length=8, **EVERYTHING))
    model = train(make(data), data, data, SMALL, tmp_path)
    whole, partly = evaluate_tasks(model, data.data), evaluate_tasks(model, data)
    assert 0 < partly["depth"].counted < whole["depth"].counted
    assert isinstance(partly["semantic"], ConfusionMatrix)
    assert isinstance(whole["semantic"], ConfusionMatrix)
    assert torch.equal(partly["semantic"].counts, whole["semantic"].counts)


def test_tasks_without_targets_are_named(tmp_path: Path) -> None:
    data = Streets("train", SIZE, length=4, **EVERYTHING)
    less = Streets("train", SIZE, length=4, inputs=("flow", "image"), targets=("semantic", "motion"))
    with pytest.raises(ValueError, match="no target for depth; it has semantic, motion"):
        train(make(data), less, None, SMALL, tmp_path)
    with pytest.raises(ValueError, match="has a ground truth for depth"):
        evaluate_tasks(make(data), less)
    with pytest.raises(ValueError, match="no task named flow; this model has semantic"):
        evaluate_tasks(make(data), data, tasks=["flow"])
    with pytest.raises(ValueError, match="2 task_factors for the tasks semantic, depth, motion"):
        train(make(data), data, None, replace(SMALL, task_factors=(1.0, 2.0)), tmp_path)


def test_task_factors(tmp_path: Path) -> None:
    """A task with factor 0 is not trained: its decoder stays."""
    data = Streets("train", SIZE, length=4, **EVERYTHING)
    model = make(data)
    before = {key: value.clone() for key, value in model.decoders.state_dict().items()}
    train(model, data, None, replace(SMALL, task_factors=(1.0, 0.0, 1.0), weight_decay=0.0), tmp_path)
    after = model.decoders.state_dict()
    weights = [key for key, value in before.items() if value.ndim == 4]
    assert all(torch.equal(before[key], after[key]) == key.startswith("depth.") for key in weights)


def test_flow_of_a_resized_sample_is_resized(tmp_path: Path) -> None:
    """At half the size the vectors are half as long, in training as in evaluation."""
    data = Streets("train", (128, 192), length=4, **EVERYTHING)
    from edgeseg.data.transforms import AUGMENTATIONS, Augmented

    half = Augmented(data, AUGMENTATIONS["original"](SIZE, SIZE, (1.0, 1.0), rotation=0.0), data.tasks, seed=1)
    for index in range(4):
        flow = half[index][0][0][:2].float() - 128
        whole = data[index][0][0][:2].float() - 128
        expected = F.interpolate(whole[None], SIZE, mode="nearest")[0] / 2
        flipped = torch.stack([-expected[0], expected[1]]).flip(-1)
        assert min(float((flow - each).abs().max()) for each in (expected, flipped)) <= 0.5


@pytest.mark.parametrize(
    "balancing",
    [
        "uncertainty",
        "pseudo_gradnorm",
        pytest.param("dwa", marks=pytest.mark.slow),
        pytest.param("gradnorm", marks=pytest.mark.slow),
    ],
)
def test_balanced_and_resumed(balancing: Any, tmp_path: Path) -> None:
    """Every way of balancing trains, says its weights, and goes on where it was stopped."""
    data = Streets("train", SIZE, length=8, **EVERYTHING)
    config = replace(SMALL, epochs=4, evaluate_every=4, balancing=balancing)
    torch.manual_seed(0)
    whole = train(make(data), data, data, config, tmp_path / "whole")
    rows = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert len({rows[-1][f"{name}_weight"] for name in data.tasks}) > 1

    class Once:
        """The scenes, until the third epoch is asked for."""

        tasks, inputs, count = data.tasks, data.inputs, 0

        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, index: int) -> Any:
            self.count += 1
            if self.count > 21:
                raise RuntimeError("stopped")
            return data[index]

    torch.manual_seed(0)
    first = replace(config, cache=False)
    with pytest.raises(ValueError, match="RuntimeError: stopped"):
        train(make(data), Once(), data, first, tmp_path / "parts")
    resumed = train(make(data), data, data, config, tmp_path / "parts", resume=True)
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())


STREETS = "deeplabv3plus_mobilenetv2_tv_edgeailite.streets"  # of flow and image, for semantic, depth and motion


def test_weights_for_fewer_tasks_and_inputs(tmp_path: Path) -> None:
    """Decoders and inputs that are not asked for are left out; the others are those of the same names."""
    whole = edgeseg.create_model(STREETS).eval()
    image = torch.randn(1, 3, 64, 64)
    depth = edgeseg.create_model(STREETS, tasks={"depth": whole.tasks["depth"]}).eval()
    assert torch.equal(depth(image, image)["depth"], whole(image, image)["depth"])
    with pytest.warns(UserWarning, match=r"61 tensors are not loaded \(decoders\.other"):
        other = edgeseg.create_model(STREETS, tasks={"depth": whole.tasks["depth"], "motion": whole.tasks["motion"],
                                                     "other": edgeseg.Task("segmentation", 4)})  # fmt: skip
    assert torch.equal(other.eval()(image, image)["motion"], whole(image, image)["motion"])
    single = edgeseg.create_model(STREETS, in_channels=(3,))
    assert streams(single) == streams(whole)[1:]
    file = tmp_path / "weights.safetensors"
    edgeseg.save_checkpoint(whole, file)
    report = edgeseg.load_checkpoint(depth, file, adapt=True)
    assert {key.split(".")[1] for key in report.ignored} == {"semantic", "motion"}
    assert not report.reinitialized
    report = edgeseg.load_checkpoint(single, file, adapt=True)
    assert {".".join(key.split(".")[:3]) for key in report.ignored if "streams" in key} == {"encoder.streams.0"}


def test_inputs_are_told_apart_by_their_names(tmp_path: Path) -> None:
    whole = edgeseg.create_model(STREETS)
    with pytest.warns(UserWarning, match=r"tensors are not loaded \(encoder\.fusion"):
        turned = edgeseg.create_model(STREETS, in_channels={"image": 3, "flow": 3})
    assert streams(turned) == streams(whole)[::-1]
    edgeseg.save_checkpoint(whole, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="the inputs flow, image, in this order, and this model has image, flow"):
        edgeseg.load_checkpoint(turned, tmp_path / "weights.safetensors")
    size, targets = (64, 96), ("semantic", "depth", "motion")
    data = Streets("val", size=size, length=2, inputs=("image", "flow"), targets=targets)
    message = r"the inputs image \(image\), flow \(flow\), and the model takes flow \(flow\), image \(image\)"
    with pytest.raises(ValueError, match=f"the dataset gives {message}"):
        evaluate_tasks(whole, data)
    config = TrainConfig(epochs=1, batch_size=2, img_resize=size, rand_crop=size, workers=0)
    with pytest.raises(ValueError, match=f"the training set gives {message}"):
        train(whole, data, None, config, tmp_path / "run")


def streams(model: edgeseg.Pixel2Pixel) -> list[float]:
    """A number per input that differs between inputs."""
    tensors: Any = model.encoder.streams
    return [float(sum(value.double().abs().sum() for value in each.state_dict().values())) for each in tensors]


def test_depth_that_16_bits_cannot_hold() -> None:
    kind = kind_of(edgeseg.Task("depth", range=(0, 500)))
    with pytest.warns(UserWarning, match=r"depth beyond 255\.99 m is written as 255\.99 m"):
        picture = kind.files(np.full((2, 2), 300, np.float32))["metres_x256"]
    assert np.asarray(picture).max() == 65535


def test_pictures_that_are_no_optical_flow(tmp_path: Path) -> None:
    """KITTI's flow has 16 bits per channel, of which Pillow would keep 8."""
    flow = edgeseg.Input(kind="flow")
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "kitti.png"), np.full((4, 6, 3), 2**15 + 64, np.uint16))
    Image.new("L", (6, 4)).save(tmp_path / "gray.png")
    for wrong in (tmp_path / "kitti.png", tmp_path / "gray.png", Image.new("L", (6, 4)), np.zeros((4, 6), np.uint8)):
        with pytest.raises(ValueError, match="is not a picture of optical flow as `edgeseg flow` writes it"):
            read_input(wrong, flow)
    Image.new("RGB", (6, 4), (1, 2, 3)).save(tmp_path / "flow.png")
    assert read_input(tmp_path / "flow.png", flow).tolist() == [[[1, 2, 3]] * 6] * 4
    assert read_input(tmp_path / "flow.png", edgeseg.Input(2, "flow")).tolist() == [[[1, 2]] * 6] * 4
