"""How the losses of several tasks are weighed against each other while they are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgeseg.engine import distributed
from edgeseg.spec import Task
from edgeseg.tasks import kind_of


class Balancer(nn.Module):
    """Fixed weights, and what all ways of balancing share. A balancer is saved with the run.

    Args:
        tasks: What is learned.
        factors: Weights to begin with, one a task.

    Attributes:
        weights: Of the tasks, in their order [n].
    """

    weights: Tensor

    def __init__(self, tasks: Mapping[str, Task], factors: Sequence[float]) -> None:
        super().__init__()
        self.names = list(tasks)
        self.regression = [not kind_of(task).has_classes for task in tasks.values()]
        self.register_buffer("weights", torch.tensor(list(factors), dtype=torch.float32))

    def total(self, losses: Mapping[str, Tensor], shared: Tensor) -> Tensor:
        """The loss to minimize.

        Args:
            losses: A scalar a task, unweighted.
            shared: The last features that all decoders start from, with their graph.
        """
        return (self.weights * self._stack(losses)).sum()

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Hears of the mean losses of an epoch."""

    def _stack(self, losses: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([losses[name] for name in self.names])

    def _gradient_norms(self, losses: Tensor, shared: Tensor) -> Tensor:
        """Length of each loss's gradient at the shared features."""
        return torch.stack([torch.autograd.grad(loss, shared, retain_graph=True)[0].float().norm() for loss in losses])


class Uncertainty(Balancer):
    """Weights from learned noise (Kendall et al., 2018, https://arxiv.org/abs/1705.07115).

    A regression has loss / (2 s^2) + log s, a classification loss / s^2 + log s; s is learned for each task.
    """

    halves: Tensor

    def __init__(self, tasks: Mapping[str, Task], factors: Sequence[float]) -> None:
        super().__init__(tasks, factors)
        self.log_variance = nn.Parameter(torch.zeros(len(self.names)))
        self.register_buffer("halves", torch.tensor([0.5 if each else 1.0 for each in self.regression]))

    def total(self, losses: Mapping[str, Tensor], shared: Tensor) -> Tensor:
        """The loss to minimize, see `Balancer`."""
        precision = self.halves * torch.exp(-self.log_variance)
        self.weights = precision.detach()
        return (precision * self._stack(losses) + 0.5 * self.log_variance).sum()


class DynamicWeightAverage(Balancer):
    """Weights from how fast losses fall from epoch to epoch (Liu et al., 2019, https://arxiv.org/abs/1803.10704)."""

    TEMPERATURE = 2.0
    factors: Tensor
    last: Tensor

    def __init__(self, tasks: Mapping[str, Task], factors: Sequence[float]) -> None:
        super().__init__(tasks, factors)
        self.register_buffer("factors", self.weights.clone())
        self.register_buffer("last", torch.zeros(len(self.names)))

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Sets the weights of the next epoch."""
        now = torch.tensor([means[name] for name in self.names], device=self.weights.device)
        if bool((self.last > 0).all()):
            share = torch.softmax(now / self.last / self.TEMPERATURE, dim=0)
            self.weights = self.factors * share * len(self.names)
        self.last = now


class GradNorm(Balancer):
    """Weights that make the tasks learn at one pace (Chen et al., 2018, https://arxiv.org/abs/1711.02257).

    Each step moves the weights so that the gradients at the shared features are as long as the task's share of the
    remaining loss wants. The paper takes the gradients at the last shared layer's weights.
    """

    ALPHA, RATE = 1.5, 0.025
    first: Tensor

    def __init__(self, tasks: Mapping[str, Task], factors: Sequence[float]) -> None:
        super().__init__(tasks, factors)
        self.register_buffer("first", torch.zeros(len(self.names)))

    def total(self, losses: Mapping[str, Tensor], shared: Tensor) -> Tensor:
        """The loss to minimize, see `Balancer`."""
        stacked = self._stack(losses)
        used = self.weights
        if self.training:
            self._update(_of_all(stacked.detach()), self._gradient_norms(stacked, shared))
        return (used * stacked).sum()

    def _update(self, losses: Tensor, norms: Tensor) -> None:
        if not bool(self.first.any()):
            self.first = losses.clamp(min=1e-8)
        ratio = losses / self.first
        pace = (ratio / ratio.mean().clamp(min=1e-8)) ** self.ALPHA
        lengths = self.weights * norms
        # The gradient of sum |w_i n_i - target_i| by w_i, the targets held.
        gradient = torch.sign(lengths - lengths.mean() * pace) * norms / norms.mean().clamp(min=1e-12)
        moved = (self.weights - self.RATE * gradient).clamp(min=1e-3)
        self.weights = moved * len(self.names) / moved.sum()


class PseudoGradNorm(Balancer):
    """The original zoo's own way ("learned"): smoothed gradient norms, and weights that follow them slowly.

    Where the original always lets three weights add up to three, here they add up to the number of tasks.
    """

    SHORT, LONG, RATE, POWER = 1e-3, 1e-6, 1e-4, 0.75
    short: Tensor
    long: Tensor
    norms: Tensor

    def __init__(self, tasks: Mapping[str, Task], factors: Sequence[float]) -> None:
        super().__init__(tasks, factors)
        for name in ("short", "long", "norms"):
            self.register_buffer(name, torch.zeros(len(self.names)))

    def total(self, losses: Mapping[str, Tensor], shared: Tensor) -> Tensor:
        """The loss to minimize, see `Balancer`."""
        stacked = self._stack(losses)
        used = self.weights
        if self.training:
            # As in the original the norms are those of the weighted losses.
            self._update(_of_all(stacked.detach()), used * self._gradient_norms(stacked, shared))
        return (used * stacked).sum()

    def _update(self, losses: Tensor, norms: Tensor) -> None:
        begun = bool(self.norms.any())
        self.short = self.short + self.SHORT * (losses - self.short) if begun else losses
        self.long = self.long + self.LONG * (losses - self.long) if begun else losses
        self.norms = self.norms + self.SHORT * (norms - self.norms) if begun else norms
        ratio = self.short / (self.long + 1e-6)
        target = self.norms.mean() * (ratio / ratio.sum()) ** self.POWER
        moved = self.weights * (1 + self.RATE * (target / (self.norms + 1e-6) - 1))
        self.weights = moved * len(self.names) / moved.sum()


def _of_all(values: Tensor) -> Tensor:
    """The mean over all processes, so that they keep the same weights."""
    return distributed.total(values) / distributed.world_size()


BALANCERS: Mapping[str, type[Balancer]] = {
    "fixed": Balancer,
    "uncertainty": Uncertainty,
    "dwa": DynamicWeightAverage,
    "gradnorm": GradNorm,
    "pseudo_gradnorm": PseudoGradNorm,
}
