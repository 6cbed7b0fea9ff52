"""Optimizers and the learning rate over time."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from edgeseg.recipes import TrainConfig


def build_optimizer(encoder: nn.Module, others: Iterable[nn.Module], config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer over the parameters that are trained, the encoder's at `lr`, all others' at `lr * decoder_lr`."""
    groups = [
        {"params": [p for p in encoder.parameters() if p.requires_grad], "lr": config.lr},
        {
            "params": [p for module in others for p in module.parameters() if p.requires_grad],
            "lr": config.lr * config.decoder_lr,
        },
    ]
    groups = [{**group, "peak_lr": group["lr"]} for group in groups if group["params"]]
    if config.optimizer == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return torch.optim.SGD(
            groups, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=nesterov, fused=True
        )
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, betas=(config.momentum, 0.999), weight_decay=config.weight_decay, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, epoch: float) -> float:
    """Sets the rate of every group for a time given in epochs from 0, and gives that of the first."""
    factor = learning_rate_factor(config, math.floor(epoch) if config.schedule_by == "epoch" else epoch)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


def learning_rate_factor(config: TrainConfig, epoch: float) -> float:
    """Share of the highest rate at a time in epochs from 0: a line up to `warmup_epochs`, then the schedule.

    The schedule is not shifted by the warm-up, as in the original, whose first epoch has a thousandth of the rate.
    """
    if epoch <= config.warmup_epochs and config.warmup_epochs > 0:
        return max(epoch / config.warmup_epochs, 1e-3)
    progress = min(epoch / config.epochs, 1.0)
    if config.scheduler == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    if config.scheduler == "poly":
        return (1 - progress) ** config.polystep_power
    return config.multistep_gamma ** sum(milestone <= epoch for milestone in config.milestones)
