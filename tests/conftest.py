"""Shared parts of the tests: small networks, small data sets on disk, the reference facts beside the checkout."""

from __future__ import annotations

import json
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # a core each; torch reads this when it is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgeseg
from edgeseg import spec
from edgeseg.networks import decoders, encoders
from edgeseg.tasks import KINDS
from edgeseg.zoo import networks, registry

from .hub_server import HubServer, serve

# No test may reach a hub but this one; huggingface_hub reads its switches when it is imported.
_hub = serve()
os.environ.update(HF_ENDPOINT=_hub.url, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1")
os.environ.pop("HF_HUB_OFFLINE", None)
os.environ.pop("HF_TOKEN", None)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
SMALL_RUN = ["--img-resize", "32", "32", "--rand-crop", "32", "32", "--batch-size", "2", "--workers", "0"]
TINY = "test_efficientnet"  # timm's network for tests: 0.08 M parameters, strides 2 to 32


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _same_registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    tables: list[dict[str, Any]] = [
        registry.BUILDERS, networks.FAMILIES, decoders.DECODERS, encoders.USER_ENCODERS, KINDS
    ]  # fmt: skip
    before, kinds = [dict(table) for table in tables], set(spec.KIND_NAMES)
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)
    spec.KIND_NAMES.clear()
    spec.KIND_NAMES.update(kinds)


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The hub on loopback, empty, and an empty cache."""
    from huggingface_hub import constants

    _hub.reset()
    home = tmp_path / "hf-home"
    monkeypatch.setenv("HF_HOME", str(home))  # for subprocesses
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    return _hub


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Any]:
    """Reads a file of facts about the original zoo."""

    def read(name: str) -> Any:
        path = SHARED / "reference" / name
        if not path.is_file():
            pytest.skip(f"needs {path}, facts about the original zoo that lie beside the checkout")
        return json.loads(path.read_text())

    return read


@pytest.fixture
def tiny() -> edgeseg.Pixel2Pixel:
    """A network of 0.1 M parameters for three classes, in evaluation mode."""
    return edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=3).eval()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A JPEG of 90x60 pixels (width x height)."""
    path = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((90, 60), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """CamVid's published layout with small frames: class by horizontal band, the image coloured by class."""
    root = tmp_path / "CamVid"
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2), ("test", 2)):
        lines = []
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for i in range(count):
            labels = np.repeat(np.arange(12, dtype=np.uint8), 8)[:, None].repeat(96, axis=1)
            labels = np.roll(labels, int(rng.integers(0, 96)), axis=0)
            image = np.stack([labels * 20, 255 - labels * 20, labels * 7], axis=2) + rng.integers(0, 9, (96, 96, 1))
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / split / f"{i:03}.png")
            Image.fromarray(labels).save(root / f"{split}annot" / f"{i:03}.png")
            lines.append(f"/SegNet/CamVid/{split}/{i:03}.png /SegNet/CamVid/{split}annot/{i:03}.png\n")
        (root / f"{split}.txt").write_text("".join(lines))
    return root
