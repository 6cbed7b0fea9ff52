"""The nouns of the zoo, as frozen data that can be read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Color = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One row of the zoo: the few choices that tell two models apart."""

    decoder: Literal["fpn", "unet", "deeplabv3plus", "bifpn"]
    encoder: str
    """A name of `edgeseg.encoders.ENCODERS`, or any timm model that gives a feature pyramid."""
    channels: int = 256
    """Width of the decoder."""
    shortcut_channels: int = 48
    """Width of the low-level feature that DeepLabV3+ concatenates."""
    aspp: bool = True
    """Atrous context block on the deepest feature; without it FPN adds two coarser levels instead."""
    dilations: tuple[int, int, int] = (6, 12, 18)
    activation: Literal["relu", "relu6"] = "relu"
    fast_down: bool = False
    """Halve the resolution once more at the start of the encoder: every stride doubles."""
    output_stride: int = 32
    """Stride at which the encoder ends. Half of the usual one: its last stage keeps stride 1, undilated."""
    prediction_stride: int = 4
    """Stride of the logits before the last upsample."""


@dataclass(frozen=True)
class Task:
    """What one decoder predicts.

    Args:
        kind: "segmentation" (classes, to argmax) or "depth" (a regressed map, in metres).
        channels: Classes, or 1 for depth.
        range: Lowest and highest value of a regressed map; the output is clamped to it.
        classes: Class names, one a channel.
        palette: RGB colours 0 to 255, one a class.
    """

    kind: Literal["segmentation", "depth"] = "segmentation"
    channels: int = 1
    range: tuple[float, float] | None = None
    classes: tuple[str, ...] = ()
    palette: tuple[Color, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("segmentation", "depth"):
            raise ValueError(f"unknown task kind {self.kind!r}; expected 'segmentation' or 'depth'")
        if self.channels < 1:
            raise ValueError(f"a task needs at least one channel, got {self.channels}")
        for name, values in (("class names", self.classes), ("palette colours", self.palette)):
            if values and len(values) != self.channels:
                raise ValueError(f"{len(values)} {name} for a task of {self.channels} channels")


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How a network rounds to 8 bit, see `edgeseg.deploy.qat`.

    Args:
        scheme: "per_channel": weights with a scale for each output channel, activations of any range. "power_of_two":
            scales that are powers of two, one a tensor, symmetric about zero: as the original zoo's 8-bit networks.
        weight_bits: 7 for processors whose 8-bit products saturate (x86 without VNNI), else 8.
    """

    scheme: Literal["per_channel", "power_of_two"] = "per_channel"
    weight_bits: int = 8

    def __post_init__(self) -> None:
        if self.scheme not in ("per_channel", "power_of_two"):
            raise ValueError(f"no scheme named {self.scheme!r}; there are per_channel, power_of_two")
        if self.weight_bits not in (7, 8):
            raise ValueError(f"weights have 7 or 8 bits, got {self.weight_bits}")


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a photo becomes the tensor that a set of weights was trained on.

    The defaults are those of every network of the original zoo: `(x - 128) / 64` on RGB pixels of 0 to 255.

    Args:
        size: Height and width the photo is resized to; None keeps its own size.
        keep_aspect: Resize to as many pixels as `size` has, in the photo's own aspect; else stretch to `size`.
        mean: Subtracted from the pixels, in 0 to 255; one value a channel, or one for all.
        std: Divided by after that, likewise.
        channel_order: "rgb" or "bgr".
    """

    size: tuple[int, int] | None = None
    keep_aspect: bool = False
    mean: tuple[float, ...] = (128.0,)
    std: tuple[float, ...] = (64.0,)
    channel_order: Literal["rgb", "bgr"] = "rgb"
