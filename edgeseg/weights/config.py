"""What rebuilds a model, as json: it stands in config.json on the hub and in the metadata of our safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from edgeseg.spec import ModelSpec, Preprocess, Quantization, Task

FORMAT = 1
OPTIONAL = {"quantization"}
KEYS = {"format", "model", "spec", "in_channels", "tasks", "preprocess", "notes"}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model but for its weights.

    Args:
        model: Name in the zoo, of a decoder family, or of a registered builder.
        spec: The network in full; None for a registered builder.
        in_channels: Channels of each input, by its name.
        tasks: What it predicts.
        preprocess: How photos become input tensors.
        notes: Free facts about the weights, such as the recipe; json values.
        quantization: How it rounds to 8 bit, if it does.
    """

    model: str
    spec: ModelSpec | None
    in_channels: Mapping[str, int]
    tasks: Mapping[str, Task]
    preprocess: Preprocess
    notes: Mapping[str, Any]
    quantization: Quantization | None = None


def to_json(model: Any, notes: Mapping[str, Any]) -> dict[str, Any]:
    """The json of a `Pixel2Pixel`."""
    return {
        "format": FORMAT,
        "model": model.name,
        "spec": None if model.spec is None else asdict(model.spec),
        "in_channels": dict(zip(model.input_names, model.in_channels, strict=True)),
        "tasks": {name: asdict(task) for name, task in model.tasks.items()},
        "preprocess": asdict(model.preprocess),
        "notes": dict(notes),
        **({} if model.quantization is None else {"quantization": asdict(model.quantization)}),
    }


def from_json(content: Any, where: str) -> ModelConfig:
    """Reads what `to_json` wrote; nothing in it is ever run.

    Raises:
        ValueError: a newer format, or keys that are unknown, missing or of the wrong kind; names `where`.
    """
    if not isinstance(content, Mapping) or "format" not in content:
        raise ValueError(f"{where} is not the configuration of an edgeseg model")
    if not isinstance(content["format"], int) or content["format"] > FORMAT:
        raise ValueError(
            f"{where} was written by a newer edgeseg (format {content['format']}, this one reads {FORMAT}); upgrade it"
        )
    unknown, missing = sorted(set(content) - KEYS - OPTIONAL), sorted(KEYS - set(content))
    if unknown or missing:
        raise ValueError(f"{where} cannot be read: unknown keys {unknown}, missing keys {missing}")
    try:
        return ModelConfig(
            model=_checked(content["model"], str),
            spec=None if content["spec"] is None else _noun(ModelSpec, content["spec"]),
            in_channels={name: _checked(n, int) for name, n in _checked(content["in_channels"], dict).items()},
            tasks={name: _noun(Task, task) for name, task in _checked(content["tasks"], dict).items()},
            preprocess=_noun(Preprocess, content["preprocess"]),
            notes=_checked(content["notes"], dict),
            quantization=_noun(Quantization, content["quantization"]) if "quantization" in content else None,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} cannot be read: {error}") from error


def _noun(kind: type[Any], content: Any) -> Any:
    """One of the frozen nouns from its fields."""
    known = {field.name: field for field in fields(kind)}
    unknown = sorted(set(_checked(content, dict)) - set(known))
    missing = [name for name, field in known.items() if field.default is MISSING and name not in content]
    if unknown or missing:
        raise ValueError(f"{kind.__name__} with unknown keys {unknown}, missing keys {missing}")
    for name, value in content.items():
        default = known[name].default
        if isinstance(default, bool | int | str) and type(value) is not type(default):
            raise TypeError(f"{kind.__name__}.{name} is {value!r}, expected {type(default).__name__}")
    return kind(**{name: _tuple(value) for name, value in content.items()})


def _checked(value: Any, kind: type[Any]) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} where {kind.__name__} is expected")
    return value


def _tuple(value: Any) -> Any:
    """Json knows only lists; the frozen nouns hold tuples."""
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value
