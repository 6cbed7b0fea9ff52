"""The errors that docs/troubleshooting.md quotes are those that edgeseg prints."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

import edgeseg
from edgeseg.data import load_dataset
from edgeseg.data.check import check_dataset
from edgeseg.engine import TrainConfig, train

from .conftest import ROOT

PAGE = (ROOT / "docs/troubleshooting.md").read_text()
QUOTED = {
    title: " ".join(text.split())
    for title, text in re.findall(r"^### ([^\n]*)\n\n```text\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
}
NETWORK = "fpn_aspp_mobilenetv2_tv_edgeailite"
MASK = np.zeros((48, 64), np.uint8)


def messages() -> Iterator[list[str]]:
    """The fixed words of the texts in the code of edgeseg, between which the code fills in values."""
    for path in (ROOT / "edgeseg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            marked = "".join(
                part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "{}" for part in parts
            )
            fixed = re.split(r"\{\w*\}", " ".join(marked.split()))
            if sum(map(len, fixed)) >= 12:
                yield fixed


def test_every_quoted_error_is_in_the_code() -> None:
    known = list(messages())
    assert len(QUOTED) == PAGE.count("```text") == 20
    for message in QUOTED.values():
        likely = [fixed for fixed in known if all(words in message for words in fixed)]
        assert any(re.fullmatch(".*".join(map(re.escape, fixed)), message) for fixed in likely), message


def other_classes() -> None:
    edgeseg.save_checkpoint(edgeseg.create_model(NETWORK, num_classes=11), "mine.safetensors")
    edgeseg.load_checkpoint(edgeseg.create_model(NETWORK, num_classes=5), "mine.safetensors")


def new_prediction_layer() -> None:
    edgeseg.save_checkpoint(edgeseg.create_model(NETWORK, num_classes=11), "mine.safetensors")
    edgeseg.create_model(NETWORK, num_classes=5, checkpoint_path="mine.safetensors")


def pixels_as_floats() -> None:
    image = torch.zeros(3, 48, 64)
    image[0, 0, 0] = 1
    check_dataset([(image, MASK)], tasks={"segmentation": edgeseg.Task("segmentation", 3)}, on_error="stop")


def unknown_ids() -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    check_dataset([(image, MASK + 3)], tasks={"segmentation": edgeseg.Task("segmentation", 3)}, on_error="stop")


def masks_of_0_and_255() -> None:
    for folder, pixels in (("images", np.stack([MASK] * 3, axis=2)), ("masks", 255 * np.eye(48, 64, dtype=np.uint8))):
        Path(f"own/{folder}/train").mkdir(parents=True)
        Image.fromarray(pixels).save(f"own/{folder}/train/0.png")
    load_dataset("images_masks", "own", "train", classes=("ground", "vine"))


def six_images() -> None:
    samples = [(np.zeros((48, 64, 3), np.uint8), MASK)] * 6
    train(edgeseg.create_model(NETWORK, num_classes=2), samples, None, TrainConfig(workers=0), "runs/mine")


def foreign_file() -> None:
    image, labels = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("image", "labels"))
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["labels"])], "graph", [image], [labels])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, "model.onnx")
    edgeseg.load_segmenter("model.onnx")


ERRORS: dict[str, Callable[[], object]] = {
    "No such model": lambda: edgeseg.create_model("fpn_mobilenetv2"),
    "A model without trained weights": lambda: edgeseg.create_model("unet_aspp_resnet50_edgeailite", pretrained=True),
    "Another number of classes": other_classes,
    "A warning that tensors are not loaded": new_prediction_layer,
    "Files that are missing": lambda: load_dataset("camvid", "CamVid", "train"),
    "Ids that are not classes": unknown_ids,
    "Masks of 0 and 255": masks_of_0_and_255,
    "Normalized images in a dataset": pixels_as_floats,
    "Too few images": six_images,
    "Pixels where a float tensor is expected": lambda: edgeseg.create_model(NETWORK)(
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    ),
    "int8 without calibration images": lambda: edgeseg.export(
        edgeseg.create_model(NETWORK), "model.onnx", precision="int8"
    ),
    "A file that edgeseg did not write": foreign_file,
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("title", ERRORS)
def test_errors_as_they_are_printed(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word, after the name of the sample if there is one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError, TypeError, UserWarning)) as caught:
        ERRORS[title]()
    assert " ".join(str(caught.value).split()).endswith(QUOTED[title])
