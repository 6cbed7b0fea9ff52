"""Fetches weights, of the catalog or by their address: downloaded and converted to safetensors once, then cached."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edgeseg.config import FORMAT, ModelConfig
from edgeseg.machine.download import (
    HUB,
    PACKAGE,
    cache_folder,
    fetch,
    file_sha256,
    has_its_hash,
    is_address,
    local_copy,
    package_file,
    public_address,
    record_sha256,
    recorded_sha256,
    recorded_source,
)
from edgeseg.machine.errors import value_errors
from edgeseg.machine.files import replacing
from edgeseg.networks.build import build
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.spec import ModelSpec, Preprocess, Task
from edgeseg.storage.checkpoint import (
    PICKLED,
    is_onnx,
    is_safetensors,
    read_checkpoint_config,
    read_tensors,
    read_weights,
    save_checkpoint,
)
from edgeseg.weights.load import count_classes, has_decoder, load_checkpoint
from edgeseg.zoo.networks import ALIASES, FAMILIES, ZOO
from edgeseg.zoo.weights import ENCODER_WEIGHTS, WEIGHTS


def weights_file(name: str) -> Path:
    """Fetches the weights `name.tag` of the catalog as a safetensors file of edgeseg.

    Raises:
        OSError: the weights cannot be downloaded.
        ValueError: the downloaded file has another hash or does not fit its network.
    """
    entry = WEIGHTS[name]
    if entry.format == "edgeseg":
        return published_file(name)

    def write(path: Path) -> Path:
        source = published_file(name)
        model = _load_published(name, source)
        save_checkpoint(model, path, source=source.name, sha256=file_sha256(source), license=entry.license)
        return source

    return _converted_once(_converted_file(name), _copies(entry.addresses, name), write)


def published_file(name: str) -> Path:
    """Fetches the file of the weights `name.tag` as their publisher made it.

    Raises:
        OSError, ValueError: as in `weights_file`.
    """
    entry = WEIGHTS[name]
    check = check_weights if entry.format == "edgeseg" else partial(_load_published, name)
    return fetch(entry.addresses, name, sha256=entry.sha256, check=check)


def _load_published(name: str, source: Path) -> Pixel2Pixel:
    """The network of the weights `name.tag`, from the publisher's file."""
    entry, architecture = WEIGHTS[name], name.partition(".")[0]
    tasks = entry.tasks or {"segmentation": Task("segmentation", count_classes(source))}
    config = ModelConfig(name=architecture, spec=ZOO[architecture], tasks=tasks, preprocess=entry.preprocess)
    model = build(config)
    load_checkpoint(model, source)
    return model


def _converted_file(name: str) -> Path:
    """Where the weights `name.tag` are once they have been converted."""
    return cache_folder() / name / f"{name}.{FORMAT}.safetensors"


def _copies(addresses: Sequence[str], folder: str) -> list[Path]:
    """The files of addresses that are on this machine."""
    return list(dict.fromkeys(copy for address in addresses if (copy := local_copy(address, folder)) is not None))


def _converted_once(path: Path, sources: Sequence[Path], write: Callable[[Path], Path]) -> Path:
    """The file `path`, which `write` makes if it is missing, has changed since, or was made of another download.

    `write` returns the download that it has read.
    """
    from filelock import FileLock

    def is_made() -> bool:
        known = [digest for digest in map(recorded_sha256, sources) if digest]
        return has_its_hash(path) and (not known or recorded_source(path) in known)

    if not is_made():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if not is_made():
                record_sha256(path, recorded_sha256(write(path)))
    return path


def local_file(source: str | os.PathLike[str]) -> Path:
    """The file on this machine that `source` means; an address is fetched first.

    Addresses of the catalog share its files, hashes and conversions. Any other address has a folder of its own in the
    cache, so that files of one name do not meet.

    Args:
        source: A file, which need not exist, or its address: `https://...`.

    Raises:
        OSError: the address cannot be reached.
        ValueError: the address is not allowed, or no weights are there; what was downloaded is then removed.
    """
    if not is_address(source):
        return Path(source)
    address = str(source)
    name = catalog_name(address)
    if name is not None:
        return weights_file(name)
    own = f"addresses/{hashlib.sha256(address.encode()).hexdigest()[:16]}"
    return fetch([address], "encoders" if _listed_encoder(address) else own, check=check_weights)


