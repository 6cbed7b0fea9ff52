"""Instruction sets of the processor, and what is fast with them."""

from __future__ import annotations

import platform

import torch


def cpu_has(*names: str) -> bool:
    """Whether the CPU has at least one of these instruction sets, named as in `torch.cpu.get_capabilities`."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch lack it
    return any(capabilities.get(name) for name in names)


def saturates_in_8_bit() -> bool:
    """Whether onnxruntime's sums of 8-bit products saturate: on x86 without VNNI, where weights should have 7 bits."""
    return platform.machine() in ("x86_64", "AMD64") and not cpu_has("avx512_vnni", "avx_vnni")


def computes_bf16(device: torch.device) -> bool:
    """Whether `device` has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "cpu" or cpu_has("avx512_bf16", "amx_bf16", "bf16")


def trains_faster_in_bf16(device: torch.device) -> bool:
    """Whether a training step is faster in bfloat16 than in float32: on GPUs with bfloat16 and on CPUs with AMX.

    On CPUs that have only AVX-512's bfloat16 a step takes longer, since the convolutions gain less than the batch norms
    lose. With emulated bfloat16 it takes many times as long.
    """
    return cpu_has("amx_bf16") if device.type == "cpu" else device.type == "cuda" and computes_bf16(device)
