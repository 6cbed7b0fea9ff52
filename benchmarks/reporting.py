"""What benchmarks write: the machine they ran on, memory, and tables between the marks of a document."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


def machine(device: str = "cpu") -> str:
    """Processor or GPU, threads, torch."""
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name()
    else:
        model, cpuinfo = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
        lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
        name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), model)
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        extensions = [kind for kind in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile") if kind in flags]
        name = f"{name} ({', '.join(extensions)}), {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__.partition('+')[0]}"


def peak_memory() -> float:
    """Most resident memory of this process so far, in MB (Linux; getrusage would count the parent's too)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "no VmHWM in /proc/self/status"
    return int(found[1]) / 1e3


def write_table(document: str, mark: str, text: str) -> None:
    """Puts `text` between `<!-- MARK -->` and `<!-- end -->` of a file in docs/, and prints it."""
    path = ROOT / "docs" / document
    before, found = path.read_text(), rf"(?s)(<!-- {mark} -->\n).*?(?=<!-- end -->)"
    assert re.search(found, before), f"{path} has no mark {mark}"
    path.write_text(re.sub(found, lambda match: f"{match[1]}{text.strip()}\n", before, count=1))
    print(text)
