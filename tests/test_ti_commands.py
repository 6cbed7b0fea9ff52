"""The commands of docs/ti.md, each as it stands there, in the folders of the page and at the sizes of the command.

Added are only options for a run of one step on two small photos. The weights' addresses are those of the loopback
server, which has random weights in the layouts of torchvision and pycls.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.models import mobilenet_v2

import edgeseg
from edgeseg.cli import main
from edgeseg.data.cityscapes import TRAIN_IDS
from edgeseg.labels import segmentation_task
from edgeseg.storage.checkpoint import read_checkpoint_config, read_weights
from edgeseg.zoo.weights import ENCODER_WEIGHTS

from .conftest import ROOT
from .hub_server import HubServer

PAGE = (ROOT / "docs/ti.md").read_text()
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
TRAINING = [command for command in COMMANDS if command[0] == "train"]
ONE_STEP = ["--epochs", "1", "--batch-size", "2", "--workers", "0"]
MOBILENET, REGNET = "mobilenetv2", "regnetx800mf"


def option(command: Sequence[str], name: str, count: int = 1) -> list[str]:
    """The values of an option in a command."""
    place = command.index(name) + 1
    return list(command[place : place + count])


def test_the_page_has_all_commands() -> None:
    """Beside each block of a command of TI's document stands the one of edgeseg."""
    verbs = ["train"] * 5 + ["evaluate", "predict", "evaluate"]
    assert [command[0] for command in COMMANDS] == verbs
    theirs = re.findall(r"```text\n(\w+_main\.py.*?)```\n\n```bash\nedgeseg", PAGE, re.DOTALL)
    scripts = ["train_segmentation_main.py"] * 6 + ["infer_segmentation_main.py"]
    assert [command.split()[0] for command in theirs] == scripts
    for command, ours in zip(theirs[:5], TRAINING, strict=True):
        words = command.replace("\\\n", " ").split()
        assert option(words, "--model_name") == option(ours, "--model")
        for name in ("img_resize", "rand_crop", "output_size", "pretrained"):
            if f"--{name}" in words:
                count = 1 if name == "pretrained" else 2
                assert option(words, f"--{name}", count) == option(ours, f"--{name.replace('_', '-')}", count)


