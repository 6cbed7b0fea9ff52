"""The state of a training run, from which it is resumed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch

import edgeseg
from edgeseg.engine import TrainConfig, train

from .damage import DEEP, PLAIN, damaged_bytes
from .drill import NAME, Drill, expect
from .models import SIZE, kept, small

RECIPE = TrainConfig(
    epochs=1, batch_size=2, img_resize=SIZE, rand_crop=SIZE, rand_scale=(1, 1), jitter=0, workers=0, bf16=False,
    warmup_epochs=0, evaluate_every=100,
)  # fmt: skip


def _samples() -> list[Any]:
    rng = torch.Generator().manual_seed(0)
    return [
        (torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8, generator=rng), torch.randint(0, 3, SIZE, generator=rng))
        for _ in range(2)
    ]


def _trained(model: edgeseg.Pixel2Pixel, folder: Path, epochs: int, *, resume: bool = False) -> None:
    train(model, _samples(), None, replace(RECIPE, epochs=epochs), folder, resume=resume)


def make(folder: Path) -> None:
    _trained(small(), folder / "run", 1)


def damage(rng: Random, seeds: Path, work: Path) -> None:
    shutil.copytree(seeds / "run", work / NAME)
    path = work / NAME / "run.pt"
    if rng.random() < 0.3:
        path.write_bytes(damaged_bytes(rng, path.read_bytes()))
        return
    content = torch.load(path, weights_only=True)
    torch.save(_changed(rng, content), path)


def _changed(rng: Random, content: Any) -> Any:
    """Replaces, removes or renames an entry at any depth."""
    odd = rng.choice([value for value in PLAIN if value not in (DEEP, "\ud800")] + [torch.ones(2), {0: torch.ones(1)}])
    if rng.random() < 0.05:
        return odd
    holder = content
    while True:
        key = rng.choice(list(holder))
        if not isinstance(holder[key], dict) or not holder[key] or rng.random() < 0.3:
            break
        holder = holder[key]
    match rng.randrange(4):
        case 0:
            del holder[key]
        case 1:
            holder[rng.choice((0, "x", ""))] = holder.pop(key)
        case 2 if isinstance(holder[key], list) and holder[key]:
            holder[key] = [*holder[key], holder[key][0]]
        case _:
            holder[key] = odd
    return content


def read(work: Path) -> None:
    model = small()
    try:
        _trained(model, work / NAME, 2, resume=True)
    except FloatingPointError as error:  # numbers in a state can be any, and training stops at a loss that is not one
        raise ValueError(f"{NAME}/run.pt is refused while it trains") from error
    except (ValueError, OSError):
        same = all(torch.equal(value, kept().state_dict()[key]) for key, value in model.state_dict().items())
        expect(same, "a refused state has changed the model")
        raise
    expect((work / NAME / "last.safetensors").is_file(), "the resumed run has written no weights")


DRILLS = (Drill("runs", make, damage, read, 500),)
