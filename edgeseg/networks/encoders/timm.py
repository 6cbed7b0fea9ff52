"""Any timm network with a feature pyramid as an encoder of images of any size.

Channels and strides are read from the network. Whether it takes any size is found by running it without data, on
PyTorch's meta device, where this costs no computation.
"""

from __future__ import annotations

import textwrap
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.networks.encoders.encoder import Encoder, SingleInputEncoder
from edgeseg.networks.encoders.trunk import Block, Trunk

# Options by which timm builds networks of a fixed size for any size, where it can: Swin and its relatives; ViTs.
ANY_SIZE: tuple[Mapping[str, Any], ...] = ({}, {"strict_img_size": False}, {"dynamic_img_size": True})
# A tiny and a large size, both odd: networks of a fixed size or with a smallest size fail at one of them.
TRIAL_SIZES = ((1, 1), (517, 719))
# Pixels by which the size of a feature may differ from that of the image divided by its stride.
SLACK = 8
# What networks raise that do not take a size or an option.
FAULTS = (RuntimeError, AssertionError, AttributeError, IndexError, TypeError, ValueError)


@dataclass(frozen=True)
class _Plan:
    """How a timm network becomes an encoder.

    Args:
        options: For `timm.create_model`.
        split: Split the network into blocks; otherwise use it as a whole.
        output_stride: Set the strides of the last block to 1 so that it ends at this stride; None leaves them.
        multiple, minimum: The padding that the network needs, see `Encoder`.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    split: bool = True
    output_stride: int | None = None
    multiple: int = 1
    minimum: int = 0


def build_timm_encoder(
    name: str, in_channels: Sequence[int], output_stride: int | None
) -> Encoder | SingleInputEncoder:
    """Builds an untrained timm network as an encoder: a row of blocks if it can be split, otherwise the whole network.

    Raises:
        ValueError: the model has no feature pyramid, cannot be split for several inputs, cannot end at the stride, or
            takes images of a fixed size only.
    """
    return _assembled(name, in_channels, _plan(name, tuple(in_channels), output_stride))


@lru_cache(maxsize=256)
def _plan(name: str, in_channels: tuple[int, ...], output_stride: int | None) -> _Plan:
    """Finds the plan by which the network takes images of any size."""
    network = _on_meta(name, in_channels[0])
    strides = _pyramid_strides(name, network)
    splits = [split for split in (True, False) if (any(_steps(network)) if split else len(in_channels) == 1)]
    single = f"the timm encoder {name!r} takes a single input: its first stages cannot be split off"
    if not splits:
        raise ValueError(single)
    own_size = int(getattr(network, "default_cfg", {}).get("input_size", (3, 224, 224))[-1])
    faults: list[str] = []
    for start in _starts(strides, output_stride, splits):
        encoder = _tried(name, in_channels, start, output_stride)
        if encoder is None:
            continue
        for multiple, minimum in _paddings(encoder.strides[-1], own_size):
            encoder.multiple, encoder.minimum = multiple, minimum
            fault = _fault(encoder, in_channels)
            if fault is None:
                return replace(start, multiple=multiple, minimum=minimum)
            faults.append(fault)
    if len(in_channels) > 1:
        _plan(name, in_channels[:1], output_stride)  # raises if the number of inputs is not what is wrong
        raise ValueError(single)
    if output_stride is not None and output_stride < strides[-1]:
        _plan(name, in_channels, None)  # raises if the stride is not what is wrong
        raise ValueError(f"the timm encoder {name!r} ends at stride {strides[-1]}; pass output_stride={strides[-1]}")
    raise ValueError(
        f"the timm encoder {name!r} does not take images of any size, as an encoder must: it is built for "
        f"{own_size}x{own_size}, and timm cannot change this ({textwrap.shorten(faults[0], 80)})"
    )


def _paddings(stride: int, own_size: int) -> list[tuple[int, int]]:
    """The `multiple` and `minimum` of an encoder to try, from the least padding to the most."""
    return [(1, 0), (1, stride), (1, 4 * stride), (stride, 0), (2 * stride, 0), (own_size, 0)]


def _starts(strides: Sequence[int], output_stride: int | None, splits: Sequence[bool]) -> Iterator[_Plan]:
    """The plans to try, without padding."""
    for any_size in ANY_SIZE:
        if output_stride is None or output_stride >= strides[-1]:
            yield from (_Plan(any_size, split) for split in splits)
            continue
        # As TI's zoo does it, without dilation; then as timm does, which replaces the strides by dilations.
        if True in splits and output_stride == strides[-2]:
            yield _Plan(any_size, True, output_stride)
        yield from (_Plan({**any_size, "output_stride": output_stride}, split) for split in splits)


def _tried(
    name: str, in_channels: Sequence[int], plan: _Plan, output_stride: int | None
) -> Encoder | SingleInputEncoder | None:
    """The encoder of a plan on the meta device; None if the network lacks the options, or cannot end at the stride."""
    try:
        with torch.device("meta"):
            encoder = _assembled(name, in_channels, plan).eval()
    except ValueError:
        return None
    if output_stride is not None and encoder.strides[-1] > output_stride:
        return None
    return encoder


@torch.no_grad()
def _fault(encoder: Encoder | SingleInputEncoder, in_channels: Sequence[int]) -> str | None:
    """Runs an encoder on the meta device; returns what is wrong with its features, if anything."""
    for height, width in TRIAL_SIZES:
        try:
            features = encoder([torch.empty(1, channels, height, width, device="meta") for channels in in_channels])
        except FAULTS as error:
            return str(error) or type(error).__name__
        for feature, channels, stride in zip(features, encoder.channels, encoder.strides, strict=True):
            if not isinstance(feature, Tensor) or feature.ndim != 4:
                return "its features are not of the form [N,C,H,W]"
            off = max(abs(feature.shape[2] - height / stride), abs(feature.shape[3] - width / stride))
            if feature.shape[1] != channels or off > SLACK:
                return f"a feature of stride {stride} has the shape {list(feature.shape)} at {height}x{width}"
    return None


def _assembled(name: str, in_channels: Sequence[int], plan: _Plan) -> Encoder | SingleInputEncoder:
    """Builds the encoder of a plan."""
    networks = [features_only(name, channels, plan.options) for channels in in_channels]
    encoder: Encoder | SingleInputEncoder
    if plan.split:
        encoder = Encoder([timm_trunk(name, network, plan.output_stride) for network in networks])
    else:
        encoder = whole(networks[0])
    encoder.multiple, encoder.minimum = plan.multiple, plan.minimum
    return encoder


def whole(network: Any) -> SingleInputEncoder:
    """Wraps a timm network that returns its features as an encoder for a single input."""
    nhwc = str(getattr(network, "output_fmt", "")).endswith("NHWC")  # Swin and its relatives
    info = network.feature_info
    return SingleInputEncoder(network, info.channels(), info.reduction(), channels_last=nhwc)


def _on_meta(name: str, in_channels: int) -> Any:
    with torch.device("meta"):
        return features_only(name, in_channels, {})


def _pyramid_strides(name: str, network: Any) -> list[int]:
    strides = list(network.feature_info.reduction())
    if len(set(strides)) != len(strides) or len(strides) < 2:
        raise ValueError(f"the timm model {name!r} has features at strides {strides}: not a pyramid")
    return strides


def features_only(name: str, in_channels: int, options: Mapping[str, Any]) -> Any:
    """Builds the untrained timm network `name`, which returns its features, one per stride.

    Raises:
        ValueError: the model has no feature pyramid, or not these options.
    """
    import timm

    settings: dict[str, Any] = {"features_only": True, "pretrained": False, "in_chans": in_channels, **options}
    try:
        network: Any = timm.create_model(name, **settings)
        strides = list(network.feature_info.reduction())
        if "output_stride" in options and len(set(strides)) < len(strides):
            last = {stride: index for index, stride in enumerate(strides)}
            network = timm.create_model(name, **settings, out_indices=tuple(last.values()))
    except FAULTS as error:
        raise ValueError(f"the timm model {name!r} does not return features: {error}") from error
    return network


def timm_trunk(name: str, network: Any, output_stride: int | None) -> Trunk:
    """Splits a timm network that is a row of modules into blocks, one per feature.

    Raises:
        ValueError: the last block cannot keep its size, so that the network would end at `output_stride`.
    """
    ends = _feature_ends(network)
    blocks: list[Block] = []
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for step, module in _steps(network):
        modules[step] = module
        if step in ends:
            channels, stride = ends[step]
            blocks.append(Block(f"stage{len(blocks)}", nn.Sequential(modules), channels, stride))
            modules = OrderedDict()
    if output_stride is not None:
        blocks[-1] = _keep_size(name, blocks[-1], output_stride)
    stem = sum(block.stride <= 4 for block in blocks)
    return Trunk(blocks, stem=max(stem, 1))


def _steps(network: Any) -> Iterator[tuple[str, nn.Module]]:
    from timm.models import FeatureListNet

    if isinstance(network, FeatureListNet) and not str(network.output_fmt).endswith("NHWC"):
        yield from network.named_children()
    elif hasattr(network, "conv_stem") and isinstance(getattr(network, "blocks", None), nn.Sequential):
        for name, module in network.named_children():  # EfficientNet and MobileNetV3 family
            if name == "blocks":
                yield from ((f"blocks_{i}", block) for i, block in module.named_children())
            else:
                yield name, module


def _feature_ends(network: Any) -> dict[str, tuple[int, int]]:
    """Channels and stride of each feature, by the name of the step that computes it."""
    info = network.feature_info
    names = getattr(network, "return_layers", None) or [name.replace(".", "_") for name in info.module_name()]
    return dict(zip(names, zip(info.channels(), info.reduction(), strict=True), strict=True))


def _keep_size(name: str, block: Block, output_stride: int) -> Block:
    """Sets the strides of the last block to 1, without dilation, as DeepLabV3+ in TI's zoo does.

    Modules that hold other modules may have a stride too, which is that of a convolution in them.
    """
    strided: list[Any] = [m for m in block.module.modules() if getattr(m, "stride", 1) not in (1, (1, 1))]
    working = [module for module in strided if not any(module.children())]
    if not working or not all(isinstance(m, nn.Conv2d) and m.kernel_size[0] % 2 for m in working):
        raise ValueError(f"the timm encoder {name!r} ends at stride {block.stride}; pass output_stride={block.stride}")
    for module in strided:
        module.stride = (1, 1) if isinstance(module.stride, tuple) else 1
    return block._replace(stride=output_stride)
