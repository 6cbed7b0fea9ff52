"""Any timm network with a feature pyramid as an encoder: channels and strides are read from it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from edgeseg.networks.encoders.encoder import Encoder, SingleInputEncoder
from edgeseg.networks.encoders.trunk import Block, Trunk


def build_timm_encoder(name: str, in_channels: Sequence[int], output_stride: int) -> Encoder | SingleInputEncoder:
    """Builds an untrained timm network as an encoder: a row of blocks if it can be split, otherwise the whole network.

    Raises:
        ValueError: the model has no feature pyramid, cannot be split for several inputs, or cannot end at the stride.
    """
    networks = [features_only(name, channels) for channels in in_channels]
    trunks = [timm_trunk(name, network, output_stride) for network in networks]
    if all(trunk is not None for trunk in trunks):
        return Encoder([trunk for trunk in trunks if trunk is not None])
    if len(networks) > 1:
        raise ValueError(f"the timm encoder {name!r} takes a single input: its first stages cannot be split off")
    pyramid = whole(networks[0])
    pyramid.check_output_stride(name, output_stride)
    return pyramid


def whole(network: Any) -> SingleInputEncoder:
    """Wraps a timm network that returns its features as an encoder for a single input."""
    nhwc = str(getattr(network, "output_fmt", "")).endswith("NHWC")  # Swin and its relatives
    info = network.feature_info
    return SingleInputEncoder(network, info.channels(), info.reduction(), channels_last=nhwc)


def features_only(name: str, in_channels: int) -> Any:
    """Builds the untrained timm network `name`, which returns its features.

    Raises:
        ValueError: the model has no feature pyramid.
    """
    import timm

    try:
        network: Any = timm.create_model(name, features_only=True, pretrained=False, in_chans=in_channels)
    except (RuntimeError, AttributeError, TypeError, AssertionError) as error:
        raise ValueError(f"the timm model {name!r} does not return features: {error}") from error
    strides = list(network.feature_info.reduction())
    if len(set(strides)) != len(strides) or len(strides) < 2:
        raise ValueError(f"the timm model {name!r} has features at strides {strides}: not a pyramid")
    return network


def timm_trunk(name: str, network: Any, output_stride: int) -> Trunk | None:
    """Splits a timm network into blocks, one per feature; returns None if it is not a plain row of modules."""
    steps = list(_steps(network))
    if not steps:
        return None
    ends = _feature_ends(network)
    blocks: list[Block] = []
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for step, module in steps:
        modules[step] = module
        if step in ends:
            channels, stride = ends[step]
            blocks.append(Block(f"stage{len(blocks)}", nn.Sequential(modules), channels, stride))
            modules = OrderedDict()
    if output_stride < blocks[-1].stride:
        blocks[-1] = _keep_size(name, blocks[-1], blocks[-2].stride, output_stride)
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


def _keep_size(name: str, block: Block, stride_before: int, output_stride: int) -> Block:
    """Sets the strides of the last block to 1, without dilation, as DeepLabV3+ in TI's zoo does."""
    strided: list[Any] = [m for m in block.module.modules() if getattr(m, "stride", 1) not in (1, (1, 1))]
    plain = all(isinstance(m, nn.Conv2d) and m.kernel_size[0] % 2 for m in strided)
    if output_stride != stride_before or not plain:
        raise ValueError(f"the timm encoder {name!r} ends at stride {block.stride}; pass output_stride={block.stride}")
    for module in strided:
        module.stride = (1, 1)
    return block._replace(stride=output_stride)
