"""Samples of a user's own dataset: understood where the meaning is plain, and otherwise refused by name."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import ConcatDataset, Subset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

import edgeseg
from edgeseg.data import Streets
from edgeseg.data.base import name_of
from edgeseg.data.samples import check_classes, checked_sample
from edgeseg.engine import BinaryScores, ConfusionMatrix, DepthErrors, TrainConfig, evaluate, train
from edgeseg.engine.report import print_scores, write_scores
from edgeseg.spec import Input, Task
from edgeseg.tasks.losses import binary_loss, log_class_weights, segmentation_loss
from edgeseg.vision.masks import read_mask
from edgeseg.vision.tensors import Flow

from .conftest import TINY

HEIGHT, WIDTH = 32, 48
TASKS = {"segmentation": Task("segmentation", 3)}
DEPTH = {"depth": Task("depth", 1)}
PHOTO = {"image": Input(3)}
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 3, (HEIGHT, WIDTH), dtype=np.uint8)
LABELS[0] = 255
IMAGE, MASK = torch.from_numpy(PIXELS).permute(2, 0, 1), torch.from_numpy(LABELS)
RECIPE = TrainConfig(
    epochs=1, batch_size=2, img_resize=(HEIGHT, WIDTH), rand_crop=(HEIGHT, WIDTH), rand_scale=(1, 1), jitter=0,
    workers=0, bf16=False, class_weights="none",
)  # fmt: skip


def network(classes: int = 3) -> edgeseg.Pixel2Pixel:
    return edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=classes)


UNDERSTOOD: dict[str, Any] = {
    "tensors": (IMAGE, MASK),
    "a list": [IMAGE, MASK],
    "images in a list": [[IMAGE], MASK],
    "arrays": (PIXELS, LABELS),
    "arrays of other layouts": (np.ascontiguousarray(PIXELS.transpose(2, 0, 1)), LABELS[..., None].astype(np.int16)),
    "big-endian": (PIXELS, LABELS.astype(">u2")),
    "PIL images": (Image.fromarray(PIXELS), Image.fromarray(LABELS)),
    "PIL with a palette": (Image.fromarray(PIXELS), Image.fromarray(LABELS).convert("P")),
    "a tensor with channels last": (torch.from_numpy(PIXELS), MASK.long()),
    "a mask with a channel": (IMAGE, MASK[None].int()),
    "torchvision's types": (tv_tensors.Image(IMAGE), tv_tensors.Mask(MASK)),
    "unsigned 16 bit": (IMAGE, MASK.to(torch.uint16)),
    "a dictionary": {"image": PIXELS, "mask": LABELS, "path": "a.png"},
    "a dictionary with a label": {"image": Image.fromarray(PIXELS), "label": Image.fromarray(LABELS)},
    "a dictionary by task": {"image": IMAGE, "segmentation": MASK},
    "a dictionary with ground truth by task": {"image": IMAGE, "mask": {"segmentation": MASK, "depth": 7}},
    "ground truth by task": (IMAGE, {"segmentation": MASK, "depth": 7}),
}
UNDERSTOOD["PIL with a palette"][1].putdata(LABELS.flatten().tolist())


@pytest.mark.parametrize("inputs", [None, PHOTO], ids=["any", "rgb"])
@pytest.mark.parametrize("form", UNDERSTOOD)
def test_plain_forms_are_understood(form: str, inputs: dict[str, Input] | None) -> None:
    (image,), targets = checked_sample([UNDERSTOOD[form]], 0, TASKS, inputs)
    assert torch.equal(image, IMAGE)
    assert torch.equal(targets["segmentation"], MASK)
    assert targets["segmentation"].dtype == image.dtype == torch.uint8


def test_forms_of_depth_and_gray() -> None:
    metres = np.linspace(0, 80, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    for form in (metres, torch.from_numpy(metres)[None], metres[..., None], Image.fromarray(metres.astype(np.float32))):
        depth = checked_sample([(IMAGE, form)], 0, DEPTH)[1]["depth"]
        assert depth.dtype == torch.float32
        assert torch.equal(depth[0], torch.from_numpy(metres).float())
    for gray in (PIXELS[..., 0], IMAGE[:1], Image.fromarray(PIXELS[..., 0])):
        (image,), _ = checked_sample([(gray, MASK)], 0, TASKS, PHOTO)
        assert torch.equal(image, IMAGE[:1].repeat(3, 1, 1))  # as in `predict`
        (image,), _ = checked_sample([(gray, MASK)], 0, TASKS, {"image": Input(1)})
        assert torch.equal(image, IMAGE[:1])
    images, _ = checked_sample([((IMAGE, IMAGE), MASK)], 0, TASKS, {"flow": Input(3, kind="flow"), "image": Input(3)})
    assert isinstance(images[0], Flow)  # so that augmentation turns its vectors


def refused(sample: Any, *words: str, tasks: dict[str, Task] = TASKS) -> None:
    with pytest.raises(ValueError, match=r"^sample 1: ") as error:
        checked_sample([(IMAGE, MASK), sample], 1, tasks, PHOTO)
    for word in words:
        assert word in str(error.value), str(error.value)


def test_images_that_are_not_pixels() -> None:
    refused((PIXELS.astype(object), LABELS), "an image is an array of numbers, got an array of object")
    refused((PIXELS.astype(">u2"), LABELS), "images are uint8, 0 to 255; divide by 257")
    refused((PIXELS > 5, LABELS), "multiply by 255, then convert them with .to(torch.uint8)")
    refused((IMAGE / 255, MASK), "torch.float32 [3, 32, 48]", "uint8, 0 to 255", "ToTensor()")
    refused((PIXELS / 255.0, LABELS), "torch.float64", "multiply by 255")
    refused(((IMAGE.float() - 128) / 64, MASK), "looks normalized", "leave out Normalize()")
    refused((IMAGE.float(), MASK), ".to(torch.uint8)")
    refused((IMAGE.long(), MASK), "torch.int64")
    refused((IMAGE > 9, MASK), "torch.bool")
    refused((IMAGE[None], MASK), "shape [1, 3, 32, 48]")
    refused((IMAGE[:2], MASK), "takes 3 channels")
    refused((IMAGE[:, :0], MASK), "without pixels")
    refused(("photo.png", MASK), "got str")
    refused(((IMAGE, IMAGE), MASK), "has 2 images", "image (3 channels)")


def test_ground_truth_that_does_not_fit() -> None:
    refused(
        (PIXELS, np.ones((3, HEIGHT, WIDTH), np.float32)), "'depth' has 3 channels, and the task has 1", tasks=DEPTH
    )
    refused((PIXELS, LABELS.astype(object)), "is an array of numbers, got an array of object")
    refused((IMAGE, MASK[::2, ::2]), "is 16x24 and the image is 32x48", "nearest neighbour")
    refused((IMAGE, MASK == 1), "torch.bool", "integers")
    refused((IMAGE, MASK.float()), "torch.float32", "integers")
    refused((IMAGE, Image.fromarray(PIXELS)), "colour picture", "id of its class")
    refused((IMAGE, torch.stack([MASK.eq(i) for i in range(3)]).long()), "[3, 32, 48]", "argmax")
    refused((IMAGE, "mask.png"), "got str")
    refused((IMAGE, (MASK, MASK)), "dictionary by their names, segmentation")
    for ignored in (-1, -100):
        refused((IMAGE, torch.where(MASK == 255, ignored, MASK.long())), f"has ids {ignored};", "are 255 here")
    refused((IMAGE, MASK + (MASK < 3).byte()), "has ids 3;", "3 classes with the ids 0 to 2", "subtract 1")
    refused((IMAGE, torch.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)), "3, 4, 5, 6", ", ...")
    metres = torch.ones(HEIGHT, WIDTH)
    refused((IMAGE, metres.short()), "torch.int16", "metres", tasks=DEPTH)
    refused((IMAGE, metres / 0), "infinite", tasks=DEPTH)
    refused((IMAGE, metres[None, None]), "is [1, H, W]", tasks=DEPTH)


def test_samples_of_another_form() -> None:
    refused({"image": IMAGE, "masks_of_it": MASK}, "'image'", "'mask'", "'masks_of_it'")
    refused({"image": IMAGE, "mask": MASK, "label": MASK}, "one of the keys")
    refused({"pixel_values": IMAGE, "labels": MASK}, "'pixel_values'")
    refused((IMAGE, MASK, "a.png"), "pair (image, ground truth)", "tuple of 3")
    refused(IMAGE, "pair (image, ground truth)")


@pytest.mark.parametrize("form", ["arrays", "PIL images", "a dictionary"])
def test_training_and_evaluation_understand_the_same(form: str, tmp_path: Path) -> None:
    scores: list[torch.Tensor] = []
    for sample in (UNDERSTOOD[form], UNDERSTOOD["tensors"]):
        torch.manual_seed(0)
        model = train(network(), [sample] * 2, [sample], RECIPE, tmp_path / str(len(scores)))
        scores.append(evaluate(model, [sample]).counts)
    assert torch.equal(*scores)
    assert (tmp_path / "0/samples.png").is_file()


def test_training_and_evaluation_refuse_the_same(tmp_path: Path) -> None:
    data = [(IMAGE, MASK), (IMAGE, torch.where(MASK == 255, 3, MASK))]
    message = r"^sample 1: the ground truth of 'segmentation' has ids 3; there are 3 classes"
    model = network()
    with pytest.raises(ValueError, match=message):
        evaluate(model, data)
    with pytest.raises(ValueError, match=message):
        train(model, data, None, RECIPE, tmp_path)
    with pytest.raises(ValueError, match=message):  # before step 1
        train(model, data[:1] * 2, data, RECIPE, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
    with pytest.raises(ValueError, match="the dataset has no samples"):
        evaluate(model, [])
    with pytest.raises(ValueError, match="the validation set has no samples"):
        train(model, data, [], RECIPE, tmp_path)
    others: list[Any] = [{"image": IMAGE}, iter(data), None, "folder"]
    for wrong in others:
        with pytest.raises(ValueError, match=r"the dataset has a length and returns a sample by its number.*got \w+"):
            evaluate(model, wrong)
        with pytest.raises(
            ValueError, match=r"the training set has a length and returns a sample by its number.*got \w+"
        ):
            train(model, wrong, None, RECIPE, tmp_path)


def test_a_part_of_a_dataset_names_its_samples() -> None:
    class Named(list[Any]):
        def name(self, index: int) -> str:
            return f"{index}.jpg"

    part: Any = Subset(Named([(IMAGE, MASK), (IMAGE / 255, MASK)]), [1])  # type: ignore[arg-type]
    assert name_of(part, 0) == "1.jpg"
    with pytest.raises(ValueError, match=r"^1\.jpg: an image is torch\.float32"):
        checked_sample(part, 0, TASKS)


def test_parts_of_datasets_have_the_classes_of_the_whole() -> None:
    data = Streets("val", (HEIGHT, WIDTH), length=4)
    parts: list[Any] = [Subset(data, [2]), ConcatDataset([Subset(data, [1]), data])]
    for part in parts:
        with pytest.raises(ValueError, match="the dataset and the model have different classes"):
            check_classes(part, {"semantic": Task("segmentation", 3)})
    assert name_of(ConcatDataset([data, Subset(data, [3])]), 4) == name_of(data, 3)


def test_pictures_of_ids_are_read_as_files_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    Image.fromarray(PIXELS).save(tmp_path / "photo.png", exif=exif)
    Image.fromarray(LABELS).save(tmp_path / "mask.png", exif=exif)
    sample = (Image.open(tmp_path / "photo.png"), Image.open(tmp_path / "mask.png"))
    (image,), targets = checked_sample([sample], 0, TASKS)
    assert np.array_equal(image.permute(1, 2, 0), PIXELS[::-1, ::-1])
    assert np.array_equal(targets["segmentation"], LABELS[::-1, ::-1])
    picture = Image.fromarray(LABELS % 4, "P")
    picture.putpalette([0] * 12)
    picture.save(tmp_path / "two_bits.png", bits=2)
    _, targets = checked_sample(
        [(PIXELS, Image.open(tmp_path / "two_bits.png"))], 0, {"segmentation": Task(channels=4)}
    )
    assert np.array_equal(targets["segmentation"], read_mask(tmp_path / "two_bits.png"))


def test_flow_is_flow_whatever_its_type() -> None:
    flow = torch.full((3, HEIGHT, WIDTH), 128, dtype=torch.uint8)
    flow[0] = 140
    inputs = {"flow": Input(3, "flow"), "image": Input()}
    (found, _), _ = checked_sample([((tv_tensors.Image(flow), IMAGE), MASK)], 0, TASKS, inputs)
    assert F.horizontal_flip(found)[0, 0, 0] == 116


def test_label_255_is_never_a_class() -> None:
    refused((IMAGE, MASK.long()), "256 classes", "up to 255", tasks={"segmentation": Task("segmentation", 256)})
    (_, targets) = checked_sample([(IMAGE, MASK)], 0, {"segmentation": Task("segmentation", 255)})
    assert torch.equal(targets["segmentation"], MASK)
    with pytest.raises(ValueError, match=r"256 classes, but .* possible: label 255"):
        ConfusionMatrix(256)
    with pytest.raises(ValueError, match=r"256 classes, but .* possible: label 255"):
        segmentation_loss(torch.zeros(1, 256, 2, 2), torch.zeros(1, 2, 2))


def test_metrics_take_ids_of_one_shape() -> None:
    matrix = ConfusionMatrix(2)
    with pytest.raises(ValueError, match=r"the prediction has the shape \[2, 8\] and the ground truth \[4, 4\]"):
        matrix.update(torch.zeros(2, 8, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"class ids are integers, got torch.float32 .*argmax"):
        matrix.update(torch.tensor([[0.9, 0.2]]), torch.tensor([[1, 0]]))
    with pytest.warns(UserWarning, match="not finite"):
        DepthErrors().update(torch.tensor([[torch.nan, 1]]), torch.tensor([[1.0, 0]]))
    assert DepthErrors().scores(Task("depth"), "native")["ard"] is None


def test_networks_whose_outputs_are_not_numbers() -> None:
    model = network().eval()
    with torch.no_grad():
        list(model.parameters())[-1].fill_(torch.nan)
    for kind in (lambda: model.predict(PIXELS), lambda: evaluate(model, [(PIXELS, LABELS)], flip=True)):
        with pytest.warns(UserWarning, match="the network puts out values that are not finite"):
            kind()


def test_classes_with_the_names_of_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("background", "threshold", "miou")
    matrix = ConfusionMatrix(3, names)
    matrix.update(torch.tensor([[0, 1, 2, 1]]), torch.tensor([[0, 1, 1, 1]]))
    assert re.findall(r"(?m)^(\S.*?) {2,}(\S+)$", repr(matrix))[:4] == [
        ("background", "100.00"), ("threshold", "66.67"), ("miou", "0.00"), ("mIoU over 3 of 3 classes", "55.56"),
    ]  # fmt: skip
    scores = matrix.scores(Task(channels=3, classes=names), "native")
    write_scores({"segmentation": scores}, tmp_path / "scores.csv")
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert "segmentation,iou/miou,0.0" in lines
    assert "segmentation,miou,55.5556" in lines


def test_the_confusion_matrix_drops_nothing() -> None:
    matrix = ConfusionMatrix(3)
    for wrong in (3, 254, -1, 256):
        target = torch.tensor([0, 1, wrong, 255])
        with pytest.raises(ValueError, match=re.escape(f"has ids [{wrong}]; there are 3 classes")):
            matrix.update(torch.zeros(4, dtype=torch.uint8), target)
    assert matrix.counted == 0


def test_miou_says_over_how_many_classes(capsys: pytest.CaptureFixture[str]) -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 255]))
    scores = matrix.scores(Task("segmentation", 4), "native")
    assert scores["miou_classes"] == 2
    assert matrix.scores(Task("segmentation", 4), "original")["miou_classes"] == 4
    print_scores(scores)
    assert re.search(r"^mIoU over 2 of 4 classes +50\.00$", capsys.readouterr().out, re.MULTILINE)


class WithTasks(list[Any]):
    """Samples of a dataset that says what its classes are."""

    def __init__(self, *classes: str, name: str = "segmentation") -> None:
        super().__init__([(IMAGE, MASK)] * 2)
        self.tasks = {name: Task("segmentation", len(classes), classes=classes)}


def test_classes_are_compared(tmp_path: Path) -> None:
    named = edgeseg.create_model(
        "fpn", encoder=TINY, channels=16, tasks={"semantic": Task("segmentation", 3, classes=("a", "b", "c"))}
    )
    lists = r"(?s)different classes for 'semantic'{}:.*dataset \({}\): {}\n.*model \(3\): a, b, c\n"
    for classes, order in (("a", "b"), ""), (("a", "b", "x"), ""), (("c", "b", "a"), ", in another order"):
        message = lists.format(order, len(classes), ", ".join(classes))
        with pytest.raises(ValueError, match=message):
            evaluate(named, WithTasks(*classes))
        with pytest.raises(ValueError, match=message):
            train(named, WithTasks(*classes), None, RECIPE, tmp_path)
        with pytest.raises(ValueError, match=message):
            train(named, WithTasks("a", "b", "c"), WithTasks(*classes), RECIPE, tmp_path)
    for same in (WithTasks("a", "b", "c", name="semantic"), WithTasks("A", "b ", "c"), [(IMAGE, MASK)]):
        check_classes(same, named.tasks)
    check_classes(WithTasks("a", "b", "c"), network().tasks)  # the model's classes have no names


def test_a_batch_of_one(tmp_path: Path) -> None:
    data = [(IMAGE, MASK)] * 2
    small: dict[str, Any] = {**RECIPE.__dict__, "batch_size": 1, "rand_crop": (32, 32)}
    with pytest.raises(ValueError, match=r"one sample of 32x32 .* raise batch_size \(--batch-size\)"):
        train(network(), data, None, TrainConfig(**small), tmp_path)
    train(network(), data, None, TrainConfig(**small | {"freeze_bn": True}), tmp_path)


def test_the_original_augmentation_does_not_pad() -> None:
    options: dict[str, Any] = {"augmentation": "original", "img_resize": (64, 96), "keep_aspect": False}
    with pytest.raises(ValueError, match="rand_crop 64x100 is larger than img_resize 64x96"):
        TrainConfig(**options, rand_crop=(64, 100), rand_scale=(1, 2))
    with pytest.raises(ValueError, match=r"rand_scale begins at 0\.5, .*begin at 1 or more"):
        TrainConfig(**options, rand_crop=(64, 96), rand_scale=(0.5, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TrainConfig(**options, rand_crop=None, rand_scale=(1, 2))
        TrainConfig(**options | {"keep_aspect": True}, rand_crop=None, rand_scale=(0.5, 2))  # this one pads


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_loaders_have_no_traceback(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that the check before training did not read, and one in evaluation."""
    monkeypatch.setattr("edgeseg.engine.data_check.SAMPLED", 2)
    data = [(IMAGE, MASK), (IMAGE, MASK + 7), (IMAGE, MASK)]
    options: dict[str, Any] = {**RECIPE.__dict__, "workers": workers, "cache": False, "batch_size": 3}
    with pytest.raises(ValueError, match=r"^sample 1: the ground truth of 'segmentation' has ids 6, 7, 8, 9;"):
        train(network(), data, None, TrainConfig(**options), tmp_path)
    with pytest.raises(ValueError, match=r"^sample 1: the ground truth of 'segmentation' has ids 6, 7, 8, 9;"):
        evaluate(network(), data, workers=workers)


