"""Weights files: read safely whatever their format, written whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgeseg.config import ModelConfig, read_config
from edgeseg.machine.files import replacing

# Keys under which training programs store the weights: those of TI and torchvision, and of pycls.
WRAPPERS = ("state_dict", "model_state", "model")


class Recorded(Protocol):
    """A network that knows its record, such as a `Pixel2Pixel`."""

    @property
    def config(self) -> ModelConfig:
        """The record."""

    def state_dict(self) -> dict[str, Any]:
        """The tensors by name."""


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Reads all tensors of a .safetensors file or of a PyTorch checkpoint (.pth, .pt, .pyth), by name.

    A checkpoint is unpickled with `weights_only=True`. The weights are found in a training checkpoint too, and the
    prefix `module.` of DataParallel is removed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a corrupt file, or one without weights; names the file.
    """
    path = _existing(path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"cannot read weights from {path}: corrupt, truncated or not a weights file ({error})"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds no weights: expected a state dict, plain or under {', '.join(WRAPPERS)}")
    return {key.removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}


def read_checkpoint_config(path: str | os.PathLike[str]) -> ModelConfig | None:
    """Reads the record that `save_checkpoint` wrote beside the weights; None for any other file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a corrupt file, or one that a newer edgeseg wrote.
    """
    path = _existing(path)
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get("edgeseg")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"cannot read weights from {path}: corrupt or truncated ({error})") from error
    return None if metadata is None else read_config(metadata, str(path))


def save_checkpoint(
    model: Recorded, path: str | os.PathLike[str], *, dtype: torch.dtype | None = None, **notes: Any
) -> None:
    """Writes the weights of a model as safetensors, together with the record that rebuilds it.

    The file appears under its name only when it is complete.

    Args:
        model: A `Pixel2Pixel`.
        path: `.safetensors`.
        dtype: Store the convolutions in this precision. Batch norms, whose statistics may leave the range of float16,
            keep theirs.
        notes: Further facts about the weights, as JSON values; they are added to those of the model's record.
    """
    tensors = {
        key: (value.to(dtype) if dtype is not None and value.ndim == 4 else value).cpu().contiguous()
        for key, value in model.state_dict().items()
    }
    config = replace(model.config, notes={**model.config.notes, **notes})
    with replacing(Path(path)) as temporary:
        save_file(tensors, temporary, metadata={"edgeseg": json.dumps(config.to_json()), "format": "pt"})


def is_onnx(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an ONNX network, by its suffix."""
    return _existing(path).suffix == ".onnx"


def _existing(path: str | os.PathLike[str]) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights file at {path}")
    return Path(path)
