"""Folders of models, on this machine or on the Hugging Face Hub: config.json, model.safetensors and a model card."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeseg.config import ModelConfig, inherited, origin, read_config
from edgeseg.machine.download import FOLDER, HUB, hub_file
from edgeseg.machine.errors import value_errors
from edgeseg.machine.files import replacing
from edgeseg.machine.terminal import say
from edgeseg.spec import DEFAULT_THRESHOLD
from edgeseg.storage.checkpoint import Recorded, read_tensors, save_checkpoint

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
LONGEST = 1 << 24  # bytes of a config.json


def open_published(name: str) -> tuple[Path, ModelConfig]:
    """Fetches the weights file and the record of `hf-hub:OWNER/REPO[@REVISION]` or `local-dir:PATH`.

    Raises:
        OSError: the model does not exist or cannot be reached.
        ValueError: it is not a model of edgeseg, or a newer edgeseg wrote it.
    """
    if name.startswith(FOLDER):
        folder = Path(name.removeprefix(FOLDER))
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}; expected one that save_pretrained wrote")
        config_file, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
        if not config_file.is_file():
            raise FileNotFoundError(f"{folder} has no {CONFIG_FILE}; was it written by save_pretrained?")
    else:
        repo, _, revision = name.removeprefix(HUB).partition("@")
        suffix = f"@{revision}" if revision else ""
        config_file = hub_file(f"{repo}/{CONFIG_FILE}{suffix}", check=_check_config)
        weights = hub_file(f"{repo}/{WEIGHTS_FILE}{suffix}", check=read_tensors)
    _check_length(config_file)
    return weights, read_config(config_file.read_text(encoding="utf-8", errors="replace"), f"{name}: {CONFIG_FILE}")


def _check_length(path: Path) -> None:
    if path.stat().st_size > LONGEST:
        raise ValueError(f"{path} is longer than {LONGEST} bytes")


def _check_config(path: Path) -> None:
    """Raises a ValueError if a file is not a record, such as an error in JSON; it may be one of a newer edgeseg."""
    _check_length(path)
    content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError("it is not the configuration of an edgeseg model")


def save_pretrained(
    model: Recorded,
    directory: str | os.PathLike[str],
    *,
    license: str | None = None,
    dataset: str | None = None,
    metrics: Mapping[str, float] | None = None,
    description: str = "",
    repo_id: str | None = None,
) -> None:
    """Writes `config.json`, `model.safetensors` and a model card; see `Pixel2Pixel.save_pretrained`.

    Raises:
        OSError: a file cannot be written.
        TypeError: `license`, `dataset` or `description` is not text.
        ValueError: metrics without the dataset that they were measured on, or a folder with a `config.json` that is
            none of edgeseg.
    """
    if metrics and dataset is None:
        raise ValueError("metrics need the dataset that they were measured on; pass dataset=NAME")
    for name, text in {"license": license, "dataset": dataset, "description": description}.items():
        if not isinstance(text, str | None):
            raise TypeError(f"{name} must be text, got {text!r}")
    metrics = _checked_metrics(metrics)
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / CONFIG_FILE).exists():
        with value_errors(folder / CONFIG_FILE, f"{folder / CONFIG_FILE} would be replaced, choose another folder"):
            _check_config(folder / CONFIG_FILE)
    facts: dict[str, Any] = {"license": license, "dataset": dataset, "metrics": metrics}
    notes = {key: value for key, value in facts.items() if value}
    before = model.config.notes
    if license and before.get("license") not in (None, license) and inherited(before).get("started_from"):
        notes["started_from_license"] = before["license"]  # the user may grant less than the parent's does
    record = replace(model.config, notes={**model.config.notes, **notes})
    config = json.dumps(record.to_json(), indent=2)
    card = _model_card(record, record.notes.get("license"), dataset, metrics, description, repo_id or "OWNER/REPO")
    save_checkpoint(model, folder / WEIGHTS_FILE, **notes)
    _write(folder / CONFIG_FILE, config + "\n")
    if _is_edited(folder / CARD_FILE):
        say(f"{folder / CARD_FILE} was written by hand and stays as it is")
    else:
        _write(folder / CARD_FILE, card + "\n" + _signature(card + "\n"))


def _checked_metrics(metrics: Mapping[str, float] | None) -> dict[str, float]:
    try:
        found = {str(name): float(value) for name, value in (metrics or {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"metrics is a dictionary of numbers by name, got {metrics!r}") from error
    if wrong := [name for name, value in found.items() if not math.isfinite(value)]:
        raise ValueError(f"metrics must be finite numbers; {', '.join(wrong)} is {found[wrong[0]]}")
    return found


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _signature(card: str) -> str:
    """The last line of a model card, by which it is seen whether somebody has changed the lines above."""
    return f"<!-- edgeseg {hashlib.sha256(card.encode()).hexdigest()[:16]} -->\n"


def _is_edited(path: Path) -> bool:
    """Whether there is a model card that edgeseg did not write, or that was changed afterwards."""
    if not path.exists():
        return False
    *lines, last = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) or [""]
    return last != _signature("".join(lines))


def push_to_hub(
    model: Recorded,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str = "edgeseg model",
    **card: Any,
) -> str:
    """Uploads what `save_pretrained` writes to the hub; see `Pixel2Pixel.push_to_hub`. Returns the commit's address."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, repo_id=repo_id, **card)  # its errors come before there is a repository
        created = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(created, branch=revision, exist_ok=True)
        if created != repo_id:
            save_pretrained(model, folder, repo_id=created, **card)  # the card names it with its owner
        kept = Path(folder) / "known"
        if api.file_exists(created, CONFIG_FILE, revision=revision):
            known = Path(api.hf_hub_download(created, CONFIG_FILE, revision=revision, local_dir=kept))
            with value_errors(known, f"{CONFIG_FILE} of {created} would be replaced, choose another repository"):
                _check_config(known)
        if api.file_exists(created, CARD_FILE, revision=revision):
            known = Path(api.hf_hub_download(created, CARD_FILE, revision=revision, local_dir=kept))
            if _is_edited(known):
                shutil.copy(known, Path(folder) / CARD_FILE)
        shutil.rmtree(kept, ignore_errors=True)
        commit = api.upload_folder(
            repo_id=created, folder_path=folder, revision=revision, commit_message=commit_message
        )
    return str(commit.commit_url)


