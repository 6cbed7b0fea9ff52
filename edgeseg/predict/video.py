"""Segments videos frame by frame. Needs PyAV: `pip install 'edgeseg[video]'`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from edgeseg.machine.files import NotWritten, replacing
from edgeseg.machine.terminal import progress_bar
from edgeseg.predict.clip import Audio, Clip, Frame, address, open_video
from edgeseg.predict.output import named_writing, require_place
from edgeseg.predict.predictor import Predictor
from edgeseg.vision.flow import farneback_flow
from edgeseg.vision.images import read_photo

QUALITY = 4 * 118  # quantizer of MPEG-4, 2 (best) to 31, in units of FFmpeg's lambda
LARGEST_BASE = 65535  # MPEG-4 counts time in fractions of a second, of this denominator at most
FINE_BASE = 60000  # divides the durations of the frames of all usual rates
USUAL_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}  # of channels of audio
LOSSLESS = {"L": "gray", "I;16": "gray16le", "RGB": "bgr0"}  # Pillow's modes, and FFV1's formats


class Drawn(NamedTuple):
    """A picture of one frame.

    Args:
        ending: What the name of its video ends with, such as "overlay".
        image: The picture, in Pillow's mode L or I;16 if it is data, or one that becomes RGB.
        lossless: Whether the pixels are data, such as class ids.
    """

    ending: str
    image: Image.Image
    lossless: bool


Draw = Callable[[Mapping[str, np.ndarray], np.ndarray], Iterable[Drawn]]
"""Makes the pictures of one frame from the maps of its tasks and of its pixels, uint8 [H, W, C]."""


class Segmented(NamedTuple):
    """What became of a video.

    Args:
        frames: Number of frames.
        notes: Sentences on what could not be kept, such as audio of a format that MP4 does not have.
    """

    frames: int
    notes: tuple[str, ...]


def segment_video(
    model: Predictor,
    source: Path,
    target: Path,
    draw: Draw,
    *,
    tile: Sequence[int] | None = None,
    batch_size: int = 1,
) -> Segmented:
    """Writes videos of the maps of all frames of a video.

    Pictures become MPEG-4 in .mp4 files with the audio of the source; data becomes lossless FFV1 in .mkv files, in
    gray of 8 or 16 bit. Videos are upright, and each frame has its own time. Memory does not grow with the length.
    For a network that takes "flow" and "image", the optical flow between successive frames is computed.

    Args:
        model: A network, or an exported file.
        source: The video to read.
        target: What the names of the videos begin with; `_ENDING.mp4` or `_ENDING.mkv` is appended.
        draw: Makes the pictures of a frame, of the same endings and sizes for each.
        tile: As in `Predictor.predict`.
        batch_size: Number of successive frames that go through the network together.

    Raises:
        ImportError: PyAV is not installed, or OpenCV is not and flow is needed.
        OSError: `source` is missing, damaged, incomplete or not a video; names the file. No file is left.
        NotWritten: a video cannot be written; names the file. No file is left.
        ValueError: the network takes other inputs, or the name of a result is too long or that of a folder.
    """
    kinds = [each.kind for each in model.inputs.values()]
    if kinds not in (["image"], ["flow", "image"]):
        raise ValueError(f"a video does not have {' and '.join(model.inputs)}; predict its frames as images")
    try:
        import av
    except ImportError as error:
        raise ImportError("videos need PyAV: pip install 'edgeseg[video]'") from error
    try:
        with open_video(source) as reader, ExitStack() as stack:
            clip = Clip(reader)
            return _segment(model, clip, _Tracks(source, target, clip, stack), draw, tile, batch_size)
    except (FileNotFoundError, NotWritten):
        raise
    except av.error.FFmpegError as error:
        raise OSError(f"cannot segment {source}: it is damaged, or not a video ({error.strerror})") from error
    except OSError as error:
        raise OSError(f"cannot segment {source}: {error}") from error


def _segment(
    model: Predictor, clip: Clip, tracks: _Tracks, draw: Draw, tile: Sequence[int] | None, batch_size: int
) -> Segmented:
    """Segments the frames of an open video."""
    waiting: deque[Frame] = deque()  # in the network: a batch, and one frame ahead of it

    def given() -> Iterator[list[np.ndarray]]:
        previous: np.ndarray | None = None
        for frame in clip.frames():
            waiting.append(frame)
            yield _inputs(model, previous, frame.pixels)
            previous = frame.pixels

    count = 0
    results = model.predict_frames(given(), tile=tile, batch_size=batch_size)
    for maps in progress_bar(results, "video", "frame", clip.stream.frames or None):
        frame = waiting.popleft()
        for drawn in draw(maps, frame.pixels):
            tracks.add(drawn, frame)
        count += 1
    if not count:
        raise OSError("it has no frames")
    tracks.finish()
    return Segmented(count, tuple(tracks.notes))


def _inputs(model: Predictor, previous: np.ndarray | None, pixels: np.ndarray) -> list[np.ndarray]:
    """Makes the inputs of the network from a frame, RGB [H, W, 3], and the one before it; the first has none."""
    photo = read_photo(Image.fromarray(pixels), model.in_channels[-1])
    if len(model.inputs) == 1:
        return [photo]
    flow = farneback_flow(pixels if previous is None else previous, pixels)
    return [np.ascontiguousarray(flow[..., : model.in_channels[0]]), photo]


class _Tracks:
    """The videos that are written, by ending; each is opened when its first picture comes.

    Args:
        source: The video that is read.
        target: What the names of the videos begin with.
        clip: The open source.
        stack: Closes the files. Those of tracks that were not finished are removed.
    """

    def __init__(self, source: Path, target: Path, clip: Clip, stack: ExitStack) -> None:
        self.source, self.target, self.clip, self.stack = source, target, clip, stack
        self.notes: dict[str, None] = {}
        self.open: dict[str, _Track] = {}

    def add(self, drawn: Drawn, frame: Frame) -> None:
        """Writes a picture of a frame."""
        if drawn.ending not in self.open:
            self.open[drawn.ending] = self._track(drawn)
        self.open[drawn.ending].add(drawn.image, frame)

    def finish(self) -> None:
        """Writes what encoders hold, the rest of the audio, and the ends of the files."""
        for track in self.open.values():
            track.finish()

    def _track(self, drawn: Drawn) -> _Track:
        import av

        path = self.target.with_name(f"{self.target.name}_{drawn.ending}.{'mkv' if drawn.lossless else 'mp4'}")
        require_place(path)
        temporary = self.stack.enter_context(replacing(path))
        with named_writing(path):
            writer = av.open(address(temporary), "w", format="matroska" if drawn.lossless else "mp4")
        self.stack.enter_context(_closing(writer))
        track = _Track(path, writer, drawn, self.clip)
        if not drawn.lossless:
            audio = Audio(self.stack.enter_context(open_video(self.source)), self.clip.start)
            self.notes |= dict.fromkeys(track.take(audio))
        return track


@contextmanager
def _closing(writer: Any) -> Iterator[None]:
    """Closes a container after an error, of which another error of closing does not divert; its file is removed."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            writer.close()
        raise


