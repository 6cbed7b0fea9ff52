"""Reads weights files without executing code from them, and writes them atomically."""

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

# Keys of the weights in checkpoints of Texas Instruments' edgeai-torchvision, of pycls, and of torchvision.
WRAPPERS = ("state_dict", "model_state", "model")


class Recorded(Protocol):
    """A network with the record that rebuilds it, such as a `Pixel2Pixel`."""

    @property
    def config(self) -> ModelConfig:
        """The record that rebuilds the network."""

    def state_dict(self) -> dict[str, Any]:
        """The tensors by name."""


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Reads all tensors of a .safetensors file or of a PyTorch checkpoint (.pth, .pt, .pyth).

    A checkpoint is unpickled with `weights_only=True`. It may be a state dict or a training checkpoint that contains
    one. The prefix `module.` of DataParallel is removed.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is corrupt or has no weights.
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
        raise ValueError(
            f"{path} holds no weights: expected a state dict, or a dictionary that has one as {', '.join(WRAPPERS)}"
        )
    return {key.removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}


def read_checkpoint_config(path: str | os.PathLike[str]) -> ModelConfig | None:
    """Reads the record that `save_checkpoint` stored with the weights; None if the file has no record.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is corrupt, or a newer edgeseg wrote it.
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

    The file appears under its name only when it is complete. `create_model(NAME, checkpoint_path=PATH)` reads it.

    Args:
        model: A `Pixel2Pixel`.
        path: The file, `.safetensors`.
        dtype: Precision in which the weights of convolutions are stored, such as `torch.float16`; by default their own.
            Batch norms keep theirs, since their statistics may exceed the range of float16.
        notes: Further facts about the weights, as JSON values; they are added to the notes of the model's record.

    Raises:
        TypeError: a note is not a JSON value.
    """
    tensors = {
        key: (value.to(dtype) if dtype is not None and value.ndim == 4 else value).cpu().contiguous()
        for key, value in model.state_dict().items()
    }
    config = replace(model.config, notes={**model.config.notes, **notes})
    with replacing(Path(path)) as temporary:
        # A single entry: safetensors writes several in random order, so that equal weights would give unequal files.
        save_file(tensors, temporary, metadata={"edgeseg": json.dumps(config.to_json())})


def is_onnx(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an ONNX network, judged by its suffix; raises a FileNotFoundError if there is no file."""
    return _existing(path).suffix == ".onnx"


def _existing(path: str | os.PathLike[str]) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights file at {path}")
    return Path(path)
