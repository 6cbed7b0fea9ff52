"""Labels of upsampled logits without the logits: the same as the plain way, pixel by pixel."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import edgeseg
from edgeseg.data import Streets
from edgeseg.spec import Task
from edgeseg.tasks import kind_of
from edgeseg.vision.preprocess import to_input
from edgeseg.vision.upsample import bilinear, upsampled_argmax

SIZES = [
    (19, (32, 64), (128, 256)),
    (19, (33, 57), (100, 231)),
    (5, (16, 16), (16, 16)),
    (3, (7, 9), (3, 4)),
    (4, (1, 1), (5, 7)),
    (300, (6, 8), (48, 64)),
    (2, (9, 1), (36, 1)),
]


def plain(logits: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0].argmax(dim=0).numpy()


def test_class_ids_move_to_the_nearest_centre() -> None:
    """As PyTorch's "nearest-exact", and as the logits that they come from would."""
    ids = torch.arange(60).reshape(6, 10)
    for size in ((24, 40), (3, 5), (9, 7), (6, 10)):
        expected = F.interpolate(ids[None, None].float(), size=size, mode="nearest-exact")[0, 0]
        found = kind_of(Task("segmentation", 60)).resized(ids.numpy(), size)
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(("channels", "small", "size"), SIZES)
def test_values_as_torch_resizes_them(channels: int, small: tuple[int, int], size: tuple[int, int]) -> None:
    """Also where a map shrinks: depth of an exported file is that of the network."""
    values = torch.randn(channels, *small)
    expected = F.interpolate(values[None], size=size, mode="bilinear", align_corners=False)[0]
    found = bilinear(values.numpy(), size)
    assert found.dtype == np.float32
    assert np.abs(found - expected.numpy()).max() < 1e-4


@pytest.mark.parametrize(("classes", "small", "size"), SIZES)
@pytest.mark.parametrize("kind", ["random", "smooth", "ties", "equal"])
def test_as_argmax_of_the_resized_logits(
    classes: int, small: tuple[int, int], size: tuple[int, int], kind: str
) -> None:
    logits = torch.randn(classes, *small)
    if kind == "smooth":
        logits = F.avg_pool2d(F.pad(logits[None], (2, 2, 2, 2), mode="constant"), 5, 1)[0]
    elif kind == "ties":  # small whole numbers: many equal values, before and after interpolation
        logits = torch.randint(0, 3, logits.shape).float()
    elif kind == "equal":
        logits = torch.zeros_like(logits)
    found = upsampled_argmax(logits.numpy(), size)
    assert found.dtype == (np.uint8 if classes <= 256 else np.uint16)
    if kind == "ties" and any(n % m for n, m in zip(size, small, strict=True)):
        # Equal values with weights that are not exact: rounding decides, here and there.
        values = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
        chosen = values.gather(0, torch.from_numpy(found.astype(np.int64))[None])[0]
        assert float((values.amax(dim=0) - chosen).max()) < 1e-6
    else:
        assert (found == plain(logits, size)).all()


def test_on_a_real_prediction() -> None:
    model = edgeseg.create_model("fpn_aspp_mobilenetv2_tv_edgeailite", pretrained=True).eval()
    image, _ = Streets("test", (360, 480), length=1)[0]
    with torch.inference_mode():
        logits = model.decode(to_input(image.as_subclass(torch.Tensor), model.preprocess))["segmentation"][0]
    for size in ((360, 480), (355, 501), (720, 960)):
        assert (upsampled_argmax(logits.numpy(), size) == plain(logits, size)).mean() == 1.0
    assert (model.predict(image.as_subclass(torch.Tensor)) == plain(logits, (360, 480))).all()


def test_memory_does_not_grow_with_classes_times_size() -> None:
    blocks = F.interpolate(torch.randn(1, 19, 8, 16), size=(128, 256), mode="nearest")[0].numpy()
    tracemalloc.start()
    upsampled_argmax(blocks, (1024, 2048))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 19 * 1024 * 2048 * 4 / 4  # a quarter of the logits at full size
