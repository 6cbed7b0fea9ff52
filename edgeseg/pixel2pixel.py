"""Pixel2Pixel: one encoder, one decoder per task, a dict of logits out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.decoders import build_decoder
from edgeseg.encoders import ENCODERS, build_encoder, group_width
from edgeseg.images import ImageLike
from edgeseg.layers import initialize, resize
from edgeseg.prediction import Predictor, default_input_names
from edgeseg.preprocess import to_input
from edgeseg.spec import ModelSpec, Preprocess, Quantization, Task
from edgeseg.upsample import upsampled_argmax

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6}


class Pixel2Pixel(nn.Module, Predictor):
    """A dense-prediction network: `model(*images)` answers `{task: logits}` at the size of the images.

    Args:
        encoder: `forward(images)` gives the features, fine to coarse.
        decoders: One a task, `forward(features)` gives logits at its own stride.
        tasks: What each decoder predicts, with class names and palette where they are known.
        in_channels: Channels of each input.
        preprocess: How photos become input tensors.

    Attributes:
        input_names: Of the inputs, the last is the photo that is labelled; by default "image", or "flow" and "image".
            Inputs with "flow" in their name are optical flow, see `edgeseg.flow`.
        notes: Facts about the weights: where they come from, their licence, the recipe. Exported files have them.
        quantization: How it rounds to 8 bit; None: it does not.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoders: Mapping[str, nn.Module],
        *,
        tasks: Mapping[str, Task],
        in_channels: Sequence[int] = (3,),
        preprocess: Preprocess | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoders = nn.ModuleDict(dict(decoders))
        self.tasks = dict(tasks)
        self.in_channels = tuple(in_channels)
        self.input_names = default_input_names(len(self.in_channels))
        self.preprocess = preprocess or Preprocess()
        self.name = ""
        self.notes: dict[str, Any] = {}
        self.quantization: Quantization | None = None
        self.spec: ModelSpec | None = None

    def forward(self, *images: Tensor) -> dict[str, Tensor]:
        """One float [N,C,H,W] tensor per input, preprocessed, any H and W -> {task: logits [N,channels,H,W]}."""
        size = images[0].shape[-2:] if images else ()
        return {name: resize(logits, size) for name, logits in self.decode(*images).items()}

    def decode(self, *images: Tensor) -> dict[str, Tensor]:
        """As `forward`, but the logits stay at the decoders' stride: [N,channels,H/stride,W/stride]."""
        self._check(images)
        features = self.encoder(images)
        return {name: decoder(features) for name, decoder in self.decoders.items()}

    def prepare(self, *images: ImageLike) -> list[Tensor]:
        """One photo an input, as of `predict` -> what `forward` takes: a preprocessed float [1,C,h,w] tensor each."""
        return self._inputs(self._load(images), self.preprocess)

    def save_pretrained(self, directory: str | os.PathLike[str], **card: Any) -> None:
        """Writes a folder that `create_model("local-dir:DIRECTORY")` reads: config.json, model.safetensors, README.md.

        Args:
            directory: Made where it is missing.
            card: For the model card: `license` (an identifier of the hub's), `dataset` (its name), `metrics` (such as
                `{"mean_iou": 64.2}`, measured on `dataset`), `description`.
        """
        from edgeseg.weights.hub import save_pretrained

        save_pretrained(self, directory, **card)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads what `save_pretrained` writes to the Hugging Face Hub, for `create_model("hf-hub:REPO_ID")`.

        Args:
            repo_id: `OWNER/NAME`; created where it is missing.
            options: `private`, `revision` (a branch), `token`, `commit_message`, and those of the model card.

        Returns:
            The address of the commit.
        """
        from edgeseg.weights.hub import push_to_hub

        return push_to_hub(self, repo_id, **options)

    @torch.inference_mode()
    def _maps(
        self, frames: Sequence[Sequence[np.ndarray]], preprocess: Preprocess, tasks: Sequence[str]
    ) -> list[dict[str, np.ndarray]]:
        was_training = self.training
        inputs = [torch.cat(images) for images in zip(*(self._inputs(f, preprocess) for f in frames), strict=True)]
        self.eval()
        try:
            outputs = self.decode(*inputs)
        finally:
            self.train(was_training)
        # Straight from the decoder's stride to the photo's own size: one resize, not two.
        size = frames[0][-1].shape[:2]
        maps = {}
        for name in tasks:
            if self.tasks[name].kind == "depth":
                maps[name] = resize(outputs[name].float(), size)[:, 0].cpu().numpy()
            else:
                maps[name] = labels_at(outputs[name], size).cpu().numpy()
        return [{name: found[index] for name, found in maps.items()} for index in range(len(frames))]

    def _inputs(self, pixels: Sequence[np.ndarray], preprocess: Preprocess) -> list[Tensor]:
        parameter = next(self.parameters())
        tensors = [torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) for image in pixels]
        named = zip(self.input_names, tensors, strict=True)
        return [to_input(image, preprocess, name=name).to(parameter) for name, image in named]

    def _check(self, images: Sequence[Tensor]) -> None:
        self._check_count(images)
        for name, image, channels in zip(self.input_names, images, self.in_channels, strict=True):
            if image.ndim != 4 or image.shape[1] != channels:
                raise ValueError(f"{name} is [N,{channels},H,W], got a tensor of shape {list(image.shape)}")
            if not image.is_floating_point():
                raise TypeError(f"{name} is a preprocessed float tensor, got {image.dtype}; see predict()")
        if any(image.shape[-2:] != images[0].shape[-2:] for image in images):
            self._check_sizes([image.shape[-2:] for image in images])


def labels_at(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits [N,C,h,w] -> class ids [N,H,W] at another size, as of an argmax after a bilinear resize.

    On the CPU by `upsampled_argmax`. uint8, uint16 beyond 256 classes.
    """
    if logits.device.type == "cpu":
        return torch.stack([torch.from_numpy(upsampled_argmax(each.float().numpy(), size)) for each in logits])
    labels = resize(logits.float(), size).argmax(dim=1)
    return labels.to(torch.uint8 if logits.shape[1] <= 256 else torch.uint16)


def build(spec: ModelSpec, *, tasks: Mapping[str, Task], in_channels: Sequence[int] = (3,)) -> Pixel2Pixel:
    """The untrained network of a zoo row."""
    if spec.activation not in ACTIVATIONS:
        raise ValueError(f"no activation named {spec.activation!r}; there are {', '.join(ACTIVATIONS)}")
    activation = ACTIVATIONS[spec.activation]
    encoder = build_encoder(
        spec.encoder,
        in_channels,
        activation=activation,
        fast_down=spec.fast_down,
        output_stride=spec.output_stride,
    )
    width = group_width(encoder)
    decoders = {
        name: build_decoder(
            spec, task, channels=encoder.channels, strides=encoder.strides, group_width=width, activation=activation
        )
        for name, task in tasks.items()
    }
    model = Pixel2Pixel(encoder, decoders, tasks=tasks, in_channels=in_channels)
    model.spec = spec
    if spec.encoder in ENCODERS:  # timm's networks come with the start that suits them
        initialize(model.encoder)
    initialize(model.decoders)
    return model
