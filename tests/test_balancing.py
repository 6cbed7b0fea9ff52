"""Balancing of tasks, on problems whose right weights are known."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeseg import Task
from edgeseg.engine.balancing import BALANCERS, Balancer, DynamicWeightAverage, GradNorm, PseudoGradNorm, Uncertainty

from .conftest import TINY

REGRESSION = Task("depth")
CLASSES = Task("segmentation", 2)


def make(kind: type[Balancer], count: int = 2) -> Balancer:
    return kind({f"task{i}": REGRESSION for i in range(count)}, [1.0] * count).train()


def test_fixed() -> None:
    balancer = Balancer({"a": CLASSES, "b": REGRESSION}, [0.5, 2.0])
    total = balancer.total({"b": torch.tensor(3.0), "a": torch.tensor(4.0)}, torch.zeros(1))
    assert float(total) == 0.5 * 4 + 2 * 3


def test_uncertainty_finds_the_noise() -> None:
    """Squared errors with noise of known variance: the learned variances are those, the weights their inverse."""
    torch.manual_seed(0)
    variances = torch.tensor([0.04, 1.0, 9.0])
    balancer = make(Uncertainty, 3)
    optimizer = torch.optim.Adam(balancer.parameters(), lr=0.02)
    for _ in range(1500):
        noise = torch.randn(3, 256) * variances.sqrt()[:, None]
        losses = {f"task{i}": noise[i].square().mean() for i in range(3)}
        optimizer.zero_grad()
        balancer.total(losses, torch.zeros(1)).backward()
        optimizer.step()
    assert isinstance(balancer, Uncertainty)
    torch.testing.assert_close(balancer.log_variance.detach().exp(), variances, rtol=0.1, atol=0.01)
    torch.testing.assert_close(balancer.weights, 0.5 / variances, rtol=0.1, atol=0.1)


def test_uncertainty_of_a_classification_has_no_half() -> None:
    balancer = Uncertainty({"a": CLASSES, "b": REGRESSION}, [1.0, 1.0])
    balancer.total({"a": torch.tensor(1.0), "b": torch.tensor(1.0)}, torch.zeros(1))
    assert balancer.weights.tolist() == [1.0, 0.5]


def test_dynamic_weight_average() -> None:
    """The paper's formula: K softmax(loss / loss before / 2); the task that falls slower gets more."""
    balancer = make(DynamicWeightAverage)
    balancer.end_epoch({"task0": 1.0, "task1": 10.0})
    assert balancer.weights.tolist() == [1.0, 1.0]
    balancer.end_epoch({"task0": 0.9, "task1": 2.0})
    expected = 2 * np.exp([0.45, 0.1]) / np.exp([0.45, 0.1]).sum()
    assert balancer.weights.tolist() == pytest.approx(expected)
    balancer.end_epoch({"task0": 0.9, "task1": 2.0})
    assert balancer.weights.tolist() == pytest.approx([1.0, 1.0])


def toy(balancer: Balancer, scales: list[float], steps: int) -> None:
    """The same loss at different scales, from shared features: only the weights should differ."""
    torch.manual_seed(0)
    features = torch.randn(16, 8, requires_grad=True)
    target = torch.randn(16, 8)
    for _ in range(steps):
        losses = {f"task{i}": scale * (features - target).square().mean() for i, scale in enumerate(scales)}
        total = balancer.total(losses, features)
        (gradient,) = torch.autograd.grad(total, features)
        with torch.no_grad():
            features -= 0.01 * gradient


def test_gradnorm_evens_out_scales() -> None:
    """Tasks that learn at one pace get weights inverse to the scales of their losses."""
    balancer = make(GradNorm, 3)
    toy(balancer, [1.0, 4.0, 10.0], 600)
    products = balancer.weights * torch.tensor([1.0, 4.0, 10.0])
    assert float(products.max() / products.min()) < 1.5
    assert float(balancer.weights.sum()) == pytest.approx(3)


def test_pseudo_gradnorm_is_the_originals() -> None:
    """Step by step against its formulas in numpy, for three tasks, where the original is right."""
    rng = np.random.default_rng(0)
    balancer = make(PseudoGradNorm, 3)
    weights, state = np.ones(3), None
    for _ in range(200):
        scales, features = rng.uniform(0.5, 5, 3), torch.tensor(rng.normal(size=(4, 5)), requires_grad=True)
        losses = {f"task{i}": float(scale) * features.square().sum() for i, scale in enumerate(scales)}
        total = balancer.total(losses, features)
        square = float(features.detach().square().sum())
        raw = scales * square
        assert float(total.detach()) == pytest.approx((weights * raw).sum(), rel=1e-5)
        norms = weights * scales * 2 * square**0.5
        if state is None:
            state = [raw, raw, norms]
        else:
            rates = (1e-3, 1e-6, 1e-3)
            state = [
                (1 - rate) * old + rate * new for rate, old, new in zip(rates, state, (raw, raw, norms), strict=True)
            ]
        short, long, smooth = state
        ratio = short / (long + 1e-6)
        target = smooth.mean() * (ratio / ratio.sum()) ** 0.75
        weights = weights + 1e-4 * weights * (target / (smooth + 1e-6) - 1)
        weights = 3 * weights / weights.sum()
        np.testing.assert_allclose(balancer.weights.numpy(), weights, rtol=1e-5)
    assert abs(weights - 1).max() > 1e-3


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("kind", BALANCERS.values(), ids=BALANCERS)
def test_any_number_of_tasks(kind: type[Balancer], count: int) -> None:
    balancer = make(kind, count)
    toy(balancer, [float(i + 1) for i in range(count)], 20)
    balancer.end_epoch({f"task{i}": 1.0 for i in range(count)})
    assert balancer.weights.isfinite().all()
    again = make(kind, count)
    again.load_state_dict(balancer.state_dict())
    assert torch.equal(again.weights, balancer.weights)


def test_processes_keep_the_same_weights(tmp_path: Path) -> None:
    """Each sees other images; a real torchrun."""
    program = tmp_path / "program.py"
    program.write_text(f"""
from pathlib import Path
import edgeseg
from edgeseg.data import Streets
from edgeseg.engine import TrainConfig, balancing, distributed, train

streets = Streets("train", (64, 96), length=8, targets=("semantic", "depth"))
with distributed.process_group("cpu"):
    for name in {[name for name in BALANCERS if name != "fixed"]}:
        class Written(balancing.BALANCERS[name]):
            def end_epoch(self, means):
                super().end_epoch(means)
                with Path(f"{tmp_path}/weights{{distributed.rank()}}").open("a") as file:
                    print(name, *self.weights.tolist(), file=file)

        balancing.BALANCERS[name] = Written
        model = edgeseg.create_model("fpn", encoder="{TINY}", channels=8, tasks=streets.tasks)
        config = TrainConfig(epochs=3, batch_size=4, img_resize=(64, 96), rand_crop=(64, 96), workers=0, bf16=False,
                             balancing=name)
        trained = train(model, streets, None, config, Path("{tmp_path}", name))
        with Path(f"{tmp_path}/buffers{{distributed.rank()}}").open("a") as file:
            print(name, *(float(buffer.double().sum()) for buffer in trained.buffers()), file=file)
""")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(program)]
    done = subprocess.run(torchrun, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"weights{rank}").read_text().splitlines() for rank in (0, 1))
    assert first == second
    assert (tmp_path / "buffers0").read_text() == (tmp_path / "buffers1").read_text()
    assert len(first) == 12
    assert len(set(first)) >= 10  # those of dwa change after its second epoch
