"""The catalog of trained weights: one row per set of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from edgeseg.labels import segmentation_task
from edgeseg.spec import Preprocess, Task


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One set of trained weights: where the file is, what it was trained for, and what it scores.

    Args:
        addresses: Addresses, tried in turn: `package:FILE` (in `edgeseg/weights/files/`),
            `hf-hub:OWNER/REPO/FILE[@REVISION]`, or `https://...`.
        format: "edgeseg" (safetensors), "checkpoint" (a .pth file of TI's zoo or EdgeNets) or "onnx" (of TI's zoo).
        sha256: Hex digest of the file; None if it is not known: the hash of the first download is then stored.
        labels: Dataset that names the classes and colours, see `edgeseg.labels`; None if only the file says how many
            classes there are.
        preprocess: How photos become input tensors.
        published_miou: Mean IoU that the publisher states, in percent.
        measured_miou: Mean IoU that was measured with edgeseg, in percent.
        protocol: Images, sizes and classes of the mean IoU.
        license: Terms of use of these weights, including those of the dataset.
        notes: Anything else that a user should know.
        default: Whether `pretrained=True` loads these weights.
    """

    addresses: tuple[str, ...]
    format: Literal["edgeseg", "checkpoint", "onnx"]
    sha256: str | None = None
    labels: str | None
    preprocess: Preprocess
    published_miou: float | None = None
    measured_miou: float | None = None
    protocol: str
    license: str
    notes: str = ""
    default: bool = False

    @property
    def tasks(self) -> Mapping[str, Task] | None:
        """The tasks of the weights; None if only the file says what they are."""
        return None if self.labels is None else {"segmentation": segmentation_task(self.labels)}


@dataclass(frozen=True)
class EncoderWeights:
    """ImageNet weights of an encoder. Every address has the same tensors; addresses are tried in turn."""

    addresses: tuple[str, ...]
    license: str


TI = "https://software-dl.ti.com/jacinto7/esd/modelzoo/{}/models/vision/segmentation/"
TI_LICENSE = "BSD-3-Clause (Texas Instruments); the dataset has terms of its own"


def ti(file: str, *releases: str) -> tuple[str, ...]:
    """Addresses of a file in releases of Texas Instruments' modelzoo."""
    return tuple(TI.format(release) + file for release in releases)


def ti_ade20k32(file: str, shrunk: str) -> tuple[str, ...]:
    """Addresses of ADE20K-32 weights: the full network, then the one without last upsampling, which is kept longer."""
    folder = "ade20k32/edgeai-tv/"
    full = ti(f"{folder}{file}.onnx", "09_02_00", "10_01_00", "latest")
    return full + ti(f"{folder}{file}_{shrunk}.onnx", "11_02_00", "latest") if shrunk else full


STREETS_LICENSE = (
    "non-commercial research only: CamVid (CC BY-NC 4.0), IDD Lite and LabelMeFacade (research); distilled from "
    "weights for Cityscapes, whose terms hold too"
)
camvid = partial(
    Weights,
    format="edgeseg",
    labels="camvid",
    preprocess=Preprocess(size=(600, 800), keep_aspect=True),
    protocol="CamVid test, 233 frames of 480x360, 11 classes; trained on train+val",
    license="CC BY-NC 4.0 (CamVid): for non-commercial use",
)
coco21 = partial(
    Weights,
    format="checkpoint",
    labels="coco21",
    preprocess=Preprocess(size=(512, 512)),
    protocol="COCO val2017 in 21 classes, 512x512 scored at 1024x1024",
    license=TI_LICENSE,
    default=True,
)
ade20k32 = partial(
    Weights,
    format="onnx",
    labels="ade20k32",
    preprocess=Preprocess(size=(512, 512)),
    protocol="ADE20K validation in 32 classes, 512x512 scored at 768x768",
    license=TI_LICENSE,
)
robokit = partial(
    Weights,
    format="onnx",
    labels=None,
    preprocess=Preprocess(size=(432, 768)),
    protocol="Texas Instruments' RoboKit, 768x432",
    license=TI_LICENSE,
    notes="for a small robot on indoor floors; the publisher does not name the classes",
)
ESPNET = (
    "https://raw.githubusercontent.com/sacmehta/EdgeNets/2b232d3f7fb60658755dad1ebca0ffc895cc795e/"
    "model/segmentation/model_zoo/espnetv2/{}"
)
IMAGENET: dict[str, Any] = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
espnet_city = partial(
    Weights,
    format="checkpoint",
    labels="cityscapes",
    preprocess=Preprocess(size=(512, 1024), **IMAGENET),
    protocol="Cityscapes val, 1024x512",
    license="MIT (Sachin Mehta, EdgeNets); trained on Cityscapes and ImageNet, whose terms hold for use",
    default=True,
)
espnet_voc = partial(
    Weights,
    format="checkpoint",
    labels="voc",
    preprocess=Preprocess(size=(384, 384), **IMAGENET),
    protocol="VOC 2012 val, 384x384",
    license="MIT (Sachin Mehta, EdgeNets); trained on VOC, COCO and ImageNet, whose terms hold for use",
)
QAT_NOTE = "from quantization-aware training: the weights lie on a power-of-two grid; activation ranges are not loaded"

