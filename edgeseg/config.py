"""The record that rebuilds a model: in memory `model.config`, as JSON in every file that holds the model's weights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, ValuesView
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from edgeseg.records import Record
from edgeseg.spec import DEFAULT_THRESHOLD, Input, ModelSpec, Preprocess, Quantization, Task

FORMAT = 2
DEEPEST = 20  # levels of notes and options
MOST = 64  # tasks and inputs
REQUIRED = ("name", "spec", "tasks", "inputs", "preprocess", "notes")  # keys that every file has
DEFAULT_TASKS = {"segmentation": Task("segmentation", 19)}
FLOW: Literal["flow"] = "flow"
ORIGIN = (
    "weights",
    "license",
    "started_from",
    "started_from_license",
    "teacher",
    "teacher_license",
    "encoder",
    "source",
)  # notes on where weights come from


@dataclass(frozen=True, kw_only=True, repr=False)
class ModelConfig(Record):
    """Everything that is known about a model except its weights.

    Args:
        name: Name in the zoo, of a decoder family, or of a registered builder.
        spec: The network in full; None for networks that the zoo is compared with, and for a registered builder.
        tasks: What the model predicts, by name.
        inputs: The images that the model takes, by name. The last is the photo that the predictions belong to.
        preprocess: How photos become input tensors.
        quantization: How the network rounds to 8 bits; None if it does not.
        options: Keyword arguments of a registered builder.
        notes: Facts about the weights, such as their origin, licence and recipe, as JSON values.

    Example:
        >>> import edgeseg
        >>> model = edgeseg.create_model("fpnsum_mobilenetv2.camvid")
        >>> model.config.notes["weights"], model.config.preprocess.size
        ('fpnsum_mobilenetv2.camvid', (600, 800))
        >>> model.configure(preprocess=edgeseg.Preprocess(size=(300, 400)))
        >>> model.config.preprocess.size
        (300, 400)
    """

    name: str
    spec: ModelSpec | None = None
    tasks: Mapping[str, Task] = field(default_factory=lambda: DEFAULT_TASKS)
    inputs: Mapping[str, Input] = field(default_factory=lambda: {"image": Input()})
    preprocess: Preprocess = field(default_factory=Preprocess)
    quantization: Quantization | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """There are tasks and inputs, their names can stand in files and graphs, and the normalization fits them."""
        self.require(
            self.name.strip() != "" and self.name.isprintable(), "name", "is a name without control characters"
        )
        self.require(len(self.tasks) > 0, "tasks", "has at least one task")
        self.require(len(self.inputs) > 0, "inputs", "has at least one input")
        self.require(len(self.tasks) + len(self.inputs) <= MOST, "tasks", f"must be at most {MOST} with the inputs")
        for name in (*self.tasks, *self.inputs):
            if not name.strip() or any(mark in name for mark in "./\\") or not name.isprintable():
                raise ValueError(
                    f"{name!r} cannot be the name of a task or an input: names stand in weights files and file names, "
                    "so they are not empty and have no dot, slash or control character"
                )
        both = sorted(set(self.tasks) & set(self.inputs))
        if both:
            raise ValueError(f"{', '.join(both)} names a task and an input; give one of them another name")
        for name, each in self.inputs.items():
            for values in (self.preprocess.mean, self.preprocess.std):
                if len(values) not in (1, each.channels):
                    raise ValueError(
                        f"the input {name!r} has {each.channels} channels, and mean and std of its preprocessing have "
                        f"{len(self.preprocess.mean)} and {len(self.preprocess.std)} values; expected 1 or "
                        f"{each.channels}: give all inputs as many channels, or use weights with a single mean and std"
                    )
        for field_name in ("options", "notes"):
            depth = _depth(getattr(self, field_name))
            self.require(depth <= DEEPEST, field_name, f"must be at most {DEEPEST} levels deep")

    @property
    def in_channels(self) -> tuple[int, ...]:
        """Number of channels of each input."""
        return tuple(each.channels for each in self.inputs.values())

    def to_json(self) -> dict[str, Any]:
        """The record as a dictionary of JSON values."""
        content = asdict(self)
        if self.quantization is None:
            del content["quantization"]
        for task in content["tasks"].values():  # earlier versions do not know the field
            if task["threshold"] == DEFAULT_THRESHOLD:
                del task["threshold"]
        return {"format": FORMAT, **content}


def _depth(value: Any) -> int:
    """Number of levels of a JSON value, counted up to one more than `DEEPEST`."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST:
        depth += 1
        inner = [each.values() if isinstance(each, Mapping) else each for each in level]
        level = [part for each in inner if isinstance(each, list | tuple | ValuesView) for part in each]
    return depth


