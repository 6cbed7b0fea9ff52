"""From photos to label maps, whatever form the photos have."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import edgeseg
from edgeseg import Preprocess, Task
from edgeseg.labels import palette_of
from edgeseg.vision.images import ImageLike, read_photo, tiles
from edgeseg.vision.preprocess import to_input

from .conftest import TINY


def by_hand(model: edgeseg.Pixel2Pixel, image: np.ndarray) -> np.ndarray:
    """The label map in plain steps: normalize, network, resize, argmax."""
    x = torch.from_numpy((image.astype(np.float32) - 128) / 64).permute(2, 0, 1)[None]
    with torch.inference_mode():
        logits = model.decode(x)["segmentation"]
        logits = F.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)
    return logits[0].argmax(0).numpy()


def test_every_form_of_a_photo(tiny: edgeseg.Pixel2Pixel, photo: Path) -> None:
    array = np.array(Image.open(photo))
    expected = by_hand(tiny, array)
    assert len(np.unique(expected)) > 1
    forms: list[ImageLike] = [str(photo), photo, Image.open(photo), array, torch.from_numpy(array).permute(2, 0, 1)]
    for labels in [*(tiny.predict(form) for form in forms), *tiny.predict(forms)]:
        assert labels.dtype == np.uint8
        assert labels.shape == (60, 90)
        assert (labels == expected).mean() > 0.999


def test_each_image_keeps_its_size(tiny: edgeseg.Pixel2Pixel) -> None:
    tiny.configure(preprocess=Preprocess(size=(64, 64)))
    sizes = [(40, 50), (33, 129), (200, 100)]
    labels = tiny.predict([np.zeros((*size, 3), np.uint8) for size in sizes])
    assert [map_.shape for map_ in labels] == sizes


def test_batches(tiny: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    """The same maps, whatever goes through the network together; also in onnxruntime, also of a file for one photo."""
    random = np.random.default_rng(0)
    tall, wide = (64, 48), (48, 96)
    images = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in (tall, tall, tall, wide, tall, wide)]
    expected = tiny.predict(images)
    runs: list[int] = []
    hook = tiny.encoder.register_forward_pre_hook(lambda _, inputs: runs.append(len(inputs[0][0])))
    found = tiny.predict(images, batch_size=2)
    hook.remove()
    assert runs == [2, 1, 1, 1, 1]
    tiny.configure(preprocess=Preprocess(size=(64, 64)))
    for dynamic in (("batch",), ()):
        edgeseg.export_onnx(tiny, tmp_path / "tiny.onnx", dynamic=dynamic, size=(64, 64))
        segmenter = edgeseg.OnnxSegmenter(tmp_path / "tiny.onnx")
        expected += segmenter.predict(images)
        found += segmenter.predict(images, batch_size=3)
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape
        assert (one == other).mean() > 0.999
    with pytest.raises(ValueError, match="batch_size must be at least 1, and an integer, got 0"):
        tiny.predict(images, batch_size=0)


def test_preprocessing() -> None:
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).repeat(3, 1, 1)
    image[0] = 0
    x = to_input(image, Preprocess())
    assert x.shape == (1, 3, 16, 16)
    torch.testing.assert_close(x[0, 1], (image[1].float() - 128) / 64)
    assert (x[0, 0] == -2).all()
    bgr = to_input(image, Preprocess(channel_order="bgr"))
    assert (bgr[0, 2] == -2).all()
    other = to_input(torch.full_like(image, 40), Preprocess(mean=(0, 20, 0), std=(1, 2, 4), size=(8, 9)))
    assert other.shape == (1, 3, 8, 9)
    assert other.amax(dim=(0, 2, 3)).tolist() == other.amin(dim=(0, 2, 3)).tolist() == [40, 10, 10]
    torch.testing.assert_close(to_input(image[:2], Preprocess()), x[:, :2])
    with pytest.raises(ValueError, match="take 3 channels per image, got 2"):
        to_input(image[:2], Preprocess(std=(1, 2, 4)))


def test_input_size() -> None:
    stretched, kept = Preprocess(size=(480, 640)), Preprocess(size=(480, 640), keep_aspect=True)
    assert Preprocess().input_size((1080, 1920)) == (1080, 1920)
    assert stretched.input_size((1080, 1920)) == (480, 640)
    assert kept.input_size((360, 480)) == (480, 640)
    assert kept.input_size((4000, 3000)) == (640, 480)  # a phone held upright
    height, width = kept.input_size((1024, 2048))
    assert height * width == pytest.approx(480 * 640, rel=0.01)
    assert width / height == pytest.approx(2, rel=0.01)
    assert kept.input_size((1, 10**6))[0] == 1


def test_preprocessing_of_tensors(tiny: edgeseg.Pixel2Pixel, photo: Path) -> None:
    """`model.preprocess(pixels)` gives what `predict` gives the network, for one image and for a batch."""
    pixels = torch.from_numpy(read_photo(photo, 3)).permute(2, 0, 1)
    for preprocess in (Preprocess(), Preprocess(size=(40, 50)), Preprocess(size=(40, 50), keep_aspect=True)):
        tiny.configure(preprocess=preprocess)
        (expected,) = tiny.prepare(photo)
        assert torch.equal(tiny.preprocess(pixels), expected)
        assert torch.equal(tiny.preprocess(torch.stack([pixels, pixels])), torch.cat([expected, expected]))
        assert tiny.preprocess.normalize(pixels).shape == (1, *pixels.shape)
    with pytest.raises(TypeError, match=r"uint8 pixels of 0 to 255 that are not normalized yet, got torch.float32"):
        tiny.preprocess(pixels / 255)
    with pytest.raises(ValueError, match=r"\[N, C, H, W\] or \[C, H, W\], got a tensor of shape \[60, 90\]"):
        tiny.preprocess(pixels[0])
    with pytest.raises(TypeError, match=r"pass model\.preprocess\(images\)"):
        tiny(pixels[None])


def test_a_drawing(tiny: edgeseg.Pixel2Pixel, photo: Path) -> None:
    """The photo with the colours of its classes above their key; notebooks show PIL images."""
    picture = tiny.draw(photo)
    with Image.open(photo) as source:
        assert picture.width == source.width
        assert picture.height > source.height
    present = np.unique(tiny.predict(photo))
    palette = palette_of(tiny.tasks["segmentation"])
    drawn = {color for _, color in picture.crop((0, source.height, *picture.size)).getcolors(1 << 24) or []}
    assert drawn >= {palette[i] for i in present}
    assert picture._repr_png_()


def test_models_are_printed_in_short(tiny: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    text = repr(tiny.eval())
    assert text.startswith("Pixel2Pixel fpn\n")
    assert "input image: image, 3 channels\n" in text
    assert "evaluation mode" in text
    assert len(text.splitlines()) < 10
    assert "training mode" in repr(tiny.train())
    assert "Conv2d" in repr(tiny.encoder)
    tiny.configure(notes={"license": "\x1b[2J"})
    assert "\x1b" not in repr(tiny)
    edgeseg.export_onnx(tiny, tmp_path / "tiny.onnx", size=(64, 64), dynamic=())
    assert repr(edgeseg.OnnxSegmenter(tmp_path / "tiny.onnx")).startswith("OnnxSegmenter fpn\n")
    two = edgeseg.create_model(
        "unet_aspp_mobilenetv2_tv_edgeailite", tasks={"depth": Task("depth")}, in_channels=(3, 1)
    )
    assert "input flow: flow, 3 channels\n  input image: image, 1 channel\n  task depth: depth, 1 channel\n" in repr(
        two
    )


def test_photo_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # camera held upright
    Image.new("RGB", (40, 20)).save(tmp_path / "phone.jpg", exif=exif)
    assert read_photo(tmp_path / "phone.jpg").shape == (40, 20, 3)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_image_modes(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Image.new(mode, (12, 8)).save(path)
    assert read_photo(path).shape == (8, 12, 3)
    assert read_photo(np.zeros((8, 12), np.uint8)).shape == (8, 12, 3)


def test_wrong_images(tiny: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="arrays are uint8, 0 to 255, got float64"):
        tiny.predict(np.zeros((8, 8, 3)))
    with pytest.raises(TypeError, match=r"tensors are uint8.*call the model"):
        tiny.predict(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="pass a batch as a list"):
        tiny.predict(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"shape \(2, 8, 8, 3\)"):
        tiny.predict(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(TypeError, match="got int"):
        tiny.predict(3)  # type: ignore[call-overload]
    with pytest.raises(FileNotFoundError):
        tiny.predict(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"takes image \(3 channels\), got 2 inputs"):
        tiny.predict(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="no task named 'depth'; this model has segmentation"):
        tiny.predict(np.zeros((8, 8, 3), np.uint8), task="depth")


def test_training_mode_is_kept(tiny: edgeseg.Pixel2Pixel) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    expected = tiny.predict(image)
    assert (tiny.train().predict(image) == expected).all()
    assert tiny.training


def test_several_inputs_and_tasks() -> None:
    tasks = {"semantic": Task(channels=300), "depth": Task("depth", 1, range=(0, 9))}
    model = edgeseg.create_model("fpn", encoder="test_efficientnet", channels=8, in_channels=(2, 3), tasks=tasks)
    images = [np.zeros((20, 30, 3), np.uint8)] * 2
    flows = [np.zeros((20, 30, 2), np.uint8)] * 2
    semantic, depth = model.predict(flows[0], images[0]), model.predict(flows[0], images[0], task="depth")
    assert semantic.dtype == np.uint16
    assert depth.dtype == np.float32
    assert semantic.shape == depth.shape == (20, 30)
    assert len(model.predict(flows, images)) == 2
    both = model.predict_tasks(flows[0], images[0])
    assert (both["semantic"] == semantic).all()
    assert (both["depth"] == depth).all()
    with pytest.raises(ValueError, match=r"the same number of images, got flow 2, image 1"):
        model.predict(flows, images[:1])
    with pytest.raises(ValueError, match=r"one size, got flow \[10, 15\], image \[20, 30\]"):
        model.predict(np.zeros((10, 15, 2), np.uint8), images[0])


def test_tiles_cover_the_image_once() -> None:
    for size, tile in (((100, 70), (40, 30)), ((33, 200), (64, 50)), ((10, 10), (10, 10)), ((41, 41), (40, 40))):
        seen = np.zeros(size, int)
        for outer, inner in tiles(size, tile):
            assert all(len(o) <= t for o, t in zip(outer, tile, strict=True))
            assert all(o.start <= i.start and i.stop <= o.stop for o, i in zip(outer, inner, strict=True))
            seen[inner[0].start : inner[0].stop, inner[1].start : inner[1].stop] += 1
        assert (seen == 1).all()


def test_large_tiles_of_a_network_without_a_size(tiny: edgeseg.Pixel2Pixel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit on the sizes that records state does not concern tiles of photos that keep their own size."""
    monkeypatch.setattr("edgeseg.spec.LARGEST_SIZE", 96 * 95)
    tiny.configure(preprocess=edgeseg.Preprocess())
    assert tiny.predict(np.zeros((120, 160, 3), np.uint8), tile=(96, 96)).shape == (120, 160)


