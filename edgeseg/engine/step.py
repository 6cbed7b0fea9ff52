"""One step of training: from batches to changed weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from edgeseg.engine import distributed
from edgeseg.engine.balancing import Balancer
from edgeseg.engine.bfloat16 import bfloat16
from edgeseg.engine.task_losses import TaskLosses
from edgeseg.engine.trained_network import TrainedNetwork, parallel
from edgeseg.machine.terminal import warn
from edgeseg.networks.modes import EXPORTING
from edgeseg.recipes import TrainConfig

Batch = tuple[Sequence[Tensor], Mapping[str, Tensor], Tensor]  # images, targets by task, numbers of the samples


class OptimizerStep:
    """Computes losses and gradients of batches, and changes the weights.

    Gradients that are not finite in bfloat16 are computed again in float32.

    Args:
        network: The module that is trained.
        losses: The losses of its tasks.
        balancer: Sums them.
        optimizer: The optimizer of the parameters of the network and the balancer.
        config: The recipe.
        device: Where the network is.
        bf16: Whether the network computes in bfloat16.
        name_of: Returns the name of a training sample, for error messages.
    """

    def __init__(
        self,
        network: TrainedNetwork,
        losses: TaskLosses,
        balancer: Balancer,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        device: torch.device,
        *,
        bf16: bool,
        name_of: Callable[[int], str],
    ) -> None:
        self.network, self.losses, self.balancer, self.optimizer = network, losses, balancer, optimizer
        self.config, self.device, self.bf16, self.name_of = config, device, bf16, name_of
        self.forward = parallel(network, config, device)

    def __call__(self, batches: Sequence[Batch], number: int) -> dict[str, float]:
        """Changes the weights once, by the gradients of the mean loss of `iter_size` batches.

        Args:
            batches: The batches.
            number: Number of steps of the run that are done; the random numbers of the step depend on it.

        Returns:
            The mean losses of the batches over all processes: "loss" for the total, and one per task.

        Raises:
            FloatingPointError: a loss or a gradient is not finite, in all processes; the weights, and the statistics of
                batch norms, are as they were.
        """
        parts = (self.network, self.balancer)
        before = [(part, {name: each.clone() for name, each in part.named_buffers()}) for part in parts]
        means, wrong = self._gradients(batches, number, bf16=self.bf16)
        if wrong and self.bf16:
            warn(f"{wrong} in bfloat16 in step {number + 1}, which is repeated in float32")
            _restore(before)
            means, wrong = self._gradients(batches, number, bf16=False)
        if wrong:  # the step would make the weights so, and they would be saved
            _restore(before)
            names = ", ".join(self.name_of(int(index)) for *_, indices in batches for index in indices)
            raise FloatingPointError(
                f"{wrong} in step {number + 1}; lower lr, which is {self.config.lr}, or look at the images of the "
                f"batch: {names}"
            )
        if self.config.clip_grad:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_grad)
        with EXPORTING:
            self.optimizer.step()
        return means

    def _gradients(self, batches: Sequence[Batch], number: int, *, bf16: bool) -> tuple[dict[str, float], str]:
        """Computes the gradients of the mean loss of the batches.

        Returns:
            The mean losses over all processes, and what is not finite, if anything; the same in all processes.
        """
        torch.manual_seed(self.config.seed * 1_000_003 + number * distributed.world_size() + distributed.rank())
        with EXPORTING:
            self.optimizer.zero_grad(set_to_none=True)
        own: dict[str, float] = {}
        for batch in batches:
            losses = self._losses(batch, bf16=bf16)
            (losses["loss"] / len(batches)).backward()
            for name, loss in losses.items():
                own[name] = own.get(name, 0.0) + float(loss.detach()) / len(batches)
        for parameter in self.balancer.parameters():  # outside of what DistributedDataParallel averages
            if parameter.grad is not None:
                parameter.grad = distributed.mean(parameter.grad)
        values = distributed.mean(torch.tensor(list(own.values()), dtype=torch.float64)).tolist()
        means = dict(zip(own, values, strict=True))
        gradients = [each.grad for each in self.network.parameters() if each.grad is not None]
        largest = float(nn.utils.get_total_norm(gradients, norm_type=math.inf))
        found = {"the loss": means["loss"], "the largest gradient": largest}
        return means, next((f"{what} is {value}" for what, value in found.items() if not math.isfinite(value)), "")

    def _losses(self, batch: Batch, *, bf16: bool) -> dict[str, Tensor]:
        """Computes the losses of a batch: "loss" for the total, and one per task."""
        images, targets, _ = batch
        inputs = [self.network.model.preprocess.normalize(image.to(self.device)) for image in images]
        inputs = [image.contiguous(memory_format=torch.channels_last) for image in inputs]
        with bfloat16(self.device, enabled=bf16):
            outputs = self.forward(*inputs)
        by_task = self.losses(inputs, outputs, {name: target.to(self.device) for name, target in targets.items()})
        return {"loss": self.balancer.total(by_task, outputs.features), **by_task}


def _restore(before: Sequence[tuple[nn.Module, Mapping[str, Tensor]]]) -> None:
    """Gives the buffers of modules their earlier values."""
    for part, values in before:
        for name, value in values.items():
            part.get_buffer(name).data.copy_(value)
