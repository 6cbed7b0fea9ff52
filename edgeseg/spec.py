"""The records of the zoo: what tells networks apart, what they predict, and how images reach them. Needs no torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from edgeseg.records import Record

if TYPE_CHECKING:
    from torch import Tensor

Color = tuple[int, int, int]

KIND_NAMES = {"segmentation", "binary", "depth"}
"""Names of the kinds of tasks; `edgeseg.register_kind` adds to them. What a kind does stands in `edgeseg.tasks`."""

KIND_CLASSES = {"binary": ("background", "foreground")}
"""Class names of the kinds whose classes are not one per channel."""

DEFAULT_THRESHOLD = 0.5
# Limits of what a record may say, far beyond what networks use, so that every record that is read can be computed with.
LARGEST_SIZE = 2**23  # pixels
MOST_CLASSES = 2**16  # of 16-bit maps
LARGEST_DILATION = 256
LARGEST_VALUE = 1e6  # of means, standard deviations and depths
SMALLEST_STD = 1e-3


@dataclass(frozen=True, kw_only=True, repr=False)
class ModelSpec(Record):
    """One row of the zoo: the few choices that tell two networks apart.

    Args:
        decoder: Name of a decoder: "fpn", "unet", "deeplabv3plus", "bifpn", "fpnsum", "espnetv2", or one that was
            registered.
        encoder: Name of an encoder of the zoo, of one that was registered, or of any timm model with a feature pyramid.
        channels: Width of the decoder.
        shortcut_channels: Width of the low-level feature that DeepLabV3+ concatenates.
        aspp: Use ASPP on the deepest feature. Without it FPN adds two coarser levels instead.
        dilations: Dilations of the three 3x3 branches of the ASPP.
        activation: Activation of encoder and decoder.
        fast_down: Halve the resolution once more at the start of the encoder, so that every stride doubles.
        output_stride: Stride of the deepest feature. At half of the usual stride the last stage of the encoder keeps
            stride 1, without dilation; a timm network for which this is not possible is dilated by timm instead. None
            is 32 for the zoo's own encoders, and for all others the stride at which the encoder ends.
        prediction_stride: Stride of the logits before the last upsampling.
    """

    decoder: str
    encoder: str
    channels: int = 256
    shortcut_channels: int = 48
    aspp: bool = True
    dilations: tuple[int, int, int] = (6, 12, 18)
    activation: Literal["relu", "relu6"] = "relu"
    fast_down: bool = False
    output_stride: int | None = None
    prediction_stride: int = 4

    def check(self) -> None:
        """Widths and dilations are positive, strides are powers of two, names are not empty."""
        for name in ("decoder", "encoder"):
            self.require(bool(getattr(self, name)), name, "must be a name")
        for name in ("channels", "shortcut_channels"):
            self.require(getattr(self, name) >= 1, name, "must be at least 1")
        for name in ("output_stride", "prediction_stride"):
            stride = getattr(self, name)
            self.require(stride is None or (stride >= 1 and stride & (stride - 1) == 0), name, "must be a power of two")
        self.require(min(self.dilations) >= 1, "dilations", "must be at least 1")
        self.require(max(self.dilations) <= LARGEST_DILATION, "dilations", f"must be at most {LARGEST_DILATION}")


@dataclass(frozen=True, repr=False)
class Task(Record):
    """What one decoder predicts.

    Args:
        kind: "segmentation" (a class per pixel), "binary" (one class of interest against the background), "depth" (a
            distance per pixel, in metres), or a kind that was registered with `edgeseg.register_kind`.
        channels: Number of output channels: 1 for binary and depth; for segmentation the number of classes, at least 2
            (training and evaluation take up to 255), and by default that of the names in `classes`.
        range: Lowest and highest value of a regressed map, to which the output is clamped; None does not clamp.
        classes: Class names, one per channel, all different. A binary task has two, by default ("background",
            "foreground"); a single one is the name of the class of interest.
        palette: RGB colours, 0 to 255, one per class; a single one of a binary task is that of the class of interest.
        threshold: Of a binary task: a pixel belongs to the class of interest if its probability is above this.

    Example:
        >>> import edgeseg
        >>> people = edgeseg.Task("binary", classes=("person",))
        >>> people.classes
        ('background', 'person')
        >>> tasks = {"people": people, "depth": edgeseg.Task("depth", range=(0, 80))}
        >>> list(edgeseg.create_model("fpn", encoder="resnet18", tasks=tasks).tasks)
        ['people', 'depth']
    """

    kind: str = "segmentation"
    channels: int = 1
    range: tuple[float, float] | None = None
    classes: tuple[str, ...] = ()
    palette: tuple[Color, ...] = ()
    threshold: float = DEFAULT_THRESHOLD

    def __post_init__(self) -> None:
        given = KIND_CLASSES.get(self.kind, ()) if isinstance(self.kind, str) else ()
        if given and isinstance(self.classes, tuple | list) and len(self.classes) < len(given):
            object.__setattr__(self, "classes", (*given[: len(given) - len(self.classes)], *self.classes))
        if given and isinstance(self.palette, tuple | list) and len(self.palette) == 1:
            object.__setattr__(self, "palette", ((0, 0, 0), *self.palette))
        if hasattr(self.palette, "tolist"):
            object.__setattr__(self, "palette", self.palette.tolist())
        if not given and self.channels == 1 and isinstance(self.classes, tuple | list):
            object.__setattr__(self, "channels", max(len(self.classes), 1))
        super().__post_init__()

    @property
    def class_count(self) -> int:
        """Number of class ids in the ground truth and in the maps, that of channels or, for a binary task, 2."""
        return len(KIND_CLASSES.get(self.kind, ())) or self.channels

    def check(self) -> None:
        """The kind is known, and there is one name and one colour per class."""
        if self.kind not in KIND_NAMES:
            raise ValueError(f"unknown task kind {self.kind!r}; the kinds are {', '.join(sorted(KIND_NAMES))}")
        self.require(1 <= self.channels <= MOST_CLASSES, "channels", f"must be 1 to {MOST_CLASSES}")
        low, high = self.range or (0, 1)
        self.require(low < high, "range", "must be a lower and a higher value")
        self.require(max(-low, high) <= LARGEST_VALUE, "range", f"must be within {LARGEST_VALUE:g} of 0")
        for name, values in (("class names", self.classes), ("palette colours", self.palette)):
            if values and len(values) != self.class_count:
                raise ValueError(f"{len(values)} {name} for a task of {self.class_count} classes; give one per class")
        twice = [name for name, count in Counter(self.classes).items() if count > 1]
        if twice:
            raise ValueError(f"Task.classes has {', '.join(map(repr, twice))} more than once")
        self.require(all(0 <= value <= 255 for color in self.palette for value in color), "palette", "must be 0 to 255")
        self.require(0 < self.threshold < 1, "threshold", "must be between 0 and 1")


@dataclass(frozen=True, repr=False)
class Input(Record):
    """One of the images that a network takes.

    Args:
        channels: Number of channels.
        kind: "image" for photos, "flow" for optical flow as `edgeseg.vision.flow` stores it, whose vectors change when
            the picture is resized or mirrored.

    Example:
        >>> import edgeseg
        >>> inputs = {"flow": edgeseg.Input(kind="flow"), "image": edgeseg.Input()}
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", in_channels=inputs)
        >>> {name: each.kind for name, each in model.inputs.items()}
        {'flow': 'flow', 'image': 'image'}
    """

    channels: int = 3
    kind: Literal["image", "flow"] = "image"

    def check(self) -> None:
        """There is at least one channel, and optical flow has the motion in x and in y."""
        self.require(self.channels >= 1, "channels", "must be at least 1")
        advice = "must be at least 2 for optical flow; name other inputs: in_channels={'thermal': 1, 'image': 3}"
        self.require(self.kind != "flow" or self.channels >= 2, "channels", advice)


@dataclass(frozen=True, kw_only=True, repr=False)
class Quantization(Record):
    """How a network rounds to 8 bits; see `edgeseg.networks.quantized`.

    Args:
        scheme: "per_channel" has one weight scale per output channel and activations of any range. "power_of_two" has
            one scale per tensor, a power of two and symmetric about zero, as the 8-bit networks of TI's zoo.
        weight_bits: 7 for processors whose sums of 8-bit products saturate (x86 without VNNI), else 8.

    Example:
        >>> import edgeseg
        >>> from edgeseg.engine import TrainConfig
        >>> TrainConfig(quantize="power_of_two").quantize
        'power_of_two'
        >>> edgeseg.Quantization(weight_bits=7).scheme
        'per_channel'
    """

    scheme: Literal["per_channel", "power_of_two"] = "per_channel"
    weight_bits: Literal[7, 8] = 8


@dataclass(frozen=True, kw_only=True, repr=False)
class Preprocess(Record):
    """How a photo becomes the tensor that a set of weights was trained on.

    The defaults are those of every network of TI's zoo: `(x - 128) / 64` on RGB pixels of 0 to 255.

    Args:
        size: Height and width that photos are resized to, at most 2**23 pixels in all; None keeps their own size.
        keep_aspect: Resize to as many pixels as `size` has and keep the photo's aspect ratio; otherwise stretch to
            `size`.
        mean: Subtracted from the pixels, in units of 0 to 255; one value per channel, or one for all.
        std: Divides the result, in the same units; one value per channel, or one for all.
        channel_order: "rgb" or "bgr".

    Example:
        >>> import edgeseg, torch
        >>> imagenet = edgeseg.Preprocess(
        ...     size=(512, 512), keep_aspect=True, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4)
        ... )
        >>> imagenet.input_size((720, 1280))
        (384, 683)
        >>> photos = torch.zeros(1, 3, 720, 1280, dtype=torch.uint8)
        >>> imagenet(photos).shape
        torch.Size([1, 3, 384, 683])
    """

    size: tuple[int, int] | None = None
    keep_aspect: bool = False
    mean: tuple[float, ...] = (128.0,)
    std: tuple[float, ...] = (64.0,)
    channel_order: Literal["rgb", "bgr"] = "rgb"

    def check(self) -> None:
        """Sizes and standard deviations are positive, and no value is beyond what can be computed with."""
        self.require(self.size is None or min(self.size) >= 1, "size", "must be a positive height and width")
        self.require(math.prod(self.size or ()) <= LARGEST_SIZE, "size", f"must be at most {LARGEST_SIZE} pixels")
        self.require(len(self.mean) > 0, "mean", "must have at least one value")
        self.require(max(map(abs, self.mean)) <= LARGEST_VALUE, "mean", f"must be within {LARGEST_VALUE:g} of 0")
        self.require(len(self.std) > 0 and min(self.std) > 0, "std", "must have at least one value, all above 0")
        within = all(SMALLEST_STD <= value <= LARGEST_VALUE for value in self.std)
        self.require(within, "std", f"must be {SMALLEST_STD:g} to {LARGEST_VALUE:g}")

    def for_channels(self, channels: int) -> Preprocess:
        """Returns the record for images of another number of channels: `mean` and `std` are repeated in turn."""
        mean, std = (
            values if len(values) == 1 else tuple(values[i % len(values)] for i in range(channels))
            for values in (self.mean, self.std)
        )
        return replace(self, mean=mean, std=std)

    def input_size(self, size: Sequence[int]) -> tuple[int, int]:
        """The height and width that a photo of the height and width `size` has at the network's input."""
        height, width = size
        if self.size is None:
            return height, width
        if not self.keep_aspect:
            return self.size
        scale = math.sqrt(math.prod(self.size) / (height * width))
        return max(round(height * scale), 1), max(round(width * scale), 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Resizes photos to `input_size` (antialiased bilinear) and normalizes them, as `predict` does.

        Args:
            images: uint8 [N, C, H, W] or [C, H, W] of 0 to 255, RGB, on any device.

        Returns:
            float32 [N, C, h, w], for `model(...)`; N is 1 for a single image.

        Raises:
            TypeError: the images are not uint8.
            ValueError: they have another number of dimensions, or of channels than `mean` and `std` are for.
        """
        return self.normalize(self.resize(images))

    def resize(self, images: Tensor, scale: float = 1.0) -> Tensor:
        """Resizes photos to `input_size` times `scale` (antialiased bilinear), as a batch uint8 [N, C, h, w]."""
        from torch.nn.functional import interpolate

        batch = _batch(images)
        height, width = self.input_size(batch.shape[-2:])
        size = [max(round(height * scale), 1), max(round(width * scale), 1)]
        if size == list(batch.shape[-2:]):
            return batch
        return interpolate(batch, size=size, mode="bilinear", antialias=True)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalizes pixels without resizing them, for instance crops in a training loop.

        Args:
            images: uint8 [N, C, H, W] or [C, H, W] of 0 to 255, RGB, on any device.

        Returns:
            float32 [N, C, H, W].

        Raises:
            TypeError: the images are not uint8.
            ValueError: they have another number of dimensions, or of channels than `mean` and `std` are for.
        """
        import torch

        batch = _batch(images)
        for values in (self.mean, self.std):
            if len(values) not in (1, batch.shape[1]):
                raise ValueError(f"the weights take {len(values)} channels per image, got {batch.shape[1]}")
        if self.channel_order == "bgr":
            batch = torch.cat([batch[:, :3].flip(1), batch[:, 3:]], dim=1)
        mean, std = (torch.tensor(values, device=batch.device).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (batch.float() - mean) / std


def _batch(images: Tensor) -> Tensor:
    """Pixels as a batch [N, C, H, W]; raises an error for anything that is not pixels."""
    if not hasattr(images, "is_cuda"):
        raise TypeError(
            f"images are a torch tensor [N, C, H, W], got {type(images).__name__}; model.prepare(image) takes arrays "
            "and PIL images"
        )
    if str(images.dtype) != "torch.uint8":
        raise TypeError(f"images are uint8 pixels of 0 to 255 that are not normalized yet, got {images.dtype}")
    if images.ndim not in (3, 4):
        raise ValueError(f"images are [N, C, H, W] or [C, H, W], got a tensor of shape {list(images.shape)}")
    return images if images.ndim == 4 else images.unsqueeze(0)
