"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from edgeseg.networks.modes import EXPORTING
from edgeseg.recipes import TrainConfig


def build_optimizer(encoder: nn.Module, others: Iterable[nn.Module], config: TrainConfig) -> torch.optim.Optimizer:
    """Builds the optimizer over all parameters that require a gradient.

    Args:
        encoder: The module that is trained at the learning rate `lr`.
        others: The modules that are trained at `lr * decoder_lr`.
        config: The recipe.

    Returns:
        An optimizer whose groups have their highest learning rate as "peak_lr".
    """
    groups = [
        {"params": [p for p in encoder.parameters() if p.requires_grad], "lr": config.lr},
        {
            "params": [p for module in others for p in module.parameters() if p.requires_grad],
            "lr": config.lr * config.decoder_lr,
        },
    ]
    groups = [{**group, "peak_lr": group["lr"]} for group in groups if group["params"]]
    with EXPORTING:
        if config.optimizer == "sgd":
            nesterov = config.nesterov and config.momentum > 0
            return torch.optim.SGD(
                groups, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=nesterov, fused=True
            )
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        return kind(groups, betas=(config.momentum, 0.999), weight_decay=config.weight_decay, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, epoch: float) -> float:
    """Sets the learning rates of all parameter groups.

    Args:
        optimizer: Its groups have a "peak_lr", as in `build_optimizer`.
        config: The recipe.
        epoch: Time since the start of training in epochs, with a fraction.

    Returns:
        The learning rate of the first group.
    """
    factor = learning_rate_factor(config, math.floor(epoch) if config.schedule_by == "epoch" else epoch)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


def learning_rate_factor(config: TrainConfig, epoch: float) -> float:
    """Computes the learning rate as a factor on its peak: a linear warm-up, then the schedule.

    The warm-up lasts `warmup_epochs`, and at most half of the run. As in TI's zoo, it does not delay the schedule, and
    the factor begins at 0.001.

    Args:
        config: The recipe.
        epoch: Time since the start of training in epochs, with a fraction.

    Returns:
        A factor from 0 to 1.
    """
    warmup = min(config.warmup_epochs, config.epochs / 2)
    if epoch <= warmup and warmup > 0:
        return max(epoch / warmup, 1e-3)
    progress = min(epoch / config.epochs, 1.0)
    if config.scheduler == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    if config.scheduler == "poly":
        return (1 - progress) ** config.polystep_power
    return config.multistep_gamma ** sum(milestone <= epoch for milestone in config.milestones)