def test_parts_of_a_dataset_with_other_classes() -> None:
    """Two exports of one annotation tool may number the classes differently."""
    one, other = ([(IMAGE, MASK)] * 2 for _ in range(2))
    parts = [Listed(one, ("a", "b", "c")), Listed(other, ("b", "a", "c"))]
    model = {"segmentation": Task("segmentation", 3, classes=("a", "b", "c"))}
    check_classes(ConcatDataset([parts[0], parts[0]]), model)
    for order in (parts, parts[::-1], [parts[0], Subset(parts[1], [0])]):
        with pytest.raises(ValueError, match="different classes for 'segmentation', in another order"):
            check_classes(ConcatDataset(order), model)


class Listed(torch.utils.data.Dataset[Any]):
    """A user's dataset that says its classes, and has a method `name` of another meaning."""

    def __init__(self, samples: list[Any], classes: tuple[str, ...]) -> None:
        self.samples = samples
        self.tasks = {"segmentation": Task("segmentation", 3, classes=classes)}

    def name(self) -> str:
        return "mine"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def test_a_method_of_another_meaning() -> None:
    with pytest.raises(ValueError, match="sample 0: an image is torch"):
        checked_sample(Listed([(IMAGE / 255, MASK)], ("a", "b", "c")), 0, TASKS)


