"""Augmentation: images and targets move together, optical flow as vectors."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision import tv_tensors
from torchvision.transforms import v2

from edgeseg.data import Streets
from edgeseg.data.transforms import AUGMENTATIONS, Augmented, RandomScale
from edgeseg.engine.loading import is_fixed
from edgeseg.labels import IGNORE
from edgeseg.spec import Preprocess, Task
from edgeseg.vision.preprocess import to_input
from edgeseg.vision.tensors import Depth, Flow

SIZE = (48, 64)


def sample(size: tuple[int, int] = SIZE) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Pictures that show the label of each pixel, flow to the right, depth equal to the label."""
    labels = torch.arange(size[1], dtype=torch.uint8).div(8, rounding_mode="floor").expand(size).contiguous() + 1
    image = (labels * 20).expand(3, -1, -1).contiguous()
    flow = torch.full((3, *size), 128, dtype=torch.uint8)
    flow[0] += 10
    depth = labels.float().unsqueeze(0)
    return (Flow(flow), tv_tensors.Image(image)), {"semantic": tv_tensors.Mask(labels), "depth": Depth(depth)}


@pytest.mark.parametrize("kind", ["modern", "original"])
def test_all_move_together(kind: str) -> None:
    """After any augmentation the image still shows the label; corners are grey, ignored, unknown and without motion."""
    scale, crop = ((0.6, 1.4), (32, 40)) if kind == "modern" else ((1.0, 2.0), (46, 60))
    transform = AUGMENTATIONS[kind](SIZE, crop, scale, rotation=5.0, jitter=0)
    corners = 0
    for seed in range(60):
        torch.manual_seed(seed)
        (flow, image), targets = transform(*sample())
        labels, depth = targets["semantic"], targets["depth"]
        assert image.shape == (3, *crop)
        assert labels.shape == flow.shape[-2:] == depth.shape[-2:] == crop
        counted = labels != IGNORE
        corners += int((~counted).sum())
        assert torch.equal(depth[0][counted], labels[counted].float())
        assert not depth[0][~counted].any()
        assert (flow[0][~counted] == 128).all()
        # Inside bands, away from the interpolated borders, the grey value is the label's.
        close = (image[0].int() - labels.int() * 20).abs() <= 3
        assert close[counted].float().mean() > 0.6
        horizontal = flow[0][counted].float() - 128
        assert (horizontal.abs() > 3).all()
        assert len(horizontal.sign().unique()) == 1
        assert image.dtype == labels.dtype == flow.dtype == torch.uint8
    assert corners > 0


def test_flow_vectors() -> None:
    flow = Flow(torch.stack([torch.full((8, 8), v, dtype=torch.uint8) for v in (128 + 20, 128 + 6, 77)]))
    assert v2.functional.horizontal_flip(flow)[:, 0, 0].tolist() == [108, 134, 77]
    doubled = v2.functional.resize(flow, [8, 16])
    assert doubled.shape == (3, 8, 16)
    assert doubled[:, 0, 0].tolist() == [168, 134, 77]
    assert v2.functional.resize(flow, [8, 800])[0, 0, 0] == 255  # saturated
    turned = v2.functional.rotate(flow, 90)  # counter-clockwise: right becomes up, down becomes right
    assert turned[:, 4, 4].tolist() == [134, 108, 77]
    assert isinstance(turned, Flow)


def test_flow_follows_a_moved_point() -> None:
    """A bright pixel and where the flow says it goes, both rotated: still the same two points."""
    size = (81, 81)
    here, there = torch.zeros(1, *size), torch.zeros(1, *size)
    here[0, 39:42, 49:52] = there[0, 27:30, 65:68] = 1.0
    flow = torch.full((3, *size), 128, dtype=torch.uint8)
    flow[0], flow[1] = 128 + 16, 128 - 12
    for angle in (-60.0, 5.0, 30.0, 135.0):
        turned = [v2.functional.rotate(tv_tensors.Mask(p), angle) for p in (here, there)]
        a, b = (p[0].nonzero().float().mean(dim=0) for p in turned)
        vector = v2.functional.rotate(Flow(flow), angle)[:2, 40, 40].float() - 128
        assert (b - a - vector.flip(0)).abs().max() <= 1.5, angle


def test_stretch_is_independent() -> None:
    stretch = RandomScale((40, 60), (1.0, 2.0), independent=True, p=0.5)
    sizes = set()
    for seed in range(60):
        torch.manual_seed(seed)
        sizes.add(tuple(stretch(tv_tensors.Image(torch.zeros(3, 20, 20, dtype=torch.uint8))).shape[-2:]))
    assert (40, 60) in sizes  # half of the time
    assert 20 < len(sizes) < 45
    assert all(40 <= height <= 80 and 60 <= width <= 120 for height, width in sizes)
    assert max(abs(height / 40 - width / 60) for height, width in sizes) > 0.3


