"""From names to networks."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from edgeseg.peers import PEERS, build_peer
from edgeseg.spec import ModelSpec, Task
from edgeseg.weights.catalog import WEIGHTS, Weights
from edgeseg.weights.fetch import FOLDER, HUB
from edgeseg.zoo import ALIASES, FAMILIES, ZOO

if TYPE_CHECKING:
    from edgeseg.pixel2pixel import Pixel2Pixel
    from edgeseg.weights.config import ModelConfig

Builder = TypeVar("Builder", bound=Callable[..., Any])

DEFAULT_TASKS = {"segmentation": Task("segmentation", 19)}


def build_from_spec(spec: ModelSpec, *, tasks: Mapping[str, Task], in_channels: Sequence[int], **overrides: Any) -> Any:
    """The builder of every zoo row: the row with `overrides`, as a `Pixel2Pixel`."""
    from edgeseg.pixel2pixel import build

    return build(_override(spec, overrides), tasks=tasks, in_channels=in_channels)


def build_family(family: str, *, tasks: Mapping[str, Task], in_channels: Sequence[int], **overrides: Any) -> Any:
    """The builder of a free combination: a decoder family and `encoder=`, further fields of `ModelSpec` at will."""
    if "encoder" not in overrides:
        raise ValueError(f"{family!r} needs an encoder: create_model({family!r}, encoder='resnet18')")
    spec = FAMILIES[family](encoder=overrides.pop("encoder"))
    return build_from_spec(spec, tasks=tasks, in_channels=in_channels, **overrides)


_builders: dict[str, Callable[..., Any]] = {
    **{name: partial(build_from_spec, spec) for name, spec in ZOO.items()},
    **{name: partial(build_peer, peer) for name, peer in PEERS.items()},
}


@dataclass(frozen=True)
class ModelInfo:
    """What the zoo knows of a name, without building it."""

    name: str
    spec: ModelSpec | None
    """The row of the zoo; None for the systems it compares with and a user's own builder."""
    weights: dict[str, Weights]
    """Trained weights by tag."""


def register_model(builder: Builder | str | None = None) -> Any:
    """Registers a builder of your own: `@register_model`, or `@register_model("name")` for another name.

    A builder takes the keywords `tasks`, `in_channels` and any overrides, and gives an `nn.Module`. A name that is
    taken is refused with a ValueError.
    """
    if callable(builder):
        return _register(builder.__name__, builder)
    return lambda function: _register(builder or function.__name__, function)