WEIGHTS: dict[str, Weights] = {
    "fpn_aspp_mobilenetv2_tv_edgeailite.camvid": camvid(
        addresses=("package:fpn_aspp_mobilenetv2_tv_edgeailite.camvid.safetensors",),
        sha256="09918ec8339f24d33e88b1f15495571e1b6ed85c86d15650fb149ce03910ed91",
        measured_miou=70.23, default=True, license=STREETS_LICENSE,
    ),
    "deeplabv3plus_mobilenetv2_tv_edgeailite.camvid": camvid(
        addresses=("package:deeplabv3plus_mobilenetv2_tv_edgeailite.camvid.safetensors",),
        sha256="eef6fb8eff787abf008e3b85f181e3c76dda2ce9b218b83ebc09b4fc855c634e",
        measured_miou=65.54,
    ),
    "unet_aspp_mobilenetv2_tv_edgeailite.camvid": camvid(
        addresses=("package:unet_aspp_mobilenetv2_tv_edgeailite.camvid.safetensors",),
        sha256="558db3e336744b69a32a979671e8320e46820d6b60baebbb774fca8cdca951e3",
        measured_miou=63.44,
    ),
    "fpnsum_mobilenetv2.camvid": camvid(
        addresses=("package:fpnsum_mobilenetv2.camvid.safetensors",),
        sha256="e8a16b43a451cd7cd8ae6aff78b912c99ad9ee18affc96db627771f510afd5b0",
        measured_miou=70.57, default=True, license=STREETS_LICENSE,
    ),
    "fpnsum_mobilenetv2.street_photos": Weights(
        addresses=("package:fpnsum_mobilenetv2.street_photos.safetensors",),
        sha256="3165f2a42acbc22fbceae5187a5cea094998a31389094d6a24273e9062e38bfc",
        format="edgeseg",
        labels="cityscapes",
        preprocess=Preprocess(size=(480, 640), keep_aspect=True),
        measured_miou=63.73,
        protocol="CamVid test, 233 frames of 480x360, Cityscapes' 19 classes mapped to CamVid's 11",
        license=STREETS_LICENSE,
        notes="trained on the labels of other datasets, refined by a network that knows Cityscapes' classes",
    ),
    "espnetv2_s2p0.camvid": camvid(
        addresses=("package:espnetv2_s2p0.camvid.safetensors",),
        sha256="a85f9514adb288b197a6a0f9953f1c050fd82112e7dd96b54b53b2390c29a47c",
        preprocess=Preprocess(size=(600, 800), keep_aspect=True, **IMAGENET),
        measured_miou=71.16,
        license="CC BY-NC 4.0 and Cityscapes' terms: CamVid is for non-commercial use; it started from weights for "
        "Cityscapes",
    ),
    "deeplabv3plus_mobilenetv2_tv_edgeailite.streets": Weights(
        addresses=("package:deeplabv3plus_mobilenetv2_tv_edgeailite.streets.safetensors",),
        sha256="829a0ec43f52add3c2de5bf91b66b64e9eadbf0b8d2b46a460f3f7785265f7a0",
        format="edgeseg",
        labels=None,
        preprocess=Preprocess(size=(240, 320), keep_aspect=True),
        measured_miou=76.32,
        protocol="synthetic streets, 200 test frames of 480x360, the 12 of Cityscapes' 19 classes that occur",
        license="BSD-3-Clause",
        notes="classes, depth and motion from flow and image; trained on synthetic pictures, for demonstration only",
    ),
    "deeplabv3plus_mobilenetv2_tv_edgeailite.coco21": coco21(
        addresses=ti(
            "cocoseg21/edgeai-tv/deeplabv3plus_mobilenetv2_edgeailite_512x512_20210405_checkpoint.pth",
            "09_02_00", "11_02_00", "latest", "08_06_00_01",
        ),
        published_miou=57.77,
    ),
    "unet_aspp_mobilenetv2_tv_edgeailite.coco21": coco21(
        addresses=ti(
            "cocoseg21/edgeai-tv/unet_aspp_mobilenetv2_edgeailite_512x512_20210407_checkpoint.pth",
            "09_02_00", "11_00_00", "latest", "08_06_00_01",
        ),
        published_miou=57.01,
    ),
    "fpn_aspp_regnetx800mf_edgeailite.coco21": coco21(
        addresses=ti(
            "cocoseg21/edgeai-tv/fpn_aspp_regnetx800mf_edgeailite_512x512_20210405_checkpoint.pth",
            "09_02_00", "11_02_00", "latest", "08_06_00_01",
        ),
        published_miou=61.15,
    ),
    "deeplabv3plus_mobilenetv2_tv_edgeailite.ade20k32": ade20k32(
        addresses=ti_ade20k32("deeplabv3plus_mobilenetv2_edgeailite_512x512_20210308", "outby4"), published_miou=51.01,
    ),
    "unet_aspp_mobilenetv2_tv_edgeailite.ade20k32": ade20k32(
        addresses=ti_ade20k32("unet_aspp_mobilenetv2_edgeailite_512x512_20210306", "outby2"), published_miou=49.95,
    ),
    "unet_aspp_mobilenetv2_tv_edgeailite.ade20k32_qat": ade20k32(
        addresses=ti_ade20k32("unet_aspp_mobilenetv2_edgeailite_512x512_20210306_qat", ""), published_miou=49.98,
        notes=QAT_NOTE,
    ),
    "fpn_aspp_mobilenetv2_tv_edgeailite.ade20k32": ade20k32(
        addresses=ti_ade20k32("fpn_aspp_mobilenetv2_edgeailite_512x512_20210306", "outby4"), published_miou=50.72,
    ),
    "fpn_aspp_mobilenetv2_1p4_tv_edgeailite.ade20k32": ade20k32(
        addresses=ti_ade20k32("fpn_aspp_mobilenetv2_1p4_edgeailite_512x512_20210307", "outby4"), published_miou=52.93,
        default=True,
    ),
    "fpn_aspp_regnetx400mf_edgeailite.ade20k32": ade20k32(
        addresses=ti_ade20k32("fpn_aspp_regnetx400mf_edgeailite_384x384_20210314", "outby4"), published_miou=51.03,
        preprocess=Preprocess(size=(384, 384)),
        protocol="ADE20K validation in 32 classes, 384x384 scored at 768x768",
        default=True,
    ),
    "fpn_aspp_regnetx800mf_edgeailite.ade20k32": ade20k32(
        addresses=ti_ade20k32("fpn_aspp_regnetx800mf_edgeailite_512x512_20210312", "outby4"), published_miou=53.29,
    ),
    "deeplabv3plus_mobilenetv2_tv_edgeailite.robokit": robokit(
        addresses=ti(
            "ti-robokit/edgeai-tv/deeplabv3plus_mnetv2_edgeailite_robokit_768x432.onnx",
            "09_02_00", "11_00_00", "latest",
        ),
    ),
    "deeplabv3plus_mobilenetv2_tv_edgeailite.robokit_qat": robokit(
        addresses=ti(
            "ti-robokit/edgeai-tv/deeplabv3plus_mnetv2_edgeailite_robokit_768x432_qat-p2.onnx",
            "09_02_00", "11_02_00", "latest",
        ),
        published_miou=54.10,
        notes=QAT_NOTE,
    ),
    "espnetv2_s0p5.cityscapes": espnet_city(
        addresses=(ESPNET.format("espnetv2_s_0.5_city_1024x512.pth"),), published_miou=53.9,
        sha256="9412a86a30f137540ef945d08da3cb7191448956c56c41a64210dab443a9f65f",
    ),
    "espnetv2_s1p0.cityscapes": espnet_city(
        addresses=(ESPNET.format("espnetv2_s_1.0_city_1024x512.pth"),), published_miou=60.1,
        sha256="0918c833fed889e32901ce739b1784fdd2b79f95a9aea199a469ca3394dd7a14",
    ),
    "espnetv2_s1p5.cityscapes": espnet_city(
        addresses=(ESPNET.format("espnetv2_s_1.5_city_1024x512.pth"),), published_miou=63.8,
        sha256="0dbbda9126583d62f73dfdc28a59a30ab4564094ee6d28428b897a4e36c466b4",
    ),
    "espnetv2_s2p0.cityscapes": espnet_city(
        addresses=(ESPNET.format("espnetv2_s_2.0_city_1024x512.pth"),), published_miou=66.4,
        sha256="a72d59699801c7ce8e8b89a53af9097eaaa60dc12180ecde86fd700ba1222fe8",
    ),
    "espnetv2_s1p0.voc": espnet_voc(
        addresses=(ESPNET.format("espnetv2_s_1.0_pascal_384x384.pth"),), published_miou=60.22,
        sha256="7ce2df106b62661a4e8e30098398d6b96a2a946b9546d2287500379f984301a8",
    ),
    "espnetv2_s2p0.voc": espnet_voc(
        addresses=(ESPNET.format("espnetv2_s_2.0_pascal_384x384.pth"),), published_miou=67.01,
        sha256="bc479586b0ba9254e02589020346931a14d99028ad6bac4817198be6d9e719a6",
    ),
}  # fmt: skip