class _Track:
    """A video that is being written.

    Args:
        path: The file, for messages.
        writer: Output container of PyAV.
        drawn: The first picture.
        clip: The video that is read.
    """

    def __init__(self, path: Path, writer: Any, drawn: Drawn, clip: Clip) -> None:
        self.path, self.writer = path, writer
        self.audio: Audio | None = None
        self.streams: dict[int, Any] = {}  # of audio, by their index in the source
        if drawn.lossless and drawn.image.mode not in LOSSLESS:
            raise ValueError(f"{drawn.ending} has pixels of mode {drawn.image.mode}, which a video does not have")
        self.format = LOSSLESS[drawn.image.mode] if drawn.lossless else "yuv420p"
        options = {} if drawn.lossless else {"flags": "+qscale", "global_quality": str(QUALITY)}
        rate = clip.rate.limit_denominator(LARGEST_BASE)
        self.encoder = writer.add_stream("ffv1" if drawn.lossless else "mpeg4", rate=rate, options=options)
        self.encoder.width, self.encoder.height, self.encoder.pix_fmt = *drawn.image.size, self.format
        base = Fraction(clip.stream.time_base).denominator
        self.base = Fraction(1, base if base <= LARGEST_BASE else FINE_BASE)
        self.encoder.codec_context.time_base = self.base
        self.encoder.codec_context.sample_aspect_ratio = clip.aspect
        self.last = -1
        self.durations: dict[int, int] = {}

    def take(self, audio: Audio) -> Iterator[str]:
        """Prepares to copy the audio; yields a sentence per stream that the file cannot hold."""
        self.audio = audio
        for stream in audio.streams:
            codec = stream.codec_context.name if stream.codec_context else "unknown"
            if codec not in self.writer.supported_codecs:
                yield f"audio in the format {codec} is left out, since MP4 files do not take it"
            elif _lacks_order(stream) and stream.codec_context.layout.nb_channels not in USUAL_LAYOUTS:
                count = stream.codec_context.layout.nb_channels
                yield f"audio of {count} channels is left out, since the video does not say which is which"
            else:
                self.streams[stream.index] = _copy_of(stream, self.writer)

    def add(self, image: Image.Image, frame: Frame) -> None:
        """Encodes a picture."""
        import av

        if self.format == "yuv420p":
            image = image.convert("RGB")
        gray = image.mode != "RGB"
        picture = av.VideoFrame.from_ndarray(np.asarray(image), format=self.format if gray else "rgb24")
        picture.pts = self.last = max(round(frame.time / self.base), self.last + 1)
        picture.time_base = self.base
        self.durations[picture.pts] = round(frame.duration / self.base)
        self._copy_audio(frame.time)
        self._mux(self.encoder.encode(picture))

    def finish(self) -> None:
        """Writes what is left, and closes the file."""
        self._mux(self.encoder.encode())
        self._copy_audio(None)
        try:
            with named_writing(self.path):
                self.writer.close()
        except OSError as error:
            if isinstance(error, NotWritten):
                raise
            raise ValueError(f"cannot write {self.path}: {error.strerror}") from error

    def _copy_audio(self, time: Fraction | None) -> None:
        if self.audio is None:
            return
        for packet in self.audio.until(time):
            if packet.stream.index in self.streams:
                packet.stream = self.streams[packet.stream.index]
                with named_writing(self.path):
                    self.writer.mux(packet)

    def _mux(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            packet.duration = self.durations.pop(packet.pts, 0) or packet.duration
            with named_writing(self.path):
                self.writer.mux(packet)


def _copy_of(stream: Any, writer: Any) -> Any:
    """A stream of the writer for packets of another file's stream; PyAV 14 has renamed the call."""
    if hasattr(writer, "add_stream_from_template"):
        copied = writer.add_stream_from_template(stream)
    else:
        copied = writer.add_stream(template=stream)
    if _lacks_order(stream):
        copied.codec_context.layout = USUAL_LAYOUTS[stream.codec_context.layout.nb_channels]
    return copied


def _lacks_order(stream: Any) -> bool:
    """Whether a file does not say which channel of its audio is which, as PCM in AVI and Matroska; MP4 has to."""
    return bool(stream.codec_context.layout.name.endswith("channels"))
