"""The reader of photos: every user of a photo (prediction, datasets, optical flow, quantization) gets the same pixels.

Needs no torch. `edgeseg.vision.masks` reads label maps.
"""

from __future__ import annotations

import math
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Union

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from edgeseg.machine.terminal import warn
from edgeseg.spec import Input
from edgeseg.vision.bands import read_bands, size_of_bands
from edgeseg.vision.listing import VIDEO_SUFFIXES
from edgeseg.vision.orientation import TURNED, upright

if TYPE_CHECKING:
    from torch import Tensor

ImageLike = Union[str, "os.PathLike[str]", Image.Image, np.ndarray, "Tensor"]
"""A path (also of a .npy file), a PIL image, a uint8 array [H, W, C] or [H, W], or a uint8 tensor [C, H, W]."""

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's mode for a number of channels
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF files, and one of its values
GRAY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "F")  # Pillow's modes
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")  # formats of animations; photos of phones have further pictures too (MPO)
BITS = 258  # the tag of the bits per sample
PREMULTIPLIED = {"RGBa": "RGBA", "La": "LA"}  # Pillow converts these modes to no others


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Args:
        image: As Pillow decodes it, not yet turned upright.
        name: The file, for error messages; "the image" if there is none.
        raw_mode: How the file stores the pixels, in Pillow's words, such as "L;4" for 4-bit gray.
        highest: The value that the file stores for white, where Pillow has stretched the values up to 255 or 65535.
        orientation: The EXIF orientation of the image, if it has one.
    """

    image: Image.Image
    name: str
    raw_mode: str = ""
    highest: int | None = None
    orientation: object = None

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """Turns pixels [H, W] or [H, W, C] as the EXIF orientation of the image says."""
        return upright(pixels, self.orientation)


def read_photo(image: ImageLike, channels: int = 3, *, max_pixels: int | None = None) -> np.ndarray:
    """Reads a photo with the channels that an input of a network has.

    Files and PIL images are turned upright by their EXIF orientation. They become gray for one channel, gray and alpha
    for two, RGB for three and RGBA for four; TIFF files with as many bands as there are channels keep their bands. A
    photo without alpha is refused where the network takes it: no channel is made up. Gray values of 16 bit are divided
    by 257, floating-point values of 0 to 1 are multiplied by 255.

    Args:
        image: See `ImageLike`. Arrays and tensors have the channels already; a gray array is repeated for RGB.
        channels: Number of channels.
        max_pixels: Height times width above which a file or a PIL image, which may not be decoded yet, is refused; by
            default Pillow's limit, which is twice `Image.MAX_IMAGE_PIXELS` and is left as it is.

    Returns:
        uint8 [H, W, channels], 0 to 255.

    Raises:
        TypeError: `image` is of another type, or an array or tensor is not uint8.
        ValueError: another number of dimensions or channels, pixel values whose range cannot be known, or an address.
        OSError: a file that is missing, damaged, too large or not an image. Errors of files name the file.
    """
    if isinstance(image, str | os.PathLike):
        if "://" in os.fspath(image):
            raise ValueError(f"{image} is an address, and photos are read from files; download it first")
        path = Path(image)
        if path.suffix.lower() == ".npy":
            if max_pixels is not None:
                height, width = _load_array(path, mmap_mode="r").shape[:2]
                _check_pixels(height, width, max_pixels, str(path))
            return _fitted(_load_array(path), channels, str(path))
        with named_errors(str(path)):
            bands = read_bands(path, channels, max_pixels)
        if bands is not None:
            return bands
        return to_channels(open_picture(path, max_pixels), channels)
    if isinstance(image, Image.Image):
        _check_pixels(image.height, image.width, max_pixels, "the image")
        return to_channels(loaded(image), channels)
    if isinstance(image, np.ndarray):
        return _fitted(image, channels, "the image")
    if _is_tensor(image):
        return _fitted(_from_tensor(image), channels, "the image")
    raise TypeError(f"an image is a path, PIL image, uint8 array or uint8 tensor, got {type(image).__name__}")


def read_input(image: ImageLike, each: Input, *, max_pixels: int | None = None) -> np.ndarray:
    """Reads the pixels of one input of a network, uint8 [H, W, C]: a photo, or flow as `edgeseg flow` writes it.

    A network that takes two channels of flow takes x and y, without the third channel of the file.
    """
    if each.kind != "flow":
        return read_photo(image, each.channels, max_pixels=max_pixels)
    if isinstance(image, str | os.PathLike):
        if Path(image).suffix.lower() not in (".npy", ".tif", ".tiff"):
            with named_errors(str(image)), Image.open(image) as file:
                mode, stored = file.mode, "".join(str(each.args) for each in file.tile)
            _require_flow(str(image), mode, stored)
        pixels = read_photo(image, max(each.channels, 3), max_pixels=max_pixels)
        return np.ascontiguousarray(pixels[..., : each.channels])
    if isinstance(image, Image.Image):
        _require_flow("the image", image.mode)
    elif isinstance(image, np.ndarray) and (image.ndim == 2 or image.shape[-1] == 1):
        _require_flow("the image", "L")
    return read_photo(image, each.channels, max_pixels=max_pixels)


def _require_flow(name: str, mode: str, stored: str = "") -> None:
    """Raises a ValueError for gray pictures and for 16-bit ones, of which Pillow keeps the upper 8 bits."""
    if mode in GRAY or "16" in stored:
        raise ValueError(
            f"{name} is not a picture of optical flow as `edgeseg flow` writes it, with 8 bits per channel and the "
            "motion in x and y plus 128 in the first two; edgeseg.vision.flow.encode_flow makes one from motion in "
            "pixels"
        )


@contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Turns every error of a damaged file into an OSError that names the file.

    Which types Pillow and numpy raise depends on the format and on where the damage is, and is not documented.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Image.DecompressionBombError as error:
        raise OSError(f"cannot read {name}: {error} Larger photos need max_pixels (--max-pixels)") from error
    except UnidentifiedImageError as error:
        if Path(name).suffix.lower() in VIDEO_SUFFIXES:
            cure = "a video, not an image: `edgeseg predict` takes videos, and `predict_frames` their frames"
        else:
            cure = "not an image, or of a format that Pillow does not know; convert it to JPEG or PNG"
        raise OSError(f"cannot read {name}: {cure}") from error
    except Exception as error:
        raise OSError(f"cannot read {name}: {str(error) or type(error).__name__}") from error


def open_picture(path: Path, max_pixels: int | None = None) -> Picture:
    """Decodes an image file.

    Raises:
        OSError: the file is missing, damaged, too large or not an image; names the file.
    """
    with _opened(path) as file:
        with named_errors(str(path)):
            image = Image.open(file) if max_pixels is None else _open_up_to(max_pixels, file)
        if image.format in ANIMATED and getattr(image, "is_animated", False):
            warn(f"{path} is an animation; only the first of its {getattr(image, 'n_frames', 2)} pictures is read")
        return loaded(image, str(path))


def _opened(path: Path) -> IO[bytes]:
    """Opens a file. A pipe is refused: whoever opens it waits until something is written to it."""
    if path.is_fifo():
        raise OSError(f"cannot read {path}: it is a pipe, and photos are read from files")
    return path.open("rb")


def photo_size(path: Path) -> tuple[int, int]:
    """Reads the height and width that the photo in a file has after `read_photo`, without decoding the photo.

    Raises:
        OSError: the file is missing, damaged or not an image; names the file.
        ValueError: a .npy file that is not a photo; names the file.
    """
    if path.suffix.lower() == ".npy":
        height, width = _load_array(path, mmap_mode="r").shape[:2]
        return height, width
    with _opened(path) as file, named_errors(str(path)):
        try:
            image = Image.open(file)
        except UnidentifiedImageError:
            if (size := size_of_bands(path)) is None:
                raise
            return size
        # New versions of Pillow report the size of a TIFF file as it is after turning, and keep the tag.
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in TURNED and not hasattr(image, "_tile_size")
        return (image.width, image.height) if turned else (image.height, image.width)


def _check_pixels(height: int, width: int, max_pixels: int | None, name: str) -> None:
    if max_pixels is not None and width * height > max_pixels:
        raise OSError(f"{name} has {width} x {height} pixels, more than max_pixels {max_pixels}")


def _open_up_to(max_pixels: int, file: IO[bytes]) -> Image.Image:
    """`Image.open` with another limit. Pillow has one for the whole process, and other threads may rely on it."""
    Image.init()
    start = file.read(16)
    for factory, accepts in (Image.OPEN[name] for name in Image.ID):
        if accepts is not None and accepts(start) is not True:
            continue
        file.seek(0)
        try:
            image = factory(file, "")
        except (SyntaxError, LookupError, TypeError, struct.error):
            continue  # as in `Image.open`: of another format after all
        _check_pixels(image.height, image.width, max_pixels, "it")
        if hasattr(image, "_tile_size"):  # TIFF files are checked again when they are decoded, unless they have memory
            image.im = Image.new(image.mode, image._tile_size).im
        return image
    raise UnidentifiedImageError("not an image, or of a format that Pillow does not know")


def loaded(image: Image.Image, name: str = "") -> Picture:
    """Decodes a PIL image while its file is open.

    Pillow forgets how a file stores the pixels when it decodes them, and lets one thread at a time decode an image. The
    image keeps the former, and the lock for the latter, as attributes, so that every call returns the same.
    """
    name = name or str(getattr(image, "filename", "") or "the image")
    kept = vars(image)
    with kept.setdefault("_edgeseg_lock", threading.Lock()), named_errors(name):
        if tile := getattr(image, "tile", None):
            stored = tile[0][3] if isinstance(tile[0][3], tuple) else (tile[0][3],)
            highest = stored[1] if tile[0][0].startswith("ppm") and len(stored) > 1 else None
            kept["_edgeseg_stored"] = str(stored[0]), highest
        image.load()
        if 0 in image.size:
            raise ValueError("it has no pixels")
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    raw_mode, highest = kept.get("_edgeseg_stored", ("", None))
    return Picture(image, name, raw_mode, highest, orientation)


def to_channels(picture: Picture, channels: int) -> np.ndarray:
    """Returns the pixels of a decoded image as `read_photo` does, upright, uint8 [H, W, channels].

    Raises:
        OSError: the image is damaged.
        ValueError: another number of channels, or pixel values whose range cannot be known. All errors name the image.
    """
    image = _to_8_bit(picture)
    mode, bands = MODES.get(channels), len(image.getbands())
    with named_errors(picture.name):
        lacks_alpha = channels in (2, 4) and not _has_alpha(image, channels)
    if mode is None or lacks_alpha:
        also = "photos with alpha (RGBA), " if channels == 4 else ""
        raise ValueError(
            f"{picture.name} has {bands} channels ({picture.image.mode}) and the network takes {channels}; such inputs "
            f"are {also}TIFF files of {channels} bands, or .npy files with a uint8 array [H, W, {channels}]"
        )
    if image.mode == "RGBX" and channels == 4:
        return picture.upright(np.array(image))
    try:
        if image.mode in PREMULTIPLIED:
            image = image.convert(PREMULTIPLIED[image.mode])
        pixels = np.array(image.convert(mode)).reshape(image.height, image.width, channels)
    except Exception as error:  # of several types, as in `named_errors`
        raise ValueError(f"{picture.name} cannot become {mode}: {error}; convert it to RGB first") from error
    return picture.upright(pixels)


def _has_alpha(image: Image.Image, channels: int) -> bool:
    """Whether an image has the second or fourth channel of a network that takes two or four channels."""
    if channels == 2:
        return len(image.getbands()) == 2
    return image.mode == "RGBX" or image.has_transparency_data


def _to_8_bit(picture: Picture) -> Image.Image:
    """Scales gray values of more than 8 bit by the range of their type."""
    image, values = picture.image, np.asarray(picture.image) if picture.image.mode[0] in "IF" else None
    if values is None:
        return image
    if image.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                f"{picture.name} has floating-point values beyond 0 to 1, so their range cannot be known; scale them "
                "to 0 to 1, or convert the photo to 8 or 16 bit"
            )
        return Image.fromarray((values * 255).round().astype(np.uint8))
    # Some versions of Pillow open 16-bit PNG files, and all open 16-bit PGM files, in the 32-bit mode "I".
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise ValueError(
            f"{picture.name} has 32-bit or signed integers (mode I), so their range cannot be known; convert the photo "
            "to 8 or 16 bit"
        )
    tags = getattr(image, "tag_v2", {})
    largest = 4095 if tags.get(BITS) == (12,) else 65535
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # which Pillow turns for 8 bit only
        values = largest - values.astype(np.uint32)
    return Image.fromarray(((values.astype(np.uint32) * 255 + largest // 2) // largest).astype(np.uint8))


def _load_array(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    with named_errors(str(path)):
        array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds several arrays")
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ValueError(
            f"{path} has {array.dtype} values of the shape {list(array.shape)}; .npy files of photos are uint8 "
            "[H, W, C] or [H, W], 0 to 255"
        )
    return array


def _is_tensor(image: Any) -> bool:
    """Whether `image` is a tensor, found out without importing torch."""
    return any(kind.__module__ == "torch" and kind.__name__ == "Tensor" for kind in type(image).__mro__)


def _from_tensor(image: Any) -> np.ndarray:
    if str(image.dtype) != "torch.uint8":
        raise TypeError(f"image tensors are uint8, 0 to 255, got {image.dtype}; call the model for float tensors")
    if image.ndim != 3:
        raise ValueError(f"an image tensor is [C,H,W], got shape {tuple(image.shape)}; pass a batch as a list")
    return np.asarray(image.permute(1, 2, 0).cpu())


def _fitted(array: np.ndarray, channels: int, name: str) -> np.ndarray:
    """The array as uint8 [H, W, channels]; a gray array is repeated for RGB."""
    if array.dtype != np.uint8:
        raise TypeError(
            f"{name}: image arrays are uint8, 0 to 255, got {array.dtype}; multiply values of 0 to 1 by 255, and "
            "convert with .astype(numpy.uint8)"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        raise ValueError(f"{name}: an image array is [H,W,C] or [H,W], got shape {array.shape}")
    if 0 in array.shape[:2]:
        raise ValueError(f"{name} has no pixels")
    if array.shape[2] == 1 and channels == 3:
        return np.repeat(array, 3, axis=2)
    if array.shape[2] != channels:
        raise ValueError(
            f"{name} has {array.shape[2]} channels, and the network takes {channels}; arrays are [H, W, C], and "
            "tensors [C, H, W]"
        )
    return array if array.flags.writeable else array.copy()  # torch warns of arrays that it must not write to


def tiles(size: Sequence[int], tile: Sequence[int]) -> Iterator[tuple[tuple[range, range], tuple[range, range]]]:
    """Yields the tiles that cover an image.

    Neighbouring tiles overlap by a quarter of a tile, of which each keeps the half on its own side.

    Args:
        size: Height and width of the image, in pixels.
        tile: Height and width of a tile, in pixels.

    Yields:
        Per tile, the rows and columns to predict, and those of them to keep.
    """
    rows, columns = (_spans(length, min(part, length)) for length, part in zip(size, tile, strict=True))
    for outer_rows, inner_rows in rows:
        for outer_columns, inner_columns in columns:
            yield (outer_rows, outer_columns), (inner_rows, inner_columns)


def _spans(length: int, part: int) -> list[tuple[range, range]]:
    count = math.ceil(max(length - part, 0) / max(part * 3 // 4, 1)) + 1
    starts = [round(i * (length - part) / max(count - 1, 1)) for i in range(count)]
    cuts = [0, *((a + part + b) // 2 for a, b in pairwise(starts)), length]
    return [(range(s, s + part), range(cuts[i], cuts[i + 1])) for i, s in enumerate(starts)]
