"""ERFNet (Romera et al., 2018, https://doi.org/10.1109/TITS.2017.2750080): factorized residual blocks at stride 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.spec import Task

EPSILON = 1e-3  # added to the variances in batch norms


def build(tasks: Mapping[str, Task]) -> tuple[nn.Module, dict[str, nn.Module]]:
    """Builds the encoder and one decoder per task."""
    return Encoder(), {name: Decoder(task.channels) for name, task in tasks.items()}


class Encoder(nn.Module):
    """[N, 3, H, W] -> [N, 128, H/8, W/8]."""

    channels = (128,)
    strides = (8,)

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            Downsampler(3, 16),
            Downsampler(16, 64),
            *(Factorized(64, 1, dropout=0.03) for _ in range(5)),
            Downsampler(64, 128),
            *(Factorized(128, dilation, dropout=0.3) for _ in range(2) for dilation in (2, 4, 8, 16)),
        )

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        """One image -> one feature."""
        return [self.blocks(images[0])]


class Decoder(nn.Sequential):
    """[N, 128, H/8, W/8] -> logits [N, classes, H, W]."""

    def __init__(self, classes: int) -> None:
        super().__init__(
            _upsampler(128, 64),
            *(Factorized(64, 1) for _ in range(2)),
            _upsampler(64, 16),
            *(Factorized(16, 1) for _ in range(2)),
            nn.ConvTranspose2d(16, classes, 2, stride=2),
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The features of the encoder -> logits."""
        return super().forward(features[-1])


class Downsampler(nn.Module):
    """A strided 3x3 convolution and a max pooling side by side."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels - in_channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(out_channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H/2, W/2], odd sizes rounded up."""
        pooled = F.max_pool2d(x, 2, ceil_mode=True)
        return F.relu(self.norm(torch.cat([self.conv(x), pooled], dim=1)))


class Factorized(nn.Module):
    """Two 3x3 convolutions, each factorized into 3x1 and 1x3, added to the input; the second one is dilated."""

    def __init__(self, channels: int, dilation: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        pairs = []
        for d in (1, dilation):
            pairs.append(
                nn.Sequential(
                    nn.Conv2d(channels, channels, (3, 1), padding=(d, 0), dilation=(d, 1)),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(channels, channels, (1, 3), padding=(0, d), dilation=(1, d)),
                    nn.BatchNorm2d(channels, eps=EPSILON),
                )
            )
        self.plain, self.dilated = pairs
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> the same shape."""
        return F.relu(x + self.dropout(self.dilated(F.relu(self.plain(x)))))


def _upsampler(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1),
        nn.BatchNorm2d(out_channels, eps=EPSILON),
        nn.ReLU(inplace=True),
    )
