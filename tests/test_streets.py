"""The synthetic scenes: honest geometry, deterministic, varied."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from edgeseg.data import Streets
from edgeseg.data.streets.dataset import FAR, SECONDS, Frame, render
from edgeseg.data.streets.world import CLASSES, World, build_world
from edgeseg.labels import IGNORE
from edgeseg.vision.tensors import Depth, Flow

SIZE = (180, 240)


def world(number: int) -> World:
    """A world without the sensor's noise."""
    return replace(build_world(np.random.default_rng(number)), noise=0.0)


def at(place: World, time: float) -> Frame:
    return render(place, time, SIZE, np.random.default_rng(0))


def sampled(values: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`values` [H,W,C] of the next frame, fetched from where the flow says each pixel goes."""
    height, width = flow.shape[:2]
    x = np.arange(width) + flow[..., 0]
    y = np.arange(height)[:, None] + flow[..., 1]
    grid = torch.from_numpy(np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], axis=-1)).float()[None]
    source = torch.from_numpy(np.ascontiguousarray(values)).float().permute(2, 0, 1)[None]
    return F.grid_sample(source, grid, align_corners=False, padding_mode="zeros")[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("number", range(6))
def test_the_next_frame_warped_by_the_flow_is_this_one(number: int) -> None:
    place = world(number)
    here, then = at(place, 0.3), at(place, 0.3 + SECONDS)
    # Visible in both: on the picture, and of the same class in all of the neighbourhood that is sampled.
    same = [
        np.abs(sampled((then.labels == c)[..., None], here.flow)[..., 0] - (here.labels == c))
        for c in np.unique(here.labels)
    ]
    visible = (np.max(same, axis=0) < 0.02) & (here.depth > 0)
    assert visible.mean() > 0.35
    error = np.abs(sampled(then.image, here.flow) - here.image).mean(axis=-1)[visible]
    unmoved = np.abs(then.image.astype(float) - here.image).mean(axis=-1)[visible]
    assert np.median(error) < 2.0
    assert np.percentile(error, 90) < 8.0
    assert place.speed == 0 or error.mean() < 0.6 * unmoved.mean()


@pytest.mark.parametrize("number", range(4))
def test_flow_of_static_points_follows_from_depth_and_camera(number: int) -> None:
    """Back-project by depth, move to the next camera, project: written here with 4x4 matrices."""
    place = world(number)
    frame = at(place, 0.3)
    height, width = SIZE
    focal = 0.9 * width
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, -focal, (height - 1) / 2], [0, 0, 1]])

    def extrinsics(time: float) -> np.ndarray:
        position, axes = place.camera(time)
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = axes, -axes @ position
        return matrix

    motion = extrinsics(0.3 + SECONDS) @ np.linalg.inv(extrinsics(0.3))
    rows, columns = np.indices(SIZE)
    rays = np.stack([columns, rows, np.ones(SIZE)], axis=-1) @ np.linalg.inv(intrinsics).T
    points = np.concatenate([rays * frame.depth[..., None], np.ones((*SIZE, 1))], axis=-1) @ motion.T
    projected = points[..., :3] @ intrinsics.T
    expected = projected[..., :2] / projected[..., 2:] - np.stack([columns, rows], axis=-1)
    static = (frame.depth > 0) & ~frame.motion & (projected[..., 2] > 0.5)
    assert np.abs(expected - frame.flow)[static].max() < 0.02
    if frame.motion.sum() > 50:
        assert np.abs(expected - frame.flow)[frame.motion].max() > 0.05


def test_depth_is_that_of_the_ground() -> None:
    """Where the road is seen, depth follows from the camera's height and the row alone, when it looks level."""
    place = world(1)
    place.sway[:5] = 0, 0, 0, 0, 1.5
    frame = at(place, 0.0)
    rows, columns = np.nonzero((frame.labels == CLASSES["road"]) & (frame.depth > 0))
    below = rows - (SIZE[0] - 1) / 2
    np.testing.assert_allclose(frame.depth[rows, columns], 1.5 * 0.9 * SIZE[1] / below, rtol=1e-4)


def test_what_moves_is_marked() -> None:
    frames = [Streets("train", SIZE, length=80).frame(i) for i in range(0, 80, 4)]
    moving = np.concatenate([frame.labels[frame.motion] for frame in frames])
    assert set(np.unique(moving)) <= {CLASSES["car"], CLASSES["person"]}
    parked = np.concatenate([frame.labels[~frame.motion] for frame in frames])
    assert CLASSES["car"] in parked
    assert CLASSES["person"] in parked


def test_same_seed_same_scene() -> None:
    first, again = Streets("train", SIZE, seed=3).frame(6), Streets("train", SIZE, seed=3).frame(6)
    assert all(np.array_equal(vars(first)[name], vars(again)[name]) for name in vars(first))
    others = [
        Streets("val", SIZE, seed=3).frame(6),
        Streets("train", SIZE, seed=4).frame(6),
        Streets("train", SIZE, seed=3).frame(2),
    ]
    assert all((other.labels != first.labels).mean() > 0.02 for other in others)
    sequence = [Streets("train", SIZE, seed=3).frame(i) for i in (4, 5)]
    assert (sequence[0].labels == sequence[1].labels).mean() > 0.8


def test_variety() -> None:
    frames = [Streets("train", SIZE, length=400).frame(i) for i in range(0, 160, 4)]
    seen = np.unique(np.concatenate([frame.labels.ravel() for frame in frames]))
    assert len(seen) == 12
    brightness = [frame.image.mean() for frame in frames]
    assert max(brightness) > 1.8 * min(brightness)
    assert all(frame.depth.min() >= 0 and frame.depth.max() <= FAR for frame in frames)
    assert all((frame.depth[frame.labels == CLASSES["sky"]] == 0).all() for frame in frames)


def test_samples() -> None:
    data = Streets("val", (64, 96), length=5, inputs=("flow", "image"), targets=("semantic", "depth", "motion"))
    (flow, image), targets = data[2]
    assert isinstance(flow, Flow)
    assert (image.shape, image.dtype) == ((3, 64, 96), torch.uint8)
    assert isinstance(targets["depth"], Depth)
    assert list(targets) == list(data.tasks) == ["semantic", "depth", "motion"]
    exact = data.frame(2).flow
    assert np.abs(flow[0].numpy() - 128.0 - exact[..., 0])[np.abs(exact[..., 0]) < 100].max() <= 0.51
    image, labels = Streets("val", (64, 96), labels="camvid")[0]
    assert image.shape == (3, 64, 96)
    assert set(labels.unique().tolist()) <= {*range(11), IGNORE}
    assert len(data) == 5
    with pytest.raises(IndexError):
        data[5]
    with pytest.raises(ValueError, match="Streets has no target flow; there are semantic, depth, motion"):
        Streets(targets=("flow",))
