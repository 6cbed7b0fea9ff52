"""Biases of classes: found where the mIoU is highest, and part of the weights."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgeseg
from edgeseg.cli import main
from edgeseg.data import Streets
from edgeseg.engine import ConfusionMatrix, choose_biases, decision, evaluate
from edgeseg.networks.constants import add_constants
from edgeseg.networks.decoders import DECODERS
from edgeseg.networks.quantized import quantize_aware
from edgeseg.spec import Preprocess, Quantization, Task

from .conftest import TINY

NAME = "fpn_aspp_mobilenetv2_tv_edgeailite"


def miou(logits: torch.Tensor, labels: torch.Tensor) -> float:
    matrix = ConfusionMatrix(logits.shape[1])
    matrix.update(logits.argmax(1), labels)
    return matrix.miou


def skewed_pixels(count: int = 4000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of four classes of unequal frequency, whose last and rarest is favoured, and what it is favoured by."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.6, 0.3, 0.07, 0.03]), count, replacement=True, generator=generator)
    logits = torch.randn(count, 4, generator=generator) + 2.5 * torch.nn.functional.one_hot(labels, 4)
    favour = torch.tensor([0.0, 0.0, 0.0, 3.0])
    return logits + favour, labels, favour


def test_each_candidate_is_scored_as_the_metric_does() -> None:
    logits, labels, _ = skewed_pixels()
    for index in range(4):
        found = decision._mious(logits, labels, index).mean(dim=1)
        for candidate, value in zip(decision.CANDIDATES, found, strict=True):
            moved = logits.clone()
            moved[:, index] += candidate
            assert float(value) == pytest.approx(miou(moved, labels), abs=1e-3)  # ties aside


def test_the_skew_is_found() -> None:
    logits, labels, favour = skewed_pixels()
    biases = decision.best_biases(logits, labels)
    skewed, mended, fair = (miou(each, labels) for each in (logits, logits + biases, logits - favour))
    assert skewed < 0.5
    assert mended >= fair
    assert -5 < float(biases[3] - biases[:3].mean()) < -2
    more = torch.cat([logits, torch.full((len(logits), 1), -0.5)], dim=1)
    assert float(decision.best_biases(more, labels)[4]) == 0  # a class that does not occur


@pytest.mark.parametrize("decoder", [*sorted(DECODERS), "erfnet"])
def test_every_decoder_takes_constants(decoder: str) -> None:
    whole = {"espnetv2": "espnetv2_s0p5", "erfnet": "erfnet"}  # networks with encoders of their own
    tasks = {"first": Task("segmentation", 4), "second": Task("segmentation", 5)}
    encoder: dict[str, Any] = {} if decoder in whole else {"encoder": "mobilenetv2"}
    model = edgeseg.create_model(whole.get(decoder, decoder), tasks=tasks, **encoder).eval()
    images = torch.randn(1, 3, 64, 96)
    constants = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0])
    with torch.no_grad():
        before = model(images)
        add_constants(model, "second", constants, [images])
        after = model(images)
    assert torch.equal(after["first"], before["first"])
    torch.testing.assert_close(after["second"], before["second"] + constants.view(-1, 1, 1), rtol=0, atol=2e-3)


def test_a_last_layer_that_cannot_add_is_refused_and_unchanged() -> None:
    model = edgeseg.create_model("fpn", encoder=TINY, num_classes=3).eval()
    head = model.decoders["segmentation"].get_submodule("head")
    assert isinstance(head, torch.nn.Sequential)
    head.insert(1, torch.nn.ReLU())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="the last layer of the decoder of 'segmentation'"):
        add_constants(model, "segmentation", torch.tensor([1.0, 2.0, 3.0]), [torch.randn(1, 3, 64, 64)])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.fixture(scope="module")
def streets() -> Streets:
    return Streets("val", size=(96, 128), length=6, labels="camvid")


def skewed_model(streets: Streets) -> edgeseg.Pixel2Pixel:
    """The weights for CamVid, which here find far too many buildings."""
    model = edgeseg.create_model(NAME, pretrained=True, tasks=streets.tasks)
    model.configure(preprocess=Preprocess(size=(96, 128)))
    constants = torch.zeros(11)
    constants[1] = 6
    add_constants(model, "semantic", constants, model.prepare(streets[0][0]))
    return model


def test_a_skewed_model_is_mended_in_its_files_too(streets: Streets, tmp_path: Path) -> None:
    model = skewed_model(streets).train()
    before = evaluate(model, streets).miou
    biases = choose_biases(model, streets)
    assert model.training
    assert list(biases) == list(streets.tasks["semantic"].classes)
    assert biases["building"] < -1
    after = evaluate(model, streets).miou
    assert after > before + 0.05
    edgeseg.save_checkpoint(model, tmp_path / "stored.safetensors")
    loaded = edgeseg.create_model(NAME, checkpoint_path=tmp_path / "stored.safetensors").eval()
    assert evaluate(loaded, streets).miou == pytest.approx(after, abs=1e-6)
    edgeseg.export_onnx(loaded, tmp_path / "model.onnx", size=(96, 128), dynamic=())
    segmenter = edgeseg.OnnxSegmenter(tmp_path / "model.onnx")
    photo = streets[0][0]
    assert np.mean(segmenter.predict(photo) != loaded.predict(photo)) < 0.002


def test_what_is_refused(streets: Streets, tmp_path: Path) -> None:
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    data = [(torch.zeros(3, 64, 64, dtype=torch.uint8), labels)]
    model = edgeseg.create_model("fpn", encoder=TINY, num_classes=3).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for wrong, dataset, message in (
        (edgeseg.create_model("fpn", encoder=TINY, num_classes=1), data, r"needs one segmentation task.*\(binary\)"),
        (edgeseg.optimize(model), data, "a copy that optimize"),
        (quantize_aware(model, Quantization()), data, "not those of an 8-bit network"),
        (edgeseg.create_model("fpn", encoder=TINY, num_classes=3).bfloat16(), data, r"another precision.*bfloat16"),
        (model, [(data[0][0], labels + 255)], "has a ground truth for segmentation"),
        (model, [], "no samples"),
    ):
        with pytest.raises(ValueError, match=message):
            choose_biases(wrong, dataset)
    two = {"a": Task("segmentation", 3), "b": Task("segmentation", 3)}
    with pytest.raises(ValueError, match="pass task=NAME"):
        choose_biases(edgeseg.create_model("fpn", encoder=TINY, tasks=two), [(data[0][0], {"a": labels})])
    edgeseg.export_onnx(model, tmp_path / "model.onnx", size=(64, 64), dynamic=())
    with pytest.raises(ValueError, match="last layer of an exported file is fixed"):
        choose_biases(edgeseg.OnnxSegmenter(tmp_path / "model.onnx"), data)  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--store-biases would overwrite the file of --checkpoint; name another file"),
        (["--flip"], "--store-biases scores as training does, .* leave out --flip"),
        (["--scales", "0.5"], "leave out --scales"),
    ],
)
def test_refused_before_the_model_is_read(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"weights")
    target = tmp_path / "b.safetensors" if options else file
    call = ["evaluate", "--dataset", "streets", "--checkpoint", str(file), "--store-biases", str(target), *options]
    assert main(call) == 2
    assert re.search(message, capsys.readouterr().err)
    assert file.read_bytes() == b"weights"


def test_command_in_one_and_in_two_processes(streets: Streets, tmp_path: Path) -> None:
    """A real torchrun. Every pixel of so few small photos is used, so that both find the same."""
    for index, (photo, labels) in enumerate(streets[i] for i in range(4)):
        for folder, values in (("images", photo.permute(1, 2, 0)), ("masks", labels)):
            (tmp_path / "data" / folder / "val").mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(values)).save(tmp_path / "data" / folder / "val" / f"{index}.png")
    edgeseg.save_checkpoint(skewed_model(streets), tmp_path / "start.safetensors")
    (tmp_path / "data/classes.txt").write_text("\n".join(streets.tasks["semantic"].classes))
    one = [sys.executable, "-m", "edgeseg"]
    two = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "edgeseg"]
    found = []
    for count, launcher in enumerate((one, two), start=1):
        stored = tmp_path / f"{count}.safetensors"
        arguments = [
            "evaluate", "--dataset", "images_masks", "--data-path", str(tmp_path / "data"),
            "--checkpoint", str(tmp_path / "start.safetensors"), "--workers", "0", "--store-biases", str(stored),
            "-o", str(tmp_path / "scores.json"),
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*launcher, *arguments], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert len(re.findall("with these biases", done.stdout)) == 1
        model = edgeseg.create_model(NAME, checkpoint_path=stored)
        found.append({name: value.clone() for name, value in model.state_dict().items()})
        (scores,) = json.loads((tmp_path / "scores.json").read_text()).values()
        assert scores["miou"] == pytest.approx(100 * evaluate(model, [streets[i] for i in range(4)]).miou, abs=0.01)
        assert evaluate(model, streets).miou > evaluate(skewed_model(streets), streets).miou
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=0, atol=1e-6)
