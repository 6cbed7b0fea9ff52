"""The processor and its instruction sets, and what is fast with them."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def cpu_facts() -> dict[str, str]:
    """What Linux says of the last core, such as its "model name" and its "flags"; empty on other systems."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)


def cpu_name() -> str:
    """The name of the processor, or of its architecture if the system does not tell."""
    name = cpu_facts().get("model name")
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return name or platform.processor() or platform.machine()


def cores() -> int:
    """Number of processor cores that this process may use; all of them on systems that do not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_features() -> list[str]:
    """The instruction sets of the CPU, named as in `torch.cpu.get_capabilities`."""
    import torch

    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch lack it
    return [name for name, value in capabilities.items() if value is True]


def cpu_has(*names: str) -> bool:
    """Whether the CPU has at least one of these instruction sets, named as in `torch.cpu.get_capabilities`."""
    return not set(names).isdisjoint(cpu_features())


def saturates_in_8_bit() -> bool:
    """Whether onnxruntime's sums of 8-bit products saturate: on x86 without VNNI, where weights should have 7 bits."""
    return platform.machine() in ("x86_64", "AMD64") and not cpu_has("avx512_vnni", "avx_vnni")


def computes_bf16(device: torch.device) -> bool:
    """Whether `device` has instructions for bfloat16."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "cpu" or cpu_has("avx512_bf16", "amx_bf16", "bf16")


def trains_faster_in_bf16(device: torch.device) -> bool:
    """Whether a training step is faster in bfloat16 than in float32: on GPUs with bfloat16 and on CPUs with AMX.

    On CPUs that have only AVX-512's bfloat16 a step takes longer, since the convolutions gain less than the batch norms
    lose. With emulated bfloat16 it takes many times as long.
    """
    return cpu_has("amx_bf16") if device.type == "cpu" else device.type == "cuda" and computes_bf16(device)
