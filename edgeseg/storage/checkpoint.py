"""Reads weights files without executing code from them, and writes them atomically."""

from __future__ import annotations

import json
import math
import os
import pickletools
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgeseg.arguments import require_network
from edgeseg.config import ModelConfig, read_config
from edgeseg.machine.errors import value_errors
from edgeseg.machine.files import check_file, replacing
from edgeseg.machine.terminal import warn

# Keys of the weights in checkpoints of TI's edgeai-torchvision, of pycls, of torchvision, and of PyTorch's tutorials.
WRAPPERS = (
    "state_dict", "model_state", "model", "model_state_dict", "state_dict_ema", "model_ema", "ema_state_dict", "ema"
)  # fmt: skip
# Beginnings of the names of tensors in checkpoints of networks inside of others: DataParallel (module), Lightning (net,
# model), torch.compile (_orig_mod), averaged weights (ema, ema_model).
PREFIXES = ("module.", "_orig_mod.", "net.", "model.", "ema.", "ema_model.")
PICKLED = (".pth", ".pt", ".pyth", ".ckpt")  # how the names of files end that torch.save wrote

DEPTH = 8  # prefixes of one name
PICKLES = 5  # before the tensors in a file that is not an archive
EXPANDED = 1 << 24  # bytes that a tensor may have whose values repeat in the file


class Recorded(Protocol):
    """A network with the record that rebuilds it, such as a `Pixel2Pixel`."""

    @property
    def config(self) -> ModelConfig:
        """The record that rebuilds the network."""

    def state_dict(self) -> dict[str, Any]:
        """The tensors by name."""


def read_weights(path: str | os.PathLike[str], own: Collection[str] = ()) -> dict[str, Tensor]:
    """Reads all tensors of a .safetensors file or of a PyTorch checkpoint (.pth, .pt, .pyth).

    A checkpoint is unpickled with `weights_only=True`. It may be a state dict or a training checkpoint that contains
    one. Where a known wrapper has put its prefix before most names (`PREFIXES`: DataParallel, Lightning, torch.compile,
    averaged weights), the prefix is removed, and a warning says so and names the tensors beside the network, which are
    left out.

    Args:
        path: The file.
        own: Names of the network that the tensors are for; prefixes that they have too are kept.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is corrupt or has no weights, or several networks.
    """
    path = _existing(path)
    return _unwrapped(read_tensors(path), path, tuple(own))


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Reads all tensors of a file as `read_weights` does, under the names that they have in the file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is corrupt or has no weights.
    """
    path = _existing(path)
    with value_errors(path, f"cannot read weights from {path}: corrupt, truncated or not a weights file"):
        content = _content(path)
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    entries = content.items() if isinstance(content, Mapping) else ()
    tensors = {key: value for key, value in entries if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(
            f"{path} holds no weights: expected a state dict, or a dictionary that has one as {', '.join(WRAPPERS)}"
        )
    for key, value in tensors.items():
        problem = wrong_tensor(key, value)
        if problem:
            raise ValueError(f"{path} cannot be used as weights: {problem}")
    return tensors


def _content(path: Path) -> Any:
    if is_safetensors(path):
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    return load_pickled(path)


def is_safetensors(path: Path) -> bool:
    """Whether a file is one of safetensors: by its name or, as addresses may have no suffix, by its first bytes."""
    if path.suffix.lower() in (*PICKLED, ".onnx"):
        return False
    if path.suffix.lower() == ".safetensors":
        return True
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def load_pickled(path: Path, *, mmap: bool = False) -> Any:
    """Reads what `torch.save` wrote, on the CPU and without executing code from it.

    Args:
        path: The file.
        mmap: Leave the tensors on disk until they are used.

    Raises:
        Exception: of many types, if the file is damaged or takes much more memory than it has bytes.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise ValueError("its parts are compressed or overlap, which those that torch.save writes do not")
            for entry in archive.infolist():
                if entry.filename.endswith("data.pkl"):
                    with archive.open(entry) as content:
                        _check_pickle(content)
    else:
        with path.open("rb") as file:
            for _ in range(PICKLES):
                if file.peek(1):
                    _check_pickle(file)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def _check_pickle(file: IO[bytes]) -> None:
    """Reads a pickle to its end, and raises a ValueError if it could take memory that it has no data for."""
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL" and str(argument).endswith("bytearray"):
            raise ValueError("it has an array of bytes, which weights do not have")


def wrong_tensor(key: object, value: Tensor) -> str:
    """Says why an entry of a file cannot be one of a state dict; "" if it can."""
    if not isinstance(key, str):
        return f"its tensors have names such as {key!r:.60}, and names are text"
    if value.layout != torch.strided or value.is_nested or value.is_quantized or value.device.type != "cpu":
        return f"{key!r} is a sparse, nested or quantized tensor, or one without data"
    if value.is_complex():
        return f"{key!r} has complex values"
    if value.numel() * value.element_size() > max(value.untyped_storage().nbytes(), EXPANDED):
        return f"{key!r} has the shape {list(value.shape)}, for which there are not enough data in the file"
    return ""


