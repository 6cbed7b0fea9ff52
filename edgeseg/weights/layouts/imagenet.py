"""Translates ImageNet weights from the layouts of torchvision, timm and pycls to that of edgeseg's encoders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate

from torch import Tensor

from edgeseg.networks.encoders.mobilenetv2 import STAGES

# Layers after the last feature, which an encoder does not have.
CLASSIFIERS = re.compile(r"^(?:classifier|fc|head|head\.fc|conv_head|features\.18)\.|^bn2\.")
# Number of the first block of each stage of MobileNetV2.
FIRST_BLOCK = list(accumulate((repeats for _, _, repeats, _ in STAGES), initial=1))
# timm's names of the layers in MobileNetV2's blocks, in the first stage and in the others.
TIMM_FIRST = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
TIMM_OTHER = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}


def to_blocks(state: Mapping[str, Tensor], blocks: Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Renames the tensors of an ImageNet file to `<block>.<name>`.

    Args:
        state: The tensors of the file.
        blocks: Names of the encoder's blocks, by which its family is recognized.

    Returns:
        The renamed tensors, and the names of those that were left out: the classifier's.
    """
    ignored = [key for key in state if CLASSIFIERS.match(key)]
    tensors = {key: value for key, value in state.items() if key not in ignored}
    if "s4" in blocks:
        pycls = any(".f.a_bn." in key for key in tensors)
        tensors = {_regnetx(key): value for key, value in tensors.items()}
        stem = "stem.conv.weight"
        if pycls and stem in tensors:
            tensors[stem] = tensors[stem].flip(1)  # pycls trains on BGR
    elif "17" in blocks:
        tensors = {_mobilenetv2(key): value for key, value in tensors.items()}
    return tensors, ignored


def _mobilenetv2(key: str) -> str:
    if match := re.match(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(\w+)$", key):  # timm
        stage, index, layer, name = int(match[1]), int(match[2]), match[3], match[4]
        layers = TIMM_FIRST if stage == 0 else TIMM_OTHER
        return f"{FIRST_BLOCK[stage] + index}.conv.{layers.get(layer, layer)}.{name}"
    key = re.sub(r"^conv_stem\.", "0.0.", key)
    key = re.sub(r"^bn1\.", "0.1.", key)
    return key.removeprefix("features.")  # torchvision


def _regnetx(key: str) -> str:
    if match := re.match(r"trunk_output\.block(\d)\.block\d-(\d+)\.(.+)", key):  # torchvision
        rest = re.sub(r"^proj\.0\.", "proj.", match[3])
        rest = re.sub(r"^proj\.1\.", "bn.", rest)
        rest = re.sub(r"^f\.([abc])\.0\.", r"f.\1.", rest)
        rest = re.sub(r"^f\.([abc])\.1\.", r"f.\1_bn.", rest)
        return f"s{match[1]}.b{int(match[2]) + 1}.{rest}"
    if match := re.match(r"(s\d\.b\d+)\.conv(\d)\.(conv|bn)\.(\w+)", key):  # timm
        letter = "abc"[int(match[2]) - 1]
        return f"{match[1]}.f.{letter}{'' if match[3] == 'conv' else '_bn'}.{match[4]}"
    key = re.sub(r"\.downsample\.conv\.", ".proj.", key)
    key = re.sub(r"\.downsample\.bn\.", ".bn.", key)
    key = re.sub(r"^stem\.0\.", "stem.conv.", key)
    return re.sub(r"^stem\.1\.", "stem.bn.", key)


def timm_to_blocks(state: Mapping[str, Tensor], steps: Mapping[str, str]) -> tuple[dict[str, Tensor], list[str]]:
    """Renames the tensors of a timm file to `<block>.<step>.<name>`.

    Args:
        state: The tensors of the file.
        steps: For each step, the name of its block. A step is a child of the timm network, or `<child>_<index>` if the
            child was flattened.

    Returns:
        The renamed tensors, and the names of those that were left out, since no feature needs them.
    """
    tensors, ignored = {}, []
    for key, value in state.items():
        child, _, rest = key.partition(".")
        index, _, flat_rest = rest.partition(".")
        if f"{child}_{index}" in steps:
            child, rest = f"{child}_{index}", flat_rest
        if child in steps:
            tensors[f"{steps[child]}.{child}.{rest}"] = value
        else:
            ignored.append(key)
    return tensors, ignored
