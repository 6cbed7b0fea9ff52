"""Weights files: safetensors and checkpoints, into a model that stays as it is if they are refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch

import edgeseg
from edgeseg.weights.encoder import load_encoder
from edgeseg.weights.load import count_classes, has_decoder, load_checkpoint

from .damage import DEEP, PLAIN, damaged_bytes, damaged_safetensors, either
from .drill import NAME, Drill, all_hold, expect
from .models import ENCODER, kept, small


def make(folder: Path) -> None:
    model = small()
    edgeseg.save_checkpoint(model, folder / "model.safetensors")
    torch.save(model.state_dict(), folder / "model.pth")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, folder / "run.pt")
    (folder / "table.pth").write_text("a,b\n1,2\n")
    (folder / "passwords.pth").write_text("root:x:0:0:root:/root:/bin/bash\n")


def damage(rng: Random, seeds: Path, work: Path) -> None:
    source = rng.choice(sorted(seeds.iterdir()))
    data = source.read_bytes()
    if source.suffix == ".safetensors":
        data = either(damaged_bytes, damaged_safetensors, damaged_safetensors)(rng, data)
    elif source.stem in ("model", "run"):
        data = either(damaged_bytes, _pickle, _entries, _entries)(rng, data)
    (work / f"{NAME}{source.suffix}").write_bytes(data)


def _pickle(rng: Random, data: bytes) -> bytes:
    """Damages the pickle in the archive, with the right checksum; sometimes compresses the archive."""
    result = io.BytesIO()
    way = zipfile.ZIP_DEFLATED if rng.random() < 0.2 else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(result, "w", way) as target:
        for entry in source.infolist():
            content = source.read(entry)
            target.writestr(
                entry.filename, damaged_bytes(rng, content) if entry.filename.endswith("data.pkl") else content
            )
    return result.getvalue()


def _entries(rng: Random, data: bytes) -> bytes:
    """Replaces the content, an entry or the name of an entry by something that is no tensor of weights."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    state: dict[Any, Any] = content.get("state_dict", content)
    key = rng.choice(sorted(state))
    odd = rng.choice(ODD)(state[key])
    match rng.randrange(4):
        case 0:
            content = odd
        case 1:
            content["state_dict"] = odd
        case 2:
            state[rng.choice((0, (1, 2), None, 3.5, "", "a.b", "decoders.x", "{decoder}", "blocks.9.9.a.b"))] = (
                state.pop(key)
            )
        case _:
            state[key] = odd
    result = io.BytesIO()
    torch.save(content, result)
    return result.getvalue()


def _plain(value: Any) -> Callable[[torch.Tensor], Any]:
    return lambda _: value


ODD: tuple[Callable[[torch.Tensor], Any], ...] = (
    lambda t: t.to_sparse(), lambda t: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.quint8), lambda t: t.to(torch.complex64),
    lambda t: t.to("meta"), lambda t: torch.zeros(1).expand(10**12), lambda t: torch.zeros(1).expand(10**6, 10**6),
    lambda t: torch.zeros(0, 10**12), lambda t: t.to(torch.int8), lambda t: t.bool(), lambda t: t.double(),
    lambda t: t.half(), lambda t: t.float().to(torch.float8_e4m3fn), lambda t: t.view(-1), lambda t: torch.tensor(1.0),
    lambda t: torch.zeros(t.shape, dtype=torch.uint16), lambda t: {"weight": t}, lambda t: [t], lambda t: (t, t),
    *(_plain(value) for value in PLAIN if value not in (DEEP, "\ud800")),
)  # fmt: skip


def _state(model: edgeseg.Pixel2Pixel) -> tuple[dict[str, torch.Tensor], str]:
    record = json.dumps(model.config.to_json(), sort_keys=True)
    return {key: value.clone() for key, value in model.state_dict().items()}, record


def read(work: Path) -> None:
    (path,) = work.iterdir()
    model = kept()
    before, record = _state(model)
    config = model.config

    def loaded(load: Callable[[], object]) -> None:
        try:
            load()
        except (ValueError, OSError):
            after, told = _state(model)
            same = all(torch.equal(after[key], value) for key, value in before.items())
            expect(same and told == record, "a refused file has changed the model")
            raise
        finally:
            model.load_state_dict(before)
            model.config = config

    all_hold(
        work,
        lambda _: loaded(lambda: load_checkpoint(model, path)),
        lambda _: loaded(lambda: load_checkpoint(model, path, adapt=True)),
        lambda _: loaded(lambda: load_encoder(model, path)),
        lambda _: edgeseg.create_model("fpn", encoder=ENCODER, channels=8, checkpoint_path=path),
        lambda _: (has_decoder(path), count_classes(path)),
    )


DRILLS = (Drill("weights", make, damage, read, 2500),)