def check_weights(path: Path) -> None:
    """Raises a ValueError if a file is not one of weights, such as the page of a login."""
    if not is_onnx(path):
        read_tensors(path)
        return
    import onnx

    with value_errors(path, f"cannot read {path}: corrupt, truncated or not an ONNX file"):
        file = onnx.load(path, load_external_data=False)
    if not file.graph.node or not file.opset_import:
        raise ValueError(f"{path} is truncated: it has no network")


def catalog_name(source: str | os.PathLike[str]) -> str | None:
    """The name of the catalog's weights, `name.tag`, that have the address `source`; None of other sources."""
    return next((name for name, entry in WEIGHTS.items() if str(source) in entry.addresses), None)


def holds_encoder(source: str | os.PathLike[str], name: str) -> bool:
    """Whether weights for a model are those of an encoder alone, and not of the whole network.

    Args:
        source: A file, or its address.
        name: Name of the model. The file of a registered builder has a whole network, whatever its tensors are called.

    Raises:
        OSError: the file does not exist, or the address cannot be reached.
        ValueError: the file is corrupt, or the address is not allowed.
    """
    architecture = name.partition(".")[0]
    if ALIASES.get(architecture, architecture) not in {*ZOO, *FAMILIES}:
        return False
    return not has_decoder(local_file(source))


def _listed_encoder(address: str) -> str | None:
    """The encoder whose ImageNet weights in the catalog have this address."""
    return next((name for name, entry in ENCODER_WEIGHTS.items() if address in entry.addresses), None)


def files_here(name: str) -> dict[Path, str]:
    """The files of weights of the catalog that are on this machine, as published and converted.

    Args:
        name: `name.tag` of weights, or the name of an encoder with ImageNet weights.

    Returns:
        The hash that each file should have; "" if none was recorded, so that the file is checked when it is used.
    """
    if name in WEIGHTS:
        published = _copies(WEIGHTS[name].addresses, name)
        converted, known = [_converted_file(name)], WEIGHTS[name].sha256
    else:
        published = _copies(ENCODER_WEIGHTS[name].addresses, "encoders")
        converted, known = [each.with_suffix(".safetensors") for each in published], None
    files = {path: recorded_sha256(path) for path in (*published, *converted) if path.is_file()}
    return files | {path: known for path in published if known}


def other_files() -> dict[Path, str]:
    """The files of the cache that are not of the catalog, such as those of addresses, and the hash of each.

    Files of weights without a recorded hash, for which it is "", are among them.
    """
    listed = {path for name in (*WEIGHTS, *ENCODER_WEIGHTS) for path in files_here(name)}
    found = sorted(path for path in cache_folder().rglob("*") if path.is_file() and not path.name.startswith("."))
    recorded = {path.with_suffix("") for path in found if path.suffix == ".sha256"}
    files = [path for path in found if path in recorded or path.suffix.lower() in (".safetensors", *PICKLED, ".onnx")]
    return {path: recorded_sha256(path) for path in files if path not in listed}


def known_sha256(name: str) -> str:
    """The hash of the published file of the weights `name.tag`, of the catalog or of the first download; "" without."""
    return WEIGHTS[name].sha256 or next(map(recorded_sha256, _copies(WEIGHTS[name].addresses, name)), "")


def verified_sha256(name: str) -> str:
    """Hashes the files of weights again, to find out whether one has changed on this machine.

    Args:
        name: As in `files_here`. Weights `name.tag` that are not on this machine are downloaded.

    Returns:
        The hash of the published file, which equals that of the catalog or, if the catalog has none, that of the first
        download; of the converted file if only that is here.

    Raises:
        OSError: the file cannot be downloaded.
        ValueError: a hash differs.
    """
    files = files_here(name) or {published_file(name): WEIGHTS[name].sha256 or ""}
    hashes = [checked_sha256(path, expected) for path, expected in files.items()]
    return hashes[0]


def checked_sha256(path: Path, expected: str) -> str:
    """The hash of a file; a ValueError if it is not the expected one, of which "" stands for any."""
    digest = file_sha256(path)
    if not digest.startswith(expected):
        packaged = path.is_relative_to(package_file(PACKAGE))
        remedy = "install edgeseg again" if packaged else "delete it, and edgeseg makes or downloads it again"
        raise ValueError(f"{path} has changed: sha256 {digest}, expected {expected}; {remedy}")
    return digest


