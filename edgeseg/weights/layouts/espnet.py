"""The layout of ESPNetv2's published checkpoints (repository EdgeNets), translated to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

Rename = tuple[re.Pattern[str], str]


def _rules(rules: Mapping[str, str]) -> list[Rename]:
    return [(re.compile(pattern), replacement) for pattern, replacement in rules.items()]


# Applied one after another. Their convolution, batch norm and PReLU (conv, bn, act) are numbers in ours.
LAYERS = _rules(
    {
        r"\.spp_dw\.(\d)\.conv\.": r".branches.\1.",
        r"\.proj_1x1\.": ".reduce.",
        r"\.conv_1x1_exp\.": ".expand.",
        r"\.br_after_cat\.bn\.": ".norm.0.",
        r"\.br_after_cat\.act\.": ".norm.1.",
        r"\.module_act\.": ".activation.",
        r"\.inp_reinf\.": ".reinforce.",
        r"_0\.act\.": "_0.activation.",
        r"\.level(\d)_0\.": r".down\1.",
        r"\.conv\.": ".0.",
        r"\.bn\.": ".1.",
        r"\.act\.": ".2.",
        r"\.cbr\.": ".",
        r"\.stages\.": ".pool.stages.",
        r"\.projection_layer\.": ".pool.project.",
        r"\.merge_layer\.0\.br\.": ".pool.norm.",
        r"\.merge_layer\.2\.": ".pool.join.",
        r"\.merge_layer\.3\.": ".widen.0.",
        r"\.br\.br\.0\.": ".widen.1.",
        r"\.br\.br\.1\.": ".widen.2.",
        r"\.wt_layer\.1\.": ".gate.weight.",
        r"\.expansion_layer\.": ".gate.expand.",
    }
)
PLACES = _rules(
    {
        r"^base_net\.": "encoder.network.",
        r"^bu_dec_l4\.widen\.0\.": "{decoder}.head.1.",
        r"^bu_dec_l4\.": "{decoder}.",
        r"^bu_dec_l1\.|^merge_enc_dec_l2\.": "{decoder}.levels_up.0.",
        r"^bu_dec_l2\.|^merge_enc_dec_l3\.": "{decoder}.levels_up.1.",
        r"^bu_dec_l3\.|^merge_enc_dec_l4\.": "{decoder}.levels_up.2.",
        r"^bu_br_l2\.": "{decoder}.levels_up.0.merge.",
        r"^bu_br_l3\.": "{decoder}.levels_up.1.merge.",
        r"^bu_br_l4\.": "{decoder}.levels_up.2.merge.",
    }
)
# A strided block ends before its last activation, so that these parameters were never used.
UNUSED = re.compile(r"^base_net\.level\d_0\.eesp\.module_act\.weight$")
CITYSCAPES_OUTPUTS = 20  # 19 classes, and a background that no label ever was


def is_espnet(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of EdgeNets' ESPNetv2 for segmentation."""
    return "base_net.level1.conv.weight" in state and "bu_dec_l1.merge_layer.3.weight" in state


def convert(state: Mapping[str, Tensor], *, tasks: Sequence[str], classes: int) -> dict[str, Tensor]:
    """`state` under our keys.

    Args:
        state: The tensors of the file.
        tasks: Names of the tasks of the model; the first gets the decoder.
        classes: Number of classes of that task. For 19 classes the unused 20th output of Cityscapes files is left out.
    """
    converted = {}
    for key, tensor in state.items():
        if UNUSED.match(key):
            continue
        name = f".{key}"
        for pattern, replacement in LAYERS:
            name = pattern.sub(replacement, name)
        name = name.removeprefix(".")
        for pattern, replacement in PLACES:
            name = pattern.sub(replacement, name)
        name = name.replace("{decoder}", f"decoders.{tasks[0]}")
        if ".head.1." in name and classes == CITYSCAPES_OUTPUTS - 1 and len(tensor) == CITYSCAPES_OUTPUTS:
            tensor = tensor[:classes]
        converted[name] = tensor
    return converted
