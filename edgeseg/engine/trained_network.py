"""The network in the form that a recipe trains: checked, quantization-aware, with auxiliary heads, in parallel."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from edgeseg.config import inherited
from edgeseg.data.transforms import Augmented
from edgeseg.engine import distributed
from edgeseg.engine.sync_batch_norm import share_batch_norms
from edgeseg.engine.task_losses import Outputs
from edgeseg.networks.layers import ConvNormAct
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.quantized import quantize_aware
from edgeseg.networks.unfold import has_folded_batch_norms, unfold_batch_norms
from edgeseg.recipes import TrainConfig
from edgeseg.spec import Quantization
from edgeseg.tasks import kind_of

TYPICAL_SAMPLES = 32  # number of samples on which ranges and statistics are measured


def check_model(model: Pixel2Pixel, config: TrainConfig) -> None:
    """Raises a ValueError if a model cannot be trained by a recipe."""
    if not isinstance(model, Pixel2Pixel):
        raise ValueError(
            f"train takes the network itself, got a {type(model).__name__}; TrainConfig(compile=True) compiles it"
        )
    if (dtype := next(model.parameters()).dtype) != torch.float32:
        raise ValueError(
            f"the model is in {dtype}; call model.float() to train it, and pass bf16=True to compute in bfloat16"
        )
    if "loss" in model.tasks:
        raise ValueError("a task is named 'loss', as the total of all losses is: give the task another name")
    if "optimized" in model.config.notes:
        raise ValueError("this is a copy for inference that optimize() made; train the model that it was made from")
    parts = [model.decoders] if config.freeze_encoder else [model.encoder, model.decoders]
    if not any(each.requires_grad for part in parts for each in part.parameters()):
        raise ValueError("no parameter of the model is trained; call model.requires_grad_(True)")
    if (known := model.config.quantization) is not None and config.quantize != "none":
        asked = Quantization(scheme=config.quantize, weight_bits=config.weight_bits)
        if known != asked:
            raise ValueError(
                f"the model was trained for 8 bits as {known.scheme}, {known.weight_bits} bits, and "
                f"TrainConfig.quantize asks for {asked.scheme}, {asked.weight_bits} bits"
            )


def float_copy(model: Pixel2Pixel, config: TrainConfig) -> Pixel2Pixel | None:
    """The float network whose outputs quantization-aware training learns, if the recipe says so."""
    if not config.distillation:
        return None
    if model.config.quantization is not None:
        raise ValueError("distillation learns from a float network, but this network is quantization-aware already")
    return copy.deepcopy(model).to(memory_format=torch.channels_last).eval()


def prepared(model: Pixel2Pixel, samples: Augmented, config: TrainConfig, device: torch.device) -> Pixel2Pixel:
    """The network in the form that the recipe trains: a copy if quantization-aware, in channels-last memory format.

    Its preprocessing gets the image size of the recipe.
    """
    if has_folded_batch_norms(model):
        unfold_batch_norms(model, _typical(model, samples, device))
    if config.quantize != "none" and model.config.quantization is None:
        quantization = Quantization(scheme=config.quantize, weight_bits=config.weight_bits)
        model = quantize_aware(model, quantization, _typical(model, samples, device))
    model.configure(
        preprocess=replace(model.preprocess, size=config.img_resize, keep_aspect=config.keep_aspect),
        notes=inherited(model.config.notes),
    )
    if config.sync_bn and device.type == "cuda":
        share_batch_norms(model)
    return model.to(memory_format=torch.channels_last)


def _typical(model: Pixel2Pixel, samples: Augmented, device: torch.device) -> Iterator[list[Tensor]]:
    """Yields some preprocessed training images: one list of inputs [1, C, H, W] per sample."""
    for index in range(min(len(samples), TYPICAL_SAMPLES)):
        images, _, _ = samples[index]
        yield [model.preprocess.normalize(image.to(device)) for image in images]


class TrainedNetwork(nn.Module):
    """The module that is trained: the model, with auxiliary heads on the deepest feature if the recipe has them."""

    def __init__(self, model: Pixel2Pixel, config: TrainConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.auxiliary = nn.ModuleDict()
        if config.aux_loss:
            torch.manual_seed(config.seed)
            channels = cast(list[int], model.encoder.channels)[-1]
            for name, task in model.tasks.items():
                if kind_of(task).has_classes:
                    self.auxiliary[name] = nn.Sequential(
                        ConvNormAct(channels, 128, 3), nn.Conv2d(128, task.channels, 1)
                    )

    def forward(self, *images: Tensor) -> Outputs:
        """Computes the outputs of decoders and auxiliary heads from preprocessed images [N, C, H, W], one per input."""
        features = self.model.encoder(images)
        by_task = {name: decoder(features) for name, decoder in self.model.decoders.items()}
        auxiliary = {name: head(features[-1]) for name, head in self.auxiliary.items()}
        return Outputs(by_task, auxiliary, features[-1])

    def train(self, mode: bool = True) -> TrainedNetwork:
        """Sets the mode, and keeps in evaluation mode what the recipe freezes."""
        super().train(mode)
        if self.config.freeze_encoder:
            self.model.encoder.eval()
        if self.config.freeze_bn:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def parallel(network: TrainedNetwork, config: TrainConfig, device: torch.device) -> Callable[..., Outputs]:
    """The forward pass of the network, synchronized over processes and compiled if the recipe says so."""
    module: nn.Module = network
    if distributed.world_size() > 1:
        module = DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)
    return cast(Callable[..., Outputs], torch.compile(module) if config.compile else module)


def moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """An exponential moving average whose decay grows up to `decay`, so that it soon forgets the untrained decoder."""

    def update(averages: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
        current = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(current)(averages, values, count)

    return update
