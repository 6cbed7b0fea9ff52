"""Optimizes networks for inference: the same outputs in less time."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.arguments import require_network
from edgeseg.machine.processor import computes_bf16
from edgeseg.machine.terminal import warn
from edgeseg.networks.fold import fold_batch_norms
from edgeseg.networks.pixel2pixel import Pixel2Pixel

logger = logging.getLogger(__name__)


def optimize(model: Pixel2Pixel, *, dtype: torch.dtype | None = None, compile: bool = False) -> Pixel2Pixel:
    """Copies a network for inference: batch norms folded into convolutions, channels-last memory, no gradients.

    In float32 the logits differ from those of the model by less than 1e-4 of their standard deviation. What was done is
    logged (INFO) and noted in the copy's `config.notes["optimized"]`. On Linux CPUs large images are faster still if
    the process calls `edgeseg.machine.memory.keep_freed_memory()`, as the command line does.

    Args:
        model: A float network in evaluation mode; it stays as it is.
        dtype: Precision of the computation: `torch.bfloat16`, or on a GPU `torch.float16`. Images may stay float32,
            and logits are returned as float32. Pixels on the border between classes may change their class.
        compile: Compile encoder and decoders with torch.compile and freeze the weights into the code. The first images
            of each size take about a minute, which is logged; on CPUs a C++ compiler is needed.

    Returns:
        The copy, in evaluation mode.

    Raises:
        ValueError: the model is in training mode, has hooks or is quantization-aware, or the dtype is not supported.
    """
    require_network("optimize", model)
    if model.training:
        raise ValueError(f"{model.name or 'the model'} is in training mode; call eval() before optimize()")
    if model.config.quantization is not None:
        raise ValueError(f"{model.name} is quantization-aware; export_onnx() writes its fast form")
    if hooked := with_hooks(model):
        raise ValueError(
            f"{hooked[0] or 'the model'} has hooks, which may see or change what optimize() leaves out; remove them"
        )
    optimized = copy.deepcopy(model).requires_grad_(False)
    if any(type(module).__module__.startswith("timm.") for module in optimized.modules()):
        from timm.utils.model import reparameterize_model

        reparameterize_model(optimized, inplace=True)  # merges the training-only branches of RepViT and its relatives
    done = [f"{fold_batch_norms(optimized)} batch norms folded", "channels_last"]
    optimized.to(memory_format=torch.channels_last)
    if dtype is not None:
        _check_dtype(dtype, next(model.parameters()).device)
        optimized.to(dtype)
        done.append(str(dtype).removeprefix("torch."))
    optimized.encoder = _Encoder(optimized.encoder, compile)
    for name, decoder in optimized.decoders.items():
        optimized.decoders[name] = _Decoder(decoder, compile)
    if compile:
        done.append("compiled")
    optimized.configure(notes={**model.config.notes, "optimized": ", ".join(done)})
    logger.info("%s: %s", model.name, ", ".join(done))
    return optimized


def with_hooks(model: nn.Module) -> list[str]:
    """Names of the modules that have hooks, as in some networks of timm."""
    return [name for name, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks]


class _Encoder(nn.Module):
    """Converts images to the encoder's dtype and memory layout."""

    def __init__(self, encoder: nn.Module, compile: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.strides, self.minimum = getattr(encoder, "strides", None), getattr(encoder, "minimum", 0)
        self.seen: set[tuple[tuple[int, ...], ...]] | None = set() if compile else None
        if compile:
            _compile(encoder)

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Images -> features, as in the encoder."""
        sizes = tuple(tuple(image.shape) for image in images)
        if self.seen is not None and sizes not in self.seen:
            self.seen.add(sizes)
            logger.warning("compiling for images of %s", " and ".join(str(list(size)) for size in sizes))
        dtype = next(self.encoder.parameters(), images[0]).dtype
        return self.encoder([image.to(dtype).contiguous(memory_format=torch.channels_last) for image in images])


class _Decoder(nn.Module):
    """Returns logits in float32, in which they are upsampled."""

    def __init__(self, decoder: nn.Module, compile: bool) -> None:
        super().__init__()
        self.decoder = decoder
        if compile:
            _compile(decoder)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features -> float32 logits, as in the decoder."""
        return self.decoder(features).float()


def _compile(module: nn.Module) -> None:
    module.compile(dynamic=False, options={"freezing": True})


def _check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    allowed = [torch.float32, torch.bfloat16] + [torch.float16] * (device.type != "cpu")
    if dtype not in allowed:
        raise ValueError(f"on {device.type} dtype is {' or '.join(map(str, allowed))}, got {dtype}")
    if dtype == torch.bfloat16 and not computes_bf16(device):
        warn(f"this {device.type} has no bfloat16 arithmetic and emulates it: expect about a sixth of float32's speed")