def test_augmentation_of_a_users_own_is_not_frozen(tmp_path: Path) -> None:
    """Every epoch reads the samples again, unless they are known to stay the same or the recipe says so."""

    class Counted(Listed):
        count = 0

        def __getitem__(self, index: int) -> Any:
            self.count += 1
            return super().__getitem__(index)

    for cache, least, most in ((None, 12, 99), (True, 4, 8)):
        data = Counted([(IMAGE, MASK)] * 4, ("a", "b", "c"))
        recipe = replace(RECIPE, epochs=3, cache=cache)
        train(network(), data, None, recipe, tmp_path / str(cache))
        assert least <= data.count <= most


def test_crops_that_are_mostly_padding(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="rand_crop 64x96 is larger than photos of img_resize 32x48 at their largest"):
        train(network(), [(IMAGE, MASK)] * 2, None, replace(RECIPE, rand_crop=(64, 96)), tmp_path)


def test_labels_of_one_class_only(tmp_path: Path) -> None:
    """As of YOLO's files whose names are not those of the photos."""
    data = [(IMAGE, torch.zeros_like(MASK))] * 4
    with pytest.raises(ValueError, match=r"training set: every label of 'segmentation' is 'class 0' .*nothing"):
        train(network(), data, None, RECIPE, tmp_path)


