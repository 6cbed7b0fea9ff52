"""The results table of TI's zoo (edgeai-torchvision, edgeailite), as published, and how each figure was counted there."""

from __future__ import annotations

from typing import NamedTuple

CLASSES = {"Cityscapes": 19, "ADE20K32": 32, "COCOSeg21": 21}


class Row(NamedTuple):
    """One row of the table. `convention` is a field of `edgeseg.networks.cost.Complexity`."""

    dataset: str
    system: str
    name: str  # in our zoo, "" where it has no such network
    width: int
    height: int
    gmacs: str
    miou: str
    convention: str = "gmacs"
    note: str = ""
    counted: tuple[int, int] | None = None  # width and height that the GMACs are of, where it is another size


class OtherTasks(NamedTuple):
    """A figure that TI's documents state for a network with other tasks than one segmentation."""

    what: str
    name: str
    inputs: int
    channels: tuple[int, ...]
    gmacs: str
    score: str
    note: str = ""


TRUNCATED = "printed without rounding up"
SAME = "probably a slip in TI's table: the 1536x768 row of the same network states 15.07, which is four times 3.767 and not 3.84"
X16 = "probably a slip in TI's table: TI's page on quantization states 26.49 for the same network, size and mIoU"
WHOLE = "the GMACs are for whole images of 2049x1025, which TensorFlow's zoo scored; 769x769 is the size in training"
SWIFTNET = (
    "the network has the 2.4 M parameters of the paper; its convolutions have 38.15 GMACs, all its operators 39.05"
)
ERFNET = "TI cites the figure from elsewhere: the convolutions of the paper's network have 26.60 GMACs, all its operators 26.82"