def test_prediction_in_tiles(tiny: edgeseg.Pixel2Pixel) -> None:
    """A photo that fits one tile is predicted whole; in tiles most pixels are the same, at any input size."""
    image = (np.indices((120, 160)).sum(axis=0)[..., None] * [1, 2, 1] % 256).astype(np.uint8)
    for size in (None, (60, 80)):
        tiny.configure(preprocess=edgeseg.Preprocess(size=size))
        whole = tiny.predict(image)
        assert (tiny.predict(image, tile=(120, 160)) == whole).all()
        pieces = tiny.predict(image, tile=(96, 96))
        assert pieces.shape == whole.shape
        assert (pieces == whole).mean() > 0.7


def test_four_channels_in_the_order_bgr() -> None:
    """Only the colours are turned; a fourth channel stays the fourth."""
    preprocess = edgeseg.Preprocess(mean=(0.0,), std=(1.0,), channel_order="bgr")
    pixels = torch.arange(4, dtype=torch.uint8).view(1, 4, 1, 1)
    assert preprocess.normalize(pixels).flatten().tolist() == [2, 1, 0, 3]
    assert preprocess.normalize(pixels[:, :3]).flatten().tolist() == [2, 1, 0]
    with pytest.raises(TypeError, match=r"images are a torch tensor \[N, C, H, W\], got ndarray; model\.prepare"):
        preprocess(pixels.numpy())  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 2.5, "2"])
