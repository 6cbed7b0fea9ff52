"""The names of models: listing them, looking them up, and registering models of your own."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgeseg.config import ModelConfig
from edgeseg.spec import ModelSpec
from edgeseg.zoo.networks import ALIASES, FAMILIES, PEERS, ZOO, Peer
from edgeseg.zoo.weights import WEIGHTS, Weights

if TYPE_CHECKING:
    from torch import nn

    from edgeseg.networks.decoders import DecoderClass
    from edgeseg.networks.encoders import Trunk
    from edgeseg.tasks import Kind

WEIGHTS_FILES = (".safetensors", ".pth", ".pt", ".onnx", ".ckpt")  # how files end that are taken for names of models
Builder = Callable[..., Any]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _build_peer(peer: Peer, config: ModelConfig, **_: Any) -> Any:
    from edgeseg.networks.peers import build_peer

    return build_peer(peer.module, config, **peer.options)


BUILDERS: dict[str, Builder] = {name: partial(_build_peer, peer) for name, peer in PEERS.items()}
"""Builders of the models that have no row in the zoo: peers, and models that `register_model` added."""


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a model that are known without building it.

    Args:
        name: Name of the model, aliases resolved.
        spec: The model's row in the zoo; None for networks that the zoo is compared with, and for registered builders.
        weights: Its trained weights, by tag.
    """

    name: str
    spec: ModelSpec | None
    weights: dict[str, Weights]


def register_model(builder: Builder | str | None = None) -> Any:
    """Registers a builder of your own: `@register_model`, or `@register_model("name")` for another name.

    Args:
        builder: `builder(config, **options)` returns an `nn.Module`, usually a `Pixel2Pixel(encoder, decoders,
            config)`. `config` is a `ModelConfig` with the tasks and inputs that were asked for; `options` are further
            keyword arguments of `create_model`, which must be JSON values if the model is to be saved.

    Raises:
        ValueError: the name is taken or has a dot.

    Example:
        >>> import edgeseg
        >>> @edgeseg.register_model
        ... def two_layers(config):
        ...     from torch import nn
        ...     classes = config.tasks["segmentation"].channels
        ...     return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, classes, 1))
        >>> edgeseg.create_model("two_layers", num_classes=5)[-1].out_channels
        5
    """
    if callable(builder):
        return _register(BUILDERS, builder.__name__, builder)
    return lambda function: _register(BUILDERS, builder or function.__name__, function)


def register_decoder(name: str, **defaults: Any) -> Callable[[Decorated], Decorated]:
    """Registers a decoder of your own, for `create_model(name, encoder=...)`.

    Args:
        name: Name of the decoder family.
        defaults: Fields of `ModelSpec` in which the family differs from the defaults there.

    Returns:
        A decorator for a subclass of `edgeseg.networks.decoders.Decoder`, or any callable that makes a decoder from
        `(pyramid, task, spec)`.

    Raises:
        ValueError: the name is taken or has a dot, or a default does not fit.

    Example:
        >>> import edgeseg
        >>> from edgeseg.networks.decoders import Decoder
        >>> @edgeseg.register_decoder("finest_only", prediction_stride=4)
        ... class FinestOnly(Decoder):
        ...     def __init__(self, pyramid, task, spec):
        ...         super().__init__(pyramid)
        ...         self.head = pyramid.head(pyramid.channels[0], task)
        ...     def decode(self, *features):
        ...         return self.head(features[0])
        >>> edgeseg.create_model("finest_only", encoder="resnet18", num_classes=5).name
        'finest_only'
    """
    from edgeseg.networks.decoders import DECODERS

    _require_name("register_decoder", name)
    known = [field.name for field in fields(ModelSpec) if field.name not in ("decoder", "encoder")]
    if unknown := [key for key in defaults if key not in known]:
        raise ValueError(f"no default {', '.join(unknown)}; the defaults are {', '.join(known)}")

    def decorate(decoder: Decorated) -> Decorated:
        _require_callable(name, decoder)
        family = partial(ModelSpec, decoder=name, **defaults)
        family(encoder="any")  # the defaults check themselves
        _register(FAMILIES, name, family)
        decoders: dict[str, DecoderClass] = DECODERS
        decoders[name] = decoder
        return decoder

    return decorate