def read_config(text: str, where: str) -> ModelConfig:
    """Reads the JSON of a record, of this format or an earlier one. Nothing in it is ever executed.

    Args:
        text: JSON.
        where: The file, for error messages.

    Raises:
        ValueError: no JSON, no record of edgeseg, one that a newer edgeseg wrote, or fields that do not fit.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError(f"{where} is not the configuration of an edgeseg model")
    version = content.pop("format")
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise ValueError(
            f"{where} has format {version!r}, and this edgeseg reads 1 to {FORMAT}; a newer edgeseg may read it"
        )
    if version == 1:
        content = _from_format_1(content, where)
    missing = [key for key in REQUIRED if key not in content]
    if missing:
        raise ValueError(f"{where}: ModelConfig has missing keys {', '.join(missing)}")
    return ModelConfig.from_json(content, where)


def _from_format_1(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Format 1 called the name "model", and the word "flow" in an input's name made it optical flow."""
    inputs = content.pop("in_channels", None)
    if not isinstance(inputs, dict):
        raise ValueError(f"{where}: in_channels is a dictionary of the inputs' channels, got {inputs!r}")
    content["name"] = content.pop("model", None)
    content["inputs"] = {
        name: {"channels": channels, "kind": FLOW if FLOW in name else "image"} for name, channels in inputs.items()
    }
    return content


def inherited(notes: Mapping[str, Any]) -> dict[str, Any]:
    """The notes that weights inherit from those that they start from, which are known by `notes`.

    Returns:
        "license", "encoder" and what is known of a teacher as they are, and "started_from": what was "weights" or,
        without that, "source".
    """
    parent = notes.get("weights") or notes.get("started_from") or notes.get("source")
    kept: dict[str, Any] = {"license": notes.get("license"), "started_from": parent, "encoder": notes.get("encoder")}
    kept |= {name: notes.get(name) for name in ("started_from_license", "teacher", "teacher_license")}
    return {name: value for name, value in kept.items() if value}


def origin(notes: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where weights come from, for people: titles and texts, of that which the notes of their record say."""
    encoder = notes.get("encoder")
    encoder = encoder if isinstance(encoder, Mapping) else {}
    texts = {
        "weights": notes.get("weights"),
        "started from": notes.get("started_from") or notes.get("source"),
        "licence": notes.get("license"),
        "licence of what it started from": notes.get("started_from_license"),
        "teacher": notes.get("teacher"),
        "licence of the teacher": notes.get("teacher_license"),
        "encoder started from": encoder.get("weights"),
        "licence of that encoder": encoder.get("license"),
    }
    return [(title, str(text)) for title, text in texts.items() if text]


def as_inputs(in_channels: int | Sequence[int] | Mapping[str, int | Input]) -> dict[str, Input]:
    """The inputs that a user names by `in_channels`.

    Args:
        in_channels: The channels of each input, such as `(3,)` or `(3, 3)`, a number for a single input, or a mapping
            from names to channels or to `Input`s. Without names, one input is "image" and two are "flow" and "image".
            An input given by its channels is optical flow if it is called "flow", otherwise an image.

    Raises:
        ValueError: no inputs, or something other than channels.
    """
    if isinstance(in_channels, int) and not isinstance(in_channels, bool):
        in_channels = (in_channels,)
    if not isinstance(in_channels, Mapping):
        if isinstance(in_channels, int | str) or not isinstance(in_channels, Iterable) or not in_channels:
            raise ValueError(f"in_channels has the channels of each input, such as (3,) or (2, 3); got {in_channels!r}")
        in_channels = dict(zip(_input_names(len(in_channels)), in_channels, strict=True))
    if not in_channels:
        raise ValueError("in_channels has the channels of each input, such as {'image': 3}; got none")
    return {
        name: each if isinstance(each, Input) else Input(each, FLOW if name == FLOW else "image")
        for name, each in in_channels.items()
    }


def _input_names(count: int) -> tuple[str, ...]:
    """Names of inputs without names: the photo comes last, a single input before it is optical flow."""
    if count == 2:
        return (FLOW, "image")
    return (*(f"input{i}" for i in range(1, count)), "image")
