"""Videos in and out: upright, every frame at its own time, with audio, whole or not at all."""

from __future__ import annotations

import gc
import os
import resource
import struct
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgeseg
from edgeseg.cli import main
from edgeseg.machine.files import NotWritten
from edgeseg.predict.clip import Clip
from edgeseg.predict.predictor import Predictor
from edgeseg.predict.video import Drawn, segment_video
from edgeseg.vision.orientation import upright

from .conftest import TINY

av = pytest.importorskip("av")

SIZE = (48, 64)
CORNERS = np.zeros((*SIZE, 3), np.uint8)  # another colour in each corner
CORNERS[:24, :32], CORNERS[:24, 32:], CORNERS[24:, :32] = (250, 10, 10), (10, 250, 10), (10, 10, 250)


@pytest.fixture
def model() -> Predictor:
    return edgeseg.create_model("fpn", encoder=TINY, channels=8, num_classes=3).eval()


@pytest.fixture
def predict(model: Any, tmp_path: Path) -> list[str]:
    """The predict command with a small network, but for its files."""
    edgeseg.save_checkpoint(model, tmp_path / "tiny.safetensors")
    return ["predict", "--model", "fpn", "--checkpoint", str(tmp_path / "tiny.safetensors"), "-o", str(tmp_path / "o")]


def clip(
    path: Path,
    times: Sequence[float] = (0.0, 0.1, 0.2),
    *,
    pictures: Sequence[np.ndarray] = (CORNERS,),
    codec: str = "mpeg4",
    rate: Fraction = Fraction(10),
    audio: str | None = None,
    options: Mapping[str, str] = {},
    metadata: Mapping[str, str] = {},
) -> Path:
    """Writes a video with frames at times in seconds, and a tone of their length."""
    with av.open(str(path), "w", options=dict(options)) as file:
        file.metadata.update(metadata)
        video = file.add_stream(codec, rate=rate)
        height, width = pictures[0].shape[:2]
        video.width, video.height, video.pix_fmt = width, height, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec == "mpeg4":
            video.codec_context.time_base = Fraction(1, 1000)
        tone = file.add_stream(audio, rate=16000) if audio else None
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(pictures[i % len(pictures)], format="rgb24")
            frame.pts = round(time * 1000) if codec == "mpeg4" else i
            file.mux(video.encode(frame))
        file.mux(video.encode())
        if tone is not None:
            for sound in sounds(tone.codec_context.format.name, round(times[-1] * 16000)):
                file.mux(tone.encode(sound))
            file.mux(tone.encode())
    return path


def sounds(kind: str, samples: int) -> Iterator[Any]:
    wave = np.sin(np.arange(max(samples, 1024)) / 10).astype(np.float32)[None]
    values = wave if kind.startswith("flt") else (wave * 9000).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(values, format=kind, layout="mono")
    frame.sample_rate, frame.pts = 16000, 0
    yield frame


def read(path: Path, kind: str | None = None) -> list[tuple[float, np.ndarray]]:
    """The times and pixels of the frames of a video."""
    with av.open(str(path)) as file:
        return [(float(f.time), f.to_ndarray(format=kind or "rgb24")) for f in file.decode(video=0)]


def photos(_: Mapping[str, np.ndarray], pixels: np.ndarray) -> list[Drawn]:
    """Draws the frames themselves."""
    return [Drawn("photo", Image.fromarray(pixels), True), Drawn("color", Image.fromarray(pixels), False)]