def test_metrics_can_be_added() -> None:
    model, data = network().eval(), [(IMAGE, MASK)] * 2
    both = evaluate(model, data)
    one = evaluate(model, data[:1])
    one.counts += evaluate(model, data[1:]).counts
    assert torch.equal(one.counts, both.counts)
    assert not one.counts.is_inference()


def test_wrapped_networks_are_named(tmp_path: Path) -> None:
    model = network()
    for other in (torch.nn.DataParallel(model), AveragedModel(model)):
        wrapped: Any = other
        for call in (
            lambda it: train(it, [(IMAGE, MASK)] * 2, None, RECIPE, tmp_path / "run"),
            lambda it: evaluate(it, [(IMAGE, MASK)] * 2),
            lambda it: edgeseg.save_checkpoint(it, tmp_path / "m.safetensors"),
            lambda it: edgeseg.export(it, tmp_path / "m.onnx"),
        ):
            with pytest.raises(ValueError, match=r"takes an edgeseg model, got a .*; pass its \.module"):
                call(wrapped)
    assert not list(tmp_path.iterdir())


def test_losses_refuse_what_they_would_round() -> None:
    logits = torch.zeros(1, 2, 4, 4)
    with pytest.raises(ValueError, match="class ids, which are integers, got torch"):
        segmentation_loss(logits, torch.rand(1, 4, 4))
    with pytest.raises(ValueError, match=r"are \[N, 1, H, W\], got \[1, 2, 4, 4\]"):
        binary_loss(logits, torch.ones(1, 4, 4).long())


