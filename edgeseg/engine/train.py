"""A small training loop."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from edgeseg.data.labels import IGNORE
from edgeseg.data.transforms import Augmented, augmentation
from edgeseg.engine.evaluate import evaluate
from edgeseg.engine.losses import log_class_weights, segmentation_loss
from edgeseg.layers import resize
from edgeseg.pixel2pixel import Pixel2Pixel
from edgeseg.preprocess import normalize
from edgeseg.weights.checkpoint import save_checkpoint


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train; the defaults suit a few hundred street scenes and an ImageNet encoder.

    Args:
        epochs: Passes over the training set.
        batch_size: Images a step; a last smaller batch is dropped.
        lr: Highest learning rate of the encoder. SGD with Nesterov momentum, linear warm-up, then cosine to 0.
        decoder_lr: Factor on `lr` for the decoders.
        momentum: Of SGD.
        weight_decay: On all parameters, which quantization likes.
        warmup_epochs: Length of the warm-up.
        size: Height and width of the images at scale 1.
        crop: Height and width of a training sample.
        scale: Lowest and highest random scale.
        jitter: Strength of brightness, contrast and saturation changes.
        class_weights: Weigh the cross-entropy by the logarithmic frequency of the classes.
        dice: Weight of the Dice loss beside the cross-entropy.
        ema: Decay of the moving average of the weights, which is what is evaluated and saved.
        bf16: Run under bfloat16 autocast.
        compile: Run through torch.compile.
        seed: Of shuffling, augmentation, dropout and new layers' training.
        workers: Processes that augment.
        evaluate_every: Epochs between evaluations.
    """

    epochs: int = 60
    batch_size: int = 16
    lr: float = 0.01
    decoder_lr: float = 4.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 2.0
    size: tuple[int, int] = (360, 480)
    crop: tuple[int, int] = (320, 416)
    scale: tuple[float, float] = (0.5, 2.0)
    jitter: float = 0.4
    class_weights: bool = True
    dice: float = 0.5
    ema: float = 0.998
    bf16: bool = True
    compile: bool = False
    seed: int = 1
    workers: int = 1
    evaluate_every: int = 10


def train(
    model: Pixel2Pixel,
    train_set: Dataset[tuple[Tensor, Tensor]],
    val_set: Dataset[tuple[Tensor, Tensor]] | None,
    config: TrainConfig,
    output: Path,
) -> Pixel2Pixel:
    """Trains the segmentation task of `model` in place and gives back its moving average.

    Args:
        model: On the device to train on.
        train_set: Pairs of a uint8 image [3,H,W] and a label map [H,W], 255 ignored; decoded once into memory.
        val_set: The like, scored every `evaluate_every` epochs; None for none.
        config: The recipe.
        output: Folder for `log.csv` and `last.safetensors`; made where it is missing.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    torch.manual_seed(config.seed)
    task = next(iter(model.tasks))
    device = next(model.parameters()).device
    output.mkdir(parents=True, exist_ok=True)

    samples = Augmented(train_set, augmentation(config.size, config.crop, config.scale, config.jitter))
    loader = DataLoader(
        samples,
        config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        generator=torch.Generator().manual_seed(config.seed),
    )
    if not len(loader):
        raise ValueError(f"{len(samples)} training images make no batch of {config.batch_size}")
    weights = _class_weights(samples, model.tasks[task].channels).to(device) if config.class_weights else None

    model.to(memory_format=torch.channels_last).train()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    optimizer = torch.optim.SGD(
        _parameter_groups(model, config),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=True,
        fused=True,
    )
    scheduler = _schedule(optimizer, config, len(loader))
    decode = torch.compile(model.decode) if config.compile else model.decode

    def step(images: Tensor, target: Tensor) -> float:
        x = normalize(images.to(device), model.preprocess).contiguous(memory_format=torch.channels_last)
        target = target.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            logits = resize(decode(x)[task], target.shape[-2:])
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
                row["miou"] = 100 * evaluate(average.module, val_set, task=task, bf16=config.bf16).miou
            log(row)
            save_checkpoint(average.module, output / "last.safetensors", recipe=asdict(config), epoch=epoch)
    return average.module.eval()


def _parameter_groups(model: Pixel2Pixel, config: TrainConfig) -> list[dict[str, object]]:
    return [
        {"params": list(model.encoder.parameters()), "lr": config.lr},
        {"params": list(model.decoders.parameters()), "lr": config.lr * config.decoder_lr},
    ]


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
