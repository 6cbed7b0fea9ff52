"""Streets: synthetic driving scenes, rendered by ray casting, with exact labels, depth, motion and optical flow.

A sequence is a road between sidewalks, grass, houses and trees, with poles, signs, cars and people, drawn anew for each
seed; the camera drives along it. Everything is made of flat pieces, so each pixel is one ray meeting one plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from edgeseg.data.base import simplified
from edgeseg.data.streets.world import CLASSES, ELLIPSE, TRIANGLE, Array, Pieces, World, build_world
from edgeseg.labels import DEPTH, IGNORE, MOTION, segmentation_task
from edgeseg.spec import Input, Task
from edgeseg.vision.flow import encode_flow
from edgeseg.vision.tensors import Depth, Flow

FRAMES = 4  # of a sequence
SECONDS = 0.1  # between frames
NEAR, FAR = 0.4, 128.0  # metres
# Cityscapes' train id -> CamVid's class; classes that CamVid lacks are ignored.
TO_CAMVID = {
    "road": 3, "sidewalk": 4, "building": 1, "fence": 7, "pole": 2, "traffic light": 6, "traffic sign": 6,
    "vegetation": 5, "terrain": 4, "sky": 0, "person": 9, "rider": 10, "car": 8, "bicycle": 10,
}  # fmt: skip
SPLITS = {"train": 0, "val": 1, "test": 2}


@dataclass
class Frame:
    """What was rendered: uint8 RGB [H,W,3], train ids uint8 [H,W], metres [H,W] (0: sky), moving [H,W], flow [H,W,2].

    The flow says, for each pixel, how far in x and y its point moves until the next frame.
    """

    image: Array
    labels: Array
    depth: Array
    motion: Array
    flow: Array


class Streets(Dataset[Any]):
    """Synthetic street scenes with everything known: a sample is images and targets, as in `LabelledImages`.

    Args:
        split: "train", "val" or "test": scenes that no other split has.
        size: Height and width.
        seed: Seed of the scenes; another seed gives another town.
        length: Number of samples; four in a row are one sequence.
        inputs: One or both of "flow" (uint8 [3, H, W]: the motion of each pixel until the next frame in pixels + 128,
            and 128 in the third channel; `edgeseg flow` computes the motion since the previous frame) and "image"
            (uint8 [3, H, W], RGB).
        targets: Any of "semantic" (uint8 [H, W]), "depth" (float32 [1, H, W] in metres, 0 for the sky) and "motion"
            (uint8 [H, W], 1 for what moves).
        labels: "cityscapes" (19 train ids) or "camvid" (11 classes).

    Raises:
        ValueError: an unknown split, input, target or kind of labels, or a length below 1.

    Example:
        >>> from edgeseg.data import Streets
        >>> streets = Streets(size=(96, 128), inputs=("flow", "image"), targets=("semantic", "depth"))
        >>> images, targets = streets[0]
        >>> [tuple(image.shape) for image in images]
        [(3, 96, 128), (3, 96, 128)]
        >>> {name: tuple(target.shape) for name, target in targets.items()}
        {'semantic': (96, 128), 'depth': (1, 96, 128)}
    """

    def __init__(
        self,
        split: str = "train",
        size: tuple[int, int] = (360, 480),
        seed: int = 0,
        length: int = 400,
        *,
        inputs: tuple[str, ...] = ("image",),
        targets: tuple[str, ...] = ("semantic",),
        labels: str = "cityscapes",
    ) -> None:
        for what, given, known in (
            ("split", (split,), SPLITS), ("input", inputs, ("flow", "image")),
            ("labels", (labels,), ("cityscapes", "camvid")), ("target", targets, ("semantic", "depth", "motion")),
        ):  # fmt: skip
            unknown = [each for each in given if each not in known]
            if unknown:
                raise ValueError(f"Streets has no {what} {', '.join(unknown)}; there are {', '.join(known)}")
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.split, self.size, self.seed, self.length = split, size, seed, length
        self.inputs = {name: Input(3, "flow" if name == "flow" else "image") for name in inputs}
        self.targets, self.labels = targets, labels
        known_tasks = {"semantic": segmentation_task(labels), "depth": DEPTH, "motion": MOTION}
        self.tasks = {name: known_tasks[name] for name in targets}

    @property
    def task(self) -> Task:
        """The first task."""
        return next(iter(self.tasks.values()))

    def name(self, index: int) -> str:
        """The name of a sample."""
        return f"streets {self.split} seed {self.seed} sequence {index // FRAMES} frame {index % FRAMES}"

    def __len__(self) -> int:
        return self.length

    def frame(self, index: int) -> Frame:
        """Everything that is rendered for a sample."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        sequence, number = divmod(index, FRAMES)
        world = build_world(np.random.default_rng([self.seed, SPLITS[self.split], sequence]))
        return render(world, number * SECONDS, self.size, np.random.default_rng([self.seed, index]))

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        images, targets = self.sample(index)
        return simplified(tuple(images.values()), targets)

    def sample(self, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs and targets by name."""
        frame = self.frame(index)
        flow = encode_flow(frame.flow[..., 0], frame.flow[..., 1]).transpose(2, 0, 1).copy()
        labels = _CAMVID[frame.labels] if self.labels == "camvid" else frame.labels
        images = {
            "flow": Flow(torch.from_numpy(flow)),
            "image": tv_tensors.Image(frame.image.transpose(2, 0, 1).copy()),
        }
        targets = {
            "semantic": tv_tensors.Mask(torch.from_numpy(labels)),
            "depth": Depth(torch.from_numpy(frame.depth)[None]),
            "motion": tv_tensors.Mask(torch.from_numpy(frame.motion.astype(np.uint8))),
        }
        return {name: images[name] for name in self.inputs}, {name: targets[name] for name in self.targets}


def render(world: World, time: float, size: tuple[int, int], rng: np.random.Generator) -> Frame:
    """One frame at a time in seconds; `rng` draws the sensor's noise."""
    camera = Camera(*world.camera(time), size)
    pieces = world.pieces
    velocity = np.array(pieces.velocity).reshape(-1, 3)
    depth, hit, s, t = _ground(camera)
    _draw(pieces, np.array(pieces.corner) + velocity * time, camera, depth, hit, s, t)

    ground, sky, piece = hit == -2, hit == -1, np.maximum(hit, 0)
    labels = np.array(pieces.label, np.uint8)[piece]
    color = np.array([np.asarray(c, np.float32) for c in pieces.color], np.float32)[piece]
    rough = np.array(pieces.rough, np.float32)[piece]
    labels[ground], color[ground], rough[ground] = _paint_ground(world, s[ground], t[ground])
    labels[sky] = CLASSES["sky"]
    # Texture sticks to the surface and fades with distance, where it would only flicker.
    texture = np.zeros_like(depth)
    texture[~sky] = _noise(s[~sky], t[~sky]) * np.minimum(1, 9 / np.maximum(depth[~sky], 1))
    clear = np.exp(np.float32(-world.haze) * np.minimum(depth, np.float32(1e4)))
    color *= ((1 + rough * texture) * clear)[..., None]
    color *= world.light.astype(np.float32)
    color += world.sky.astype(np.float32) * (1 - clear)[..., None]
    color += (rng.standard_normal(depth.shape, dtype=np.float32) * np.float32(world.noise))[..., None]
    image = color.clip(0, 255).astype(np.uint8)

    moves = np.any(velocity != 0, axis=1)[piece] & (hit >= 0)
    shift = np.where(moves[..., None], velocity.astype(np.float32)[piece] * np.float32(SECONDS), np.float32(0))
    flow = camera.flow_to(Camera(*world.camera(time + SECONDS), size), depth, shift)
    metres = np.where(sky | (depth > FAR), np.float32(0), depth)
    return Frame(image, labels, metres, moves, flow)


class Camera:
    """A pinhole camera. Its rays are forward plus `x` times right plus `y` times up; their factor is the depth."""

    def __init__(self, position: Array, axes: Array, size: tuple[int, int]) -> None:
        self.position, self.axes, (self.height, self.width) = position, axes, size
        self.focal = 0.9 * self.width
        self.x = ((np.arange(self.width) - (self.width - 1) / 2) / self.focal).astype(np.float32)
        self.y = (((self.height - 1) / 2 - np.arange(self.height)) / self.focal).astype(np.float32)[:, None]

    def project(self, along: Array) -> Array:
        """Points in camera coordinates [...,3] -> column and row [...,2]."""
        column = along[..., 0] / along[..., 2] * self.focal + (self.width - 1) / 2
        row = (self.height - 1) / 2 - along[..., 1] / along[..., 2] * self.focal
        return np.stack([column, row], axis=-1)

    def along(self, vector: Array, rows: slice, columns: slice) -> Array:
        """Dot product of the rays of a rectangle with a vector of the world."""
        right, up, forward = (self.axes @ vector).astype(np.float32)
        return (forward + self.y[rows] * up) + self.x[columns] * right

    def flow_to(self, other: Camera, depth: Array, shift: Array) -> Array:
        """How far each pixel's point moves in the picture, when it moves by `shift` and the camera becomes `other`."""
        turn = (other.axes @ self.axes.T).astype(np.float32)
        step = (other.axes @ (self.position - other.position)).astype(np.float32)
        x, y, z = (
            depth * (turn[i, 2] + self.y * turn[i, 1] + self.x * turn[i, 0])
            + (shift @ other.axes[i].astype(np.float32) + step[i])
            for i in range(3)
        )
        z = np.maximum(z, np.float32(1e-3))
        flow = np.stack([x / z - self.x, self.y - y / z], axis=-1)
        return flow * np.float32(self.focal)


def _ground(camera: Camera) -> tuple[Array, Array, Array, Array]:
    """Depth, what was hit (-2 the ground, -1 nothing), and the place on it, for the empty world."""
    everywhere = slice(None), slice(None)
    down = camera.along(np.array([0.0, 1.0, 0.0]), *everywhere)
    depth = np.where(
        down < -1e-4, np.float32(-camera.position[1]) / np.minimum(down, np.float32(-1e-4)), np.float32(1e6)
    )
    hit = np.where(depth < 400, -2, -1).astype(np.int32)
    depth[hit == -1] = 1e6
    s = np.float32(camera.position[0]) + depth * camera.along(np.array([1.0, 0.0, 0.0]), *everywhere)
    t = np.float32(camera.position[2]) + depth * camera.along(np.array([0.0, 0.0, 1.0]), *everywhere)
    return depth, hit, s, t


def _draw(pieces: Pieces, corners: Array, camera: Camera, depth: Array, hit: Array, s: Array, t: Array) -> None:
    """Casts the rays of each piece's bounding box against its plane, and keeps those that meet it first."""
    across, up = np.array(pieces.across, float), np.array(pieces.up, float)
    origin = corners - camera.position
    seen = np.stack([origin, origin + across, origin + up, origin + across + up], axis=1) @ camera.axes.T
    nearest, farthest = seen[..., 2].min(axis=1), seen[..., 2].max(axis=1)
    places = camera.project(np.where(seen[..., 2:] > NEAR, seen, [0, 0, NEAR]))
    lowest, highest = places.min(axis=1), places.max(axis=1) + 2
    # A piece that reaches behind the camera may be anywhere.
    lowest[nearest <= NEAR], highest[nearest <= NEAR] = 0, (camera.width, camera.height)
    limits = [camera.width, camera.height]
    low, high = (np.clip(edge, 0, limits).astype(int) for edge in (lowest, highest))
    visible = (farthest > NEAR) & (low < high).all(axis=1)
    normals = np.cross(across, up)
    for index in sorted(np.flatnonzero(visible), key=nearest.__getitem__):
        box = slice(low[index, 1], high[index, 1]), slice(low[index, 0], high[index, 0])
        before = depth[box]
        if nearest[index] > before.max():
            continue
        normal, a_axis, b_axis = normals[index], across[index], up[index]
        a_axis, b_axis = a_axis / (a_axis @ a_axis), b_axis / (b_axis @ b_axis)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.float32(normal @ origin[index]) / camera.along(normal, *box)
            a = distance * camera.along(a_axis, *box) - np.float32(a_axis @ origin[index])
            b = distance * camera.along(b_axis, *box) - np.float32(b_axis @ origin[index])
        a_off, b_off = np.abs(a - np.float32(0.5)), np.abs(b - np.float32(0.5))
        shape = pieces.shape[index]
        if shape == ELLIPSE:
            inside = a_off**2 + b_off**2 < 0.25
        else:
            inside = (a_off <= (0.5 * (1 - b) if shape == TRIANGLE else 0.5)) & (b_off <= 0.5)
        inside &= (distance > NEAR) & (distance < before)
        before[inside] = distance[inside]
        hit[box][inside] = index
        s[box][inside] = a[inside] * np.float32(np.linalg.norm(across[index])) + np.float32(7.3 * index)
        t[box][inside] = b[inside] * np.float32(np.linalg.norm(up[index]))


def _paint_ground(world: World, x: Array, z: Array) -> tuple[Array, Array, Array]:
    """Class, colour and roughness of places on the ground: road with its markings, sidewalk, grass."""
    side = np.abs(x)
    cross = np.abs(z - world.crossing) < 3.5
    road = (side < world.road) | cross
    walk = ~road & (side < world.road + world.walk)
    labels = np.where(road, CLASSES["road"], np.where(walk, CLASSES["sidewalk"], CLASSES["terrain"]))
    middle = (side < 0.08) & (np.floor(z / 3) % 2 == 0)
    edge = np.abs(side - world.road + 0.25) < 0.06
    zebra = (np.abs(z - world.crossing + 5.5) < 1.2) & (np.floor(x / 0.5) % 2 == 0)
    marking = road & ~cross & (side < world.road) & (middle | edge | zebra)
    slabs = np.where((np.floor(x / 0.5) + np.floor(z / 0.5)) % 2 == 0, 0.94, 1.0)
    grey = np.where(marking, 205, np.where(road, 88, 140 * slabs))
    color = np.where(labels[:, None] == CLASSES["terrain"], (86, 108, 62), grey[:, None] * np.array([1.0, 0.99, 0.97]))
    rough = np.where(labels == CLASSES["terrain"], 0.7, np.where(marking, 0.15, 0.3))
    return labels.astype(np.uint8), color.astype(np.float32), rough.astype(np.float32)


_TABLE = np.random.default_rng(1).uniform(-1, 1, (256, 256)).astype(np.float32)
_CAMVID = np.full(256, IGNORE, np.uint8)
_CAMVID[[CLASSES[name] for name in TO_CAMVID]] = list(TO_CAMVID.values())


def _noise(s: Array, t: Array) -> Array:
    """Smooth noise of -1 to 1 over places in metres: two octaves of a table, interpolated."""
    total = np.zeros_like(s)
    for scale, weight in ((2.0, 0.6), (7.0, 0.4)):
        x, y = s * np.float32(scale), t * np.float32(scale)
        x0, y0 = np.floor(x), np.floor(y)
        fx, fy = x - x0, y - y0
        column, row = x0.astype(np.int32) & 255, y0.astype(np.int32) & 255
        beside, below = (column + 1) & 255, (row + 1) & 255
        upper = _TABLE[row, column] * (1 - fx) + _TABLE[row, beside] * fx
        lower = _TABLE[below, column] * (1 - fx) + _TABLE[below, beside] * fx
        total += np.float32(weight) * (upper * (1 - fy) + lower * fy)
    return total