def turned(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Sets the display matrix of an MP4 file: x and y of its first and second row."""
    content = path.read_bytes()
    whole = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = content.index(whole, content.index(b"tkhd"))
    a, b, c, d = (each << 16 for each in matrix)
    path.write_bytes(content[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[at + 36 :])


# Rotation


@pytest.mark.parametrize(
    ("matrix", "orientation"),
    [((0, 1, -1, 0), 6), ((-1, 0, 0, -1), 3), ((0, -1, 1, 0), 8), ((-1, 0, 0, 1), 2), ((0, 1, 1, 0), 5)],
)
def test_upright(matrix: tuple[int, int, int, int], orientation: int, model: Predictor, tmp_path: Path) -> None:
    """As phones write: the picture is stored as the sensor sees it, with a matrix that turns it."""
    path = clip(tmp_path / "phone.mp4")
    turned(path, matrix)
    segment_video(model, path, tmp_path / "out", photos)
    expected = upright(CORNERS, orientation)
    for name in ("out_photo.mkv", "out_color.mp4"):
        (_, pixels), *_ = read(tmp_path / name)
        assert pixels.shape == expected.shape
        assert np.abs(pixels.astype(int) - expected).mean() < 12, name


def test_other_angles_are_refused(model: Predictor, tmp_path: Path) -> None:
    path = clip(tmp_path / "tilted.mp4")
    turned(path, (1, 1, -1, 1))
    with pytest.raises(OSError, match=r"tilted\.mp4: it is to be shown rotated by 45 degrees; only multiples of 90"):
        segment_video(model, path, tmp_path / "out", photos)


# Resources


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="counts threads in /proc, which Linux has")
def test_frames_leave_no_threads(tmp_path: Path) -> None:
    """Even before the garbage is collected."""
    path = clip(tmp_path / "a.mp4", [i / 10 for i in range(20)], pictures=(np.tile(CORNERS, (8, 8, 1)),))
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/task"))
        with av.open(str(path)) as reader:
            assert sum(1 for _ in Clip(reader).frames()) == 20
        assert len(os.listdir("/proc/self/task")) == before
    finally:
        gc.enable()


# Times


def test_every_frame_keeps_its_time(model: Predictor, tmp_path: Path) -> None:
    times = [0, 0.05, 0.1, 0.9, 1.0, 2.1]
    segment_video(model, clip(tmp_path / "variable.mp4", times), tmp_path / "out", photos)
    for name in ("out_photo.mkv", "out_color.mp4"):
        assert [time for time, _ in read(tmp_path / name)] == pytest.approx(times, abs=0.001)


@pytest.mark.parametrize("rate", [Fraction(180000, 5839), Fraction(30000, 1001), Fraction(120), Fraction(1, 2)])
def test_any_rate(rate: Fraction, model: Predictor, tmp_path: Path) -> None:
    """MPEG-4 counts in fractions of up to 65535 per second."""
    source = clip(tmp_path / "source.avi", [0.0] * 5, codec="mjpeg", rate=rate)
    segment_video(model, source, tmp_path / "out", photos)
    for name in ("out_photo.mkv", "out_color.mp4"):
        assert [time for time, _ in read(tmp_path / name)] == pytest.approx([i / rate for i in range(5)], abs=0.001)


def test_odd_sizes_and_one_pixel(model: Predictor, tmp_path: Path) -> None:
    path = clip(tmp_path / "odd.mkv", pictures=[np.ascontiguousarray(CORNERS[:47, :63])])
    segment_video(model, path, tmp_path / "out", photos)
    for name in ("out_photo.mkv", "out_color.mp4"):
        assert read(tmp_path / name)[0][1].shape == (47, 63, 3)


# Audio


@pytest.mark.parametrize(
    ("suffix", "codec", "kept"), [("mp4", "aac", True), ("ts", "aac", True), ("avi", "pcm_alaw", False)]
)
def test_audio(suffix: str, codec: str, kept: bool, model: Predictor, tmp_path: Path) -> None:
    source = clip(tmp_path / f"loud.{suffix}", [0, 0.5, 1.0], audio=codec)
    done = segment_video(model, source, tmp_path / "out", photos)
    if not kept:
        assert done.notes == (f"audio in the format {codec} is left out, since MP4 files do not take it",)
        return
    assert done == (3, ())
    before, after = packets(source), packets(tmp_path / "out_color.mp4")
    assert [data for _, data in before["audio"]][1:-1] == [data for _, data in after["audio"]][1:-1]
    shifts = [found["audio"][0][0] - found["video"][0][0] for found in (before, after)]
    assert shifts[0] == pytest.approx(shifts[1], abs=0.002)
    assert "audio" not in packets(tmp_path / "out_photo.mkv")


@pytest.mark.parametrize(("channels", "kept"), [(1, True), (2, True), (3, False)])
def test_audio_whose_channels_have_no_order(channels: int, kept: bool, model: Predictor, tmp_path: Path) -> None:
    """PCM in Matroska files is such audio, and MP4 files do not take it as it is."""
    source = tmp_path / "loud.mkv"
    with av.open(str(source), "w") as file:
        video, tone = file.add_stream("mpeg4", rate=10), file.add_stream("pcm_s16le", rate=16000)
        video.width, video.height, video.pix_fmt = CORNERS.shape[1], CORNERS.shape[0], "yuv420p"
        tone.codec_context.layout = {1: "mono", 2: "stereo", 3: "2.1"}[channels]
        for _ in range(3):
            file.mux(video.encode(av.VideoFrame.from_ndarray(CORNERS, format="rgb24")))
        file.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 1600 * channels), np.int16), format="s16", layout=tone.codec_context.layout.name
        )
        sound.sample_rate, sound.pts = 16000, 0
        file.mux(tone.encode(sound))
    with av.open(str(source)) as file:
        assert file.streams.audio[0].codec_context.layout.name == f"{channels} channels"
    done = segment_video(model, source, tmp_path / "out", photos)
    assert done.frames == 3
    assert ("audio" in packets(tmp_path / "out_color.mp4")) == kept
    assert len(done.notes) == (not kept)


def packets(path: Path) -> dict[str, list[tuple[float, int]]]:
    """Per type of stream, the times and sizes of its packets."""
    found: dict[str, list[tuple[float, int]]] = {}
    with av.open(str(path)) as file:
        for packet in file.demux():
            if packet.dts is not None:
                # A packet of a transport stream has a header of 7 bytes, which MP4 does not have.
                size = packet.size - 7 * (packet.stream.type == "audio" and path.suffix == ".ts")
                found.setdefault(packet.stream.type, []).append((float(packet.pts * packet.time_base), size))
    return found


# Options


def noise(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        np.asarray(Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((64, 48))) for _ in range(count)
    ]


def test_outputs_tiles_and_batches(
    model: Any, predict: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = clip(tmp_path / "drive.mp4", [i / 10 for i in range(5)], pictures=noise(5))
    frames = [pixels for _, pixels in read(path)]
    cases: list[tuple[list[str], dict[str, Any]]] = [
        ([], {}), (["--batch-size", "2"], {"batch_size": 2}), (["--tile", "32", "32"], {"tile": (32, 32)}),
    ]  # fmt: skip
    for number, (words, options) in enumerate(cases):
        output = tmp_path / f"o{number}"
        call = [*predict[:-1], str(output), str(path), "--outputs", "labels", "color", *words]
        assert main(call) == 0
        assert sorted(each.name for each in output.iterdir()) == ["drive_color.mp4", "drive_labels.mkv"]
        found = [labels for _, labels in read(output / "drive_labels.mkv", "gray")]
        expected = model.predict(frames, **options)
        assert len(found) == len(expected)
        # `predict` optimizes the network, so that a pixel may differ by rounding.
        assert np.mean([(a == b).mean() for a, b in zip(found, expected, strict=True)]) > 0.995
    assert capsys.readouterr().err == ""


def test_memory_does_not_grow(model: Predictor, tmp_path: Path) -> None:
    """The pictures of a frame are drawn before many more frames are read."""
    path = clip(tmp_path / "long.mkv", [i / 10 for i in range(20)])
    read_before: list[int] = []
    original = type(model)._load
    count = 0

    def draw(maps: Mapping[str, np.ndarray], pixels: np.ndarray) -> list[Drawn]:
        read_before.append(count)
        return photos(maps, pixels)

    class Counting(type(model)):  # type: ignore[misc]
        def _load(self, *arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            return original(self, *arguments, **options)

    model.__class__ = Counting
    segment_video(model, path, tmp_path / "out", draw, batch_size=3)
    assert len(read_before) == 20
    assert all(number - done <= 4 for done, number in enumerate(read_before))


def test_several_tasks(tmp_path: Path) -> None:
    """As of photos: files per task; depth is 16-bit data."""
    tasks = {"semantic": edgeseg.Task("segmentation", 3), "depth": edgeseg.Task("depth", 1, range=(0, 128))}
    edgeseg.save_checkpoint(
        edgeseg.create_model("fpn", encoder=TINY, channels=8, tasks=tasks), tmp_path / "two.safetensors"
    )
    call = ["predict", str(clip(tmp_path / "a.mp4")), "--model", "fpn", "-o", str(tmp_path / "o")]
    assert main([*call, "--checkpoint", str(tmp_path / "two.safetensors"), "--outputs", "labels", "overlay"]) == 0
    names = ["a_depth_metres_x256.mkv", "a_depth_overlay.mp4", "a_semantic_labels.mkv", "a_semantic_overlay.mp4"]
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == names
    metres = read(tmp_path / "o/a_depth_metres_x256.mkv", "gray16le")
    assert metres[0][1].dtype == np.uint16


# Bad files


def cut(path: Path, part: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    return path


def test_bad_videos_are_named_and_the_others_go_on(
    predict: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    times, start = [i / 10 for i in range(20)], {"movflags": "faststart"}
    clip(folder / "good.mp4")
    cut(clip(folder / "half.mp4", times, pictures=noise(20), audio="aac", options=start), 0.7)
    cut(clip(folder / "half.mkv", times, pictures=noise(20)), 0.6)
    cut(clip(folder / "half.avi", times, pictures=noise(20), codec="mjpeg"), 0.6)
    cut(clip(folder / "head.mp4", times, options=start), 0.01)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mkv").write_text("no video")
    with av.open(str(folder / "sound.mp4"), "w") as file:
        tone = file.add_stream("aac", rate=16000)
        for sound in sounds(tone.codec_context.format.name, 16000):
            file.mux(tone.encode(sound))
        file.mux(tone.encode())
    assert main([*predict, str(folder)]) == 1
    out, err = capsys.readouterr()
    assert "1 of 8 segmented" in out
    for name in ("half.mp4", "half.mkv", "half.avi", "head.mp4", "empty.mp4", "text.mkv", "sound.mp4"):
        assert f"{folder / name}: it " in err, name
    for name in ("half.mp4", "half.mkv"):
        assert f"{name}: it breaks off after" in err
    assert "sound.mp4: it has no pictures" in err
    assert sorted(path.name.split("_")[0] for path in (tmp_path / "o").iterdir()) == ["good"] * 3


def test_a_photo_and_a_video_of_one_name(predict: list[str], tmp_path: Path) -> None:
    """As phones store live photos."""
    (tmp_path / "live").mkdir()
    clip(tmp_path / "live/IMG_1.MOV")
    Image.fromarray(CORNERS).save(tmp_path / "live/IMG_1.JPG")
    assert main([*predict, str(tmp_path / "live"), "--outputs", "labels"]) == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["IMG_1.JPG_labels.png", "IMG_1.MOV_labels.mkv"]


def test_frames_of_another_size(model: Predictor, tmp_path: Path) -> None:
    """Two transport streams one after the other are one."""
    first, second = clip(tmp_path / "1.ts"), clip(tmp_path / "2.ts", pictures=[np.zeros((32, 32, 3), np.uint8)])
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(OSError, match=r"both\.ts: its frames change from 64x48 to 32x32 at"):
        segment_video(model, both, tmp_path / "out", photos)
    assert not list(tmp_path.glob("*out*"))


def test_times_that_start_again(model: Predictor, tmp_path: Path) -> None:
    first = clip(tmp_path / "1.ts", [i / 10 for i in range(10)])
    (tmp_path / "both.ts").write_bytes(2 * first.read_bytes())
    with pytest.raises(OSError, match=r"both\.ts: its times go back from .* as those of joined files do"):
        segment_video(model, tmp_path / "both.ts", tmp_path / "out", photos)


def test_names_that_look_like_addresses(model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "a.mp4", audio="aac").rename(tmp_path / "10:30:00.mp4")
    assert segment_video(model, Path("10:30:00.mp4"), Path("11:00"), photos).frames == 3
    assert len(read(Path("11:00_color.mp4").absolute())) == 3


def test_metadata_in_another_encoding(model: Predictor, tmp_path: Path) -> None:
    path = clip(tmp_path / "a.avi", codec="mjpeg", metadata={"title": "Cafe at noon"})
    content = path.read_bytes()
    assert b"Cafe" in content
    path.write_bytes(content.replace(b"Cafe", b"Caf\xe9"))
    assert segment_video(model, path, tmp_path / "out", photos).frames == 3


def test_full_disk(model: Predictor, tmp_path: Path) -> None:
    """As a limit of the size of files, which the system reports alike."""
    path = clip(tmp_path / "a.mkv", [i / 10 for i in range(30)], pictures=noise(30))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(NotWritten, match=r"cannot write .*out_photo\.mkv: File too large"):
            segment_video(model, path, tmp_path / "out", photos)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("*out*"))
    (tmp_path / "taken_photo.mkv").mkdir()
    with pytest.raises(ValueError, match=r"cannot write .*taken_photo\.mkv: Is a directory"):
        segment_video(model, path, tmp_path / "taken", photos)


def test_what_is_left_out_is_said(predict: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = clip(tmp_path / "loud.avi", audio="pcm_alaw")
    assert main([*predict, str(path), "--outputs", "color"]) == 0
    out, err = capsys.readouterr()
    assert "1 of 1 segmented" in out
    assert err.splitlines()[-1] == (
        f"edgeseg predict: {path}: audio in the format pcm_alaw is left out, since MP4 files do not take it"
    )