# fmt: off
ROWS = [
    Row("ADE20K32",   "MobileNetV2S16+DeepLabV3PlusEdgeAILite",      "deeplabv3plus_mobilenetv2_tv_edgeailite",  512,  512, "3.28",   "51.01", "all_operators_folded"),
    Row("ADE20K32",   "MobileNetV2+UNetEdgeAILite",                  "unet_aspp_mobilenetv2_tv_edgeailite",      512,  512, "2.427",  "49.95", "all_operators_folded"),
    Row("ADE20K32",   "MobileNetV2+FPNEdgeAILite",                   "fpn_aspp_mobilenetv2_tv_edgeailite",       512,  512, "3.481",  "50.72", "all_operators_folded"),
    Row("ADE20K32",   "MobileNetV2-1.4+FPNEdgeAILite",               "fpn_aspp_mobilenetv2_1p4_tv_edgeailite",   512,  512, "6.646",  "52.93", "all_operators_folded"),
    Row("ADE20K32",   "RegNetX400MF+FPNEdgeAILite",                  "fpn_aspp_regnetx400mf_edgeailite",         384,  384, "3.1526", "51.03", "all_operators"),
    Row("ADE20K32",   "RegNetX800MF+FPNEdgeAILite",                  "fpn_aspp_regnetx800mf_edgeailite",         512,  512, "8.0683", "53.29", "all_operators"),
    Row("COCOSeg21",  "MobileNetV2S16+DeepLabV3PlusEdgeAILite",      "deeplabv3plus_mobilenetv2_tv_edgeailite",  512,  512, "3.161",  "57.77"),
    Row("COCOSeg21",  "MobileNetV2+UNetEdgeAILite",                  "unet_aspp_mobilenetv2_tv_edgeailite",      512,  512, "2.009",  "57.01"),
    Row("COCOSeg21",  "MobileNetV2+FPNEdgeAILite",                   "fpn_aspp_mobilenetv2_tv_edgeailite",       512,  512, "3.357",  ""),
    Row("COCOSeg21",  "RegNetX800MF+FPNEdgeAILite",                  "fpn_aspp_regnetx800mf_edgeailite",         512,  512, "7.864",  "61.15"),
    Row("Cityscapes", "RegNetX800MF+FPNEdgeAILite",                  "fpn_aspp_regnetx800mf_edgeailite",         768,  384, "8.84",   "72.01"),
    Row("Cityscapes", "RegNetX1.6GF+FPNEdgeAILite",                  "fpn_aspp_regnetx1p6gf_edgeailite",        1024,  512, "24.29",  "75.84", note=X16),
    Row("Cityscapes", "RegNetX3.2GF+FPNEdgeAILite",                  "fpn_aspp_regnetx3p2gf_edgeailite",        1024,  512, "49.40",  "77.24"),
    Row("Cityscapes", "RegNetX3.2GF+FPNEdgeAILite",                  "fpn_aspp_regnetx3p2gf_edgeailite",        1536,  768, "111.16", "78.90"),
    Row("Cityscapes", "RegNetX400MF+FPNEdgeAILite",                  "fpn_aspp_regnetx400mf_edgeailite",         768,  384, "6.09",   "68.03"),
    Row("Cityscapes", "RegNetX400MF+FPNEdgeAILite",                  "fpn_aspp_regnetx400mf_edgeailite",        1536,  768, "24.37",  "73.96"),
    Row("Cityscapes", "MobileNetV2S16+DeepLabV3PlusEdgeAILite",      "deeplabv3plus_mobilenetv2_tv_edgeailite",  768,  384, "3.54",   "69.13", note=TRUNCATED),
    Row("Cityscapes", "MobileNetV2+UNetEdgeAILite",                  "unet_aspp_mobilenetv2_tv_edgeailite",      768,  384, "2.20",   "68.94"),
    Row("Cityscapes", "MobileNetV2+FPNEdgeAILite",                   "fpn_aspp_mobilenetv2_tv_edgeailite",       768,  384, "3.84",   "70.39", note=SAME),
    Row("Cityscapes", "MobileNetV2+FPNEdgeAILite",                   "fpn_aspp_mobilenetv2_tv_edgeailite",      1536,  768, "15.07",  "74.61"),
    Row("Cityscapes", "FD-MobileNetV2+FPNEdgeAILite",                "fpn_aspp_mobilenetv2_tv_fd_edgeailite",   1536,  768, "3.96",   "71.28"),
    Row("Cityscapes", "FD-MobileNetV2+FPNEdgeAILite",                "fpn_aspp_mobilenetv2_tv_fd_edgeailite",   2048, 1024, "7.03",   "72.67", note=TRUNCATED),
    Row("Cityscapes", "MobileNetV2S16+DeepLabV3PlusEdgeAILite-QAT",  "deeplabv3plus_mobilenetv2_tv_edgeailite",  768,  384, "3.54",   "68.77", note=TRUNCATED),
    Row("Cityscapes", "MobileNetV2+UNetEdgeAILite-QAT",              "unet_aspp_mobilenetv2_tv_edgeailite",      768,  384, "2.20",   "68.18"),
    Row("Cityscapes", "MobileNetV2+FPNEdgeAILite-QAT",               "fpn_aspp_mobilenetv2_tv_edgeailite",       768,  384, "3.84",   "69.88", note=SAME),
    Row("Cityscapes", "MobileNetV2+DeepLab",                         "deeplab_mobilenetv2",                      769,  769, "21.27",  "70.71", note=WHOLE, counted=(2049, 1025)),
    Row("Cityscapes", "MobileNetV3+DeepLab",                         "lraspp_mobilenetv3_large_tv",              769,  769, "15.95",  "72.41", note=WHOLE, counted=(2049, 1025)),
    Row("Cityscapes", "Xception65+DeepLab",                          "deeplabv3plus_xception65",                 769,  769, "418.64", "78.79", note=WHOLE, counted=(2049, 1025)),
    Row("Cityscapes", "ERFNet",                                      "erfnet",                                   1024,  512, "27.705", "69.7", note=ERFNET),
    Row("Cityscapes", "MobileNetV2+SwiftNet",                        "swiftnet_mobilenetv2",                    2048, 1024, "41.0",   "75.3", note=SWIFTNET),
    Row("Cityscapes", "ResNet50+FCN",                                "fcn_resnet50_tv",                          1040,  520, "285.4",  "71.6"),
    Row("Cityscapes", "ResNet50+DeepLabV3",                          "deeplabv3_resnet50_tv",                    1040,  520, "337.5",  "73.5"),
]
# fmt: on


# Networks with other tasks and with several, from TI's documents: all at 768x384, on MobileNetV2 or ResNet50.
# fmt: off
OTHER_TASKS = [
    OtherTasks("depth",                              "deeplabv3plus_mobilenetv2_tv_edgeailite", 1, (1,),      "3.44",  "KITTI ARD 7.05 %"),
    OtherTasks("depth",                              "fpn_aspp_resnet50_edgeailite",            1, (1,),      "28.52", "KITTI ARD 6.31 %"),
    OtherTasks("motion from flow and image",         "deeplabv3plus_mobilenetv2_tv_edgeailite", 2, (2,),      "3.92",  "Cityscapes mIoU 85.5"),
    OtherTasks("depth, five classes and motion",     "deeplabv3plus_mobilenetv2_tv_edgeailite", 2, (1, 5, 2), "5.71",  "ARD 12.64 %, mIoU 85.53, mIoU 84.95", "the published figure is for an encoder that was never published"),
]
# fmt: on


def agrees(computed: float, printed: str) -> bool:
    """Whether `computed`, rounded or truncated to the digits of `printed`, is that figure."""
    digits = len(printed.partition(".")[2])
    truncated = int(computed * 10**digits) / 10**digits
    return printed in (f"{computed:.{digits}f}", f"{truncated:.{digits}f}")
