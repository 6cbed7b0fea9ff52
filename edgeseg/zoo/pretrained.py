"""Fetches the weights of the catalog: each file is downloaded and converted to safetensors once, then cached."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgeseg.config import FORMAT, ModelConfig
from edgeseg.machine.download import HUB, cache_folder, fetch, file_sha256
from edgeseg.machine.files import replacing
from edgeseg.networks.build import build
from edgeseg.spec import ModelSpec, Preprocess, Task
from edgeseg.storage.checkpoint import read_checkpoint_config, read_weights, save_checkpoint
from edgeseg.weights.load import count_classes, load_checkpoint
from edgeseg.zoo.networks import ZOO
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
        source = fetch(entry.addresses, name, sha256=entry.sha256)
        tasks = entry.tasks or {"segmentation": Task("segmentation", count_classes(source))}
        config = ModelConfig(name=architecture, spec=ZOO[architecture], tasks=tasks, preprocess=entry.preprocess)
        model = build(config)
        load_checkpoint(model, source)
        save_checkpoint(model, converted, source=source.name, sha256=file_sha256(source), license=entry.license)
    return converted


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
        source: "imagenet", "timm/NAME.TAG", or a file.
        spec: The network, whose encoder "imagenet" is for; None for a registered builder.

    Raises:
        OSError: the file does not exist or cannot be downloaded.
        ValueError: no ImageNet weights are known for the encoder.
    """
    text = str(source)
    if Path(source).is_file():
        return Path(source)
    if text.startswith("timm/"):
        return fetch([f"{HUB}{text}/model.safetensors"], "encoders")
    if text != "imagenet":
        raise FileNotFoundError(
            f"no encoder weights at {text}; expected a file, 'imagenet', or 'timm/NAME.TAG' for those on the hub"
        )
    if spec is None:
        raise ValueError(
            "the encoder of a registered builder is not known; pass encoder_weights='timm/NAME.TAG' or a file"
        )
    source_file = fetch(_imagenet_addresses(spec.encoder), "encoders")
    if source_file.suffix == ".safetensors":
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
    says_itself = Path(source).is_file() and read_checkpoint_config(source) is not None
    if name in ENCODERS or not name or says_itself:
        return None
    trained = _timm_configuration(name)
    if trained is None:
        return None
    mean, std = (tuple(255 * value for value in values) for values in (trained.mean, trained.std))
    return Preprocess(mean=mean, std=std)


def encoder_note(source: str | os.PathLike[str], spec: ModelSpec | None) -> dict[str, str]:
    """The name and the licence of `encoder_weights=source`, as they are known to the catalog or to timm.

    Args:
        source, spec: As of `encoder_file`.

    Returns:
        "weights" and, if it is known, "license"; nothing for a file, which tells its own origin.
    """
    text = str(source)
    if Path(source).is_file():
        return {}
    if text == "imagenet" and spec is not None and spec.encoder in ENCODER_WEIGHTS:
        return {"weights": f"imagenet ({spec.encoder})", "license": ENCODER_WEIGHTS[spec.encoder].license}
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