def _unwrapped(tensors: dict[str, Tensor], path: Path, own: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors without the prefixes of wrappers."""
    removed: list[str] = []
    beside: list[str] = []
    while len(removed) < DEPTH:
        used = [prefix for prefix in PREFIXES if not any(key.startswith(prefix) for key in own)]
        groups = {prefix: [key for key in tensors if key.startswith(prefix)] for prefix in used}
        groups = {prefix: keys for prefix, keys in groups.items() if keys}
        if not groups or 2 * sum(map(len, groups.values())) <= len(tensors):
            break
        if len(groups) > 1:
            raise ValueError(
                f"{path} has several networks: {', '.join(f'{prefix}*' for prefix in groups)}; save the one to be read "
                "as a state dict of its own"
            )
        ((prefix, keys),) = groups.items()
        removed.append(prefix)
        beside += [key for key in tensors if key not in keys]
        tensors = {key.removeprefix(prefix): tensors[key] for key in keys}
    if any("._orig_mod." in key for key in tensors) and not any("_orig_mod." in key for key in own):
        removed.append("_orig_mod.")  # of parts that were compiled
        tensors = {key.replace("._orig_mod.", "."): value for key, value in tensors.items()}
    if beside or set(removed) - {"module."}:
        rest = f", and left out what is not of the network: {', '.join(beside[:4])}" if beside else ""
        more = f" and {len(beside) - 4} more" if len(beside) > 4 else ""
        warn(f"{path}: removed the prefix {', '.join(removed)} of a wrapper from the names{rest}{more}")
    return tensors


def read_checkpoint_config(path: str | os.PathLike[str]) -> ModelConfig | None:
    """Reads the record that `save_checkpoint` stored with the weights; None if the file has no record.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is corrupt, or a newer edgeseg wrote it.
    """
    path = _existing(path)
    if not is_safetensors(path):
        return None
    with _opened(path) as file:
        metadata = (file.metadata() or {}).get("edgeseg")
    return None if metadata is None else read_config(metadata, str(path))


def file_notes(path: str | os.PathLike[str], record: ModelConfig | None) -> dict[str, Any]:
    """What a file of weights says of itself in `record`; the name of a file that says nothing."""
    return {"source": Path(path).name} if record is None else dict(record.notes)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A .safetensors file whose header is read."""
    with (
        value_errors(path, f"cannot read weights from {path}: corrupt or truncated"),
        safe_open(path, framework="pt") as file,
    ):
        yield file


def count_values(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Counts the tensors of a .safetensors file and the values in all of them, without reading the values.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is corrupt.
    """
    path = _existing(path)
    with _opened(path) as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118 (not a dict)
    return len(shapes), sum(map(math.prod, shapes))


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
        OSError: the folder of `path` does not exist, `path` is a folder, or the file cannot be written.
        TypeError: a note is not a JSON value.
        ValueError: a name that does not end in .safetensors, a dtype without fractions, or a copy that
            `edgeseg.optimize` made, which no record rebuilds.

    Example:
        >>> import edgeseg, torch
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", channels=32, num_classes=5)
        >>> edgeseg.save_checkpoint(model, "model.safetensors", dtype=torch.float16, author="me")
        >>> edgeseg.create_model("fpn", checkpoint_path="model.safetensors").config.notes["author"]
        'me'
    """
    require_network("save_checkpoint", model)
    if "optimized" in model.config.notes:
        raise ValueError("this is a copy for inference that optimize() made; save the model that it was made from")
    if Path(path).suffix.lower() != ".safetensors":
        raise ValueError(f"weights are written as .safetensors files, got {path}")
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type, such as torch.float16, got {dtype}")
    check_file(path)
    tensors: dict[str, Tensor] = {}
    known: set[int] = set()
    for key, value in model.state_dict().items():
        tensor = (value.to(dtype) if dtype is not None and value.ndim == 4 else value).cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        tensors[key] = tensor.clone() if place in known else tensor  # of a layer that several parts of a model share
        known.add(place)
    # In one order, so that equal facts give equal files, however they came together.
    config = replace(model.config, notes=dict(sorted({**model.config.notes, **notes}.items())))
    with replacing(Path(path), durable=True) as temporary:
        # A single entry: safetensors writes several in random order, so that equal weights would give unequal files.
        save_file(tensors, temporary, metadata={"edgeseg": json.dumps(config.to_json())})


def is_onnx(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an ONNX network, judged by its suffix; raises a FileNotFoundError if there is no file."""
    return _existing(path).suffix.lower() == ".onnx"


def _existing(path: str | os.PathLike[str]) -> Path:
    if not Path(path).is_file():
        if Path(path).is_dir():
            saved = (Path(path) / "config.json").is_file()
            cure = f"its model is local-dir:{path}" if saved else "pass a file in it, such as best.safetensors"
            raise IsADirectoryError(f"{path} is a folder, not a file of weights; {cure}")
        raise FileNotFoundError(f"no weights file at {path}")
    return Path(path)
