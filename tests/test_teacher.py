"""Networks that learn from others: class maps, soft labels, and training on photos without labels."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgeseg
from edgeseg import Task
from edgeseg.cli import main
from edgeseg.data import Streets
from edgeseg.data.class_maps import CITYSCAPES_TO_CAMVID, class_map, read_class_map
from edgeseg.data.photos import WithPhotos
from edgeseg.data.transforms import RandomScale
from edgeseg.engine import SoftLabels, Teacher, TrainConfig, evaluate, train
from edgeseg.labels import segmentation_task
from edgeseg.tasks.losses import segmentation_loss, soft_segmentation_loss
from edgeseg.tasks.segmentation import Segmentation
from edgeseg.vision.tensors import Probabilities

from .conftest import TINY

RECIPE = TrainConfig(
    epochs=1,
    batch_size=4,
    img_resize=(64, 96),
    rand_crop=(64, 96),
    warmup_epochs=0,
    workers=0,
    evaluate_every=1,
    ema=0.0,
)
CAMVID = "fpn_aspp_mobilenetv2_tv_edgeailite.camvid"


def network(task: Task) -> edgeseg.Pixel2Pixel:
    """A small untrained network."""
    return edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks={"segmentation": task})


@pytest.fixture(scope="module")
def teacher() -> edgeseg.Pixel2Pixel:
    """A network of the package, at a small size."""
    model = edgeseg.create_model(CAMVID)
    model.configure(preprocess=replace(model.preprocess, size=(64, 96)))
    return model


def scenes(split: str, count: int) -> list[torch.Tensor]:
    """Images of synthetic streets, uint8 [3, 64, 96]."""
    streets = Streets(split, size=(64, 96), length=count)
    return [streets[index][0] for index in range(count)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of photos without labels."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, image in enumerate(scenes("val", 6)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    return folder


def test_known_class_maps() -> None:
    city = segmentation_task("cityscapes")
    assert class_map(city, segmentation_task("camvid")) == CITYSCAPES_TO_CAMVID
    assert class_map(city, segmentation_task("idd_lite"))["rider"] == "living things"
    assert class_map(city, city)["terrain"] == "terrain"


def test_class_names_that_differ_in_case_only() -> None:
    source, target = Task(channels=3, classes=("Road", "road", "sky")), Task(channels=2, classes=("road", "sky"))
    with pytest.raises(ValueError, match="teacher's classes road, road, sky have the same name twice, or differ"):
        class_map(source, target, {"road": "road", "sky": "sky"})


def test_class_maps_are_complete() -> None:
    source, target = (
        Task("segmentation", 2, classes=("Grass", "sky")),
        Task("segmentation", 2, classes=("green", "rest")),
    )
    with pytest.raises(ValueError, match=r"teacher has the classes grass, sky.*--class-map"):
        class_map(source, target)
    with pytest.raises(ValueError, match="leaves out the teacher's sky"):
        class_map(source, target, {"grass": "green"})
    with pytest.raises(ValueError, match="class map has blue"):
        class_map(source, target, {"grass": "green", "sky": "blue"})
    with pytest.raises(ValueError, match="no class of the teacher for rest"):
        class_map(source, target, {"grass": "green", "sky": "-"})
    assert class_map(source, target, {"grass": "green", "sky": "rest"}) == {"grass": "green", "sky": "rest"}


def test_class_map_files(tmp_path: Path) -> None:
    file = tmp_path / "map.txt"
    file.write_text("# what the teacher calls it: what we call it\nGrass: green\n\nblue sky : -\n")
    assert read_class_map(file) == {"grass": "green", "blue sky": "-"}
    file.write_text("grass: green\ngrass: rest\n")
    with pytest.raises(ValueError, match=r"map.txt, line 2: 'grass' occurs twice"):
        read_class_map(file)
    file.write_text("grass green\n")
    with pytest.raises(ValueError, match="line 1"):
        read_class_map(file)


def test_the_loss_of_certain_probabilities_is_that_of_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 8, 8, generator=generator)
    labels = torch.randint(0, 5, (2, 8, 8), generator=generator)
    labels[0, :2] = 255
    weights = torch.rand(5, generator=generator) + 0.5
    sure = torch.nn.functional.one_hot(labels.clamp(max=4), 5).permute(0, 3, 1, 2) * (labels != 255).unsqueeze(1) * 255
    nothing = torch.full_like(labels, 255)
    expected = segmentation_loss(logits, labels, class_weights=weights, dice=0.5)
    for target, share in ((nothing, 1.0), (nothing, 0.3), (labels, 0.0), (labels, 0.4), (labels, 1.0)):
        loss = soft_segmentation_loss(
            logits, target, sure.to(torch.uint8), share=share, class_weights=weights, dice=0.5
        )
        assert float(loss) == pytest.approx(float(expected), abs=1e-5)
    empty = torch.zeros_like(sure, dtype=torch.uint8)
    assert float(soft_segmentation_loss(logits, nothing, empty, share=1.0, dice=0.5)) == 0


def test_pixels_mix_their_label_with_the_teacher() -> None:
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 0] = 2.0
    labels, opinion = torch.tensor([[[0, 255]]]), torch.tensor([[[[0, 0]], [[255, 255]]]], dtype=torch.uint8)
    first, second = (-torch.tensor([2.0, 0.0]).log_softmax(0)).tolist()
    expected = ((0.75 * first + 0.25 * second) + second) / 2  # the second pixel has no label
    assert float(soft_segmentation_loss(logits, labels, opinion, share=0.25)) == pytest.approx(expected)


def test_a_teacher_of_other_classes(tmp_path: Path) -> None:
    """The probabilities are those of the network, joined by the map, averaged with the mirror image, at half size."""
    city = network(segmentation_task("cityscapes")).eval()
    image, _ = Streets("val", size=(63, 96), length=1)[0]
    one = Teacher([city], {"segmentation": segmentation_task("camvid")}, mirror=False)
    found = one.probabilities(image)
    assert found.shape == (11, 32, 48)
    assert found.dtype == torch.uint8
    with torch.inference_mode():
        logits = city.decode(city.preprocess(image))["segmentation"]
        expected = torch.nn.functional.interpolate(logits, (32, 48), mode="bilinear").softmax(1)[0]
    names = list(segmentation_task("cityscapes").classes)
    car = expected[[names.index(name) for name in ("car", "truck", "bus", "train")]].sum(0) * 255
    assert (found[8] - car).abs().max() < 1
    both = Teacher([city, city], {"segmentation": segmentation_task("camvid")})
    assert (both.probabilities(image).float() - both.probabilities(image.flip(-1)).float().flip(-1)).abs().max() <= 1


def test_soft_labels_are_kept(teacher: edgeseg.Pixel2Pixel, photos: Path, tmp_path: Path) -> None:
    labelled = Streets("train", size=(64, 96), labels="camvid", length=3)
    (photos / "broken.png").write_bytes(b"no photo")
    with pytest.warns(UserWarning, match=r"1 photos were left out because they cannot be read: .*broken\.png"):
        data = WithPhotos(labelled, [photos], on_error="skip")
    assert len(data.skipped) == 1
    (photos / "broken.png").unlink()
    assert len(data) == 9
    assert data.name(3).endswith("0.png")
    assert data[3][1] == {}
    folder = tmp_path / "soft"
    soft = SoftLabels(Teacher([teacher], teacher.tasks), folder)
    counts = soft.prepare(data, teacher.tasks, teacher.inputs)
    assert float(counts.sum()) == pytest.approx(9 * 64 * 96, rel=0.01)
    files = {path: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert len(files) == 9
    assert sum(path.stat().st_size for path in files) < 9 * 20_000
    again = SoftLabels(Teacher([teacher], teacher.tasks), folder)
    assert torch.equal(again.prepare(data, teacher.tasks, teacher.inputs), counts)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    with pytest.raises(ValueError, match=f"{folder} has the soft labels of another teacher"):
        SoftLabels(Teacher([teacher], teacher.tasks, mirror=False), folder)
    with pytest.raises(ValueError, match="there are no soft labels"):
        soft[torch.zeros(3, 64, 96, dtype=torch.uint8)]
    next(iter(files)).write_bytes(b"PK damaged")
    with pytest.raises(ValueError, match="delete the file"):
        again.prepare(data, teacher.tasks, teacher.inputs)


def test_soft_labels_move_with_the_photo() -> None:
    """A coarse map of probabilities is scaled to the photo's size, and averages its values."""
    values = torch.zeros(2, 4, 6, dtype=torch.uint8)
    values[0, :, :3], values[1, :, 3:] = 255, 255
    image = torch.zeros(3, 8, 12, dtype=torch.uint8)
    image[:, :, :6] = 200
    from torchvision import tv_tensors

    scaled, soft = RandomScale((16, 24), (1.0, 1.0))(tv_tensors.Image(image), Probabilities(values))
    assert scaled.shape[-2:] == soft.shape[-2:] == (16, 24)
    assert soft[0, 0, 0] == 255
    assert 0 < int(soft[0, 0, 12]) < 255
    assert bool((soft.sum(0) >= 254).all())


