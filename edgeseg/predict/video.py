"""Videos, frame by frame. Needs PyAV: `pip install edgeseg[video]`."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from edgeseg.machine.files import replacing
from edgeseg.predict.predictor import Predictor
from edgeseg.tasks import kind_of
from edgeseg.vision.flow import farneback_flow


def segment_video(model: Predictor, source: Path, target: Path, task: str | None = None) -> int:
    """Writes a video of the same size and rate with every frame tinted by its classes; gives the number of frames.

    For a network that takes "flow" and "image" the optical flow is computed between the frames.

    Args:
        task: By default the first segmentation task.

    Raises:
        ImportError: no PyAV, or no OpenCV for the flow.
        OSError: not a video.
        ValueError: a network of other inputs, or without a segmentation task.
    """
    task = task or next((name for name, each in model.tasks.items() if kind_of(each).has_classes), None)
    if task is None:
        raise ValueError("this network has no segmentation task")
    kinds = [each.kind for each in model.inputs.values()]
    if kinds not in (["image"], ["flow", "image"]):
        raise ValueError(f"a video has no {' and '.join(model.inputs)}; predict its frames as images")
    try:
        import av
    except ImportError as error:
        raise ImportError("videos need PyAV: pip install edgeseg[video]") from error
    count = 0
    previous: np.ndarray | None = None
    try:
        reader = av.open(os.fspath(source))
    except av.error.FFmpegError as error:
        raise OSError(f"cannot read {source}: {error}") from error
    with reader, replacing(target) as temporary, av.open(os.fspath(temporary), "w", format="mp4") as writer:
        stream = reader.streams.video[0]
        encoded = writer.add_stream("mpeg4", rate=Fraction(stream.average_rate or 25))
        encoded.width, encoded.height, encoded.pix_fmt = stream.width // 2 * 2, stream.height // 2 * 2, "yuv420p"
        encoded.bit_rate = 8_000_000
        for frame in tqdm(reader.decode(stream), total=stream.frames or None, unit="frame", disable=None):
            pixels = frame.to_ndarray(format="rgb24")
            inputs = [pixels]
            if "flow" in kinds:
                inputs = [farneback_flow(pixels if previous is None else previous, pixels), pixels]
                previous = pixels
            labels = model.predict(*inputs, task=task)
            picture = kind_of(model.tasks[task]).picture(labels, model.tasks[task], Image.fromarray(pixels))
            even = np.ascontiguousarray(np.asarray(picture)[: encoded.height, : encoded.width])
            writer.mux(encoded.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            count += 1
        writer.mux(encoded.encode())
    return count