def register_encoder(name: str) -> Callable[[Decorated], Decorated]:
    """Registers an encoder of your own, for `create_model("fpn", encoder=name)`.

    Args:
        name: Name of the encoder.

    Returns:
        A decorator for a builder. Called with the channels of the image, it returns either an `nn.Module` with the
        attributes `channels` and `strides`, whose `forward(image)` returns a list of features from fine to coarse; or
        an `edgeseg.networks.encoders.Trunk`, which several inputs can share.

    Raises:
        ValueError: the name is taken or has a dot.

    Example:
        >>> import edgeseg
        >>> from torch import nn
        >>> @edgeseg.register_encoder("two_poolings")
        ... class TwoPoolings(nn.Module):
        ...     def __init__(self, in_channels):
        ...         super().__init__()
        ...         self.channels, self.strides = (in_channels, in_channels), (2, 4)
        ...         self.pool = nn.AvgPool2d(2)
        ...     def forward(self, image):
        ...         half = self.pool(image)
        ...         return [half, self.pool(half)]
        >>> model = edgeseg.create_model("fpn", encoder="two_poolings", num_classes=5, prediction_stride=2)
    """
    from edgeseg.networks.encoders import ENCODERS, USER_ENCODERS, WHOLE_ENCODERS

    _require_name("register_encoder", name)

    def decorate(builder: Decorated) -> Decorated:
        if name in ENCODERS or name in WHOLE_ENCODERS:
            raise ValueError(f"an encoder named {name!r} is registered already; choose another name")
        encoders: dict[str, Callable[[int], nn.Module | Trunk]] = USER_ENCODERS
        return _register(encoders, name, builder, what="an encoder")

    return decorate


def register_kind(name: str, kind: Kind) -> None:
    """Makes `Task(name, ...)` a task of a kind of your own.

    Args:
        name: Name of the kind.
        kind: An instance of your subclass of `edgeseg.tasks.Kind`.

    Raises:
        ValueError: the name is taken, or `kind` is not an instance of `Kind`.

    Example:
        >>> import edgeseg
        >>> from edgeseg.tasks.depth import Depth
        >>> class Height(Depth):
        ...     pass  # height above the ground, learned and scored like depth
        >>> edgeseg.register_kind("height", Height())
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", tasks={"height": edgeseg.Task("height", 1)})
        >>> model.tasks["height"].kind
        'height'
    """
    from edgeseg.tasks import register_kind

    register_kind(name, kind)


def _require_name(function: str, name: Any) -> None:
    """Raises a TypeError if a decorator that takes a name is used without one."""
    if not isinstance(name, str):
        raise TypeError(f"{function} takes a name: @edgeseg.{function}('mine'), got {name!r}")


def _require_callable(name: str, entry: Any) -> None:
    if not callable(entry):
        raise TypeError(f"{name!r} stands for a class or a function, got {entry!r}")


def _register(table: dict[str, Any], name: str, entry: Decorated, what: str = "a model") -> Decorated:
    _require_callable(name, entry)
    if name in table or (what == "a model" and (is_model(name) or name in FAMILIES)):
        raise ValueError(f"{what} named {name!r} is registered already; choose another name")
    if not name or "." in name:
        raise ValueError(f"{name!r} cannot name {what}: what follows a dot in a name is a weights tag")
    table[name] = entry
    return entry


def list_models(pattern: str | Sequence[str] = "*", *, pretrained: bool = False) -> list[str]:
    """Lists the names of models.

    Args:
        pattern: A shell pattern such as `fpn_*`, or several.
        pretrained: List only models with trained weights, as `name.tag`; a pattern may leave out the tag.

    Returns:
        The names that match a pattern, aliases included, sorted.

    Raises:
        ValueError: a pattern is not text.

    Example:
        >>> import edgeseg
        >>> edgeseg.list_models("espnetv2_*")
        ['espnetv2_s0p5', 'espnetv2_s1p0', 'espnetv2_s1p5', 'espnetv2_s2p0']
        >>> edgeseg.list_models("unet_aspp_mobilenetv2_tv_*", pretrained=True)[0]
        'unet_aspp_mobilenetv2_tv_edgeailite.ade20k32'
    """
    if not pretrained:
        return _matching([*ZOO, *BUILDERS, *ALIASES], pattern)
    named = set(_matching({name.partition(".")[0] for name in WEIGHTS}, pattern))
    return sorted({*list_weights(pattern), *(name for name in WEIGHTS if name.partition(".")[0] in named)})


def list_weights(pattern: str | Sequence[str] = "*") -> list[str]:
    """Lists trained weights.

    Args:
        pattern: A shell pattern such as `fpn_*` or `*.camvid`, or several.

    Returns:
        The weights that match a pattern, as `name.tag`, sorted.

    Raises:
        ValueError: a pattern is not text.

    Example:
        >>> import edgeseg
        >>> edgeseg.list_weights("espnetv2_s2p0.*")
        ['espnetv2_s2p0.camvid', 'espnetv2_s2p0.cityscapes', 'espnetv2_s2p0.voc']
    """
    return _matching(WEIGHTS, pattern)


