"""Fetches weights, of the catalog or by their address: downloaded and converted to safetensors once, then cached."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeseg.config import FORMAT, ModelConfig
from edgeseg.machine.download import HUB, cache_folder, fetch, file_sha256, is_address, public_address
from edgeseg.machine.files import replacing
from edgeseg.networks.build import build
from edgeseg.predict.facts import read_facts
from edgeseg.spec import ModelSpec, Preprocess, Task
from edgeseg.storage.checkpoint import (
    is_onnx,
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
    entry, architecture = WEIGHTS[name], name.partition(".")[0]
    if entry.format == "edgeseg":
        return fetch(entry.addresses, name, sha256=entry.sha256)
    converted = cache_folder() / name / f"{name}.{FORMAT}.safetensors"
    if not converted.is_file():
        source = _fetch_readable(entry.addresses, name, sha256=entry.sha256)
        tasks = entry.tasks or {"segmentation": Task("segmentation", count_classes(source))}
        config = ModelConfig(name=architecture, spec=ZOO[architecture], tasks=tasks, preprocess=entry.preprocess)
        model = build(config)
        load_checkpoint(model, source)
        save_checkpoint(model, converted, source=source.name, sha256=file_sha256(source), license=entry.license)
    return converted


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
    return _fetch_readable([address], "encoders" if _listed_encoder(address) else own)


def _fetch_readable(addresses: Sequence[str], folder: str, *, sha256: str | None = None) -> Path:
    """Fetches a file of weights as `fetch` does; a download that is something else, such as a login page, is removed.

    Raises:
        OSError, ValueError: as of `fetch`, or the file that was downloaded cannot be read.
    """
    path = fetch(addresses, folder, sha256=sha256)
    try:
        if path.stat().st_size == 0:  # which is a valid ONNX file
            raise ValueError(f"{path} is empty")
        read_facts(path) if is_onnx(path) else read_tensors(path)
    except ValueError as error:
        if not path.is_relative_to(cache_folder() / folder):  # huggingface_hub's own cache
            raise
        for each in (path, path.with_name(f"{path.name}.sha256")):
            each.unlink(missing_ok=True)
        where = " or ".join(addresses)
        raise ValueError(f"{where} is not a file of weights, and what was downloaded was removed: {error}") from error
    return path


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


def verified_sha256(name: str) -> str:
    """Hashes the published file of the weights `name.tag` again, to find out whether it has changed on this machine.

    Returns:
        The hash, which equals that of the catalog or, if the catalog has none, that of the first download.

    Raises:
        OSError: the file cannot be downloaded.
        ValueError: the hash differs.
    """
    entry = WEIGHTS[name]
    source = fetch(entry.addresses, name, sha256=entry.sha256)
    record = source.with_name(f"{source.name}.sha256")
    digest, expected = file_sha256(source), entry.sha256 or record.read_text().strip()
    if digest != expected:
        raise ValueError(f"{source} has changed: sha256 {digest}, expected {expected}")
    return digest


def encoder_file(source: str | os.PathLike[str], spec: ModelSpec | None) -> Path:
    """Finds the file that `encoder_weights=source` means. Downloaded files are converted to safetensors.

    Args:
        source: "imagenet", "timm/NAME.TAG", a file, or the address of a file.
        spec: The network, whose encoder "imagenet" is for; None for a registered builder.

    Raises:
        OSError: the file does not exist or cannot be downloaded.
        ValueError: no ImageNet weights are known for the encoder, or as of `local_file`.
    """
    text = str(source)
    if Path(source).is_file():
        return Path(source)
    if is_address(text):
        return _as_safetensors(local_file(text))
    if text.startswith("timm/"):
        return fetch([f"{HUB}{text}/model.safetensors"], "encoders")
    if text != "imagenet":
        raise FileNotFoundError(
            f"no encoder weights at {text}; expected a file, 'imagenet', 'timm/NAME.TAG' for those on the hub, or an "
            "address https://..."
        )
    if spec is None:
        raise ValueError(
            "the encoder of a registered builder is not known; pass encoder_weights='timm/NAME.TAG', a file, or its "
            "address"
        )
    return _as_safetensors(_fetch_readable(_imagenet_addresses(spec.encoder), "encoders"))


def _as_safetensors(source_file: Path) -> Path:
    """The tensors of a downloaded file as safetensors, which is written once."""
    if source_file.suffix in (".safetensors", ".onnx"):
        return source_file
    converted = source_file.with_suffix(".safetensors")
    if not converted.is_file():
        from safetensors.torch import save_file

        with replacing(converted) as temporary:
            save_file({key: value.contiguous() for key, value in read_weights(source_file).items()}, temporary)
    return converted


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
        source, spec: As of `encoder_file`.

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
