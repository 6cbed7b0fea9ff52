"""One reader of photos and one of masks: prediction, datasets, evaluation and quantization see the same pixels."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgeseg
from edgeseg import Preprocess, Task
from edgeseg.cli import main
from edgeseg.data import load_dataset
from edgeseg.data.transforms import AUGMENTATIONS, Augmented
from edgeseg.engine import TrainConfig, evaluate, train
from edgeseg.labels import IGNORE
from edgeseg.spec import Input
from edgeseg.vision.images import loaded, photo_size, read_input, read_photo
from edgeseg.vision.masks import read_mask, to_ids
from edgeseg.vision.visualize import as_picture

from .conftest import TINY

RANDOM = np.random.default_rng(0)
RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def picture(height: int = 20, width: int = 30, channels: int = 3) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, channels), dtype=np.uint8)


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def stored(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores of an upright picture; the EXIF standard says where row 0 and column 0 are."""
    turned = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.swapaxes(0, 1), 6: pixels.swapaxes(0, 1)[::-1], 7: pixels.swapaxes(0, 1)[::-1, ::-1],
        8: pixels.swapaxes(0, 1)[:, ::-1],
    }  # fmt: skip
    return np.ascontiguousarray(turned[orientation])


def tiff(
    path: Path, pixels: np.ndarray, *, planar: bool = False, difference: bool = False, orientation: int = 1
) -> Path:
    """Writes [H, W, C] as a TIFF file of many bands in compressed strips, as scanners and satellites have them."""
    height, width, bands = pixels.shape
    parts = [pixels[:, :, i : i + 1] for i in range(bands)] if planar else [pixels]
    strips = []
    for part in parts:
        steps = np.diff(part, axis=1, prepend=np.zeros_like(part[:, :1])) if difference else part
        strips += [zlib.compress(np.ascontiguousarray(steps[i : i + 7]).tobytes()) for i in range(0, height, 7)]
    sizes = [len(strip) for strip in strips]
    offsets = [8 + sum(sizes[:i]) for i in range(len(sizes))]
    body = b"".join(strips)
    body += bytes(len(body) % 2)
    tags = {
        256: [width], 257: [height], 258: [8 * pixels.itemsize] * bands, 259: [8], 262: [1], 273: offsets,
        274: [orientation], 277: [bands], 278: [7], 279: sizes, 284: [1 + planar], 317: [1 + difference],
        338: [0] * (bands - 1),
    }  # fmt: skip
    start, entries, values = 8 + len(body), b"", b""
    for tag, numbers in tags.items():
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        place = packed if len(numbers) == 1 else struct.pack("<I", start + 2 + 12 * len(tags) + 4 + len(values))
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + place
        values += b"" if len(numbers) == 1 else packed
    directory = struct.pack("<H", len(tags)) + entries + bytes(4) + values
    path.write_bytes(b"II*\0" + struct.pack("<I", start) + body + directory)
    return path


def png(path: Path, bits: int, rows: list[list[int]]) -> Path:
    """Writes gray values of a few bits."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = b""
    for row in rows:
        text = "".join(format(value, f"0{bits}b") for value in row)
        text = text.ljust(-(-len(text) // 8) * 8, "0")
        lines += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n"
    path.write_bytes(start + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A dataset of two photos and masks of two classes."""
    root = tmp_path / "own"
    for split in ("train", "val"):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(picture()).save(root / f"images/{split}/{i}.png")
            labels = np.tile(np.array([0, 1, IGNORE], np.uint8), (20, 10))
            Image.fromarray(labels).save(root / f"masks/{split}/{i}.png")
    (root / "classes.txt").write_text("ground\nvine\n")
    return root


def network(channels: int, **options: Any) -> edgeseg.Pixel2Pixel:
    return edgeseg.create_model(
        "fpn", encoder=TINY, channels=8, in_channels=(channels,), **{"num_classes": 2, **options}
    ).eval()


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_photos_and_masks_are_upright(orientation: int, suffix: str, own: Path) -> None:
    photo, labels = picture(), np.tile(np.arange(30, dtype=np.uint8), (20, 1)) % 2
    labels[:3] = 1
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    path = own / f"images/train/0{suffix}"
    (own / "images/train/0.png").unlink()
    Image.fromarray(stored(photo, orientation)).save(path, exif=oriented(orientation), **options)
    assert (read_photo(path) == photo).all()
    assert read_photo(path, 1).shape == (20, 30, 1)
    assert photo_size(path) == (20, 30)
    assert (read_photo(Image.open(path)) == photo).all()
    Image.fromarray(labels).save(own / "masks/train/0.png")  # as labelling tools write it: upright
    data = load_dataset("images_masks", own, "train")
    image, target = data[0]
    assert (image.permute(1, 2, 0).numpy() == photo).all()
    assert (target.numpy() == labels).all()
    Image.fromarray(stored(labels, orientation)).save(own / "masks/train/0.png", exif=oriented(orientation))
    assert (data[0][1].numpy() == labels).all()