def _matching(names: Iterable[str], pattern: str | Sequence[str]) -> list[str]:
    patterns = list(pattern) if isinstance(pattern, Iterable) and not isinstance(pattern, str) else [pattern]
    if not all(isinstance(text, str) for text in patterns):
        raise ValueError(f"a pattern is text such as 'fpn_*', or a list of patterns, got {pattern!r}")
    return sorted(name for name in names if any(fnmatch.fnmatchcase(name, text) for text in patterns))


def is_model(name: str) -> bool:
    """Tells whether a name is in the zoo or registered.

    Args:
        name: A name, or NAME.TAG with the tag of its weights.

    Returns:
        True for the names of `list_models()`, which include aliases, and of `list_weights()`.

    Example:
        >>> import edgeseg
        >>> edgeseg.is_model("fpnsum_mobilenetv2"), edgeseg.is_model("fpnsum")
        (True, False)
    """
    if not isinstance(name, str):
        return False
    architecture, dot, tag = name.partition(".")
    known = architecture in ZOO or architecture in BUILDERS or architecture in ALIASES
    return known and (not dot or tag in _weights_of(ALIASES.get(architecture, architecture)))


def model_info(name: str) -> ModelInfo:
    """Looks up a model without building it.

    Args:
        name: A name of `list_models()`, or `name.tag` for certain weights only.

    Returns:
        The model's name, its row in the zoo, and its weights by tag.

    Raises:
        ValueError: unknown name or tag.

    Example:
        >>> import edgeseg
        >>> info = edgeseg.model_info("espnetv2_s2p0")
        >>> list(info.weights)
        ['camvid', 'cityscapes', 'voc']
    """
    architecture, tag = split(name)
    weights = {tag: WEIGHTS[find_weights(architecture, tag)]} if tag else _weights_of(architecture)
    return ModelInfo(architecture, ZOO.get(architecture), weights)


def weights_info(name: str) -> Weights:
    """Looks up trained weights without downloading them.

    Args:
        name: `name.tag`, or a name for its default weights.

    Returns:
        The entry of the catalog, with addresses, preprocessing, scores and licence.

    Raises:
        ValueError: unknown name or tag, or a name without trained weights.

    Example:
        >>> import edgeseg
        >>> edgeseg.weights_info("espnetv2_s2p0.cityscapes").published_miou
        66.4
    """
    return WEIGHTS[find_weights(*split(name))]


def split(name: str) -> tuple[str, str]:
    """Splits `name.tag` into the name of the model, aliases resolved, and the tag; without a tag that is "".

    Raises:
        ValueError: an unknown name, a file, or a dot without a tag.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"a model has a name, such as those of edgeseg.list_models(); got {name!r}")
    if Path(name).is_file():
        raise ValueError(f"{name} is a file, not the name of a model; pass it as checkpoint_path")
    if Path(name).is_dir() and (Path(name) / "config.json").is_file():
        raise ValueError(f"{name} is a folder, not the name of a model; for a saved model pass local-dir:{name}")
    if Path(name).suffix in WEIGHTS_FILES:
        raise ValueError(f"there is no file {name}; a file of weights is passed as checkpoint_path")
    architecture, dot, tag = name.partition(".")
    if dot and not tag:
        raise ValueError(f"{name!r} ends with a dot; expected a name, or NAME.TAG with the tag of its weights")
    architecture = ALIASES.get(architecture, architecture)
    known = [*ZOO, *BUILDERS, *ALIASES, *FAMILIES]
    if architecture not in known:
        near = difflib.get_close_matches(architecture.lower(), known, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see edgeseg.list_models()"
        raise ValueError(f"no model named {architecture!r}; {hint}")
    return architecture, tag


def _weights_of(architecture: str) -> dict[str, Weights]:
    """Trained weights of one network, by tag."""
    parts = ((*key.partition("."), entry) for key, entry in WEIGHTS.items())
    return {tag: entry for name, _, tag, entry in parts if name == architecture}


def find_weights(architecture: str, tag: str) -> str:
    """The `name.tag` of the weights of a network; if the tag is "", of its default weights.

    Raises:
        ValueError: no such weights.
    """
    known = _weights_of(architecture)
    if tag:
        if tag not in known:
            raise ValueError(f"{architecture} has no weights {tag!r}; its tags are: {', '.join(known) or 'none'}")
        return f"{architecture}.{tag}"
    for default_tag, entry in known.items():
        if entry.default:
            return f"{architecture}.{default_tag}"
    near = difflib.get_close_matches(architecture, WEIGHTS, n=3, cutoff=0.0)
    start = ". Its encoder can start from ImageNet: encoder_weights='imagenet'" if architecture in ZOO else ""
    raise ValueError(f"{architecture} has no trained weights; similar models with weights: {', '.join(near)}{start}")
