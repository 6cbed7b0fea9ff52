"""A small training loop."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from edgeseg.data.labels import IGNORE
from edgeseg.data.transforms import Augmented, augmentation
from edgeseg.engine.config import TrainConfig
from edgeseg.engine.evaluation import evaluate
from edgeseg.engine.losses import log_class_weights, segmentation_loss
from edgeseg.engine.memory import keep_freed_memory
from edgeseg.layers import resize
from edgeseg.pixel2pixel import Pixel2Pixel
from edgeseg.preprocess import normalize
from edgeseg.weights.checkpoint import save_checkpoint


def train(
    model: Pixel2Pixel,
    train_set: Dataset[tuple[Tensor, Tensor]],
    val_set: Dataset[tuple[Tensor, Tensor]] | None,
    config: TrainConfig,
    output: Path,
) -> Pixel2Pixel:
    """Trains the segmentation task of `model` in place and gives back its moving average.

    Args:
        model: On the device to train on. Its preprocessing gets the size of `config`.
        train_set: Pairs of a uint8 image [3,H,W] and a label map [H,W], 255 ignored; decoded once into memory.
        val_set: The like, scored every `evaluate_every` epochs; None for none.
        config: The recipe.
        output: Folder for `log.csv` and `last.safetensors`; made where it is missing.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: fewer images than a batch has.
    """
    keep_freed_memory()
    torch.manual_seed(config.seed)
    task = next(iter(model.tasks))
    device = next(model.parameters()).device
    output.mkdir(parents=True, exist_ok=True)

    samples = Augmented(train_set, augmentation(config.size, config.crop, config.scale, config.jitter))
    loader = _loader(samples, config)
    weights = _class_weights(samples, model.tasks[task].channels).to(device) if config.class_weights else None

    model.preprocess = replace(model.preprocess, size=config.size, keep_aspect=True)
    model.to(memory_format=torch.channels_last).train()
    average = AveragedModel(model, multi_avg_fn=_moving_average(config.ema), use_buffers=True)
    averaged = cast(Pixel2Pixel, average.module)
    optimizer = _optimizer(model, config)
    scheduler = _schedule(optimizer, config, len(loader))
    bf16 = has_bf16(device) if config.bf16 is None else config.bf16

    def step(images: Tensor, target: Tensor) -> float:
        x = normalize(images.to(device), model.preprocess).contiguous(memory_format=torch.channels_last)
        target = target.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = resize(model.decode(x)[task], target.shape[-2:])
        loss = segmentation_loss(logits, target, class_weights=weights, dice=config.dice)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        average.update_parameters(model)
        return float(loss.detach())

    with _log(output / "log.csv") as log:
        for epoch in range(1, config.epochs + 1):
            start, total = time.perf_counter(), 0.0
            for images, target in tqdm(loader, desc=f"epoch {epoch}/{config.epochs}", leave=False, disable=None):
                loss = step(images, target)
                if not math.isfinite(loss):
                    raise FloatingPointError(f"the loss is {loss} in epoch {epoch}; lower lr={config.lr}")
                total += loss
            row = {"epoch": epoch, "loss": total / len(loader), "seconds": time.perf_counter() - start, "miou": ""}
            if val_set is not None and (epoch % config.evaluate_every == 0 or epoch == config.epochs):
                row["miou"] = 100 * evaluate(averaged, val_set, task=task, bf16=bf16).miou
            log(row)
            save_checkpoint(averaged, output / "last.safetensors", recipe=asdict(config), epoch=epoch)
    return averaged.eval()


def _loader(samples: Augmented, config: TrainConfig) -> DataLoader[tuple[Tensor, Tensor]]:
    if len(samples) < config.batch_size:
        raise ValueError(f"{len(samples)} training images make no batch of {config.batch_size}")
    return DataLoader(
        samples,
        config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        generator=torch.Generator().manual_seed(config.seed),
    )


def _optimizer(model: Pixel2Pixel, config: TrainConfig) -> torch.optim.Optimizer:
    groups = [
        {"params": list(model.encoder.parameters()), "lr": config.lr},
        {"params": list(model.decoders.parameters()), "lr": config.lr * config.decoder_lr},
    ]
    return torch.optim.SGD(
        groups, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=True, fused=True
    )


def _schedule(
    optimizer: torch.optim.Optimizer, config: TrainConfig, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    warmup = max(int(config.warmup_epochs * steps_per_epoch), 1)
    steps = max(config.epochs * steps_per_epoch - warmup, 1)
    return torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        ],
        milestones=[warmup],
    )


def _class_weights(samples: Augmented, classes: int) -> Tensor:
    pixels = torch.zeros(classes)
    for _, label in samples.pairs:
        pixels += torch.bincount(label[label != IGNORE].flatten().long(), minlength=classes)
    return log_class_weights(pixels)


def _moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """An exponential average that starts short, so that it soon forgets the untrained decoder."""

    def update(averages: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(now)(averages, values, count)

    return update


def has_bf16(device: torch.device) -> bool:
    """Whether `device` computes in bfloat16 itself; where it must emulate that, float32 is many times faster."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: Mapping[str, object] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # not in every torch that is supported
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("bf16"))


@contextmanager
def _log(path: Path) -> Iterator[Callable[[Mapping[str, object]], None]]:
    """Writes rows to a CSV file as they come, and to the terminal."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "loss", "seconds", "miou"])
        writer.writeheader()

        def write(row: Mapping[str, object]) -> None:
            rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            writer.writerow(rounded)
            file.flush()
            print("  ".join(f"{key} {value}" for key, value in rounded.items() if value != ""), flush=True)

        yield write
