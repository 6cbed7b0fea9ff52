"""Segments videos frame by frame. Needs PyAV: `pip install edgeseg[video]`."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from edgeseg.machine.files import replacing
from edgeseg.predict.predictor import Predictor
from edgeseg.tasks import kind_of
from edgeseg.vision.flow import farneback_flow
from edgeseg.vision.images import read_photo


def segment_video(model: Predictor, source: Path, target: Path, task: str | None = None) -> int:
    """Writes an MPEG-4 video of the same size and rate, every frame of which is tinted by its classes.

    For a network that takes "flow" and "image", the optical flow between successive frames is computed.

    Args:
        model: A network, or an exported file.
        source: The video to read.
        target: The video to write.
        task: Name of a segmentation task; by default the first.

    Returns:
        The number of frames.

    Raises:
        ImportError: PyAV is not installed, or OpenCV is not and flow is needed.
        OSError: `source` is missing, damaged or not a video; names the file.
        ValueError: the network takes other inputs, or does not have a segmentation task.
    """
    task = task or next((name for name, each in model.tasks.items() if kind_of(each).has_classes), None)
    if task is None:
        raise ValueError("videos are tinted by classes, and this network does not have a segmentation task")
    kinds = [each.kind for each in model.inputs.values()]
    if kinds not in (["image"], ["flow", "image"]):
        raise ValueError(f"a video does not have {' and '.join(model.inputs)}; predict its frames as images")
    try:
        import av
    except ImportError as error:
        raise ImportError("videos need PyAV: pip install edgeseg[video]") from error
    try:
        with av.open(os.fspath(source)) as reader:
            if not reader.streams.video:
                raise OSError("it has no pictures")
            return _segment(model, reader, target, task)
    except FileNotFoundError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        raise OSError(f"cannot segment {source}: {error}") from error


def _segment(model: Predictor, reader: Any, target: Path, task: str) -> int:
    """Segments the frames of an open video; returns their number."""
    import av

    count = 0
    stream = reader.streams.video[0]
    with replacing(target) as temporary, av.open(os.fspath(temporary), "w", format="mp4") as writer:
        encoded = writer.add_stream("mpeg4", rate=Fraction(stream.average_rate or 25))
        # The encoder's chroma has half of the height and width.
        encoded.width, encoded.height, encoded.pix_fmt = stream.width // 2 * 2, stream.height // 2 * 2, "yuv420p"
        encoded.bit_rate = 8_000_000
        previous: np.ndarray | None = None
        for frame in tqdm(reader.decode(stream), total=stream.frames or None, unit="frame", disable=None):
            pixels = frame.to_ndarray(format="rgb24")
            labels = model.predict(*_inputs(model, previous, pixels), task=task)
            previous = pixels
            picture = kind_of(model.tasks[task]).picture(labels, model.tasks[task], Image.fromarray(pixels))
            even = np.ascontiguousarray(np.asarray(picture)[: encoded.height, : encoded.width])
            writer.mux(encoded.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            count += 1
        writer.mux(encoded.encode())
    return count


def _inputs(model: Predictor, previous: np.ndarray | None, pixels: np.ndarray) -> list[np.ndarray]:
    """Makes the inputs of the network from a frame, RGB [H, W, 3], and the one before it; the first has none."""
    photo = read_photo(Image.fromarray(pixels), model.in_channels[-1])
    if len(model.inputs) == 1:
        return [photo]
    flow = farneback_flow(pixels if previous is None else previous, pixels)
    return [np.ascontiguousarray(flow[..., : model.in_channels[0]]), photo]
