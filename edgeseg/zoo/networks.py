"""The zoo: one row per network. The networks of TI's zoo have their names there, which end in "edgeailite"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from edgeseg.spec import ModelSpec

# A family has the fields that its members share; a row has those in which one of them differs.
fpn = partial(ModelSpec, decoder="fpn")
near_fpn = partial(fpn, dilations=(1, 2, 3))
unet = partial(ModelSpec, decoder="unet", prediction_stride=2)
deeplabv3plus = partial(ModelSpec, decoder="deeplabv3plus", output_stride=16)
bifpn = partial(ModelSpec, decoder="bifpn", channels=128)
fpnsum = partial(ModelSpec, decoder="fpnsum", channels=128, aspp=False)
espnetv2 = partial(ModelSpec, decoder="espnetv2", aspp=False, output_stride=16, prediction_stride=1)

# For free combinations: `create_model("fpn", encoder="resnet18")`. `register_decoder` adds to them.
FAMILIES: dict[str, Callable[..., ModelSpec]] = {
    "fpn": fpn,
    "unet": unet,
    "deeplabv3plus": deeplabv3plus,
    "bifpn": bifpn,
    "fpnsum": fpnsum,
    "espnetv2": espnetv2,
}

# fmt: off
ZOO: dict[str, ModelSpec] = {
    "deeplabv3plus_mobilenetv2_tv_edgeailite":     deeplabv3plus(encoder="mobilenetv2"),
    "deeplabv3plus_mobilenetv2_tv_fd_edgeailite":  deeplabv3plus(encoder="mobilenetv2", fast_down=True, output_stride=32, prediction_stride=8),
    "deeplabv3plus_mobilenetv2_tv_1p4_edgeailite": deeplabv3plus(encoder="mobilenetv2_1p4", activation="relu6", channels=360, shortcut_channels=64),
    "deeplabv3plus_resnet50_edgeailite":           deeplabv3plus(encoder="resnet50"),
    "deeplabv3plus_resnet50_p5_edgeailite":        deeplabv3plus(encoder="resnet50_p5"),
    "deeplabv3plus_resnet50_p5_fd_edgeailite":     deeplabv3plus(encoder="resnet50_p5", fast_down=True, output_stride=32, prediction_stride=8),
    "deeplabv3plus_regnetx800mf_edgeailite":       deeplabv3plus(encoder="regnetx800mf"),

    "unet_aspp_mobilenetv2_tv_edgeailite":         unet(encoder="mobilenetv2"),
    "unet_aspp_mobilenetv2_tv_fd_edgeailite":      unet(encoder="mobilenetv2", fast_down=True, output_stride=64, prediction_stride=4),
    "unet_aspp_resnet50_edgeailite":               unet(encoder="resnet50"),
    "unet_aspp_resnet50_fd_edgeailite":            unet(encoder="resnet50", fast_down=True, output_stride=64),
    "unet_aspp_regnetx800mf_edgeailite":           unet(encoder="regnetx800mf"),

    "fpn_aspp_mobilenetv2_tv_edgeailite":          fpn(encoder="mobilenetv2"),
    "fpn_aspp_mobilenetv2_tv_fd_edgeailite":       fpn(encoder="mobilenetv2", fast_down=True, output_stride=64, prediction_stride=8),
    "fpn128_aspp_mobilenetv2_tv_fd_edgeailite":    fpn(encoder="mobilenetv2", fast_down=True, output_stride=64, channels=128),
    "fpn_aspp_mobilenetv2_1p4_tv_edgeailite":      fpn(encoder="mobilenetv2_1p4", activation="relu6", channels=360),
    "fpn_mobilenetv2_tv_edgeailite":               fpn(encoder="mobilenetv2", aspp=False),
    "fpn_mobilenetv2_tv_fd_edgeailite":            fpn(encoder="mobilenetv2", aspp=False, fast_down=True, output_stride=64, prediction_stride=8),
    "fpn_aspp_resnet50_edgeailite":                fpn(encoder="resnet50"),
    "fpn_aspp_resnet50_fd_edgeailite":             fpn(encoder="resnet50", fast_down=True, output_stride=64, prediction_stride=8),
    "fpn_aspp_regnetx400mf_edgeailite":            fpn(encoder="regnetx400mf"),
    "fpn_aspp_regnetx800mf_edgeailite":            fpn(encoder="regnetx800mf"),
    "fpn_aspp_regnetx1p6gf_edgeailite":            fpn(encoder="regnetx1p6gf", channels=264),
    "fpn_aspp_regnetx3p2gf_edgeailite":            fpn(encoder="regnetx3p2gf", channels=288),

    "bifpn_aspp_mobilenetv2_tv_edgeailite":        bifpn(encoder="mobilenetv2"),
    "bifpn_mobilenetv2_tv_edgeailite":             bifpn(encoder="mobilenetv2", aspp=False),
    "bifpn_aspp_regnetx400mf_edgeailite":          bifpn(encoder="regnetx400mf"),
    "bifpn_aspp_regnetx800mf_edgeailite":          bifpn(encoder="regnetx800mf"),
    "bifpn_aspp_regnetx1p6gf_edgeailite":          bifpn(encoder="regnetx1p6gf", channels=168),
    "bifpn_aspp_regnetx3p2gf_edgeailite":          bifpn(encoder="regnetx3p2gf", channels=192),

    # Newer encoders of timm, which TI's zoo lacks, with dilations that fit the stride-32 feature of a crop.
    "fpn_aspp_mobilenetv3_large_100":              near_fpn(encoder="mobilenetv3_large_100"),
    "fpn_aspp_mobilenetv4_conv_small":             near_fpn(encoder="mobilenetv4_conv_small"),
    "fpn_aspp_mobilenetv4_conv_medium":            near_fpn(encoder="mobilenetv4_conv_medium"),
    "fpn_aspp_efficientnet_lite0":                 near_fpn(encoder="efficientnet_lite0"),
    "fpn_aspp_repvit_m1_0":                        near_fpn(encoder="repvit_m1_0"),
    "fpn_aspp_fastvit_t8":                         near_fpn(encoder="fastvit_t8"),

    # A decoder of edgeseg's own, see docs/networks.md.
    "fpnsum_mobilenetv2":                          fpnsum(encoder="mobilenetv2", activation="relu6"),
    "fpnsum_mobilenetv4_conv_small":               fpnsum(encoder="mobilenetv4_conv_small"),
    "fpnsum_mobilenetv4_conv_medium":              fpnsum(encoder="mobilenetv4_conv_medium"),
    "fpnsum_efficientnet_lite0":                   fpnsum(encoder="efficientnet_lite0", activation="relu6"),
    "fpnsum_tf_efficientnet_lite2":                fpnsum(encoder="tf_efficientnet_lite2", activation="relu6"),
    "fpnsum_regnetx400mf":                         fpnsum(encoder="regnetx400mf"),

    # The networks of EdgeNets, with published weights for Cityscapes and VOC.
    "espnetv2_s0p5":                               espnetv2(encoder="espnetv2_s0p5"),
    "espnetv2_s1p0":                               espnetv2(encoder="espnetv2_s1p0"),
    "espnetv2_s1p5":                               espnetv2(encoder="espnetv2_s1p5"),
    "espnetv2_s2p0":                               espnetv2(encoder="espnetv2_s2p0"),
}

# Other names of the same rows. TI's zoo has a "_bgr" twin of most RegNetX networks, with the same layers, meant for BGR
# input; here the channel order belongs to the weights. The last name is used only in the documents of TI's zoo.
ALIASES: dict[str, str] = {
    "deeplabv3plus_regnetx800mf_bgr_edgeailite":       "deeplabv3plus_regnetx800mf_edgeailite",
    "unet_aspp_regnetx800mf_bgr_edgeailite":           "unet_aspp_regnetx800mf_edgeailite",
    "fpn_aspp_regnetx400mf_bgr_edgeailite":            "fpn_aspp_regnetx400mf_edgeailite",
    "fpn_aspp_regnetx800mf_bgr_edgeailite":            "fpn_aspp_regnetx800mf_edgeailite",
    "fpn_aspp_regnetx1p6gf_bgr_edgeailite":            "fpn_aspp_regnetx1p6gf_edgeailite",
    "fpn_aspp_regnetx3p2gf_bgr_edgeailite":            "fpn_aspp_regnetx3p2gf_edgeailite",
    "bifpn_aspp_regnetx400mf_bgr_edgeailite":          "bifpn_aspp_regnetx400mf_edgeailite",
    "bifpn_aspp_regnetx800mf_bgr_edgeailite":          "bifpn_aspp_regnetx800mf_edgeailite",
    "bifpn_aspp_regnetx1p6gf_bgr_edgeailite":          "bifpn_aspp_regnetx1p6gf_edgeailite",
    "bifpn_aspp_regnetx3p2gf_bgr_edgeailite":          "bifpn_aspp_regnetx3p2gf_edgeailite",
    "unet_edgeailite_pixel2pixel_aspp_mobilenetv2_tv": "unet_aspp_mobilenetv2_tv_edgeailite",
}
# fmt: on


@dataclass(frozen=True)
class Peer:
    """A network of another project, with which the table of TI's zoo compares its own.

    Args:
        module: Module of `edgeseg.networks.peers` that builds it.
        options: Keyword arguments of the module's `build`.
    """

    module: str
    options: Mapping[str, Any] = field(default_factory=dict)


# fmt: off
PEERS: dict[str, Peer] = {
    "erfnet":                          Peer("erfnet"),
    "swiftnet_mobilenetv2":            Peer("swiftnet", {"encoder": "mobilenetv2"}),
    "deeplab_mobilenetv2":             Peer("deeplab", {"encoder": "mobilenetv2_100"}),
    "deeplabv3plus_xception65":        Peer("deeplab", {"encoder": "xception65", "dilations": (6, 12, 18)}),
    "fcn_resnet50_tv":                 Peer("torchvision", {"name": "fcn_resnet50"}),
    "deeplabv3_resnet50_tv":           Peer("torchvision", {"name": "deeplabv3_resnet50"}),
    "deeplabv3_mobilenetv3_large_tv":  Peer("torchvision", {"name": "deeplabv3_mobilenet_v3_large"}),
    "lraspp_mobilenetv3_large_tv":     Peer("torchvision", {"name": "lraspp_mobilenet_v3_large"}),
}
# fmt: on