def _register(name: str, builder: Builder) -> Builder:
    if name in _builders or name in ALIASES or name in FAMILIES:
        raise ValueError(f"a model named {name!r} is registered already")
    if "." in name:
        raise ValueError(f"{name!r}: what follows a dot in a model name is a weights tag")
    _builders[name] = builder
    return builder


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names of the zoo that match a shell pattern, sorted; with `pretrained` those with weights, as `name.tag`."""
    if pretrained:
        return list_weights(pattern)
    return sorted(name for name in [*_builders, *ALIASES] if fnmatch.fnmatchcase(name, pattern))


def is_model(name: str) -> bool:
    """Whether `name` (without a weights tag) is in the zoo or registered."""
    return name in _builders or name in ALIASES


def model_info(name: str) -> ModelInfo:
    """The row and the weights of `name`; a tag narrows to those weights.

    Raises:
        ValueError: unknown name or tag.
    """
    architecture, tag = _split(name)
    weights = {tag: WEIGHTS[_find_weights(architecture, tag)]} if tag else _weights_of(architecture)
    return ModelInfo(architecture, ZOO.get(architecture), weights)


def list_weights(pattern: str = "*") -> list[str]:
    """Trained weights as `name.tag`, those that match a shell pattern, sorted."""
    return sorted(name for name in WEIGHTS if fnmatch.fnmatchcase(name, pattern))


def weights_info(name: str) -> Weights:
    """The entry of the catalog for `name.tag`; for a name without tag its default weights.

    Raises:
        ValueError: unknown name or tag, or no trained weights.
    """
    architecture, tag = _split(name)
    return WEIGHTS[_find_weights(architecture, tag)]


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    num_classes: int | None = None,
    tasks: Mapping[str, Task] | None = None,
    in_channels: Sequence[int] | Mapping[str, int] | None = None,
    encoder_weights: str | os.PathLike[str] | None = None,
    checkpoint_path: str | os.PathLike[str] | None = None,
    **overrides: Any,
) -> Pixel2Pixel:
    """Builds a network of the zoo, a registered one, a free combination of decoder and encoder, or a published one.

    Args:
        name: A name of `list_models()`, with a weights tag (`"name.tag"`) those weights; or a decoder family ("fpn",
            "unet", "deeplabv3plus", "bifpn") with `encoder=`, a name of `edgeseg.encoders.ENCODERS` or of timm; or what
            `save_pretrained` and `push_to_hub` wrote, `"local-dir:PATH"` or `"hf-hub:OWNER/REPO[@REVISION]"`.
        pretrained: Load the name's default weights. A tag loads its weights with or without this.
        num_classes: Short for one segmentation task of that many classes, called "segmentation".
        tasks: What to predict, one decoder each. By default what the weights were trained for, else 19 classes. With
            weights for other tasks all but the prediction layers is loaded, and a warning says so.
        in_channels: Channels of each input, by default those of the weights, else (3,); with several the first stages
            are doubled and fused. Weights of a single input fill all of them. A mapping names the inputs, such as
            `{"previous": 3, "image": 3}`; two without names are "flow" and "image".
        encoder_weights: Weights for the encoder: "imagenet" for the usual ones, "timm/NAME.TAG" for those of timm's
            repository on the hub, a file in torchvision's, timm's or pycls' layout, or one of ours with that encoder.
        checkpoint_path: File of weights for the whole network: our safetensors, or the original's .pth or .onnx.
        overrides: Other fields of `ModelSpec`, such as `channels=128`; without weights only.

    Returns:
        The network, in training mode. `model(*images)` gives logits by task, `model.predict(photo)` label maps.

    Raises:
        ValueError: unknown name, tag or override, contradicting arguments, or a file that does not fit.
        OSError: no such file, or weights that cannot be downloaded.
    """
    if in_channels is not None and (isinstance(in_channels, int) or not in_channels):
        raise ValueError(f"in_channels has the channels of each input, such as (3,) or (2, 3), got {in_channels!r}")
    published = name.startswith((HUB, FOLDER))
    architecture, tag = ("", "") if published else _split(name)
    entry = _find_weights(architecture, tag) if not published and (pretrained or tag) else None
    given = {"pretrained weights": published or entry is not None, "checkpoint_path": checkpoint_path is not None}
    sources = [what for what, is_given in given.items() if is_given]
    if len(sources) > 1:
        raise ValueError("pass pretrained weights or checkpoint_path, not both")
    if sources and encoder_weights is not None:
        raise ValueError(f"encoder_weights would be overwritten by the {sources[0]}; pass one of them")
    if given["pretrained weights"] and overrides:
        raise ValueError(f"pretrained weights fit the network of their name only; drop {', '.join(overrides)}")

    file, config = _open_weights(name if published else entry, checkpoint_path)
    wanted = _tasks(num_classes, tasks)
    used = wanted or (config.tasks if config else DEFAULT_TASKS)
    if config and num_classes is not None and _channels(used) == _channels(config.tasks):
        used = config.tasks  # the same classes: keep their names and colours
    if published and config:
        architecture = config.model
    if config and config.spec and (published or (architecture in FAMILIES and not overrides)):
        builder: Callable[..., Any] = partial(build_from_spec, config.spec)  # a free combination, say
    else:
        builder = partial(build_untrained, architecture)
    inputs = in_channels or (config.in_channels if config else (3,))
    model = builder(tasks=used, in_channels=_counts(inputs), **overrides)
    model.name = architecture
    if isinstance(inputs, Mapping):
        model.input_names = tuple(inputs)
    if config and config.quantization:
        from edgeseg.deploy.qat import quantize_aware

        model = quantize_aware(model, config.quantization)
    if encoder_weights is not None:
        from edgeseg.weights.load import load_encoder
        from edgeseg.weights.pretrained import encoder_file

        load_encoder(model, encoder_file(encoder_weights, getattr(model, "spec", None)))
    if file is not None:
        from edgeseg.weights.load import load_checkpoint

        load_checkpoint(model, file, adapt=wanted is not None or in_channels is not None)
    if config:
        model.preprocess, model.notes = config.preprocess, dict(config.notes)
    if entry is not None:
        model.notes |= {"weights": entry, "license": WEIGHTS[entry].license}
    return model


def build_untrained(
    architecture: str, *, tasks: Mapping[str, Task], in_channels: Sequence[int] = (3,), **overrides: Any
) -> Pixel2Pixel:
    """The network of a name without tag, untrained.

    Raises:
        ValueError: unknown name or override.
    """
    architecture, _ = _split(architecture)
    builder = _builders.get(architecture) or partial(build_family, architecture)
    model = builder(tasks=tasks, in_channels=in_channels, **overrides)
    model.name = architecture
    return model


def _open_weights(
    pretrained: str | None, checkpoint_path: str | os.PathLike[str] | None
) -> tuple[str | os.PathLike[str] | None, ModelConfig | None]:
    """The weights file and what it says of its model.

    Args:
        pretrained: `name.tag` of the catalog, or a published model.
    """
    if pretrained is not None and pretrained not in WEIGHTS:
        from edgeseg.weights.hub import open_published

        return open_published(pretrained)
    if pretrained is not None:
        from edgeseg.weights.pretrained import weights_file

        checkpoint_path = weights_file(pretrained)
    if checkpoint_path is None:
        return None, None
    from edgeseg.weights.checkpoint import read_config

    return checkpoint_path, read_config(checkpoint_path)


def _split(name: str) -> tuple[str, str]:
    """`name.tag` -> the row's own name and the tag, "" without; raises for unknown names."""
    architecture, _, tag = name.partition(".")
    architecture = ALIASES.get(architecture, architecture)
    if architecture not in _builders and architecture not in FAMILIES:
        near = difflib.get_close_matches(architecture, [*_builders, *ALIASES, *FAMILIES], n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see edgeseg.list_models()"
        raise ValueError(f"no model named {architecture!r}; {hint}")
    return architecture, tag


def _weights_of(architecture: str) -> dict[str, Weights]:
    """Trained weights of one network, by tag."""
    parts = ((*key.partition("."), entry) for key, entry in WEIGHTS.items())
    return {tag: entry for name, _, tag, entry in parts if name == architecture}


def _find_weights(architecture: str, tag: str) -> str:
    """The `name.tag` of an architecture's weights; its default without a tag."""
    known = _weights_of(architecture)
    if tag:
        if tag not in known:
            raise ValueError(f"no weights {tag!r} of {architecture}; there are: {', '.join(known) or 'none'}")
        return f"{architecture}.{tag}"
    for tag, entry in known.items():
        if entry.default:
            return f"{architecture}.{tag}"
    near = difflib.get_close_matches(architecture, WEIGHTS, n=3, cutoff=0.0)
    raise ValueError(
        f"no trained weights of {architecture}; there are those of {', '.join(near)}. "
        f"Its encoder can start from ImageNet: encoder_weights='imagenet'"
    )


def _tasks(num_classes: int | None, tasks: Mapping[str, Task] | None) -> Mapping[str, Task] | None:
    if num_classes is not None and tasks is not None:
        raise ValueError("pass num_classes or tasks, not both")
    if num_classes is not None:
        return {"segmentation": Task("segmentation", num_classes)}
    if tasks is not None and (not tasks or not all(isinstance(task, Task) for task in tasks.values())):
        raise ValueError(f"tasks has a Task for each name, such as {{'depth': Task('depth')}}, got {tasks!r}")
    return tasks


def _counts(inputs: Sequence[int] | Mapping[str, int]) -> tuple[int, ...]:
    return tuple(inputs.values() if isinstance(inputs, Mapping) else inputs)


def _channels(tasks: Mapping[str, Task]) -> dict[str, int]:
    return {name: task.channels for name, task in tasks.items()}


def _override(spec: ModelSpec, overrides: Mapping[str, Any]) -> ModelSpec:
    unknown = [key for key in overrides if key not in ModelSpec.__dataclass_fields__]
    if unknown:
        raise ValueError(f"no option {', '.join(unknown)}; there are {', '.join(ModelSpec.__dataclass_fields__)}")
    return replace(spec, **overrides)
