"""A training step on the CPU with glibc's default allocator and with freed memory kept: python benchmarks/allocator.py

The setting cannot be undone, so each case runs in a process of its own, in turns; medians and their ratio are printed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

STEPS, ROUNDS = 4, 3


def measure(kept: bool, batch: int) -> None:
    """Prints seconds and page faults of the last step of a fresh process."""
    import torch

    import edgeseg
    from edgeseg.engine.losses import segmentation_loss
    from edgeseg.engine.memory import keep_freed_memory

    if kept and not keep_freed_memory():
        sys.exit("this C library is not glibc")
    model = edgeseg.create_model("fpn_aspp_mobilenetv2_tv_edgeailite", num_classes=11)
    model.to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, 320, 416).contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, 11, (batch, 320, 416))
    for _ in range(STEPS):
        start, faults = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        segmentation_loss(model(images)["segmentation"], target, dice=0.5).backward()
    print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)


def main() -> None:
    """Compares the two cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--case", choices=("default", "kept"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        measure(options.case == "kept", options.batch)
        return
    seconds: dict[str, list[float]] = {"default": [], "kept": []}
    for _ in range(ROUNDS):
        for case, times in seconds.items():
            call = [sys.executable, __file__, "--case", case, "--batch", str(options.batch)]
            elapsed, faults = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
            times.append(float(elapsed))
            print(f"{case:8} {float(elapsed):6.2f} s a step, {int(faults):8,} page faults")
    default, kept = (statistics.median(times) for times in seconds.values())
    print(f"median of {ROUNDS}: {default:.2f} s and {kept:.2f} s, ratio {default / kept:.2f}")


if __name__ == "__main__":
    main()
