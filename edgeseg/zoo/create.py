"""Creates models by name, in four steps: resolve the name, plan the record, build the network, fill it with weights."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.config import DEFAULT_TASKS, ModelConfig, as_inputs, inherited
from edgeseg.labels import task_of_classes
from edgeseg.machine.download import FOLDER, HUB, is_address, public_address
from edgeseg.spec import Input, ModelSpec, Task
from edgeseg.zoo.networks import FAMILIES, PEERS, ZOO
from edgeseg.zoo.registry import BUILDERS, find_weights, split
from edgeseg.zoo.weights import WEIGHTS

if TYPE_CHECKING:
    from edgeseg.networks.pixel2pixel import Pixel2Pixel

File = str | os.PathLike[str]
# Arguments of timm and segmentation_models_pytorch.
ELSEWHERE = {
    "in_chans": "in_channels",
    "classes": "num_classes",
    "encoder_name": "encoder",
    "features_only": "model.encoder(images)",
}


def create_model(
    name: str | None = None,
    *,
    pretrained: bool = False,
    num_classes: int | None = None,
    tasks: Mapping[str, Task] | None = None,
    in_channels: int | Sequence[int] | Mapping[str, int | Input] | None = None,
    encoder_weights: File | None = None,
    checkpoint_path: File | None = None,
    **overrides: Any,
) -> Pixel2Pixel:
    """Creates a network of the zoo, a registered one, a free combination of decoder and encoder, or a published one.

    Args:
        name: A name of `list_models()`; `"name.tag"` for a name with certain weights; a decoder family ("fpn", "unet",
            "deeplabv3plus", "bifpn", "fpnsum", or one that was registered) together with `encoder=`; or a model that
            `save_pretrained` or `push_to_hub` wrote: `"local-dir:PATH"` or `"hf-hub:OWNER/REPO[@REVISION]"`. May be
            left out with a `checkpoint_path` whose file names its model, as those of edgeseg do.
        pretrained: Load the default weights of the name. A tag loads its weights with or without this.
        num_classes: Short for a single segmentation task with that many classes, called "segmentation"; 1 is a binary
            task, one class of interest against the background.
        tasks: What to predict, with one decoder per task. By default what the weights were trained for, or 19 classes
            without weights. If the weights were trained for other tasks, what fits is loaded, and a warning says what
            does not: the prediction layers for other classes, and the decoders of tasks that the weights lack.
        in_channels: Channels of each input, a number for one input; by default those of the weights, or (3,) without
            weights. With several
            inputs the first stages of the encoder exist once per input and are fused; weights of a single input fill
            all of them. A mapping names the inputs, such as `{"previous": 3, "image": 3}`; two inputs without names
            are "flow" and "image". An `Input` says whether an input is optical flow.
        encoder_weights: Weights for the encoder: "imagenet" for the usual ones, "timm/NAME.TAG" for those in timm's
            repositories on the hub, or a file in the layout of torchvision, timm, pycls or edgeseg, or the address of
            such a file, "https://...".
        checkpoint_path: Weights for the whole network: .safetensors of edgeseg, or .pth or .onnx of TI's zoo, or the
            address of such a file, "https://...". An address is downloaded once and noted as the origin of the weights.
        overrides: Other fields of `ModelSpec`, such as `channels=128`, without pretrained weights only; for a
            registered builder, its own keyword arguments.

    Returns:
        The network in training mode. `model(*images)` returns logits by task, `model.predict(photo)` a label map.

    Raises:
        ValueError: unknown name, tag or option, contradicting arguments, or a file that does not fit.
        OSError: a file is missing, or weights cannot be downloaded.

    Example:
        >>> import edgeseg
        >>> model = edgeseg.create_model("fpn_aspp_mobilenetv2_tv_edgeailite", num_classes=5)
        >>> model.tasks["segmentation"].channels, model.in_channels
        (5, (3,))
    """
    if name is None:
        if checkpoint_path is None:
            raise ValueError("pass the name of a model, such as those of edgeseg.list_models(), or checkpoint_path")
        name = named_model(checkpoint_path)
    if not isinstance(encoder_weights, str | os.PathLike | None):
        raise TypeError(f"encoder_weights is 'imagenet', a file or a name of timm, got {encoder_weights!r}")
    source = _resolve(name, pretrained, encoder_weights, checkpoint_path, overrides)
    _check_size(source)
    config = _plan(source, num_classes, tasks, in_channels, overrides)
    model = _build(config)
    adapt = not (num_classes is None and tasks is None and in_channels is None)
    return _fill(model, source, encoder_weights, adapt=adapt, asked=overrides)


def named_model(file: File, advice: str = "pass the name of its model") -> str:
    """The name of the model that a file of weights, or its address, is for.

    Raises:
        OSError: the file is missing, or cannot be downloaded.
        ValueError: it names no model; ends with `advice`.
    """
    from edgeseg.predict.facts import read_facts
    from edgeseg.storage.checkpoint import read_checkpoint_config
    from edgeseg.zoo.pretrained import local_file

    here = local_file(file)
    config = read_checkpoint_config(here)
    if config is not None:
        return config.name
    if here.suffix.lower() == ".onnx" and "edgeseg" in read_facts(here):
        raise ValueError(f"{file} is an exported file and not one of weights; open it with load_segmenter (--exported)")
    raise ValueError(f"{file} does not name its model; {advice}")


@dataclass(frozen=True)
class _Source:
    """The weights and the record that a name stands for.

    Args:
        name: Name of the model without a tag.
        entry: `name.tag` of the catalog's weights, if they are used.
        file: File of weights, if there is one.
        config: The record of its model in that file, if edgeseg wrote the file.
        published: Whether the file is a published model, which is rebuilt from its record.
        where: Where the record stands, for error messages.
        address: The address that the file was fetched from by `checkpoint_path`.
    """

    name: str
    entry: str | None = None
    file: File | None = None
    config: ModelConfig | None = None
    published: bool = False
    where: str = ""
    address: str = ""


def _resolve(
    name: str,
    pretrained: bool,
    encoder_weights: File | None,
    checkpoint_path: File | None,
    overrides: Mapping[str, Any],
) -> _Source:
    """Finds the weights that a name means, after checking that the arguments agree."""
    if not isinstance(pretrained, bool):
        raise ValueError(
            f"pretrained is True or False, got {pretrained!r}; a name has the tag of its weights after a dot, such as "
            f"{name}.{pretrained}"
        )
    published = isinstance(name, str) and name.startswith((HUB, FOLDER))
    architecture, tag = ("", "") if published else split(name)
    entry = find_weights(architecture, tag) if not published and (pretrained or tag) else None
    given = {"pretrained weights": published or entry is not None, "checkpoint_path": checkpoint_path is not None}
    sources = [what for what, is_given in given.items() if is_given]
    if len(sources) > 1:
        raise ValueError("pass pretrained weights or checkpoint_path, not both")
    if sources and encoder_weights is not None:
        raise ValueError(f"encoder_weights would be overwritten by the {sources[0]}; pass one of them")
    if given["pretrained weights"] and overrides:
        meant = _called_otherwise(overrides)
        raise ValueError(f"pretrained weights fit only the network of their name; drop {', '.join(overrides)}{meant}")
    if published:
        from edgeseg.storage.hub import CONFIG_FILE, open_published

        file, config = open_published(name)
        if name.startswith(HUB):
            config = replace(config, notes={"source": name, **config.notes})
        return _Source(config.name, file=file, config=config, published=True, where=f"{name}: {CONFIG_FILE}")
    if entry is None and checkpoint_path is None:
        return _Source(architecture)
    from edgeseg.storage.checkpoint import read_checkpoint_config
    from edgeseg.zoo.pretrained import catalog_name, local_file, weights_file

    if checkpoint_path is None:
        file, address = weights_file(str(entry)), ""
    else:
        file, entry = local_file(checkpoint_path), catalog_name(checkpoint_path)
        address = public_address(str(checkpoint_path)) if is_address(checkpoint_path) else ""
    return _Source(architecture, entry, file, read_checkpoint_config(file), where=str(file), address=address)


def _check_size(source: _Source) -> None:
    """Raises a ValueError if the record of a file describes a larger network than the file has weights for.

    The network is built on the meta device, which takes no memory. What users have registered may not work there, and
    the record may be of another network than the one that was asked for; then only tasks and inputs are counted. The
    files of the catalog are known.
    """
    config = source.config
    if config is None or source.file is None or source.entry is not None:
        return
    import torch

    from edgeseg.storage.checkpoint import count_values

    tensors, values = count_values(source.file)
    too_large = f"{source.where} describes a larger network than {source.file} has weights for"
    if len(config.tasks) + len(config.inputs) > tensors:
        raise ValueError(f"{too_large}: {len(config.tasks)} tasks and {len(config.inputs)} inputs, {tensors} tensors")
    channels = sum(task.channels for task in config.tasks.values()) + sum(config.in_channels)
    if channels > values:
        raise ValueError(f"{too_large}: {channels:,} channels of tasks and inputs, {values:,} values in the file")
    if config.name != source.name:
        return
    try:
        if config.spec is None:
            split(config.name)  # raises if it is not registered here
        with torch.device("meta"):
            model = _build(replace(config, quantization=None))
    except Exception as error:  # of torch too, for widths that cannot be
        if _is_registered(config):
            return
        raise ValueError(f"{source.where}: {error}") from error
    # Without biases and batch norms, which an 8-bit network has folded.
    needed = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)
    if needed > values:
        raise ValueError(f"{too_large}: {needed:,} values, {values:,} in the file")


def _is_registered(config: ModelConfig) -> bool:
    """Whether a user has registered the builder, the encoder or the decoder of a network."""
    from edgeseg.networks.decoders import DECODERS
    from edgeseg.networks.encoders import USER_ENCODERS

    if config.spec is None:
        return config.name in BUILDERS and config.name not in PEERS
    decoder = DECODERS.get(config.spec.decoder)
    return config.spec.encoder in USER_ENCODERS or not getattr(decoder, "__module__", "edgeseg.").startswith("edgeseg.")


def _plan(
    source: _Source,
    num_classes: int | None,
    tasks: Mapping[str, Task] | None,
    in_channels: int | Sequence[int] | Mapping[str, int | Input] | None,
    overrides: Mapping[str, Any],
) -> ModelConfig:
    """The record of the model: what the weights say, changed by what is asked for."""
    known = source.config or ModelConfig(name=source.name)
    notes = dict(known.notes)
    if source.entry is not None:
        notes |= {"weights": source.entry, "license": WEIGHTS[source.entry].license}
    elif source.config is None and source.file is not None:
        notes["source"] = Path(source.file).name
    if source.address and (source.config is None or source.entry or "source" not in notes):
        notes["source"] = source.address
    spec, options = _network(source, overrides)
    tasks = _tasks(source.config, num_classes, tasks)
    inputs = known.inputs if in_channels is None else as_inputs(in_channels)
    if source.config is not None and (tasks, inputs) != (known.tasks, known.inputs):
        notes = inherited(notes)  # some layers are new: these are other weights
    preprocess = known.preprocess
    if inputs != known.inputs:
        preprocess = preprocess.for_channels([*inputs.values()][-1].channels)
    return replace(
        known, name=source.name, spec=spec, options=options, tasks=tasks, inputs=inputs, notes=notes,
        preprocess=preprocess,
    )  # fmt: skip


def _network(source: _Source, overrides: Mapping[str, Any]) -> tuple[ModelSpec | None, Mapping[str, Any]]:
    """The spec of the network, or None and the options of a registered builder."""
    name, known = source.name, source.config
    if known and known.spec and (source.published or (name in FAMILIES and not overrides)):
        decoder = known.spec.decoder
        if name in FAMILIES and FAMILIES[name](encoder=known.spec.encoder).decoder != decoder:
            raise ValueError(f"{source.where} has a network with the decoder {decoder!r}, not a {name!r}")
        return known.spec, {}
    if name in BUILDERS:
        return None, {**(known.options if known else {}), **overrides}
    if name not in ZOO and name not in FAMILIES:
        split(name)  # raises: a published model may name one that is not registered here
    unknown = [key for key in overrides if key not in {field.name for field in fields(ModelSpec)}]
    if unknown:
        options = ", ".join(field.name for field in fields(ModelSpec))
        given = ", ".join(unknown)
        raise ValueError(f"no option {given}{_called_otherwise(unknown)}; the options are {options}")
    if name in FAMILIES and "decoder" in overrides and overrides["decoder"] != FAMILIES[name](encoder="any").decoder:
        raise ValueError(f"{name!r} is a decoder; leave out decoder, or pass {overrides['decoder']!r} as the name")
    trained = known.spec if known and known.name == name else None
    if trained is not None and overrides.get("encoder", trained.encoder) == trained.encoder:
        return replace(trained, **overrides), {}  # what is not asked for is as in the training of the weights
    if name in ZOO:
        return replace(ZOO[name], **overrides), {}
    if "encoder" not in overrides:
        raise ValueError(f"{name!r} needs an encoder: create_model({name!r}, encoder='resnet18')")
    return FAMILIES[name](**overrides), {}


def _called_otherwise(names: Iterable[str]) -> str:
    """Says how edgeseg calls arguments of other libraries."""
    return "".join(f"; {name} is called {ELSEWHERE[name]} here" for name in names if name in ELSEWHERE)


def _tasks(known: ModelConfig | None, num_classes: int | None, tasks: Mapping[str, Task] | None) -> Mapping[str, Task]:
    """The tasks that are asked for, those of the weights, or 19 classes, in this order."""
    if num_classes is not None and tasks is not None:
        raise ValueError("pass num_classes or tasks, not both")
    if tasks is not None:
        if not isinstance(tasks, Mapping) or not tasks or not all(isinstance(task, Task) for task in tasks.values()):
            raise ValueError(f"tasks has a Task for each name, such as {{'depth': Task('depth')}}, got {tasks!r}")
        return tasks
    if num_classes is not None and (not isinstance(num_classes, Integral) or num_classes < 1):
        raise ValueError(f"num_classes must be a number of classes, at least 1, got {num_classes!r}")
    if num_classes is None:
        return known.tasks if known else DEFAULT_TASKS
    if known and {name: task.channels for name, task in known.tasks.items()} == {"segmentation": num_classes}:
        return known.tasks  # the same classes: keep their names and colours
    return {"segmentation": task_of_classes(count=num_classes)}


def _build(config: ModelConfig) -> Pixel2Pixel:
    """The untrained network, quantized if its record says so."""
    from edgeseg.tasks import kind_of

    for task in config.tasks.values():
        kind_of(task).check(task)
    plain = replace(config, quantization=None)
    model: Pixel2Pixel
    if config.name in BUILDERS and config.spec is None:
        try:
            model = BUILDERS[config.name](plain, **config.options)
        except TypeError as error:
            if not config.options:
                raise
            raise ValueError(f"{config.name} cannot be built with the options {config.options}: {error}") from error
    else:
        from edgeseg.networks.build import build

        model = build(plain)
    if config.quantization is None:
        return model
    from edgeseg.networks.quantized import quantize_aware

    return quantize_aware(model, config.quantization)


def _fill(
    model: Pixel2Pixel, source: _Source, encoder_weights: File | None, *, adapt: bool, asked: Collection[str]
) -> Pixel2Pixel:
    """Loads the weights of the encoder or of the whole network, in which the fields `asked` may differ."""
    if encoder_weights is not None:
        from edgeseg.weights.encoder import load_encoder
        from edgeseg.zoo.pretrained import encoder_file, encoder_normalization, encoder_note

        config = getattr(model, "config", None)
        spec = config.spec if config else None
        normalization = encoder_normalization(encoder_weights, spec)
        load_encoder(model, encoder_file(encoder_weights, spec), normalization=normalization)
        if note := encoder_note(encoder_weights, spec):
            notes = model.config.notes
            model.configure(notes={**notes, "encoder": {**notes.get("encoder", {}), **note}})
    if source.file is not None:
        from edgeseg.weights.load import load_network

        notes = getattr(getattr(model, "config", None), "notes", {})
        load_network(model, source.file, adapt=adapt, asked=asked)
        if notes:
            model.configure(notes=notes)  # as planned, with the facts of the catalog
    return model
