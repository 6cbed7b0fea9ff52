"""Compares edgeseg.engine.train with plain loops on the CPU, in images per second: python benchmarks/train_step.py

The figure of edgeseg is the one that `train` reports, including augmentation, class weights, Dice loss and moving
average. The plain loops train in float32 and contiguous memory, on ready tensors with cross-entropy only: the same
network, and the nearest one of segmentation_models_pytorch (pip install 'edgeseg[benchmarks]'). Augmentation alone, on
images of CamVid's size from memory in two processes, shows that it does not slow training down. Writes the table in
docs/training.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import compare_ways
from smp_networks import decoder_of, plain_network
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import tv_tensors

import edgeseg
from edgeseg.machine.memory import keep_freed_memory

CLASSES = 11


def trained(options: argparse.Namespace) -> float:
    """Runs `edgeseg.engine.train` in a process that keeps freed memory, as `edgeseg train` does."""
    keep_freed_memory()
    return trained_default_allocator(options)


def trained_default_allocator(options: argparse.Namespace) -> float:
    """Runs `edgeseg.engine.train` with its defaults."""
    from edgeseg.engine import TrainConfig, train

    images = _samples(options.batch * options.steps)
    model = edgeseg.create_model(options.model, num_classes=CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        train(model, images, None, TrainConfig(epochs=2, batch_size=options.batch), Path(folder))
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return float(json.loads(lines[-1])["images_per_second"])


def _samples(count: int) -> list[tuple[Tensor, Tensor]]:
    """Creates samples of CamVid's size from noise."""
    return [
        (
            tv_tensors.Image(torch.randint(0, 256, (3, 360, 480), dtype=torch.uint8)),
            tv_tensors.Mask(torch.randint(0, CLASSES, (360, 480), dtype=torch.uint8)),
        )
        for _ in range(count)
    ]


def augmented(options: argparse.Namespace) -> float:
    """Runs the augmentation of `train` without a network."""
    from edgeseg.data.transforms import AUGMENTATIONS, Augmented
    from edgeseg.engine import TrainConfig

    config = TrainConfig()
    size = config.img_resize
    transform = AUGMENTATIONS[config.augmentation](
        size, config.rand_crop or size, config.rand_scale, keep_aspect=True, rotation=0.0, jitter=config.jitter
    )
    tasks = {"segmentation": edgeseg.Task("segmentation", CLASSES)}
    samples = Augmented(_samples(320), transform, tasks, seed=0, cache=True)
    loader = DataLoader(samples, batch_size=options.batch, num_workers=2)
    arrived = [time.perf_counter() for _ in loader][4:]  # the first batches include the start of the processes
    return options.batch * (len(arrived) - 1) / (arrived[-1] - arrived[0])


def plain(options: argparse.Namespace) -> float:
    """Runs a plain loop on the network of edgeseg."""
    model = edgeseg.create_model(options.model, num_classes=CLASSES)
    return plain_loop(model, lambda images: model(images)["segmentation"], options)


def smp(options: argparse.Namespace) -> float:
    """Runs a plain loop on the nearest network of segmentation_models_pytorch."""
    model = plain_network(decoder_of(options.model), CLASSES)
    return plain_loop(model, model, options)


def plain_loop(model: nn.Module, forward: Callable[[Tensor], Tensor], options: argparse.Namespace) -> float:
    """Trains with SGD on cross-entropy, in float32 and contiguous memory."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images, target = torch.randn(options.batch, 3, 320, 416), torch.randint(0, CLASSES, (options.batch, 320, 416))
    model.train()
    start = 0.0
    for step in range(2 * options.steps):
        if step == options.steps:
            start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(forward(images), target).backward()
        optimizer.step()
    return options.steps * options.batch / (time.perf_counter() - start)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fpn_aspp_mobilenetv2_tv_edgeailite", help="name of the network")
    parser.add_argument("--batch", type=int, default=8, help="images per batch (default 8)")
    parser.add_argument("--steps", type=int, default=4, help="steps to warm up, and again to measure (default 4)")
    compare_ways(
        {
            "plain loop, float32, contiguous": plain,
            "plain loop, segmentation_models_pytorch FPN": smp,
            "edgeseg.engine.train, default allocator": trained_default_allocator,
            "edgeseg.engine.train": trained,
            "augmentation alone, two processes": augmented,
        },
        parser,
        "training.md",
    )