def photo(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((256, 128), Image.Resampling.BICUBIC)


def save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cityscapes and VOC in the folders of the page, below the working directory: two photos each of train and val."""
    monkeypatch.chdir(tmp_path)
    cityscapes, voc = Path("data/datasets/cityscapes/data"), Path("data/datasets/voc/VOCdevkit/VOC2012")
    ids = np.resize(np.repeat([*TRAIN_IDS, 0], 13).astype(np.uint8), 256)[None].repeat(128, axis=0)
    for split, city in (("train", "aachen"), ("val", "lindau")):
        for i in range(2):
            name = f"{city}_{i:06}_000019"
            save(photo(i), cityscapes / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png")
            save(Image.fromarray(ids), cityscapes / f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png")
    labels = np.resize(np.repeat([*range(21), 255], 12).astype(np.uint8), 256)[None].repeat(128, axis=0)
    mask = Image.fromarray(labels).convert("P")
    mask.putpalette([channel for color in segmentation_task("voc").palette for channel in color])
    for i in range(4):
        save(photo(i), voc / f"JPEGImages/2007_{i:06}.jpg")
        save(Image.fromarray(labels), voc / f"SegmentationClassAug/2007_{i:06}.png")
        if i >= 2:
            save(mask, voc / f"SegmentationClass/2007_{i:06}.png")
    lists = voc / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    lines = [f"/JPEGImages/2007_{i:06}.jpg /SegmentationClassAug/2007_{i:06}.png\n" for i in range(4)]
    (lists / "trainaug.txt").write_text("".join(lines))
    (lists / "trainaug_noval.txt").write_text("".join(lines[:2]))
    (lists / "val.txt").write_text("2007_000002\n2007_000003\n")
    return tmp_path


@pytest.fixture
def served(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """Per encoder the address on the server and the tensors there, as torchvision and pycls call them."""
    torch.manual_seed(1)
    regnet = edgeseg.create_model("fpn_aspp_regnetx800mf_edgeailite").encoder.state_dict()
    pycls = {re.sub(r"^(streams\.\d+|trunk)\.", "", key): value for key, value in regnet.items()}
    states: dict[str, dict[str, Tensor]] = {
        MOBILENET: mobilenet_v2().state_dict(),
        REGNET: {**pycls, "head.fc.weight": torch.zeros(1000, 672), "head.fc.bias": torch.zeros(1000)},
    }
    found = {}
    for encoder, state in states.items():
        name = "mobilenet_v2.pth" if encoder == MOBILENET else "RegNetX-800MF_dds_8gpu.pyth"
        content: dict[str, Any] = state if encoder == MOBILENET else {"epoch": 99, "model_state": state}
        torch.save(content, tmp_path / "served")
        hub.files[f"/{name}"] = (tmp_path / "served").read_bytes()
        found[encoder] = (f"{hub.url}/{name}", state)
        entry = replace(ENCODER_WEIGHTS[encoder], addresses=(f"{hub.url}/{name}",))
        monkeypatch.setitem(ENCODER_WEIGHTS, encoder, entry)
    return found


def train(command: Sequence[str], served: dict[str, tuple[str, dict[str, Tensor]]]) -> tuple[Path, str]:
    """Runs a command of the page for one step.

    Returns:
        The folder of its run, and the address that stands for the one of --pretrained.
    """
    encoder = REGNET if "regnetx" in option(command, "--model")[0] else MOBILENET
    words, address = list(command), served[encoder][0]
    if "--pretrained" in words:
        words[words.index("--pretrained") + 1] = address
    assert main([*words, *ONE_STEP]) == 0
    return Path(option(command, "-o")[0]), address


def check_run(run: Path, command: Sequence[str], encoder: str, state: dict[str, Tensor], classes: int) -> None:
    """The run wrote its files, at the sizes of the command, and its encoder started from what was served."""
    assert {path.name for path in run.iterdir()} >= {
        "last.safetensors",
        "best.safetensors",
        "metrics.jsonl",
        "samples.png",
    }
    (row,) = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    assert row["epoch"] == 1
    assert 0 <= row["miou"] <= 100
    config = read_checkpoint_config(run / "last.safetensors")
    assert config is not None
    assert config.preprocess.size == tuple(map(int, option(command, "--img-resize", 2)))
    assert config.tasks["segmentation"].channels == classes
    note = {"weights": f"imagenet ({encoder})", "license": ENCODER_WEIGHTS[encoder].license}
    assert config.notes["encoder"] == note
    # The first learning rate of the warm-up is 4e-7: one step of Adam changes no weight by more. The first layers,
    # which are adapted to the normalization of the pixels, are left out.
    trained, compared = read_weights(run / "last.safetensors"), 0
    for key, value in trained.items():
        name = re.sub(r"^encoder\.(streams\.\d+|trunk)\.", "", key)
        name = f"features.{name}" if encoder == MOBILENET else name
        if name in state and value.ndim == 4 and not name.startswith(("features.0.", "stem.")):
            torch.testing.assert_close(value, state[name], rtol=0, atol=2e-6)
            compared += 1
    assert compared > 40


@pytest.mark.parametrize("number", [1, *(pytest.param(each, marks=pytest.mark.slow) for each in range(2, 5))])
def test_training(
    number: int,
    data: Path,
    served: dict[str, tuple[str, dict[str, Tensor]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = TRAINING[number]
    run, address = train(command, served)
    said = f"{address} has weights of an encoder alone: the decoders start untrained" in capsys.readouterr().out
    assert said == ("--pretrained" in command)
    encoder = REGNET if number == 1 else MOBILENET
    check_run(run, command, encoder, served[encoder][1], classes=21 if "voc_segmentation" in command else 19)


def test_training_validation_inference(
    data: Path, served: dict[str, tuple[str, dict[str, Tensor]]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The first command of the page and those that read its run."""
    run, address = train(TRAINING[0], served)
    assert f"{address} has weights of an encoder alone" in capsys.readouterr().out
    check_run(run, TRAINING[0], MOBILENET, served[MOBILENET][1], classes=19)
    (best,) = (json.loads(line)["miou"] for line in (run / "metrics.jsonl").read_text().splitlines())

    validation, prediction, measure = COMMANDS[5:]
    for command in (validation, measure):
        assert main([*command, "--workers", "0"]) == 0
        assert re.search(rf"^mIoU .*{best:.2f}$", capsys.readouterr().out, re.MULTILINE)  # as in training
    assert main(prediction) == 0
    output = Path(option(prediction, "-o")[0])
    assert capsys.readouterr().out == f"2 of 2 segmented into {output}\n"
    written = sorted(path.name for path in output.rglob("*.png"))
    stems = [f"lindau_{i:06}_000019_leftImg8bit" for i in range(2)]
    assert written == sorted(f"{stem}_{what}.png" for stem in stems for what in ("labels", "color", "overlay"))
    labels = np.array(Image.open(output / f"lindau/{stems[0]}_labels.png"))
    assert labels.shape == (128, 256)
    assert labels.max() < 19


def test_addresses_are_those_of_the_catalog() -> None:
    """What TI's commands download are files that the catalog knows."""
    listed = [address for entry in ENCODER_WEIGHTS.values() for address in entry.addresses]
    addresses = [word for command in TRAINING for word in command if word.startswith("https://")]
    assert len(addresses) == 2
    assert set(addresses) <= set(listed)
