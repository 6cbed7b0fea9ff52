"""The reader of videos: upright frames with their times, and packets of audio. Needs PyAV."""

from __future__ import annotations

import errno
import math
import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgeseg.vision.orientation import upright

USUAL_RATE = 25  # frames per second of files that do not say it
# What a complete file may lack at its end: seconds, frames, or a share of the duration.
MISSING = Fraction(1, 4), 2, Fraction(1, 1000)
# Seconds that times may go back; those of some files do a little, and those of joined files start again.
BACK = Fraction(1, 10)
DECLARING = {"mov", "matroska", "avi", "flv", "asf", "mxf"}  # formats whose files say how long they are
# EXIF orientations by the signs of a display matrix: where it takes x and y, see FFmpeg's libavutil/display.h.
ORIENTATIONS = {
    (1, 0, 0, 1): 1, (-1, 0, 0, 1): 2, (-1, 0, 0, -1): 3, (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5, (0, 1, -1, 0): 6, (0, -1, -1, 0): 7, (0, -1, 1, 0): 8,
}  # fmt: skip


def open_video(path: Path) -> Any:
    """Opens a video, of which the metadata need not be UTF-8; a container of PyAV.

    Raises:
        FileNotFoundError: the file does not exist.
        av.error.FFmpegError: the file is damaged, or not a video.
    """
    import av

    if not path.exists():  # FFmpeg's error would name the address
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    return av.open(address(path), metadata_errors="replace")


def address(path: Path) -> str:
    """The address of a file for FFmpeg, which would take "10:30.mp4" for a URL."""
    return f"file:{os.path.abspath(path)}"


class Frame(NamedTuple):
    """A frame of a video.

    Args:
        pixels: Upright, uint8 RGB [H, W, 3].
        time: Seconds since the start of the video.
        duration: Seconds; 0 if it is unknown.
    """

    pixels: np.ndarray
    time: Fraction
    duration: Fraction


class Clip:
    """A video that is open for reading.

    Args:
        reader: Input container of PyAV.

    Attributes:
        stream: The video stream.
        start: Time of the file at which the video starts, in seconds.
        rate: Mean number of frames per second.
        aspect: Width of a pixel by its height, of upright frames; known with the first frame.

    Raises:
        OSError: the file does not have pictures.
    """

    def __init__(self, reader: Any) -> None:
        from av.video.reformatter import VideoReformatter

        self.reader, self.stream = reader, reader.streams.best("video")
        if self.stream is None or "attached_pic" in str(getattr(self.stream, "disposition", "")):
            raise OSError("it has no pictures")
        self.start = Fraction(reader.start_time or 0, 1_000_000)
        self.rate = Fraction(self.stream.average_rate or USUAL_RATE)
        self.aspect = Fraction(self.stream.sample_aspect_ratio or 1)
        self._end, self._broken = Fraction(0), False  # what was read so far
        self._orientation = 1
        # One for all frames: a frame that converts itself starts threads, which live until it is collected.
        self._reformatter = VideoReformatter()
        self._durations: dict[int, int] = {}  # of packets that are not decoded yet

    def frames(self) -> Iterator[Frame]:
        """Yields all frames.

        Raises:
            OSError: the file breaks off, its frames change their size, or its times go back.
        """
        last: Frame | None = None
        for packet in self._packets():
            for frame in packet.decode():
                now = self._frame(frame, last)
                if last is not None and now.pixels.shape != last.pixels.shape:
                    sizes = " to ".join(f"{f.pixels.shape[1]}x{f.pixels.shape[0]}" for f in (last, now))
                    raise OSError(f"its frames change from {sizes} at {float(now.time):.2f} s; split it there")
                if last is not None and now.time < last.time - BACK:
                    raise OSError(
                        f"its times go back from {float(last.time):.2f} s to {float(now.time):.2f} s, as those of "
                        "joined files do; write it anew: ffmpeg -i FILE -c copy NEW.mp4"
                    )
                yield now
                last = now
        declares = DECLARING & set(self.reader.format.name.split(","))
        length = Fraction(self.reader.duration or 0, 1_000_000) if declares else Fraction(0)
        allowed = max(MISSING[0], MISSING[1] / self.rate, MISSING[2] * length)
        if self._broken or length - self._end > allowed:
            of = f" of {float(length):.2f} s" if length > self._end else ""
            raise OSError(f"it breaks off after {float(self._end):.2f} s{of}; copy or record it anew")

    def _packets(self) -> Iterator[Any]:
        """Yields the packets of the video, and keeps in mind how far all streams reach."""
        for packet in self.reader.demux():
            if packet.pts is not None and packet.time_base:
                end = (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base) - self.start
                self._end = max(self._end, end)
            if packet.size:
                self._broken = packet.is_corrupt
            if packet.stream.index == self.stream.index:
                if packet.pts is not None:
                    self._durations[packet.pts] = packet.duration or 0
                yield packet

    def _frame(self, frame: Any, last: Frame | None) -> Frame:
        base = Fraction(frame.time_base or self.stream.time_base)
        if frame.pts is None:
            time = Fraction(0) if last is None else last.time + 1 / self.rate
        else:
            time = frame.pts * base - self.start
        duration = self._durations.pop(frame.pts, 0) * Fraction(self.stream.time_base)
        self._durations = {pts: each for pts, each in self._durations.items() if frame.pts is None or pts > frame.pts}
        # PyAV keeps a frame whose side data was read in memory until it is collected, so that few are asked.
        if last is None or frame.key_frame:
            self._orientation = _orientation(frame)
        if last is None and self._orientation >= 5:
            self.aspect = 1 / self.aspect
        pixels = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        return Frame(upright(pixels, self._orientation), time, duration)


def _orientation(frame: Any) -> int:
    """The EXIF orientation of a frame, from its display matrix."""
    from av.sidedata.sidedata import Type

    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return 1
    a, b, _, c, d = struct.unpack("=9i", bytes(data))[:5]
    scale = max(abs(a), abs(b), abs(c), abs(d), 1)
    signs = tuple(round(each / scale) for each in (a, b, c, d))
    even = all(abs(each / scale - sign) < 0.01 for each, sign in zip((a, b, c, d), signs, strict=True))
    if not even or signs not in ORIENTATIONS:
        angle = math.degrees(math.atan2(b, a))
        raise OSError(f"it is to be shown rotated by {angle:.0f} degrees; only multiples of 90 can be segmented")
    return ORIENTATIONS[signs]


class Audio:
    """The audio of a file that is open for reading, packet by packet.

    Args:
        reader: Input container of PyAV, used by nothing else.
        start: Time of the file that becomes 0, in seconds.
    """

    def __init__(self, reader: Any, start: Fraction) -> None:
        self.streams = list(reader.streams.audio)
        self._start = start
        self._packets = (packet for packet in reader.demux(self.streams) if packet.dts is not None)
        self._next: Any = None

    def until(self, time: Fraction | None) -> Iterator[Any]:
        """Yields the packets up to a time, with times that begin at 0; all packets that are left if it is None."""
        while self.streams:
            packet = self._next or next(self._packets, None)
            if packet is None:
                return
            base = Fraction(packet.time_base)
            if self._next is None:
                shift = round(self._start / base)
                packet.dts -= shift
                packet.pts = packet.dts if packet.pts is None else packet.pts - shift
            self._next = packet
            if time is not None and packet.dts * base > time:
                return
            self._next = None
            yield packet