PYTORCH = "https://download.pytorch.org/models/"
PYCLS = "https://dl.fbaipublicfiles.com/pycls/dds_baselines/"

# Files that `encoder_weights="imagenet"` loads, by name of the encoder; for timm's encoders, timm itself knows them.
ENCODER_WEIGHTS: dict[str, EncoderWeights] = {
    "mobilenetv2": EncoderWeights((f"{PYTORCH}mobilenet_v2-b0353104.pth",), "BSD-3-Clause (torchvision)"),
    "mobilenetv2_1p4": EncoderWeights(("hf-hub:timm/mobilenetv2_140.ra_in1k/model.safetensors",), "Apache-2.0 (timm)"),
    "resnet50": EncoderWeights(
        (f"{PYTORCH}resnet50-19c8e357.pth", "hf-hub:timm/resnet50.tv_in1k/model.safetensors"),
        "BSD-3-Clause (torchvision)",
    ),
    "regnetx400mf": EncoderWeights(
        ("hf-hub:timm/regnetx_004.pycls_in1k/model.safetensors", f"{PYCLS}160905967/RegNetX-400MF_dds_8gpu.pyth"),
        "MIT (pycls)",
    ),
    "regnetx800mf": EncoderWeights(
        ("hf-hub:timm/regnetx_008.pycls_in1k/model.safetensors", f"{PYCLS}160906036/RegNetX-800MF_dds_8gpu.pyth"),
        "MIT (pycls)",
    ),
    "regnetx1p6gf": EncoderWeights(
        ("hf-hub:timm/regnetx_016.pycls_in1k/model.safetensors", f"{PYCLS}160990626/RegNetX-1.6GF_dds_8gpu.pyth"),
        "MIT (pycls)",
    ),
    "regnetx3p2gf": EncoderWeights(
        ("hf-hub:timm/regnetx_032.pycls_in1k/model.safetensors", f"{PYCLS}160906139/RegNetX-3.2GF_dds_8gpu.pyth"),
        "MIT (pycls)",
    ),
}
