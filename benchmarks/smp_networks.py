"""Networks of segmentation_models_pytorch in edgeseg's form, so that the same code trains and scores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

import edgeseg
from edgeseg import Pixel2Pixel
from edgeseg.spec import Task

# By our decoder, the nearest of theirs.
ARCHITECTURES = {"fpn": "FPN", "unet": "Unet", "deeplabv3plus": "DeepLabV3Plus"}


def decoder_of(name: str) -> str:
    """Of a name of the zoo."""
    spec = edgeseg.model_info(name).spec
    assert spec is not None, f"{name} has none of our decoders"
    return spec.decoder


def plain_network(decoder: str, classes: int) -> Any:
    """As the library makes it, with MobileNetV2 and no weights; takes sizes that are multiples of 32."""
    import segmentation_models_pytorch

    architecture = getattr(segmentation_models_pytorch, ARCHITECTURES[decoder])
    return architecture("mobilenet_v2", encoder_weights=None, classes=classes)


def network(decoder: str, tasks: Mapping[str, Task], imagenet: Path) -> Pixel2Pixel:
    """With torchvision's ImageNet weights in the encoder, for photos normalized as these have it."""
    ((name, task),) = tasks.items()
    made = plain_network(decoder, task.channels)
    made.encoder.load_state_dict(
        {key: value for key, value in load_file(imagenet).items() if not key.startswith("classifier.")}
    )
    config = edgeseg.ModelConfig(
        name=f"segmentation_models_pytorch.{ARCHITECTURES[decoder]}",
        tasks=tasks,
        preprocess=edgeseg.Preprocess(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    )
    return Pixel2Pixel(_Encoder(made.encoder), {name: _Decoder(made)}, config)


class _Encoder(nn.Module):
    """Takes any size: the library's networks want multiples of 32, so zeros are added at the lower and right edge."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder, self.channels = encoder, list(encoder.out_channels)

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        height, width = images[0].shape[-2:]
        padded = nn.functional.pad(images[0], (0, -width % 32, 0, -height % 32))
        return [images[0], *self.encoder(padded)]  # the first for its size


class _Decoder(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.decoder, self.head = network.decoder, network.segmentation_head

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        image, *features = features
        height, width = image.shape[-2:]
        return self.head(self.decoder(list(features)))[..., :height, :width]
