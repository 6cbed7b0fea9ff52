"""The inference form of a network: the same answers in less time."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.deploy.fold import fold_batch_norms
from edgeseg.memory import keep_freed_memory
from edgeseg.pixel2pixel import Pixel2Pixel
from edgeseg.processor import computes_bf16

logger = logging.getLogger(__name__)


def optimize(model: Pixel2Pixel, *, dtype: torch.dtype | None = None, compile: bool = False) -> Pixel2Pixel:
    """A copy for inference: batch norms folded into convolutions, channels-last memory, no gradients.

    On a CPU the whole process keeps freed memory from now on (`edgeseg.memory`): much of the gain for large images.
    In float32 its logits are within 1e-4 of their standard deviation of the model's. What was done is logged (INFO)
    and stands in the copy's `notes["optimized"]`.

    Args:
        model: In evaluation mode; stays as it is.
        dtype: `torch.bfloat16`, or on a GPU `torch.float16`: what the network computes in. Images may stay float32,
            logits come back as float32. Pixels on the edge between classes may then change theirs.
        compile: Compile encoder and decoders with torch.compile, weights frozen into the code. The first images of
            each size take about a minute, which is logged; needs a C++ compiler on CPUs.

    Raises:
        ValueError: a model in training mode, with hooks, or that is quantization-aware; another dtype.
    """
    if model.training:
        raise ValueError(f"{model.name or 'the model'} is in training mode; call eval() before optimize()")
    if model.quantization is not None:
        raise ValueError(f"{model.name} is quantization-aware; export_onnx() gives its fast form")
    if hooked := with_hooks(model):
        raise ValueError(f"{hooked[0] or 'the model'} has hooks, which may see or change what optimize() leaves out")
    optimized = copy.deepcopy(model).requires_grad_(False)
    if any(type(module).__module__.startswith("timm.") for module in optimized.modules()):
        from timm.utils.model import reparameterize_model

        reparameterize_model(optimized, inplace=True)  # branches for training only, of RepViT and its kin
    done = [f"{fold_batch_norms(optimized)} batch norms folded", "channels_last"]
    optimized.to(memory_format=torch.channels_last)
    if next(model.parameters()).device.type == "cpu" and keep_freed_memory():
        done.append("freed memory kept")
    if dtype is not None:
        _check_dtype(dtype, next(model.parameters()).device)
        optimized.to(dtype)
        done.append(str(dtype).removeprefix("torch."))
    optimized.encoder = _Encoder(optimized.encoder, compile)
    for name, decoder in optimized.decoders.items():
        optimized.decoders[name] = _Decoder(decoder, compile)
    if compile:
        done.append("compiled")
    optimized.notes["optimized"] = ", ".join(done)
    logger.info("%s: %s", model.name, optimized.notes["optimized"])
    return optimized


def with_hooks(model: nn.Module) -> list[str]:
    """Names of the modules that have hooks, as in some of timm's networks."""
    return [name for name, each in model.named_modules() if each._forward_hooks or each._forward_pre_hooks]


class _Encoder(nn.Module):
    """Brings images into the encoder's dtype and memory layout."""

    def __init__(self, encoder: nn.Module, compile: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.seen: set[tuple[tuple[int, ...], ...]] | None = set() if compile else None
        if compile:
            _compile(encoder)

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        """As of the encoder."""
        sizes = tuple(tuple(image.shape) for image in images)
        if self.seen is not None and sizes not in self.seen:
            self.seen.add(sizes)
            logger.warning("compiling for images of %s", " and ".join(str(list(size)) for size in sizes))
        dtype = next(self.encoder.parameters()).dtype
        return self.encoder([image.to(dtype).contiguous(memory_format=torch.channels_last) for image in images])


class _Decoder(nn.Module):
    """Gives logits in float32, in which they are upsampled."""

    def __init__(self, decoder: nn.Module, compile: bool) -> None:
        super().__init__()
        self.decoder = decoder
        if compile:
            _compile(decoder)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """As of the decoder."""
        return self.decoder(features).float()


def _compile(module: nn.Module) -> None:
    module.compile(dynamic=False, options={"freezing": True})


def _check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    allowed = [torch.float32, torch.bfloat16] + [torch.float16] * (device.type != "cpu")
    if dtype not in allowed:
        raise ValueError(f"on {device.type} dtype is {' or '.join(map(str, allowed))}, got {dtype}")
    if dtype == torch.bfloat16 and not computes_bf16(device):
        warnings.warn(
            f"this {device.type} has no bfloat16 arithmetic and emulates it: expect about a sixth of float32's speed",
            stacklevel=3,
        )
