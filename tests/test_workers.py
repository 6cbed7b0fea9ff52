"""DataLoader workers leave alone what the process that starts them has not cleaned up."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgeseg
from edgeseg.data import Streets
from edgeseg.data.check import check_dataset
from edgeseg.engine import TrainConfig, evaluate, train

from .conftest import TINY

SIZE = (32, 48)
RECIPE = TrainConfig(
    epochs=1, batch_size=2, img_resize=SIZE, rand_crop=SIZE, rand_scale=(1, 1), jitter=0, workers=1, bf16=False
)
MAIN = os.getpid()


class Collecting(Streets):
    """Streets during whose reading in other processes garbage is collected."""

    def __getitem__(self, index: int) -> Any:
        if os.getpid() != MAIN:
            gc.collect()
        return super().__getitem__(index)


class Threaded:
    """An object that only the collector frees, and that waits for its threads then: in vain in a forked process.

    Args:
        waits: The file that is written instead of waiting.
    """

    def __init__(self, waits: Path) -> None:
        self.itself, self.waits = self, waits

    def __del__(self) -> None:
        if os.getpid() != MAIN:
            self.waits.touch()


def network(streets: Streets) -> edgeseg.Pixel2Pixel:
    return edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks=streets.tasks).eval()


USES: dict[str, Callable[[Streets, Path], object]] = {
    "check": lambda streets, _: check_dataset(streets, workers=1),
    "evaluate": lambda streets, _: evaluate(network(streets), streets, workers=1),
    "train": lambda streets, folder: train(network(streets), streets, None, RECIPE, folder),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_garbage_of_the_main_process_is_not_collected(use: Callable[[Streets, Path], object], tmp_path: Path) -> None:
    streets, waits = Collecting(size=SIZE, length=4), tmp_path / "waits"
    gc.disable()
    try:
        Threaded(waits)
        use(streets, tmp_path / "run")
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert not waits.exists()


UNGUARDED = f"""
import multiprocessing, sys
multiprocessing.set_start_method("spawn", force=True)
import edgeseg
from edgeseg.data import Streets
from edgeseg.engine import TrainConfig, train

streets = Streets(size={SIZE}, length=4)
model = edgeseg.create_model("fpn", encoder="{TINY}", channels=16, tasks=streets.tasks)
train(model, streets, None, TrainConfig(epochs=1, batch_size=2, img_resize={SIZE}, rand_crop={SIZE}, workers=1), "run")
"""


def test_a_script_without_a_guard(tmp_path: Path) -> None:
    """Where processes are spawned, as on macOS and Windows, each imports the script."""
    (tmp_path / "script.py").write_text(UNGUARDED)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "has run this script again; put what the script does below `if __name__ == '__main__':`" in done.stderr