def test_metrics_of_16_bit_arrays() -> None:
    ids: Any = np.array([[0, 1, 2]], np.uint16), np.array([[0, 1, 255]], np.uint16)
    matrix = ConfusionMatrix(3)
    matrix.update(*ids)
    assert matrix.counts.diag().tolist() == [1, 1, 0]
    metres: Any = np.array([[11.0, 5.0]], np.float32), np.array([[10, 0]], np.uint16)
    depth = DepthErrors()
    depth.update(*metres)
    assert round(depth.ard, 3) == 10.0


def test_binary_scores_of_wrong_predictions() -> None:
    scores = BinaryScores()
    with pytest.warns(UserWarning, match="values that are not finite"):
        scores.update(torch.tensor([[float("nan"), 2.0]]), torch.tensor([[1, 1]]))
    scores = BinaryScores()
    with pytest.raises(ValueError, match="the prediction has the shape"):
        scores.update(torch.zeros(1, 2), torch.full((1, 3), 255))
    assert int(scores.ignored) == 0


def test_losses_of_wrong_targets() -> None:
    logits = torch.zeros(2, 3, 4, 4)
    for target, message in (
        (torch.full((2, 4, 4), 34), r"the target has ids \[34\]; there are 3 classes with the ids 0 to 2"),
        (torch.full((2, 4, 4), -100), r"the target has ids \[-100\]"),
        (torch.zeros(2, 1, 4, 4).long(), r"the target is \[N, H, W\] for logits \[N, C, H, W\], got \[2, 1, 4, 4\]"),
    ):
        with pytest.raises(ValueError, match=message):
            segmentation_loss(logits, target, dice=0.5)
    with pytest.raises(ValueError, match="2 class weights, and the logits have 3 classes"):
        segmentation_loss(logits, torch.zeros(2, 4, 4).long(), class_weights=torch.ones(2))
    with pytest.raises(ValueError, match="no class has a pixel"):
        log_class_weights(torch.zeros(3))
