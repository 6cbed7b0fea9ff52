"""Videos, frame by frame. Needs PyAV: `pip install edgeseg[video]`."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from edgeseg.pixel2pixel import Pixel2Pixel
from edgeseg.visualize import tint
from edgeseg.weights.checkpoint import replacing


def segment_video(model: Pixel2Pixel, source: Path, target: Path, task: str, *, alpha: float = 0.55) -> int:
    """Writes a video of the same size and rate with every frame tinted by its classes; gives the number of frames.

    Raises:
        ImportError: no PyAV.
        OSError: not a video.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("videos need PyAV: pip install edgeseg[video]") from error
    count = 0
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
            mixed = np.asarray(
                tint(Image.fromarray(pixels), model.predict(pixels, task=task), model.tasks[task], alpha=alpha)
            )
            picture = np.ascontiguousarray(mixed[: encoded.height, : encoded.width])
            writer.mux(encoded.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            count += 1
        writer.mux(encoded.encode())
    return count
