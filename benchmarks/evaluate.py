"""Compares engine.evaluate with plain loops on the CPU, in images per second: python benchmarks/evaluate.py

All ways run the same network at 384x768 on the same images and count at 1024x2048, the size of the ground truth. The
plain loops normalize in float, resize logits, take the argmax, and count with numpy or with torchmetrics (pip install
edgeseg[benchmarks]). Writes the table in docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from measuring import compare_ways
from torch import Tensor
from torch.nn import functional as F

import edgeseg
from edgeseg.machine.memory import keep_freed_memory
from edgeseg.networks.pixel2pixel import Pixel2Pixel

CLASSES, SIZE, FULL = 19, (384, 768), (1024, 2048)
Samples = list[tuple[Tensor, Tensor]]


def _prepared(options: argparse.Namespace) -> tuple[Pixel2Pixel, Samples]:
    """Creates the network, and samples whose labels form regions, as in real ground truth."""
    generator = torch.Generator().manual_seed(0)
    model = edgeseg.create_model(options.model, num_classes=CLASSES).eval()
    samples = []
    for _ in range(options.images):
        image = torch.randint(0, 256, (3, 16, 32), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, CLASSES, (1, 16, 32), dtype=torch.uint8, generator=generator)
        samples.append(
            (
                F.interpolate(image[None], FULL, mode="bilinear")[0],
                F.interpolate(labels[None].float(), FULL, mode="nearest")[0, 0].byte(),
            )
        )
    return model, samples


def _rate(samples: Samples, score: Callable[[Samples], object]) -> float:
    score(samples[:1])
    start = time.perf_counter()
    score(samples)
    return len(samples) / (time.perf_counter() - start)


def evaluated(options: argparse.Namespace, *, optimize: bool = False) -> float:
    """Runs `edgeseg.engine.evaluate`; with `optimize`, in the process and on the network of `edgeseg evaluate`."""
    from edgeseg.engine import evaluate

    model, samples = _prepared(options)
    if optimize:
        keep_freed_memory()
        model = edgeseg.optimize(model)
    return _rate(samples, lambda some: evaluate(model, some, size=SIZE))


@torch.inference_mode()
def _predicted(model: Pixel2Pixel, image: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (model.preprocess.mean, model.preprocess.std))
    inputs = F.interpolate((image[None].float() - mean) / std, SIZE, mode="bilinear", antialias=True)
    logits = F.interpolate(model(inputs)["segmentation"], FULL, mode="bilinear", align_corners=False)
    return logits.argmax(dim=1)[0]


def plain(options: argparse.Namespace) -> float:
    """Runs a plain loop that counts with numpy."""
    model, samples = _prepared(options)

    def score(some: Samples) -> object:
        counts = np.zeros((CLASSES, CLASSES), np.int64)
        for image, target in some:
            predicted, true = _predicted(model, image).numpy().ravel(), target.numpy().astype(np.int64).ravel()
            kept = true < CLASSES
            pairs = CLASSES * true[kept] + predicted[kept]
            counts += np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
        return counts

    return _rate(samples, score)


def torchmetrics(options: argparse.Namespace) -> float:
    """Runs a plain loop that counts with torchmetrics."""
    from torchmetrics.classification import MulticlassJaccardIndex

    model, samples = _prepared(options)

    def score(some: Samples) -> object:
        metric = MulticlassJaccardIndex(CLASSES, ignore_index=255)
        for image, target in some:
            metric.update(_predicted(model, image)[None], target[None].long())
        return metric.compute()

    return _rate(samples, score)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fpn_aspp_mobilenetv2_tv_edgeailite", help="name of the network")
    parser.add_argument("--images", type=int, default=6, help="number of images per process (default 6)")
    compare_ways(
        {
            "plain loop, numpy": plain,
            "plain loop, torchmetrics": torchmetrics,
            "edgeseg.engine.evaluate": evaluated,
            "edgeseg evaluate": partial(evaluated, optimize=True),
        },
        parser,
        "evaluation.md",
    )