def _model_card(
    config: ModelConfig,
    license: str | None,
    dataset: str | None,
    metrics: Mapping[str, float],
    description: str,
    repo_id: str,
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=(dataset or "").lower().replace(" ", "-"),
            dataset_name=dataset or "",
            metric_type=metric,
            metric_value=value,
        )
        for metric, value in metrics.items()
    ]
    data = ModelCardData(
        library_name="edgeseg",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "edge", config.name],
        license=license if license is None or re.fullmatch(r"[a-z0-9.-]+", license) else "other",
        model_name=repo_id.rpartition("/")[2],
        eval_results=results or None,
    )
    lines = [f"# {config.name}", "", description or f"A `{config.name}` network of edgeseg.", ""]
    lines += ["```python", "import edgeseg", "", f'model = edgeseg.create_model("{HUB}{repo_id}")']
    lines += ['labels = model.predict("photo.jpg")', "```", ""]
    for name, task in config.tasks.items():
        at = "" if task.threshold == DEFAULT_THRESHOLD else f", threshold {task.threshold:.4g}"
        lines += [f"- **{name}**: {task.kind}, {task.channels} channels" + _classes(task.classes) + at]
    lines += [f"- **{metric}** on {dataset}: {value}" for metric, value in metrics.items()]
    lines += [f"- **{title}**: {text}" for title, text in origin(config.notes)]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines)


def _classes(names: tuple[str, ...]) -> str:
    return f" ({', '.join(names)})" if names else ""
