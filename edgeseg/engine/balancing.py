"""Methods that weigh the losses of several tasks against each other during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgeseg.engine import distributed
from edgeseg.spec import Task
from edgeseg.tasks import kind_of


class Balancer(nn.Module):
    """Keeps the weights fixed, and is the base class of all methods. The state of a balancer is saved with the run.

    Args:
        tasks: The tasks that are trained, by name.
        factors: Initial weights, one per task.

    Attributes:
        weights: The weights of the tasks, in their order, float32 [number of tasks].
    """

    weights: Tensor

    def __init__(self, tasks: Mapping[str, Task], factors: Sequence[float]) -> None:
        super().__init__()
        self.names = list(tasks)
        self.regression = [not kind_of(task).has_classes for task in tasks.values()]
        self.register_buffer("weights", torch.tensor(list(factors), dtype=torch.float32))

    def total(self, losses: Mapping[str, Tensor], shared: Tensor) -> Tensor:
        """Computes the loss to minimize. In training, a subclass may update the weights here.

        Args:
            losses: One unweighted scalar per task, with its graph.
            shared: The deepest features [N, C, h, w], from which all decoders start, with their graph.

        Returns:
            A scalar: the weighted sum of the losses.
        """
        return (self.weights * self._stack(losses)).sum()

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Called at the end of an epoch with its mean losses by task."""

    def _stack(self, losses: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([losses[name] for name in self.names])

    def _gradient_norms(self, losses: Tensor, shared: Tensor) -> Tensor:
        """The norm of the gradient of each loss with respect to the shared features, float32 [number of tasks].

        Norms and losses are averaged over processes, so that all of them keep the same weights.
        """
        gradients = (torch.autograd.grad(loss, shared, retain_graph=True)[0] for loss in losses)
        return distributed.mean(torch.stack([gradient.float().norm() for gradient in gradients]))


class Uncertainty(Balancer):
    """Weights tasks by their uncertainty (Kendall et al., 2018, https://arxiv.org/abs/1705.07115).

    A regression contributes loss / (2 s^2) + log s and a classification loss / s^2 + log s, where s, the standard
    deviation of the noise of a task, is learned. The initial weights have no effect.
    """

    halves: Tensor

    def __init__(self, tasks: Mapping[str, Task], factors: Sequence[float]) -> None:
        super().__init__(tasks, factors)
        self.log_variance = nn.Parameter(torch.zeros(len(self.names)))
        self.register_buffer("halves", torch.tensor([0.5 if regression else 1.0 for regression in self.regression]))

    def total(self, losses: Mapping[str, Tensor], shared: Tensor) -> Tensor:
        """Computes the loss to minimize, and sets the weights to the present precisions; see `Balancer`."""
        precision = self.halves * torch.exp(-self.log_variance)
        self.weights = precision.detach()
        return (precision * self._stack(losses) + 0.5 * self.log_variance).sum()


class DynamicWeightAverage(Balancer):
    """Gives more weight to tasks whose losses fall slower (DWA: Liu et al., 2019, https://arxiv.org/abs/1803.10704)."""

    TEMPERATURE = 2.0
    factors: Tensor
    last: Tensor

    def __init__(self, tasks: Mapping[str, Task], factors: Sequence[float]) -> None:
        super().__init__(tasks, factors)
        self.register_buffer("factors", self.weights.clone())
        self.register_buffer("last", torch.zeros(len(self.names)))

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Sets the weights of the next epoch from the losses of this epoch and of the previous one."""
        now = torch.tensor([means[name] for name in self.names], device=self.weights.device)
        if bool((self.last > 0).all()):
            share = torch.softmax(now / self.last / self.TEMPERATURE, dim=0)
            self.weights = self.factors * share * len(self.names)
        self.last = now


class GradNorm(Balancer):
    """Makes the tasks learn at the same pace (GradNorm: Chen et al., 2018, https://arxiv.org/abs/1711.02257).

    Each step moves the weights so that a task whose loss has fallen less than the average gets a larger gradient. The
    paper takes gradients with respect to the weights of the last shared layer; here they are those with respect to its
    output.
    """

    ALPHA, RATE = 1.5, 0.025
    first: Tensor

    def __init__(self, tasks: Mapping[str, Task], factors: Sequence[float]) -> None:
        super().__init__(tasks, factors)
        self.register_buffer("first", torch.zeros(len(self.names)))

    def total(self, losses: Mapping[str, Tensor], shared: Tensor) -> Tensor:
        """Computes the loss to minimize, and in training updates the weights for the next step; see `Balancer`."""
        stacked = self._stack(losses)
        used = self.weights
        if self.training:
            self._update(distributed.mean(stacked.detach()), self._gradient_norms(stacked, shared))
        return (used * stacked).sum()

    def _update(self, losses: Tensor, norms: Tensor) -> None:
        if not bool(self.first.any()):
            self.first = losses.clamp(min=1e-8)
        ratio = losses / self.first
        pace = (ratio / ratio.mean().clamp(min=1e-8)) ** self.ALPHA
        lengths = self.weights * norms
        # The gradient of sum |w_i n_i - target_i| with respect to w_i, with constant targets.
        gradient = torch.sign(lengths - lengths.mean() * pace) * norms / norms.mean().clamp(min=1e-12)
        moved = (self.weights - self.RATE * gradient).clamp(min=1e-3)
        self.weights = moved * len(self.names) / moved.sum()


class PseudoGradNorm(Balancer):
    """Balances by smoothed gradient norms, which the weights follow slowly ("learned" in TI's zoo).

    The weights add up to the number of tasks; in TI's zoo they always add up to three.
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
        """Computes the loss to minimize, and in training updates the weights for the next step; see `Balancer`."""
        stacked = self._stack(losses)
        used = self.weights
        if self.training:
            # As in TI's zoo, the norms are those of the gradients of the weighted losses.
            self._update(distributed.mean(stacked.detach()), used * self._gradient_norms(stacked, shared))
        return (used * stacked).sum()

    def _update(self, losses: Tensor, norms: Tensor) -> None:
        started = bool(self.norms.any())
        self.short = self.short + self.SHORT * (losses - self.short) if started else losses
        self.long = self.long + self.LONG * (losses - self.long) if started else losses
        self.norms = self.norms + self.SHORT * (norms - self.norms) if started else norms
        ratio = self.short / (self.long + 1e-6)
        target = self.norms.mean() * (ratio / ratio.sum()) ** self.POWER
        moved = self.weights * (1 + self.RATE * (target / (self.norms + 1e-6) - 1))
        self.weights = moved * len(self.names) / moved.sum()


BALANCERS: Mapping[str, type[Balancer]] = {
    "fixed": Balancer,
    "uncertainty": Uncertainty,
    "dwa": DynamicWeightAverage,
    "gradnorm": GradNorm,
    "pseudo_gradnorm": PseudoGradNorm,
}
