"""Optical flow in the format of TI's zoo, so that it can be an input beside the photo. Needs no torch.

The format is uint8 [H, W, 3]: motion in x and y, in pixels of this picture plus 128, and the confidence or 128.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

ZERO = 128  # the value of no motion

Matrix = tuple[tuple[float, float], tuple[float, float]]


def encode_flow(x: np.ndarray, y: np.ndarray, confidence: np.ndarray | None = None) -> np.ndarray:
    """Encodes motion in pixels as uint8 [H, W, 3]; it saturates beyond -128 to 127.

    Args:
        x: Motion to the right [H, W], in pixels.
        y: Motion downwards [H, W], in pixels.
        confidence: Confidence [H, W] of 0 to 1, stored as 0 to 255; without it the third channel is 128.
    """
    third = np.full(x.shape, ZERO, np.uint8) if confidence is None else (255 * confidence).round().astype(np.uint8)
    motion = [(values + ZERO).round().clip(0, 255).astype(np.uint8) for values in (x, y)]
    return np.stack([*motion, third], axis=-1)


def resize_flow(flow: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resizes flow to a height and width by nearest neighbour; motion in pixels is scaled with the picture."""
    height, width = flow.shape[:2]
    if (height, width) == tuple(size):
        return flow
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, (height, width), strict=True))
    return turn_flow(flow[rows[:, None], columns], ((size[1] / width, 0.0), (0.0, size[0] / height)))


def mirror_flow(flow: np.ndarray) -> np.ndarray:
    """Mirrors flow, so that left and right change places, and the motion in x its sign."""
    return turn_flow(flow[:, ::-1], ((-1.0, 0.0), (0.0, 1.0)))


def turn_flow(flow: np.ndarray, matrix: Matrix) -> np.ndarray:
    """Multiplies the vectors of flow by a 2x2 matrix; the result is rounded, and saturates at the limits of uint8."""
    turned = flow.copy()
    vectors = (flow[..., :2].astype(np.float32) - ZERO) @ np.array(matrix, np.float32).T + ZERO
    turned[..., :2] = vectors.round().clip(0, 255)
    return turned


def require_opencv() -> Any:
    """Imports OpenCV; raises an ImportError that says how to install it."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError("computing optical flow needs OpenCV: pip install 'edgeseg[flow]'") from error
    return cv2


def farneback_flow(previous: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Computes how far each pixel of `current` moved since `previous`, and the confidence of that.

    The method is Farneback's (2003, https://doi.org/10.1007/3-540-45103-X_50) in OpenCV: `pip install 'edgeseg[flow]'`.
    The confidence is 1 where the flow back and forth ends at the same pixel, and 1/2 where it misses by one pixel.

    Args:
        previous: The previous frame, uint8 RGB [H, W, 3].
        current: The frame after it, of the same size.

    Returns:
        uint8 [H, W, 3], see `encode_flow`.

    Raises:
        ImportError: OpenCV is not installed.
        ValueError: the frames have different sizes.
    """
    cv2 = require_opencv()
    if previous.shape != current.shape:
        raise ValueError(f"both frames need one size, got previous {previous.shape[:2]}, current {current.shape[:2]}")
    before, now = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (previous, current))
    options: dict[str, Any] = {
        "pyr_scale": 0.5, "levels": 5, "winsize": 15, "iterations": 3, "poly_n": 5, "poly_sigma": 1.2, "flags": 0,
        "flow": None,
    }  # fmt: skip
    backward = cv2.calcOpticalFlowFarneback(now, before, **options)
    forward = cv2.calcOpticalFlowFarneback(before, now, **options)
    rows, columns = np.indices(now.shape, dtype=np.float32)
    there = cv2.remap(forward, columns + backward[..., 0], rows + backward[..., 1], cv2.INTER_LINEAR, borderValue=1e3)
    gap = np.linalg.norm(backward + there, axis=-1)
    return encode_flow(-backward[..., 0], -backward[..., 1], 1 / (1 + gap))