@pytest.mark.slow
def test_learns_from_photos_alone(teacher: edgeseg.Pixel2Pixel, photos: Path, tmp_path: Path) -> None:
    """Without a single label a network comes close to its teacher on photos like those it was taught on."""
    unlabelled = [(image, np.full((64, 96), 255, np.uint8)) for image in scenes("train", 64)]
    soft = SoftLabels(Teacher([teacher], teacher.tasks), tmp_path / "soft")
    student = network(teacher.tasks["segmentation"])
    test = [(image, teacher.predict(image)) for image in scenes("val", 16)]
    before = evaluate(student, test).miou
    recipe = replace(RECIPE, epochs=12, lr=0.03, dice=0.5)
    trained = train(student, unlabelled, None, recipe, tmp_path / "run", soft_labels=soft)
    after = evaluate(trained, test).miou
    assert after > before + 0.2
    assert trained.config.notes["teacher"] == CAMVID


def test_trains_from_the_command_line(
    camvid: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, soft = tmp_path / "run", tmp_path / "soft"
    data = ["train", "--dataset", "camvid", "--data-path", str(camvid), "--model", "fpn", "--encoder", TINY]
    short = ["--epochs", "1", "--batch-size", "2", "--img-resize", "64", "96", "--rand-crop", "64", "64"]
    common = [*data, *short, "--warmup-epochs", "0", "--workers", "0", "--val-split", "none", "-o", str(run)]
    taught = ["--teacher", CAMVID, "--photos", str(photos), "--soft-labels", str(soft)]
    assert main([*common, *taught[2:]]) == 2
    assert "--photos needs --teacher" in capsys.readouterr().err
    assert main([*common, "--distillation", "0.5"]) == 2
    assert "nobody to learn from" in capsys.readouterr().err
    assert main([*common, "--teacher", CAMVID.removesuffix(".camvid")]) == 2
    assert "has no trained weights" in capsys.readouterr().err
    assert not list(run.glob("*.safetensors"))
    assert main([*common, *taught]) == 0
    assert main(["info", str(run / "last.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"teacher\s+{CAMVID}\n", shown)
    licence = edgeseg.create_model(CAMVID).config.notes["license"]
    assert re.search(rf"licence of the teacher\s+{re.escape(licence)}\n", shown)


def test_a_run_keeps_its_teacher(teacher: edgeseg.Pixel2Pixel, photos: Path, tmp_path: Path) -> None:
    """A run with a teacher trains on photos without labels, notes the teacher, and is resumed with it only."""
    data = WithPhotos(Streets("train", size=(64, 96), labels="camvid", length=6), [photos])
    soft = SoftLabels(Teacher([teacher], teacher.tasks), tmp_path / "soft")
    model = network(teacher.tasks["segmentation"])
    run = tmp_path / "run"
    trained = train(model, data, None, RECIPE, run, soft_labels=soft)
    assert trained.config.notes["teacher"] == CAMVID
    longer = replace(RECIPE, epochs=2)
    with pytest.raises(ValueError, match="nothing can be learned from photos without labels alone: pass soft_labels"):
        train(model, data, None, longer, run, resume=True)
    others = SoftLabels(Teacher([teacher], teacher.tasks, mirror=False), tmp_path / "others")
    with pytest.raises(ValueError, match="learned from another teacher, or from none"):
        train(model, data, None, longer, run, soft_labels=others, resume=True)
    train(model, data, None, longer, run, soft_labels=soft, resume=True)
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["epoch"] == 2
    other = network(segmentation_task("cityscapes"))
    with pytest.raises(ValueError, match="the model does not have that task with these classes"):
        train(other, Streets("train", size=(64, 96), length=6), None, RECIPE, tmp_path / "other", soft_labels=soft)
    for option, value in (("ohem", 0.7), ("label_smoothing", 0.1)):
        with pytest.raises(ValueError, match=f"{option} is for true labels"):
            train(model, data, None, replace(RECIPE, **{option: value}), tmp_path / "third", soft_labels=soft)  # type: ignore[arg-type]


def test_trains_for_8_bit_from_a_teacher(teacher: edgeseg.Pixel2Pixel, photos: Path, tmp_path: Path) -> None:
    data = WithPhotos(Streets("train", size=(64, 96), labels="camvid", length=4), [photos])
    soft = SoftLabels(Teacher([teacher], teacher.tasks), tmp_path / "soft")
    recipe = replace(RECIPE, quantize="per_channel")
    trained = train(network(teacher.tasks["segmentation"]), data, None, recipe, tmp_path / "run", soft_labels=soft)
    assert trained.config.quantization is not None


def test_photos_that_are_not_rgb(teacher: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    student = edgeseg.create_model("fpn", encoder=TINY, channels=16, in_channels=(1,), tasks=teacher.tasks)
    gray = [(np.zeros((64, 96), np.uint8), np.zeros((64, 96), np.uint8))] * 4
    soft = SoftLabels(Teacher([teacher], teacher.tasks), tmp_path / "soft")
    with pytest.raises(ValueError, match="a teacher takes photos of 3 channels, and the model takes 1"):
        train(student, gray, None, RECIPE, tmp_path / "run", soft_labels=soft)


def test_kinds_of_ones_own_are_not_taught(teacher: edgeseg.Pixel2Pixel) -> None:
    """The loss of a kind of one's own with classes is not replaced by that of segmentation."""

    class Ordinal(Segmentation):
        takes_soft_labels = False

    edgeseg.register_kind("ordinal", Ordinal())
    task = replace(teacher.tasks["segmentation"], kind="ordinal")
    with pytest.raises(ValueError, match=r"the network that learns has segmentation \(ordinal\)"):
        Teacher([teacher], {"segmentation": task})


def test_soft_labels_of_another_network_with_the_same_weights() -> None:
    options: dict[str, Any] = {"encoder": TINY, "channels": 16, "num_classes": 3}
    first, second = (edgeseg.create_model("fpn", dilations=each, **options) for each in ((1, 2, 3), (6, 12, 18)))
    second.load_state_dict(first.state_dict())
    assert Teacher([first], first.tasks).digest != Teacher([second], first.tasks).digest


def test_photos_that_change(teacher: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    soft = SoftLabels(Teacher([teacher], teacher.tasks), tmp_path)
    with pytest.raises(ValueError, match=r"no soft labels .* has to return the same photo for an index each time"):
        soft[torch.zeros(3, 8, 8, dtype=torch.uint8)]


def test_what_cannot_teach(teacher: edgeseg.Pixel2Pixel) -> None:
    with pytest.raises(ValueError, match="a list of networks with at least one in it"):
        Teacher([], teacher.tasks)
    two = {"near": teacher.tasks["segmentation"], "far": teacher.tasks["segmentation"]}
    with pytest.raises(ValueError, match=r"the network that learns has near.*pass task=NAME"):
        Teacher([teacher], two)
    assert Teacher([teacher], two, task="far").task == "far"
    depth = edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks={"depth": Task("depth", 1)})
    with pytest.raises(ValueError, match="fpn has depth"):
        Teacher([depth], teacher.tasks)
    two_images = edgeseg.create_model("fpn", encoder="mobilenetv2", channels=16, in_channels=(3, 3))
    with pytest.raises(ValueError, match="fpn cannot teach: a teacher takes one photo"):
        Teacher([two_images], teacher.tasks)