def test_batch_sizes_are_whole_numbers(size: Any, photo: Path) -> None:
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8, num_classes=3)
    with pytest.raises(ValueError, match="batch_size must be at least 1, and an integer, got"):
        model.predict([photo], batch_size=size)


@pytest.mark.parametrize("count", [0, -1, "10", 1.5])
def test_max_pixels_is_a_whole_number(count: Any, tiny: edgeseg.Pixel2Pixel, photo: Path) -> None:
    """The photo is not to blame."""
    for call in (tiny.predict, tiny.predict_tasks, tiny.draw):
        with pytest.raises(ValueError, match="max_pixels must be at least 1, and an integer, got"):
            call(photo, max_pixels=count)


def test_task_is_a_name(tiny: edgeseg.Pixel2Pixel, photo: Path) -> None:
    for call in (tiny.predict, tiny.draw):
        for task in (0, ""):
            with pytest.raises(ValueError, match=f"no task named {task!r}; this model has segmentation"):
                call(photo, task=task)  # type: ignore[arg-type]


def test_hooks_of_the_model_itself(tiny: edgeseg.Pixel2Pixel, photo: Path) -> None:
    """predict() does not call them, and says so."""
    handle = tiny.register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match=r"does not call the model itself.*optimize\(model, compile=True\)"):
        tiny.predict(photo)
    handle.remove()
    tiny.encoder.register_forward_hook(lambda *_: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny.predict(photo)


def test_animations(tiny: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (20, 10), (shade, 0, 0)) for shade in (0, 90, 200)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:])
    with pytest.warns(UserWarning, match=r"a\.gif is an animation; only the first of its 3 pictures is read"):
        assert tiny.predict(tmp_path / "a.gif").shape == (10, 20)


def test_photos_that_are_none(tiny: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"https://example\.com/a\.jpg is an address, and photos are read from files"):
        tiny.predict("https://example.com/a.jpg")
    (tmp_path / "a.mp4").write_bytes(bytes(100))
    with pytest.raises(OSError, match=r"a\.mp4: a video, not an image: `edgeseg predict` takes videos"):
        tiny.predict(tmp_path / "a.mp4")


def test_inputs_that_are_no_tensors(tiny: edgeseg.Pixel2Pixel) -> None:
    for image in ([torch.zeros(1, 3, 8, 8)], np.zeros((1, 3, 8, 8), np.float32)):
        with pytest.raises(TypeError, match=r"image is a float tensor \[N,3,H,W\], got (list|ndarray): pass one"):
            tiny(image)