def encoder_file(source: str | os.PathLike[str], spec: ModelSpec | None) -> Path:
    """Finds the file that `encoder_weights=source` means. Downloaded files are converted to safetensors.

    Args:
        source: "imagenet", "timm/NAME.TAG", a file, or the address of a file.
        spec: The network, whose encoder "imagenet" is for; None for a registered builder.

    Raises:
        OSError: the file does not exist or cannot be downloaded.
        ValueError: no ImageNet weights are known for the encoder, or as in `local_file`.
    """
    text = str(source)
    if Path(source).is_file():
        return Path(source)
    if is_address(text):
        return _as_safetensors(local_file(text))
    if text.startswith("timm/"):
        return fetch([f"{HUB}{text}/model.safetensors"], "encoders", check=check_weights)
    if text != "imagenet":
        raise FileNotFoundError(
            f"no encoder weights at {text}; expected a file, 'imagenet', 'timm/NAME.TAG' for those on the hub, or an "
            "address https://..."
        )
    if spec is None:
        raise ValueError(
            "the encoder of this network is not known; pass encoder_weights='timm/NAME.TAG', a file, or its address"
        )
    return _as_safetensors(fetch(_imagenet_addresses(spec.encoder), "encoders", check=check_weights))


def _as_safetensors(source_file: Path) -> Path:
    """The tensors of a downloaded file as safetensors, which is written once."""
    if is_onnx(source_file) or is_safetensors(source_file):
        return source_file  # with its record

    def write(path: Path) -> Path:
        import torch
        from safetensors.torch import save_file

        # Copies, since safetensors refuses tensors that share memory.
        copies = {k: v.clone(memory_format=torch.contiguous_format) for k, v in read_weights(source_file).items()}
        with replacing(path) as temporary:
            save_file(copies, temporary)
        return source_file

    return _converted_once(source_file.with_suffix(".safetensors"), [source_file], write)


def encoder_normalization(source: str | os.PathLike[str], spec: ModelSpec | None) -> Preprocess | None:
    """How the encoder weights `source` were trained, if timm tells; None for what the file or its layout tells."""
    from edgeseg.networks.encoders import ENCODERS

    text = str(source)
    name = text.removeprefix("timm/") if text.startswith("timm/") else spec.encoder if spec else ""
    if name in ENCODERS or not name:
        return None
    file = local_file(source)
    if file.is_file() and read_checkpoint_config(file) is not None:
        return None
    trained = _timm_configuration(name)
    if trained is None:
        return None
    mean, std = (tuple(255 * value for value in values) for values in (trained.mean, trained.std))
    return Preprocess(mean=mean, std=std)


def encoder_note(source: str | os.PathLike[str], spec: ModelSpec | None) -> dict[str, str]:
    """The name or the address of `encoder_weights=source`, and the licence that the catalog or timm knows.

    Args:
        source, spec: As in `encoder_file`.

    Returns:
        "weights" and, if it is known, "license"; nothing for a file, which tells its own origin.
    """
    text = str(source)
    if Path(source).is_file():
        return {}
    listed = _listed_encoder(text) or (spec.encoder if text == "imagenet" and spec is not None else "")
    if listed in ENCODER_WEIGHTS:
        return {"weights": f"imagenet ({listed})", "license": ENCODER_WEIGHTS[listed].license}
    if is_address(text):
        return {"weights": public_address(text)}
    name = text.removeprefix("timm/") if spec is None or text != "imagenet" else spec.encoder
    cfg = _timm_configuration(name)
    note = {"weights": getattr(cfg, "hf_hub_id", None) or text, "license": getattr(cfg, "license", None)}
    return {key: value for key, value in note.items() if value}


def _timm_configuration(name: str) -> Any:
    """What timm knows of weights; None of those that it does not know, such as a tag of one's own on the hub."""
    import timm

    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        return None


def _imagenet_addresses(encoder: str) -> tuple[str, ...]:
    from edgeseg.networks.encoders import ENCODERS

    if encoder in ENCODER_WEIGHTS:
        return ENCODER_WEIGHTS[encoder].addresses
    if encoder not in ENCODERS:
        hub = getattr(_timm_configuration(encoder), "hf_hub_id", None)
        if hub:
            return (f"{HUB}{hub}/model.safetensors",)
    known = ", ".join(ENCODER_WEIGHTS)
    raise ValueError(
        f"no ImageNet weights are known for {encoder}; the encoders that have some are {known}, and many of timm's"
    )
