"""The world of `edgeseg.data.streets.dataset`: what stands and drives there, drawn from a random generator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeseg.labels import CITYSCAPES

Array = np.ndarray

CLASSES = {name: index for index, name in enumerate(CITYSCAPES)}
RECTANGLE, ELLIPSE, TRIANGLE = range(3)


@dataclass
class Pieces:
    """Flat pieces of the world, as columns: corner, two edges, shape, class, colour, texture, velocity.

    The world: x to the right of the road's middle, y up, z along the road, in metres.
    """

    corner: list[Any] = field(default_factory=list)
    across: list[Any] = field(default_factory=list)
    up: list[Any] = field(default_factory=list)
    shape: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    color: list[Any] = field(default_factory=list)
    rough: list[float] = field(default_factory=list)
    velocity: list[Any] = field(default_factory=list)

    def add(
        self, corner: Any, across: Any, up: Any, label: str, color: Any, *,
        shape: int = RECTANGLE, rough: float = 0.3, velocity: Any = (0.0, 0.0, 0.0),
    ) -> None:  # fmt: skip
        """One piece."""
        row: tuple[tuple[list[Any], Any], ...] = (
            (self.corner, corner), (self.across, across), (self.up, up), (self.shape, shape),
            (self.label, CLASSES[label]), (self.color, color), (self.rough, rough), (self.velocity, velocity),
        )  # fmt: skip
        for column, value in row:
            column.append(value)

    def box(
        self, x: float, y: float, z: float, size: Any, label: str, color: Any, *,
        rough: float = 0.3, velocity: Any = (0.0, 0.0, 0.0), top: bool = False,
    ) -> None:  # fmt: skip
        """The faces of a box that a camera on the road can see: towards it, both sides, and the top."""
        width, height, length = size
        shades = np.asarray(color, np.float32)
        options: dict[str, Any] = {"rough": rough, "velocity": velocity}
        self.add((x, y, z), (width, 0, 0), (0, height, 0), label, shades, **options)
        self.add((x, y, z), (0, 0, length), (0, height, 0), label, shades * 0.8, **options)
        self.add((x + width, y, z), (0, 0, length), (0, height, 0), label, shades * 0.7, **options)
        self.add((x, y, z + length), (width, 0, 0), (0, height, 0), label, shades * 0.6, **options)
        if top:
            self.add((x, y + height, z), (width, 0, 0), (0, 0, length), label, shades * 1.15, **options)


@dataclass
class World:
    """One sequence: what stands and drives there, the light, and where the camera is at a time."""

    pieces: Pieces
    road: float  # half width
    walk: float  # width of a sidewalk
    crossing: float  # z of a road that crosses
    light: Array
    sky: Array
    haze: float
    noise: float
    speed: float
    sway: Array

    def camera(self, time: float) -> tuple[Array, Array]:
        """Position [3], and the axes right, up and forward as rows [3,3]."""
        sway, phase, yaw, pitch, height, x = self.sway
        angle = yaw * np.sin(0.7 * time + phase)
        tilt = pitch + 0.006 * np.sin(2.1 * time + phase)
        position = np.array([x + sway * np.sin(0.5 * time + phase), height, self.speed * time])
        forward = np.array([np.sin(angle) * np.cos(tilt), np.sin(tilt), np.cos(angle) * np.cos(tilt)])
        right = np.array([np.cos(angle), 0.0, -np.sin(angle)])
        return position, np.stack([right, np.cross(forward, right), forward])


def build_world(rng: np.random.Generator) -> World:
    """A street and what is on it."""
    pieces = Pieces()
    road, walk = rng.uniform(3.2, 6.5), rng.uniform(1.5, 3.5)
    crossing = rng.uniform(12, 90)
    for side in (-1, 1):
        _houses(pieces, rng, side, road + walk + rng.uniform(0.3, 4.0), crossing)
        _furniture(pieces, rng, side, road, walk, crossing)
    _cars(pieces, rng, road)
    _people(pieces, rng, road, walk)
    speed = rng.choice([0.0, rng.uniform(2, 14)], p=[0.1, 0.9])
    sway = [
        rng.uniform(0, 0.3),
        rng.uniform(0, 6),
        rng.uniform(0, 0.06),
        rng.uniform(-0.06, 0.0),
        rng.uniform(1.2, 1.9),
    ]
    brightness, warmth = rng.uniform(0.45, 1.15), rng.uniform(-0.08, 0.08)
    light = brightness * np.array([1 + warmth, 1.0, 1 - warmth])
    sky = light * (np.array([150, 190, 235]) if rng.random() < 0.6 else np.array([190, 195, 200]))
    return World(
        pieces, road, walk, crossing, light, sky, rng.uniform(0.002, 0.012), rng.uniform(1, 6), float(speed),
        np.array([*sway, rng.uniform(0.2, 0.6) * road * rng.choice([0.6, 1.0])]),
    )  # fmt: skip


def _houses(pieces: Pieces, rng: np.random.Generator, side: int, distance: float, crossing: float) -> None:
    z = -12.0
    while z < 120:
        length, height, depth = rng.uniform(6, 20), rng.uniform(4, 18), rng.uniform(6, 12)
        clear = z + length < crossing - 4 or z > crossing + 4
        if clear and rng.random() < 0.8:
            x = side * distance - (depth if side < 0 else 0)
            color = rng.uniform(60, 215) * rng.uniform(0.8, 1.2, 3)
            pieces.box(x, 0, z, (depth, height, length), "building", color, rough=rng.uniform(0.3, 0.9))
        elif clear and rng.random() < 0.6:
            color = rng.uniform(70, 170) * np.array([1.1, 1.0, 0.9])
            pieces.box(side * distance, 0, z, (0.1, rng.uniform(0.9, 1.8), length), "fence", color, rough=0.8)
        z += length + rng.choice([0.0, rng.uniform(1, 8)])


def _furniture(pieces: Pieces, rng: np.random.Generator, side: int, road: float, walk: float, crossing: float) -> None:
    z = rng.uniform(0, 8)
    while z < 100:
        x = side * (road + rng.uniform(0.25, 0.6))
        kind = rng.choice(["pole", "tree", "sign", "light", "hedge"], p=[0.28, 0.34, 0.18, 0.08, 0.12])
        if abs(z - crossing) < 4:
            kind = "light"
        grey = rng.uniform(50, 150) * np.ones(3)
        if kind == "tree":
            x = side * (road + walk + rng.uniform(-0.8, 1.5))
            height, width = rng.uniform(3, 8), rng.uniform(2, 5)
            green = rng.uniform(40, 120) * np.array([0.75, 1.0, 0.45]) * rng.uniform(0.8, 1.2, 3)
            pieces.add((x - 0.15, 0, z), (0.3, 0, 0), (0, height, 0), "vegetation", (70, 55, 45), rough=0.8)
            for turn in range(3):
                shift = rng.uniform(-0.25, 0.25, 2) * width
                corner = (x - width / 2 + shift[0], height * 0.55 + shift[1], z - 0.2 * turn)
                pieces.add(corner, (width, 0, 0), (0, height * 0.6, 0), "vegetation", green, shape=ELLIPSE, rough=1.0)
        elif kind == "hedge":
            x, length = side * (road + walk), rng.uniform(2, 8)
            pieces.box(x, 0, z, (0.6, rng.uniform(0.6, 1.6), length), "vegetation", (60, 95, 45), rough=1.0, top=True)
        else:
            height = rng.uniform(2.2, 3.2) if kind == "sign" else rng.uniform(3.5, 8)
            width = rng.uniform(0.08, 0.22)
            pieces.add((x - width / 2, 0, z), (width, 0, 0), (0, height, 0), "pole", grey, rough=0.2)
            if kind == "sign":
                size, color = rng.uniform(0.5, 0.9), [(200, 40, 40), (40, 80, 190), (220, 190, 50)][rng.integers(3)]
                shape = int(rng.choice([RECTANGLE, ELLIPSE, TRIANGLE]))
                corner = (x - size / 2, height - size * 0.6, z - 0.03)
                pieces.add(corner, (size, 0, 0), (0, size, 0), "traffic sign", color, shape=shape, rough=0.2)
            elif kind == "light":
                corner = (x - 0.2, height - 1.1, z - 0.03)
                pieces.add(corner, (0.4, 0, 0), (0, 1.1, 0), "traffic light", (35, 35, 30), rough=0.3)
        z += rng.uniform(2.5, 11)


def _cars(pieces: Pieces, rng: np.random.Generator, road: float) -> None:
    """Some drive in two lanes, some are parked."""
    lanes = [(-0.5 * road, -1.0), (0.45 * road, 1.0)]
    places = [(x, rng.uniform(5, 90), way * rng.uniform(3, 14)) for x, way in lanes for _ in range(rng.integers(0, 4))]
    places += [
        (side * (road - 0.9), z, 0.0)
        for side in (-1, 1)
        for z in np.cumsum(rng.uniform(5, 22, 6))
        if rng.random() < 0.45
    ]
    for x, z, speed in places:
        color = rng.choice([20, 60, 110, 170, 225]) * np.ones(3) if rng.random() < 0.6 else rng.uniform(30, 210, 3)
        width, length = rng.uniform(1.6, 1.9), rng.uniform(3.6, 4.8)
        low, high = rng.uniform(0.65, 0.85), rng.uniform(0.5, 0.75)
        velocity = (0.0, 0.0, speed)
        left = x - width / 2
        pieces.box(left, 0.25, z, (width, low, length), "car", color, rough=0.1, velocity=velocity, top=True)
        cabin, front = (width * 0.86, high, length * 0.5), z + length * 0.22
        glass: dict[str, Any] = {"color": (45, 55, 65), "velocity": velocity, "rough": 0.1, "top": True}
        pieces.box(left + 0.07 * width, 0.25 + low, front, cabin, "car", **glass)
        for wheel in (0.12, 0.68):
            for dx in (-0.01, width + 0.01):
                corner = (left + dx, 0.0, z + wheel * length)
                pieces.add(corner, (0, 0, 0.65), (0, 0.65, 0), "car", (25, 25, 25), shape=ELLIPSE, velocity=velocity)
            tyre = (left + 0.1 + 1.1 * (wheel > 0.5), 0.0, z - 0.01)
            pieces.add(tyre, (0.25, 0, 0), (0, 0.4, 0), "car", (25, 25, 25), velocity=velocity)


def _people(pieces: Pieces, rng: np.random.Generator, road: float, walk: float) -> None:
    for _ in range(rng.integers(1, 9)):
        crossing_road = rng.random() < 0.2
        side = rng.choice([-1, 1])
        x = rng.uniform(-road, road) if crossing_road else side * (road + rng.uniform(0.4, walk))
        pace = 0.0 if rng.random() < 0.3 else rng.uniform(0.7, 1.8) * rng.choice([-1, 1])
        velocity = (pace, 0.0, 0.0) if crossing_road else (0.0, 0.0, pace)
        z, height, width = rng.uniform(4, 45), rng.uniform(1.3, 1.9), rng.uniform(0.4, 0.6)
        coat, legs = rng.uniform(20, 220, 3), rng.uniform(20, 120, 3)
        for dx in (0.05, 0.55):
            corner = (x - width / 2 + dx * width, 0, z)
            pieces.add(corner, (width * 0.38, 0, 0), (0, height * 0.5, 0), "person", legs, velocity=velocity)
        body = (x - width / 2, height * 0.42, z - 0.01)
        round_: dict[str, Any] = {"shape": ELLIPSE, "velocity": velocity}
        pieces.add(body, (width, 0, 0), (0, height * 0.46, 0), "person", coat, rough=0.4, **round_)
        head = (x - width * 0.25, height * 0.84, z - 0.02)
        pieces.add(head, (width * 0.5, 0, 0), (0, height * 0.18, 0), "person", (190, 150, 125), **round_)
