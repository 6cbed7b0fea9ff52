"""Pixel2Pixel: one encoder, one decoder per task, a dict of logits out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.decoders import build_decoder
from edgeseg.encoders import ENCODERS, build_encoder, group_width
from edgeseg.layers import initialize, resize
from edgeseg.preprocess import ImageLike, input_size, load_image, tiles, to_input
from edgeseg.spec import ModelSpec, Preprocess, Task

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6}


class Pixel2Pixel(nn.Module):
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

    @overload
    def predict(self, *images: ImageLike, task: str | None = None, tile: Sequence[int] | None = None) -> np.ndarray: ...

    @overload
    def predict(
        self,
        *images: list[ImageLike] | tuple[ImageLike, ...],
        task: str | None = None,
        tile: Sequence[int] | None = None,
    ) -> list[np.ndarray]: ...

    @torch.inference_mode()
    def predict(
        self,
        *images: ImageLike | list[ImageLike] | tuple[ImageLike, ...],
        task: str | None = None,
        tile: Sequence[int] | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Segments photos, from pixels to label maps.

        Args:
            images: Per input of the model one image or a list of them. An image is a path, a PIL image, a uint8 array
                [H,W,C] or a uint8 tensor [C,H,W], RGB. They are preprocessed as the weights were trained.
            task: Name of the task; by default the first.
            tile: Height and width of the pieces, in pixels of the photo, that a larger one is segmented in, with an
                overlap of a quarter; each is resized by as much as the whole would be. For photos that do not fit
                into memory; at the seams the network sees less around a pixel.

        Returns:
            For each image a map [H,W] of its own size: class ids (uint8, uint16 beyond 256 classes), or float32 values
            for a regressed task. One map for one image, a list for a list.
        """
        task = task or next(iter(self.tasks))
        if task not in self.tasks:
            raise ValueError(f"no task named {task!r}; this model has {', '.join(self.tasks)}")
        self._check_count(images)
        single = not isinstance(images[0], list | tuple)
        streams = [list(stream) if isinstance(stream, list | tuple) else [stream] for stream in images]
        if len({len(stream) for stream in streams}) > 1:
            counts = zip(self.input_names, map(len, streams), strict=True)
            raise ValueError(f"each input needs as many images, got {', '.join(f'{n} {count}' for n, count in counts)}")
        maps = [self._predict_frame(frame, [task], tile)[task] for frame in zip(*streams, strict=True)]
        return maps[0] if single else maps

    @torch.inference_mode()
    def predict_tasks(self, *images: ImageLike, tile: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """All tasks in one pass: `{task: map [H,W]}` for one image per input; arguments as of `predict`."""
        self._check_count(images)
        return self._predict_frame(images, list(self.tasks), tile)

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

    def _predict_frame(
        self, images: Sequence[ImageLike], tasks: Sequence[str], tile: Sequence[int] | None
    ) -> dict[str, np.ndarray]:
        pixels = [load_image(image) for image in images]
        self._check_sizes(pixels)
        was_training = self.training
        self.eval()
        try:
            height, width = pixels[-1].shape[-2:]
            if tile is None or (height <= tile[0] and width <= tile[1]):
                return self._predict_pixels(pixels, self.preprocess, tasks)
            return self._predict_tiles(pixels, tasks, tile)
        finally:
            self.train(was_training)

    def _predict_tiles(
        self, pixels: Sequence[Tensor], tasks: Sequence[str], tile: Sequence[int]
    ) -> dict[str, np.ndarray]:
        height, width = pixels[-1].shape[-2:]
        whole = input_size((height, width), self.preprocess)
        result: dict[str, np.ndarray] = {}
        for outer, inner in tiles((height, width), tile):
            size = [max(round(len(r) * n / m), 1) for r, n, m in zip(outer, whole, (height, width), strict=True)]
            piece = [image[:, outer[0].start : outer[0].stop, outer[1].start : outer[1].stop] for image in pixels]
            preprocess = replace(self.preprocess, size=(size[0], size[1]), keep_aspect=False)
            y, x = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
            for name, found in self._predict_pixels(piece, preprocess, tasks).items():
                part = result.setdefault(name, np.empty((height, width), found.dtype))
                part[inner[0].start : inner[0].stop, inner[1].start : inner[1].stop] = found[y, x]
        return result

    def _predict_pixels(
        self, pixels: Sequence[Tensor], preprocess: Preprocess, tasks: Sequence[str]
    ) -> dict[str, np.ndarray]:
        parameter = next(self.parameters())
        named = zip(self.input_names, pixels, strict=True)
        outputs = self.decode(*(to_input(image, preprocess, name=name).to(parameter) for name, image in named))
        maps = {}
        for name in tasks:
            # Straight from the decoder's stride to the photo's own size: one resize, not two.
            logits = resize(outputs[name].float(), pixels[-1].shape[-2:])[0]
            if self.tasks[name].kind == "depth":
                maps[name] = logits[0].cpu().numpy()
            else:
                maps[name] = logits.argmax(dim=0).cpu().numpy().astype(np.uint8 if len(logits) <= 256 else np.uint16)
        return maps

    def _check(self, images: Sequence[Tensor]) -> None:
        self._check_count(images)
        for name, image, channels in zip(self.input_names, images, self.in_channels, strict=True):
            if image.ndim != 4 or image.shape[1] != channels:
                raise ValueError(f"{name} is [N,{channels},H,W], got a tensor of shape {list(image.shape)}")
            if not image.is_floating_point():
                raise TypeError(f"{name} is a preprocessed float tensor, got {image.dtype}; see predict()")
        self._check_sizes(images)

    def _check_count(self, images: Sequence[Any]) -> None:
        if len(images) != len(self.in_channels):
            wanted = zip(self.input_names, self.in_channels, strict=True)
            inputs = ", ".join(f"{name} ({channels} channels)" for name, channels in wanted)
            raise ValueError(f"this model takes {inputs}, got {len(images)} inputs")

    def _check_sizes(self, images: Sequence[Tensor]) -> None:
        if any(image.shape[-2:] != images[0].shape[-2:] for image in images):
            sizes = zip(self.input_names, images, strict=True)
            raise ValueError(
                f"all inputs need one size, got {', '.join(f'{n} {list(i.shape[-2:])}' for n, i in sizes)}"
            )


def default_input_names(count: int) -> tuple[str, ...]:
    """Names of that many inputs: the photo comes last, one before it is optical flow."""
    if count == 2:
        return ("flow", "image")
    return (*(f"input{i}" for i in range(1, count)), "image")


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
