"""Pixel2Pixel: one encoder and one decoder per task; images in, a dictionary of logits out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.config import ModelConfig
from edgeseg.machine.terminal import warn
from edgeseg.networks.layers import resize
from edgeseg.networks.modes import SharedModule, evaluating, forget_after_loading
from edgeseg.predict.predictor import Predictor
from edgeseg.spec import Preprocess
from edgeseg.tasks import kind_of, to_map
from edgeseg.vision.images import ImageLike
from edgeseg.vision.preprocess import to_input


class Pixel2Pixel(SharedModule, Predictor):
    """A dense-prediction network: `model(*images)` returns `{task: logits}` at the size of the images.

    Args:
        encoder: Its `forward(images)` returns the features, from fine to coarse.
        decoders: One per task; `forward(features)` returns logits at the stride of the decoder.
        config: The record of the model, of which `tasks` and `inputs` fit the encoder and the decoders.

    Attributes:
        config: The record: name, tasks, inputs, preprocessing, facts about the weights. `configure` changes it.

    Raises:
        ValueError: the decoders are not one per task.

    Example:
        >>> import edgeseg, torch
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", num_classes=5).eval()
        >>> logits = model(torch.zeros(1, 3, 96, 128))
        >>> {name: tuple(each.shape) for name, each in logits.items()}
        {'segmentation': (1, 5, 96, 128)}
    """

    def __init__(self, encoder: nn.Module, decoders: Mapping[str, nn.Module], config: ModelConfig) -> None:
        super().__init__()
        if set(decoders) != set(config.tasks):
            raise ValueError(f"a decoder per task is needed: tasks {list(config.tasks)}, decoders {list(decoders)}")
        unusable = [name for name in decoders if hasattr(nn.ModuleDict(), name)]
        if unusable:
            raise ValueError(
                f"a task cannot be called {unusable[0]!r}: PyTorch's modules have an attribute of that name"
            )
        self.encoder = encoder
        self.decoders = nn.ModuleDict({name: decoders[name] for name in config.tasks})
        self.config = config
        self.encoder.register_load_state_dict_post_hook(forget_after_loading)

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.parameters())
        kinds = ", ".join(sorted({f"{str(p.dtype).removeprefix('torch.')} on {p.device}" for p in self.parameters()}))
        mode = "training" if self.training else "evaluation"
        return f"{Predictor.__repr__(self)}\n  {count:,} parameters, {kinds}, {mode} mode; layers: .encoder, .decoders"

    def configure(self, **changes: Any) -> None:
        """Replaces fields of the record, such as `preprocess=Preprocess(size=(480, 640))` or `notes={...}`.

        Raises:
            ValueError: a value does not fit its field, the tasks do not fit the decoders, the inputs do not fit the
                encoder, or a field that says how the network was built.
        """
        config = replace(self.config, **changes)
        wanted, built = ({name: each.channels for name, each in one.tasks.items()} for one in (config, self.config))
        if wanted != built:
            raise ValueError(
                f"this model was built for the channels {built} by task, not for {wanted}; "
                "create_model(..., tasks=...) builds one for other tasks"
            )
        if config.in_channels != self.config.in_channels:
            raise ValueError(
                f"this model was built for inputs of {self.config.in_channels} channels, not of {config.in_channels}; "
                "create_model(..., in_channels=...) builds one for other inputs"
            )
        fixed = ("name", "spec", "options", "quantization")
        wrong = [name for name in fixed if getattr(config, name) != getattr(self.config, name)]
        # `quantize_aware` replaces the layers, and then says so in the record.
        replaced = wrong == ["quantization"] and self.config.quantization is None and self._has_rounded_layers()
        if wrong and not replaced:
            raise ValueError(
                f"{', '.join(wrong)} cannot be changed after a model was built; build another one with create_model"
            )
        for task in config.tasks.values():
            kind_of(task).check(task)
        self.config = config
        if list(self.decoders) != list(config.tasks):  # outputs have the order of the tasks
            decoders = nn.ModuleDict({name: self.decoders[name] for name in config.tasks})
            decoders.training = self.training
            self.decoders = decoders

    def _has_rounded_layers(self) -> bool:
        return any(type(each).__name__ == "QuantizedConv2d" for each in self.modules())

    def forward(self, *images: Tensor) -> dict[str, Tensor]:
        """Computes the logits at the size of the images, in training and in evaluation mode alike.

        Args:
            images: Per input, one preprocessed float tensor [N, C, H, W] of any height and width.

        Returns:
            Per task, logits or values [N, channels, H, W].

        Raises:
            ValueError: the number of inputs, channels or dimensions is wrong, or the inputs differ in size.
            TypeError: an input is not a tensor, or is not floating point.
        """
        outputs = self.decode(*images)
        size = images[0].shape[-2:] if images else ()
        return {name: resize(logits, size) for name, logits in outputs.items()}

    def decode(self, *images: Tensor) -> dict[str, Tensor]:
        """Computes the logits like `forward`, but at the strides of the decoders.

        Args:
            images: As in `forward`.

        Returns:
            Per task, logits or values [N, channels, H / stride, W / stride].

        Raises:
            ValueError, TypeError: as in `forward`.
        """
        self._check(images)
        features = self.encoder(images)
        outputs = {name: decoder(features) for name, decoder in self.decoders.items()}
        for name, task in self.tasks.items():
            if outputs[name].shape[1] != task.channels:
                count = outputs[name].shape[1]
                raise ValueError(f"the decoder of {name!r} returned {count} channels, and the task has {task.channels}")
        return outputs

    def prepare(self, *images: ImageLike) -> list[Tensor]:
        """Preprocesses photos as `predict` does.

        Args:
            images: One image per input, as in `predict`.

        Returns:
            One float tensor [1, C, h, w] per input, for `forward`, on the device of the model.
        """
        return self._to_inputs(self._load(images), self.preprocess)

    def save_pretrained(self, directory: str | os.PathLike[str], **card: Any) -> None:
        """Writes a folder that `create_model("local-dir:DIRECTORY")` reads: config.json, model.safetensors, README.md.

        Args:
            directory: Created if it is missing.
            card: For the model card: `license` (an identifier of the hub), `dataset` (its name), `metrics` (such as
                `{"mean_iou": 64.2}`, measured on `dataset`), `description`.

        Raises:
            ValueError: metrics without the dataset that they were measured on.
        """
        from edgeseg.storage.hub import save_pretrained

        save_pretrained(self, directory, **card)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads what `save_pretrained` writes to the Hugging Face Hub, for `create_model("hf-hub:REPO_ID")`.

        Args:
            repo_id: `OWNER/NAME`; created if it is missing.
            options: `private`, `revision` (a branch), `token`, `commit_message`, and those of the model card.

        Returns:
            The address of the commit.
        """
        from edgeseg.storage.hub import push_to_hub

        return push_to_hub(self, repo_id, **options)

    @torch.inference_mode()
    def _maps(
        self, frames: Sequence[Sequence[np.ndarray]], preprocess: Preprocess, tasks: Sequence[str]
    ) -> list[dict[str, np.ndarray]]:
        inputs = [torch.cat(images) for images in zip(*(self._to_inputs(f, preprocess) for f in frames), strict=True)]
        if self._forward_hooks or self._forward_pre_hooks or self._compiled_call_impl is not None:
            warn(
                f"predict of {self.name} does not call the model itself, so that its own hooks and compile() have no "
                "effect: put hooks on model.encoder or model.decoders, and compile by optimize(model, compile=True)"
            )
        with evaluating(self):
            outputs = self.decode(*inputs)
        # From the decoder's stride straight to the photo's own size: one resize instead of two.
        size = frames[0][-1].shape[:2]
        batches = {name: kind_of(self.tasks[name]).predictions([outputs[name]], size).cpu().numpy() for name in tasks}
        return [{name: to_map(batch[index]) for name, batch in batches.items()} for index in range(len(frames))]

    def _to_inputs(self, pixels: Sequence[np.ndarray], preprocess: Preprocess) -> list[Tensor]:
        parameter = next(self.parameters(), torch.zeros(()))
        tensors = [torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) for image in pixels]
        kinds = [entry.kind for entry in self.inputs.values()]
        return [to_input(image, preprocess, kind).to(parameter) for image, kind in zip(tensors, kinds, strict=True)]

    def _check(self, images: Sequence[Tensor]) -> None:
        self._check_count(images)
        for (name, entry), image in zip(self.inputs.items(), images, strict=True):
            if not isinstance(image, Tensor):
                raise TypeError(
                    f"{name} is a float tensor [N,{entry.channels},H,W], got {type(image).__name__}: pass one tensor "
                    "per input, or use predict()"
                )
            if image.ndim != 4 or image.shape[1] != entry.channels:
                raise ValueError(f"{name} is [N,{entry.channels},H,W], got a tensor of shape {list(image.shape)}")
            if not image.is_floating_point():
                raise TypeError(
                    f"{name} is a float tensor, got {image.dtype}: pass model.preprocess(images), or use predict()"
                )
        if any(image.shape[-2:] != images[0].shape[-2:] for image in images):
            self._check_sizes([image.shape[-2:] for image in images])