def test_scale_one_is_the_size_of_evaluation() -> None:
    """Landscape or upright, the images at scale 1 are as `predict` resizes them."""
    for size in ((90, 120), (120, 90), (60, 180)):
        for keep in (False, True):
            image = torch.zeros(3, *size, dtype=torch.uint8)
            scaled = RandomScale((48, 64), (1.0, 1.0), keep_aspect=keep)(tv_tensors.Image(image))
            assert scaled.shape == to_input(image, Preprocess(size=(48, 64), keep_aspect=keep))[0].shape


def test_a_sample_follows_from_its_key() -> None:
    image, labels = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8), torch.zeros(40, 40, dtype=torch.uint8)
    data = Augmented(
        [(image, labels)] * 3,
        AUGMENTATIONS["modern"]((40, 40), (32, 32)),
        {"segmentation": Task("segmentation", 2)},
        seed=1,
    )
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = data[1][0][0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(first, data[1][0][0])
    assert not torch.equal(first, data[1 + 3][0][0])  # the same picture, an epoch later
    assert data[4][2] == 1


@pytest.mark.parametrize("kind", ["modern", "original"])
def test_mirror_images_can_be_left_out(kind: str) -> None:
    transform = AUGMENTATIONS[kind](SIZE, SIZE, (1.0, 1.0), rotation=0.0, mirror=0.0, jitter=0)
    for _ in range(8):
        _, targets = transform(*sample())
        assert torch.equal(targets["semantic"], sample()[1]["semantic"])


class Drawing(Dataset[Any]):
    """A user's dataset with an augmentation of its own, by the random numbers of three libraries."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        values = torch.stack([torch.rand(()), torch.tensor(np.random.rand()), torch.tensor(random.random())])
        return (values * 255).byte()[:, None, None].expand(3, 8, 8), torch.zeros(8, 8, dtype=torch.uint8)


def test_random_numbers_of_a_dataset_follow_from_the_key() -> None:
    data = Augmented(Drawing(), v2.Identity(), {"segmentation": Task("segmentation", 2)}, seed=3)
    first = data[4][0][0]
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    assert torch.equal(data[4][0][0], first)
    assert not (data[6][0][0] == first).any()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (str(np.random.get_state()), random.getstate()) == before[1:]


def test_random_numbers_of_a_dataset_in_memory_follow_from_the_seed() -> None:
    torch.manual_seed(1)
    first = Augmented(Drawing(), v2.Identity(), {"segmentation": Task("segmentation", 2)}, seed=3, cache=True)
    torch.manual_seed(2)
    second = Augmented(Drawing(), v2.Identity(), {"segmentation": Task("segmentation", 2)}, seed=3, cache=True)
    assert torch.equal(first[0][0][0], second[0][0][0])


class Mixed(Dataset[Any]):
    """A user's dataset that mixes samples of others."""

    def __init__(self, datasets: list[Any]) -> None:
        self.datasets = datasets

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return self.datasets[0][index]


class Part(Subset[Any]):
    """As after a random split, with an augmentation."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


def test_what_never_changes() -> None:
    """Only that may be kept in memory unasked."""
    streets = Streets(size=(16, 16), length=4)
    fixed = [streets, [streets[0]], Subset(streets, [0]), ConcatDataset([streets, Subset(streets, [1])])]
    assert all(map(is_fixed, fixed))
    assert not any(map(is_fixed, (Mixed([streets]), Part(streets, [0]), ConcatDataset([streets, Drawing()]))))


@pytest.mark.parametrize("scale", [0.4, 0.75, 1.0, 1.7])
def test_edges_of_labels_stay_at_those_of_images(scale: float) -> None:
    """The centre of a disc, in pixels."""
    y, x = torch.meshgrid(torch.arange(120), torch.arange(160), indexing="ij")
    disc = ((y - 60) ** 2 + (x - 75) ** 2 < 40**2).to(torch.uint8)

    def centre(values: torch.Tensor) -> torch.Tensor:
        weights = values.double() / values.double().sum()
        return torch.stack([(weights.sum(1 - axis) * torch.arange(values.shape[axis])).sum() for axis in (0, 1)])

    moved = {}
    for corners in (False, True):
        transform = RandomScale((120, 160), (scale, scale), corners=corners)
        image = tv_tensors.Image(disc.expand(3, -1, -1) * 255)
        (image,), labels = transform((image,), {"labels": tv_tensors.Mask(disc), "depth": Depth(disc[None].float())})
        assert torch.equal(labels["labels"], labels["depth"][0])
        assert isinstance(labels["depth"], Depth)
        moved[corners] = float((centre(labels["labels"]) - centre(image[0])).abs().max())
    assert moved[False] < 0.25
    assert moved[True] > moved[False] + 0.1 or scale == 1
