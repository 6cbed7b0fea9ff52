"""Training on the CPU, images per second: edgeseg.engine.train beside plain loops: python benchmarks/train_step.py

edgeseg's figure is what `train` reports, with augmentation, class weights, Dice loss and moving average. The plain
loops are what one writes first, float32 and contiguous, with ready tensors and cross-entropy alone: on the same
network, and on the nearest one of segmentation_models_pytorch (pip install edgeseg[benchmarks]). Augmentation alone, of
CamVid's size from memory in two processes, is there to show that it does not hold training up.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from side_by_side import compare
from smp_networks import decoder_of, plain_network
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import tv_tensors

import edgeseg

CLASSES = 11


def trained(options: argparse.Namespace) -> float:
    """`edgeseg.engine.train` with its defaults."""
    return _train(options)


def trained_default_allocator(options: argparse.Namespace) -> float:
    """The same, with memory given back to the system after use."""
    with patch("edgeseg.engine.training.keep_freed_memory"):
        return _train(options)


def _train(options: argparse.Namespace) -> float:
    from edgeseg.engine import TrainConfig, train

    images = _samples(options.batch * options.steps)
    model = edgeseg.create_model(options.model, num_classes=CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        train(model, images, None, TrainConfig(epochs=2, batch_size=options.batch), Path(folder))
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return float(json.loads(lines[-1])["images_per_second"])


def _samples(count: int) -> list[tuple[Tensor, Tensor]]:
    """Noise of CamVid's size."""
    return [
        (
            tv_tensors.Image(torch.randint(0, 256, (3, 360, 480), dtype=torch.uint8)),
            tv_tensors.Mask(torch.randint(0, CLASSES, (360, 480), dtype=torch.uint8)),
        )
        for _ in range(count)
    ]


def augmented(options: argparse.Namespace) -> float:
    """What feeds `train`, with nothing to feed."""
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
    arrived = [time.perf_counter() for _ in loader][4:]  # without the start of the processes
    return options.batch * (len(arrived) - 1) / (arrived[-1] - arrived[0])


def plain(options: argparse.Namespace) -> float:
    """A plain loop on edgeseg's network."""
    model = edgeseg.create_model(options.model, num_classes=CLASSES)
    return plain_loop(model, lambda images: model(images)["segmentation"], options)


def smp(options: argparse.Namespace) -> float:
    """A plain loop on segmentation_models_pytorch's nearest network."""
    model = plain_network(decoder_of(options.model), CLASSES)
    return plain_loop(model, model, options)


def plain_loop(model: nn.Module, forward: Callable[[Tensor], Tensor], options: argparse.Namespace) -> float:
    """float32, contiguous, cross-entropy, SGD."""
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
    parser.add_argument("--model", default="fpn_aspp_mobilenetv2_tv_edgeailite")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="to warm up, and again to measure")
    compare(
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
