"""ImageNet weights of encoders in the layouts of torchvision, timm and pycls, translated to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate

from torch import Tensor

from edgeseg.networks.encoders.mobilenetv2 import STAGES

# Per family: patterns of the layers behind the last feature, which an encoder has no use for.
CLASSIFIERS = re.compile(r"^(?:classifier|fc|head|head\.fc|conv_head|features\.18)\.|^bn2\.")
FIRST_BLOCK = list(accumulate((repeats for _, _, repeats, _ in STAGES), initial=1))
TIMM_FIRST = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
TIMM_OTHER = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}


def to_blocks(state: Mapping[str, Tensor], blocks: Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of an ImageNet file under `<block>.<name>`, and the names of those left out: the classifier.

    Args:
        state: The file's tensors.
        blocks: Names of the encoder's blocks, which tell its family.
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
    """The tensors of a timm file under `<block>.<step>.<name>`, and the names of those that no feature needs.

    Args:
        steps: Step -> block. A step is a child of the timm network, or `<child>_<index>` of one that was flattened.
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
