"""What a run writes for people: a line of json an epoch, TensorBoard where it is installed, curves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeseg.engine import distributed


class Log:
    """Rows of `metrics.jsonl` in a folder, printed too; TensorBoard's files where it is installed.

    Args:
        folder: Of the run.
        epochs: How many rows of an earlier part of the run to keep; later ones will be repeated.
    """

    def __init__(self, folder: Path, epochs: int) -> None:
        self.path = folder / "metrics.jsonl"
        self.quiet = distributed.rank() != 0
        self.tensorboard: Any = None
        if self.quiet:
            return
        kept = self.path.read_text().splitlines()[:epochs] if epochs and self.path.is_file() else []
        self.path.write_text("".join(f"{line}\n" for line in kept))
        try:
            from torch.utils.tensorboard import SummaryWriter  # in the extra edgeseg[tensorboard]
        except ImportError:
            return
        self.tensorboard = SummaryWriter(folder / "tensorboard", purge_step=epochs + 1)

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.tensorboard is not None:
            self.tensorboard.close()

    def write(self, row: Mapping[str, float]) -> None:
        """One epoch; `row` has its number as "epoch"."""
        if self.quiet:
            return
        rounded = {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in row.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(rounded) + "\n")
        print("  ".join(f"{name} {value:.4g}" for name, value in rounded.items()), flush=True)
        if self.tensorboard is not None:
            for name, value in rounded.items():
                self.tensorboard.add_scalar(name, value, int(rounded["epoch"]))
