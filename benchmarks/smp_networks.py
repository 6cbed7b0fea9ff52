"""Networks of segmentation_models_pytorch as Pixel2Pixel models, so that the same code trains and evaluates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

import edgeseg
from edgeseg import Pixel2Pixel
from edgeseg.spec import Task

# The nearest architecture of the library, by decoder of edgeseg.
ARCHITECTURES = {"fpn": "FPN", "unet": "Unet", "deeplabv3plus": "DeepLabV3Plus"}


def decoder_of(name: str) -> str:
    """Returns the decoder of a network of the zoo."""
    spec = edgeseg.model_info(name).spec
    assert spec is not None, f"{name} does not have a decoder of edgeseg"
    return spec.decoder


def plain_network(decoder: str, classes: int) -> Any:
    """Creates the library's network on MobileNetV2 without weights; image sides must be multiples of 32."""
    import segmentation_models_pytorch

    architecture = getattr(segmentation_models_pytorch, ARCHITECTURES[decoder])
    return architecture("mobilenet_v2", encoder_weights=None, classes=classes)


def network(decoder: str, tasks: Mapping[str, Task], imagenet: Path | None) -> Pixel2Pixel:
    """Creates a model with the normalization of torchvision's ImageNet weights, and these in its encoder if given."""
    ((name, task),) = tasks.items()
    plain = plain_network(decoder, task.channels)
    if imagenet is not None:
        plain.encoder.load_state_dict(
            {key: value for key, value in load_file(imagenet).items() if not key.startswith("classifier.")}
        )
    config = edgeseg.ModelConfig(
        name=f"segmentation_models_pytorch.{ARCHITECTURES[decoder]}",
        tasks=tasks,
        preprocess=edgeseg.Preprocess(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    )
    return Pixel2Pixel(_Encoder(plain.encoder), {name: _Decoder(plain)}, config)


def pad_to_32(images: Tensor) -> Tensor:
    """Adds zeros at the lower and right edge until the sides are multiples of 32."""
    height, width = images.shape[-2:]
    return nn.functional.pad(images, (0, -width % 32, 0, -height % 32))


class _Encoder(nn.Module):
    """Takes images of any size. Its first feature is the image itself, from which the decoder reads the size."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder, self.channels = encoder, list(encoder.out_channels)

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        return [images[0], *self.encoder(pad_to_32(images[0]))]


class _Decoder(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.decoder, self.head = network.decoder, network.segmentation_head

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        image, *features = features
        height, width = image.shape[-2:]
        return self.head(self.decoder(list(features)))[..., :height, :width]