def test_pixels_are_the_same_everywhere(own: Path, tmp_path: Path) -> None:
    """Prediction, dataset, export: of a gray photo of 16 bit that is turned."""
    path = own / "images/train/0.png"
    Image.fromarray(RAMP[:24, :36]).save(path, exif=oriented(6))
    Image.new("L", (24, 36)).save(own / "masks/train/0.png")
    pixels = load_dataset("images_masks", own, "train")[0][0].permute(1, 2, 0).numpy()
    assert pixels.shape == (36, 24, 3)
    assert (read_photo(path) == pixels).all()
    model = network(3)
    expected = model.prepare(pixels)[0]
    assert torch.equal(model.prepare(path)[0], expected)
    edgeseg.export_onnx(model, tmp_path / "model.onnx")
    assert (edgeseg.OnnxSegmenter(tmp_path / "model.onnx").feed(path)["image"] == expected.numpy()).all()


# Ranges of values


@pytest.mark.parametrize("name", ["ramp.png", "ramp.tif", "ramp.pgm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_photos_are_scaled(name: str, channels: int, tmp_path: Path) -> None:
    if name == "ramp.pgm":
        (tmp_path / name).write_bytes(b"P5 256 256 65535\n" + RAMP.astype(">u2").tobytes())
    else:
        Image.fromarray(RAMP).save(tmp_path / name)
    pixels = read_photo(tmp_path / name, channels)
    assert pixels.shape == (256, 256, channels)
    assert (pixels[..., 0] == np.round(RAMP / 257)).all()
    assert (read_photo(Image.open(tmp_path / name), channels) == pixels).all()


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_16_bit_modes_of_pillow(mode: str) -> None:
    order = ">" if mode.endswith("B") else "<"
    image = Image.frombytes(mode, (256, 256), RAMP.astype(f"{order}u2").tobytes())
    assert (read_photo(image, 1)[..., 0] == np.round(RAMP / 257)).all()


def test_floating_point_photos(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    Image.fromarray(values).save(tmp_path / "unit.tif")
    for image in (tmp_path / "unit.tif", Image.fromarray(values)):
        assert (read_photo(image)[..., 1] == np.round(values * 255)).all()
    for wrong in (values * 255, values - 0.5, np.where(values > 0.5, np.nan, values)):
        Image.fromarray(wrong.astype(np.float32)).save(tmp_path / "wrong.tif")
        with pytest.raises(ValueError, match=r"wrong\.tif has floating-point values beyond 0 to 1.*scale them"):
            read_photo(tmp_path / "wrong.tif")


def test_integers_of_unknown_range(tmp_path: Path) -> None:
    values = RAMP[:20, :30].astype(np.int32)
    Image.fromarray(values).save(tmp_path / "wide.tif")
    with pytest.raises(ValueError, match=r"wide\.tif has 32-bit or signed integers.*8 or 16 bit"):
        read_photo(tmp_path / "wide.tif")
    with pytest.raises(ValueError, match="the image has 32-bit or signed integers"):
        read_photo(Image.fromarray(values))


# Channels


@pytest.mark.parametrize(
    ("mode", "channels"),
    [
        (mode, channels)
        for mode in ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
        for channels in (1, 3, 4)
    ],
)
def test_modes(mode: str, channels: int) -> None:
    image = Image.new(mode, (30, 20))
    if channels == 4 and mode not in ("LA", "PA", "RGBA"):
        with pytest.raises(ValueError, match=rf"channels \({mode}\) and the network takes 4; .* photos with alpha"):
            read_photo(image, channels)
    else:
        assert read_photo(image, channels).shape == (20, 30, channels)


def test_transparent_colour_is_alpha(tmp_path: Path) -> None:
    """Of palette and RGB files that name one; no other channel is made up."""
    pixels = picture()
    Image.fromarray(pixels).save(tmp_path / "key.png", transparency=tuple(int(c) for c in pixels[0, 0]))
    found = read_photo(tmp_path / "key.png", 4)
    assert found[0, 0, 3] == 0
    assert found[..., 3].max() == 255
    Image.fromarray(pixels).save(tmp_path / "plain.jpg")
    with pytest.raises(ValueError, match=r"plain\.jpg has 3 channels \(RGB\) and the network takes 4"):
        read_photo(tmp_path / "plain.jpg", 4)


def test_alpha_and_gray() -> None:
    four, two = picture(channels=4), picture(channels=2)
    assert (read_photo(Image.fromarray(four), 4) == four).all()
    assert (read_photo(Image.fromarray(four), 3) == four[..., :3]).all()
    assert (read_photo(Image.fromarray(two), 2) == two).all()
    assert (read_photo(Image.fromarray(two), 1) == two[..., :1]).all()
    assert (read_photo(Image.frombytes("RGBX", (30, 20), four.tobytes()), 4) == four).all()
    assert (read_photo(Image.new("1", (3, 2), 1), 1) == 255).all()


@pytest.mark.parametrize("channels", [2, 4, 5, 7])
@pytest.mark.parametrize("options", [{}, {"planar": True}, {"difference": True}, {"orientation": 6}])
def test_bands(channels: int, options: dict[str, Any], tmp_path: Path) -> None:
    pixels = picture(channels=channels)
    path = tiff(tmp_path / "bands.tif", stored(pixels, options.get("orientation", 1)), **options)
    assert (read_photo(path, channels) == pixels).all()
    assert photo_size(path) == pixels.shape[:2]
    wide = (pixels.astype(np.uint16) * 257) if "difference" not in options else pixels
    tiff(path, stored(wide, options.get("orientation", 1)), **options)
    assert (read_photo(path, channels) == pixels).all()


def test_arrays_and_pages(tmp_path: Path) -> None:
    five = picture(channels=5)
    np.save(tmp_path / "five.npy", five)
    pages = [Image.fromarray(five[..., i]) for i in range(5)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    for path in (tmp_path / "five.npy", tmp_path / "pages.tif"):
        assert (read_photo(path, 5) == five).all()
    assert (read_photo(tmp_path / "pages.tif") == five[..., :1]).all()  # the first page of a multi-page photo
    gray = five[..., 0]
    assert (read_photo(gray, 1) == gray[..., None]).all()
    assert (read_photo(gray, 3) == gray[..., None]).all()
    assert read_photo(torch.zeros(4, 20, 30, dtype=torch.uint8), 4).shape == (20, 30, 4)
    for array, message in ((five.astype(np.float32), "float32 values"), (five[..., :3], "has 3 channels")):
        np.save(tmp_path / "wrong.npy", array)
        with pytest.raises(ValueError, match=rf"wrong\.npy.*{message}"):
            read_photo(tmp_path / "wrong.npy", 5)
    (tmp_path / "empty.npy").write_bytes(b"")
    with pytest.raises(OSError, match=r"cannot read .*empty\.npy"):
        read_photo(tmp_path / "empty.npy", 5)
    with pytest.raises(ValueError, match=r"has 3 channels \(RGB\) and the network takes 5.*TIFF.*npy"):
        read_photo(Image.fromarray(five[..., :3]), 5)


def test_flow_of_two_channels(tmp_path: Path) -> None:
    flow = picture()
    Image.fromarray(flow).save(tmp_path / "flow.png")
    assert (read_input(tmp_path / "flow.png", Input(2, "flow")) == flow[..., :2]).all()
    assert (read_input(flow[..., :2].copy(), Input(2, "flow")) == flow[..., :2]).all()


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_networks_of_other_channels(channels: int, own: Path, tmp_path: Path) -> None:
    """They train with jitter, draw their samples, are scored, and predict from the files."""
    for path in own.glob("images/*/*.png"):
        path.unlink()
        if channels == 1:
            Image.fromarray(picture(channels=1)[..., 0]).save(path)
        else:
            tiff(path.with_suffix(".tif"), picture(channels=channels))
    sets = [load_dataset("images_masks", own, split, channels=channels) for split in ("train", "val")]
    assert sets[0].inputs == {"image": Input(channels)}
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8, in_channels=sets[0].inputs, tasks=sets[0].tasks)
    recipe = TrainConfig(
        epochs=1, batch_size=2, img_resize=(32, 32), rand_crop=(32, 32), jitter=0.4, workers=0, class_weights="none"
    )
    trained = train(model, sets[0], sets[1], recipe, tmp_path / "run")
    with Image.open(tmp_path / "run/samples.png") as page:
        assert page.width == 1200
    assert evaluate(trained, sets[1]).counted > 0
    path = next(iter((own / "images/val").iterdir()))
    assert trained.predict(path).shape == (20, 30)
    call = ["predict", str(own / "images/val"), "-o", str(tmp_path / "out"), "--model", "fpn"]
    assert main([*call, "--checkpoint", str(tmp_path / "run/last.safetensors")]) == 0
    assert len(list((tmp_path / "out").glob("*_overlay.png"))) == 2
    call = ["evaluate", "--dataset", "images_masks", "--data-path", str(own), "--workers", "0", "--model", "fpn"]
    assert main([*call, "--checkpoint", str(tmp_path / "run/last.safetensors")]) == 0


def test_train_command_with_gray_photos(own: Path, tmp_path: Path) -> None:
    call = ["train", "--dataset", "images_masks", "--data-path", str(own), "--channels", "1", "--epochs", "1"]
    call += ["--img-resize", "32", "32", "--rand-crop", "32", "32", "--batch-size", "2", "--workers", "0"]
    call += [
        "--class-weights",
        "none",
        "--val-split",
        "none",
        "--model",
        "fpn_aspp_regnetx400mf_edgeailite",
        "-o",
        str(tmp_path / "run"),
    ]
    assert main(call) == 0
    model = edgeseg.create_model(
        "fpn_aspp_regnetx400mf_edgeailite", checkpoint_path=tmp_path / "run/last.safetensors"
    ).eval()
    assert model.in_channels == (1,)
    expected = model.predict(own / "images/val/0.png")
    gray = Image.open(own / "images/val/0.png").convert("L")
    assert (model.predict(gray) == expected).all()
    assert (model.predict(np.asarray(gray)) == expected).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_jitter_keeps_the_mean_channelwise_order(channels: int) -> None:
    """Brightness and contrast change all channels alike; the image keeps its shape, dtype and rank of values."""
    levels = torch.arange(1, channels + 1, dtype=torch.uint8) * 40
    image = levels[:, None, None].expand(-1, 32, 32).contiguous()
    labels = torch.zeros(32, 32, dtype=torch.uint8)
    augment = AUGMENTATIONS["modern"]((32, 32), (32, 32), (1.0, 1.0), jitter=0.4)
    data = Augmented([(image, labels)] * 8, augment, {"segmentation": Task(channels=2)}, seed=0)
    changed = 0
    for index in range(8):
        (jittered,), _, _ = data[index]
        assert jittered.shape == image.shape
        assert jittered.dtype == torch.uint8
        means = jittered.float().mean(dim=(1, 2))
        assert (means.diff() >= 0).all()
        changed += not torch.equal(jittered, image)
    assert changed > 4


def test_pictures_of_any_channels() -> None:
    assert as_picture(picture(channels=1)).mode == as_picture(picture(channels=2)).mode == "L"
    pixels = picture(channels=5)
    assert (np.asarray(as_picture(pixels)) == pixels[..., :3]).all()


# Too large, damaged


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of a few kB with 200 million pixels."""
    path = tmp_path / "large.png"
    Image.new("1", (20_000, 10_000)).save(path)
    return path


def test_photos_beyond_the_limit_of_pillow(large: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(OSError, match=r"cannot read .*large\.png.*exceeds limit.*max_pixels"):
        read_photo(large)
    assert read_photo(large, 1, max_pixels=200_000_000).shape == (10_000, 20_000, 1)
    with pytest.raises(OSError, match=r"large\.png: it has 20000 x 10000 pixels, more than max_pixels 199999999"):
        read_photo(large, 1, max_pixels=199_999_999)
    assert before == Image.MAX_IMAGE_PIXELS


def test_large_compressed_tiff(tmp_path: Path) -> None:
    """Pillow checks these twice: when they are opened, and when they are decoded."""
    path = tmp_path / "large.tif"
    Image.new("1", (20_000, 10_000)).save(path, compression="group4")
    np.save(path.with_suffix(".npy"), np.zeros((4, 5), np.uint8))
    with pytest.raises(OSError, match=r"\.npy has 5 x 4 pixels, more than max_pixels 19"):
        read_photo(path.with_suffix(".npy"), 1, max_pixels=19)
    assert read_photo(path, 1, max_pixels=200_000_000).shape == (10_000, 20_000, 1)
    with pytest.raises(OSError, match=r"cannot read .*large\.tif"):
        read_photo(path, 4)


def test_the_limit_of_other_threads_stays(large: Path, tmp_path: Path) -> None:
    """While photos are read with a limit of their own, others are opened with Pillow's."""
    seen: set[int | None] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(Image.MAX_IMAGE_PIXELS)

    watcher = threading.Thread(target=watch)
    watcher.start()
    read_photo(large, 1, max_pixels=10**9)
    done.set()
    watcher.join()
    assert seen == {Image.MAX_IMAGE_PIXELS}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp", ".gif", ".jp2", ".avif", ".ppm"])
def test_every_format_with_a_limit_of_its_own(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(picture()).save(path)
    assert (read_photo(path, max_pixels=600) == read_photo(path)).all()
    with pytest.raises(OSError, match=rf"photo\{suffix}"):
        read_photo(path, max_pixels=599)
    path.write_bytes(b"nothing")
    with pytest.raises(OSError, match=rf"cannot read .*photo\{suffix}"):
        read_photo(path, max_pixels=10**9)


def test_large_photos_are_skipped_on_request(large: Path, own: Path) -> None:
    (own / "images/train/0.png").write_bytes(large.read_bytes())
    with pytest.raises(OSError, match=r"images/train/0\.png"):
        load_dataset("images_masks", own, "train")[0]
    with pytest.warns(UserWarning, match=r"1 samples were left out.*images/train/0\.png"):
        assert len(load_dataset("images_masks", own, "train", on_error="skip")) == 1


def test_predict_command_with_large_photos(
    own: Path, tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edgeseg.save_checkpoint(network(3), tmp_path / "tiny.safetensors")
    call = ["predict", str(photo), "-o", str(tmp_path / "out"), "--model", "fpn", "--checkpoint"]
    call += [str(tmp_path / "tiny.safetensors")]
    assert main([*call, "--max-pixels", "5400"]) == 0
    assert main([*call, "--max-pixels", "5399"]) == 1
    assert "photo.jpg: it has 90 x 60 pixels, more than max_pixels 5399" in capsys.readouterr().err
    assert main([*call, "--max-pixels", "0"]) == 2
    assert "--max-pixels must be at least 1" in capsys.readouterr().err
    assert network(3).predict(photo, max_pixels=5400).shape == (60, 90)
    with pytest.raises(OSError, match=r"photo\.jpg"):
        network(3).predict(photo, max_pixels=1)


def test_every_damaged_file_is_named(tmp_path: Path) -> None:
    """Whatever Pillow raises, cut and changed files give an OSError with their name, or pixels."""
    random, unnamed = np.random.default_rng(1), list[Exception]()
    for suffix in (".png", ".jpg", ".tif", ".webp", ".gif", ".bmp", ".ppm", ".jp2"):
        path = tmp_path / f"photo{suffix}"
        Image.fromarray(picture()).save(path)
        whole = path.read_bytes()
        for _ in range(25):
            damaged = bytearray(whole[: random.integers(0, len(whole))] if random.random() < 0.3 else whole)
            for place in random.integers(0, max(len(damaged), 1), 8):
                damaged[place : place + 1] = bytes([random.integers(0, 256)])
            path.write_bytes(damaged)
            for channels in (1, 3, 5):
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        read_photo(path, channels)
                except (OSError, ValueError) as error:
                    unnamed += [error] if str(path) not in str(error) else []
    assert unnamed == []
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_photo(tmp_path / "none.png")
    (tmp_path / "text.png").write_bytes(_png_with_a_text_bomb())
    with pytest.raises(OSError, match=r"cannot read .*text\.png"):
        read_photo(tmp_path / "text.png")


def _png_with_a_text_bomb() -> bytes:
    content = b"Comment\0\0" + zlib.compress(bytes(2**27))
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    start = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + start + chunk


def test_calibration_photos(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A truncated one is named, or left out on request; none are a clear error."""
    model = network(3)
    model.configure(preprocess=Preprocess(size=(32, 32)))
    edgeseg.save_checkpoint(model, tmp_path / "tiny.safetensors")
    folder = own / "images/train"
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:-300])
    call = ["quantize", "--images", str(folder), "-o", str(tmp_path / "int8.onnx"), "--calibration", "minmax"]
    call += ["--fixed", "--model", "fpn", "--checkpoint", str(tmp_path / "tiny.safetensors")]
    assert main(call) == 2
    assert f"cannot read {folder / '0.png'}" in capsys.readouterr().err
    assert main([*call, "--skip-unreadable"]) == 0
    assert f"left out: cannot read {folder / '0.png'}" in capsys.readouterr().err
    assert main([*call, "--calibration-count", "0"]) == 2
    assert "--calibration-count must be at least 1, got 0" in capsys.readouterr().err


# Masks


def test_masks_of_few_bits(own: Path, tmp_path: Path) -> None:
    assert read_mask(png(tmp_path / "1.png", 1, [[0, 1, 1]])).tolist() == [[0, 1, 1]]
    assert read_mask(png(tmp_path / "2.png", 2, [[0, 1, 2, 3]])).tolist() == [[0, 1, 2, 3]]
    assert read_mask(png(tmp_path / "4.png", 4, [[0, 5, 15]])).tolist() == [[0, 5, 15]]
    assert all(read_mask(tmp_path / f"{bits}.png").dtype == np.uint8 for bits in (1, 2, 4))
    # Padding stays 255 and does not become class 1.
    Image.fromarray(np.eye(20, 30) > 0).save(own / "masks/train/0.png")
    data = load_dataset("images_masks", own, "train")
    assert data[0][1].dtype == torch.uint8
    augment = AUGMENTATIONS["modern"]((20, 30), (64, 64), (1.0, 1.0), jitter=0)
    target = Augmented(data, augment, data.tasks, seed=0)[0][1]["segmentation"]
    assert target.unique().tolist() == [0, 1, IGNORE]
    assert int((target == 1).sum()) == 20


def test_gray_values_of_any_range(tmp_path: Path) -> None:
    """PGM files say which value is white, and Pillow stretches the others."""
    for number, white in enumerate((1, 10, 100, 255)):
        path = tmp_path / f"{number}.pgm"
        path.write_bytes(b"P5 2 1 %d\n" % white + bytes([white, white // 2]))
        assert read_mask(path).tolist() == [[white, white // 2]]
    path.write_bytes(b"P5 2 1 1000\n" + (1000).to_bytes(2, "big") + (7).to_bytes(2, "big"))
    assert read_mask(path).tolist() == [[1000, 7]]
    path.write_bytes(b"P2 2 1 10\n10 7\n")
    assert read_mask(path).tolist() == [[10, 7]]


def test_images_of_pillow_are_read_again(tmp_path: Path) -> None:
    """Pillow forgets how the file has stored the pixels, and lets one thread at a time decode an image."""
    (tmp_path / "3.pgm").write_bytes(b"P5 4 1 3\n" + bytes(range(4)))
    png(tmp_path / "4.png", 4, [[0, 1, 2, 3]])
    for name in ("3.pgm", "4.png"):
        image = Image.open(tmp_path / name)
        assert [to_ids(loaded(image)).tolist() for _ in range(2)] == 2 * [[[0, 1, 2, 3]]]
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)).save(tmp_path / "photo.png")
    for _ in range(8):
        image = Image.open(tmp_path / "photo.png")
        with ThreadPoolExecutor(4) as pool:
            photos = list(pool.map(lambda _, image=image: read_photo(image), range(4)))
        assert all((photo == photos[0]).all() for photo in photos)


def test_palettes_with_the_colour_of_ignored_pixels(tmp_path: Path) -> None:
    colors = {(128, 64, 128): 0, (70, 130, 180): 1}
    for palette, indices, fits in (
        ([(70, 130, 180), (128, 64, 128), (9, 9, 9)], [0, 1, 2], False),
        ([(0, 0, 0), (128, 64, 128), (70, 130, 180)], [0, 1, 2], False),
        ([(128, 64, 128), (70, 130, 180), (9, 9, 9)], [0, 1, 2], True),
        ([(1, 1, 1), (2, 2, 2), (3, 3, 3)], [0, 1, 2], True),
    ):
        mask = Image.fromarray(np.array([indices], np.uint8))
        mask.putpalette([value for color in palette for value in color])
        mask.save(tmp_path / "mask.png")
        if fits:
            assert read_mask(tmp_path / "mask.png", colors).tolist() == [indices]
        else:
            with pytest.raises(ValueError, match="has a palette in which index"):
                read_mask(tmp_path / "mask.png", colors)


def test_colours_of_more_than_8_bit_are_no_ids(tmp_path: Path) -> None:
    """Pillow keeps the higher 8 bit, which are 0 for ids."""
    rows = b"".join(b"\0" + b"".join(bytes([0, value] * 3) for value in range(4)) for _ in range(2))
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0), b"IDAT": zlib.compress(rows), b"IEND": b""}
    path = tmp_path / "mask.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks.items()
        )
    )
    with pytest.raises(ValueError, match=r"mask\.png has several channels of other than 8 bit"):
        read_mask(path)


@pytest.mark.parametrize(("mode", "paper"), [("LA", 0), ("LA", 255), ("RGBA", 0)])
def test_shapes_in_the_alpha_channel_are_no_ids(tmp_path: Path, mode: str, paper: int) -> None:
    """Cutouts have one colour, and their shape is their alpha; it must not be read as one class everywhere."""
    shape = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (4, 3)))
    picture = Image.new(mode[:-1], shape.size, (paper,) * len(mode[:-1]))
    picture.putalpha(shape)
    picture.save(tmp_path / "mask.png")
    for colors in (None, {(paper,) * 3: 0, (128, 0, 0): 1}):
        with pytest.raises(ValueError, match=r"mask\.png has one colour everywhere, and its shapes are in the alpha"):
            read_mask(tmp_path / "mask.png", colors)
    picture.putalpha(255)
    picture.save(tmp_path / "mask.png")
    assert np.unique(read_mask(tmp_path / "mask.png")).tolist() == [paper]


def test_masks_of_many_bits_and_palettes(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "16.png")
    labels = read_mask(tmp_path / "16.png")
    assert labels.dtype == np.int32
    assert (labels == RAMP).all()
    ids = np.tile(np.arange(30, dtype=np.uint8), (20, 1))
    indexed = Image.fromarray(ids)
    indexed.putpalette(bytes(range(90)))
    indexed.save(tmp_path / "palette.png")
    assert (read_mask(tmp_path / "palette.png") == ids).all()


def test_training_with_masks_of_16_bit(own: Path, tmp_path: Path) -> None:
    for path in own.glob("masks/*/*.png"):
        Image.fromarray(np.tile(np.array([0, 1, IGNORE], np.uint16), (20, 10))).save(path)
    data = load_dataset("images_masks", own, "train")
    assert data[0][1].dtype == torch.int32
    recipe = TrainConfig(
        epochs=1, batch_size=2, img_resize=(32, 32), rand_crop=(48, 48), transform_rotation=5.0, workers=0
    )
    train(network(3), data, data, recipe, tmp_path / "run")
    assert (tmp_path / "run/samples.png").is_file()


def test_masks_that_are_none(own: Path, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "color.png")
    with pytest.raises(ValueError, match=r"color\.png is a colour picture.*replace each colour by the id"):
        read_mask(tmp_path / "color.png")
    Image.fromarray(np.zeros((3, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif has floating-point values"):
        read_mask(tmp_path / "float.tif")
    negative = np.full((20, 30), -1, np.int32)
    Image.fromarray(negative).save(own / "masks/train/0.tif")
    Image.fromarray(negative).save(own / "masks/train/1.tif")
    with pytest.raises(ValueError, match=r"0\.tif has ids \[-1\]"):
        load_dataset("images_masks", own, "train", mask_suffix=".tif")[0]


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_own_masks_of_another_type(kind: torch.dtype, tmp_path: Path) -> None:
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    data: list[Any] = [(image, torch.zeros(32, 32, dtype=kind))] * 2
    with pytest.raises(ValueError, match=r"sample 0: the ground truth of 'segmentation' is torch\.\w+, .*integers"):
        evaluate(network(3), data)
    recipe = TrainConfig(epochs=1, batch_size=2, img_resize=(32, 32), workers=0, class_weights="none")
    with pytest.raises(ValueError, match=r"sample .: the ground truth of 'segmentation'"):
        train(network(3), data, None, recipe, tmp_path / "run")
