"""The tables by which a network is chosen, from the figures of the zoo."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

from measuring import markdown
from zoo_figures import REFERENCE, SIZE, Figures

import edgeseg
from edgeseg.zoo.pretrained import weights_file

TIMED = f"{SIZE[1]}x{SIZE[0]}"  # the size, as results/runtimes.json has it
# Per device: the file, how to make it, the networks that suit it, and the runtimes that were measured.
DEVICES = (
    ("PC or server with an x86 processor", "ONNX or OpenVINO, int8",
     "edgeseg export -o model.onnx --int8 --images PHOTOS", "any; ESPNetv2 in float32",
     ("onnxruntime", "OpenVINO")),
    ("Android phone", "LiteRT, int8", "edgeseg export -o model.tflite --int8 --images PHOTOS", "on MobileNetV2",
     ("LiteRT",)),
    ("iPhone, iPad, Mac", "Core ML, float16", "edgeseg export -o model.mlpackage --fp16", "any except ESPNetv2", ()),
    ("Raspberry Pi and other Arm boards", "LiteRT or ExecuTorch, int8",
     "edgeseg export -o model.tflite --int8 --images PHOTOS", "on MobileNetV2, UNet if memory is short",
     ("LiteRT", "ExecuTorch")),
    ("Texas Instruments' TDA4 and AM6xA", "ONNX with its configuration", "edgeseg export --target tidl -o FOLDER",
     "names that end in `_edgeailite`, which TI designed for its devices", ()),
    ("NVIDIA GPU", "PyTorch, or ONNX Runtime with its CUDA provider",
     "edgeseg.optimize(model.eval().cuda(), dtype=torch.float16)", "any", ()),
    ("Browser", "a page with ONNX", "edgeseg export --target web -o FOLDER", "on MobileNetV2", ()),
)  # fmt: skip


class Choice(NamedTuple):
    """What a chooser wants to know of one network.

    Attributes:
        name: Name in the zoo.
        miou: On Cityscapes' validation images in percent, as published; at 768x384, or else at the next larger size.
        size: Width x height of the images that the mIoU was published for.
        gmacs: Of convolutions, at 768x384.
        parameters: Their number.
        milliseconds: In onnxruntime at 768x384, see `milliseconds`; None if it was not timed.
        tags: Of its trained weights.
    """

    name: str
    miou: float | None
    size: str
    gmacs: float
    parameters: int
    milliseconds: float | None
    tags: tuple[str, ...]


def choices(zoo: Figures) -> list[Choice]:
    """Returns the networks that have trained weights or a published mIoU, without those to compare with.

    The fastest is first, and those that were not timed are last.
    """
    found = []
    for name, row in zoo["networks"].items():
        if not row.get("decoder"):
            continue
        miou, size = _published(name, zoo)
        tags = tuple(each["name"].partition(".")[2] for each in zoo["weights"] if each["name"].startswith(f"{name}."))
        if miou or tags:
            found.append(Choice(name, miou, size, row["gmacs"], row["parameters"], milliseconds(name, zoo), tags))
    return sorted(found, key=lambda each: (each.milliseconds or math.inf, each.gmacs))


def milliseconds(name: str, zoo: Figures) -> float | None:
    """Returns the time of a network in onnxruntime, at the pace of the reference network; None if it was not timed.

    The ratio of both was measured in turns; milliseconds of other processes differ by up to a factor of two.
    """
    measured = zoo["measured"]
    if name not in measured:
        return None
    reference = float(measured[REFERENCE]["onnxruntime_ms"])
    return reference if name == REFERENCE else reference * float(measured[name]["onnxruntime_ratio"])


def _published(name: str, zoo: Figures) -> tuple[float | None, str]:
    rows = [
        (row["width"], float(row["miou"]), f"{row['width']}x{row['height']}")
        for row in zoo["rows"]
        if (row["name"], row["dataset"]) == (name, "Cityscapes") and row["miou"] and not row["system"].endswith("-QAT")
    ]
    rows += [
        (0, row["miou_published"], row["protocol"].rpartition(" ")[2])
        for row in zoo["weights"]
        if row["name"] == f"{name}.cityscapes"
    ]
    return min(rows)[1:] if rows else (None, "")


def chooser(zoo: Figures) -> str:
    """Returns the first table of MODEL_ZOO.md, narrow enough for 740 pixels."""
    cells = [
        (
            "<br>".join([f"`{each.name}`", *([f"weights: {_tags(each)}"] if each.tags else [])]),
            _miou(each),
            f"{each.gmacs:.2f}",
            f"{each.parameters / 1e6:.2f} M",
            f"{each.milliseconds:.1f}" if each.milliseconds else "",
        )
        for each in choices(zoo)
    ]
    return markdown("name, and tags of its weights | mIoU: | GMACs: | params: | ms:", cells)


def _tags(choice: Choice) -> str:
    return ", ".join(tag for tag in choice.tags if not tag.endswith("_qat"))


def _miou(choice: Choice) -> str:
    if choice.miou is None:
        return ""
    return f"{choice.miou:.2f}" + ("" if choice.size == "768x384" else f" at {choice.size}")


def shipped(zoo: Figures, runtimes: Path) -> str:
    """Returns the table of the weights that are part of the package.

    Times are from the results of runtimes.py; a time in float32 that is not there is the one of MODEL_ZOO.md, if that
    was measured on the same kind of machine.
    """
    results = json.loads(runtimes.read_text())
    machine = results["machine"].partition(", torch")[0]
    same = zoo["machine"].partition(", torch")[0] == machine
    times = {
        (network["network"].partition(".")[0], row["precision"]): row["milliseconds"]
        for network in results["networks"] if network["size"] == TIMED
        for row in network["rows"] if row["way"] == "onnxruntime" and "milliseconds" in row
    }  # fmt: skip
    cells, sizes = [], {}
    for row in zoo["weights"]:
        name = row["name"]
        if row["format"] != "safetensors":
            continue
        network, _, tag = name.partition(".")
        model = edgeseg.create_model(name)
        cost = edgeseg.complexity(model, SIZE)
        both: list[float | None] = []
        if len(model.inputs) == 1:  # the networks that were timed have one
            timed = milliseconds(network, zoo) if same else None
            both = [times.get((network, "float32"), timed), times.get((network, "int8"))]
        height, width = model.preprocess.size or SIZE
        sizes[tag] = f"{width}x{height}"
        cells.append(
            (
                f"`{name}`<br>{row['license'].partition(':')[0].partition(' (')[0]}",
                f"{row['miou_measured']:.1f}",
                f"{cost.gmacs:.2f}",
                " / ".join(f"{time:.0f}" for time in both if time),
                f"{cost.params / 1e6:.2f} M",
                f"{weights_file(name).stat().st_size / 1e6:.1f}",
            )
        )
    cells.sort(key=lambda cell: (".camvid" not in cell[0], ".street_photos" not in cell[0], -float(cell[1])))
    heading = "weights in the package, and their licence | mIoU %: | GMACs: | ms float / int8: | params: | MB:"
    return (
        f"{markdown(heading, cells)}\n\nmIoU on the test photos of CamVid with an input of {sizes['camvid']} "
        f"({sizes['street_photos']} for street_photos, in CamVid's classes), or on synthetic streets with "
        f"{sizes['streets']}.\nGMACs and milliseconds are for an input of {TIMED}, in "
        f"onnxruntime on {machine} ([other runtimes](docs/benchmarks.md#runtimes))."
    )


def devices(runtimes: Path) -> str:
    """Returns a table from devices to files and networks, with the times of one network from runtimes.py."""
    times = {
        (row["way"], row["precision"]): row["milliseconds"]
        for network in json.loads(runtimes.read_text())["networks"]
        if (network["network"].partition(".")[0], network["size"]) == (REFERENCE, TIMED)
        for row in network["rows"]
    }
    cells = [
        (device, file, f"`{command}`", networks,
         ", ".join(f"{name} {times[name, 'float32']:.0f} / {times[name, 'int8']:.0f}" for name in measured))
        for device, file, command, networks, measured in DEVICES
    ]  # fmt: skip
    return markdown("device | file | command | networks | ms on an x86 processor", cells)


def needs(zoo: Figures) -> str:
    """Returns a table from what is wanted to the network with the best figure for it."""
    rows = choices(zoo)
    trained = {each["name"]: each for each in zoo["weights"] if not each["name"].endswith("_qat")}

    def best(tag: str, dataset: str) -> tuple[str, str]:
        """The weights with this tag that have the highest mIoU, and that figure on their dataset."""
        of_tag = {name: row for name, row in trained.items() if name.endswith(f".{tag}")}
        name = max(of_tag, key=lambda name: of_tag[name]["miou_measured"] or of_tag[name]["miou_published"])
        row = of_tag[name]
        measured, figure = row["miou_measured"], row["miou_measured"] or row["miou_published"]
        return f"`{name}`", f"mIoU {figure:.2f} % on {dataset}, {'measured' if measured else 'published'}"

    timed = [each for each in rows if each.milliseconds and each.miou]
    budget = 10 * math.ceil(zoo["measured"][REFERENCE]["onnxruntime_ms"] / 10)
    quick = [each for each in timed if each.size == "768x384" and (each.milliseconds or 0) <= budget]
    balanced, accurate = (max(among, key=lambda each: each.miou or 0) for among in (quick, rows))
    fast = min(timed, key=lambda each: each.milliseconds or 0)
    small = min(rows, key=lambda each: each.parameters)
    cells = [
        ("segment streets, in 11 classes", *best("camvid", "CamVid")),
        ("segment streets like Cityscapes', in its 19 classes", *best("cityscapes", "Cityscapes")),
        (
            "segment other streets, in Cityscapes' 19 classes",
            *best("street_photos", "CamVid, mapped to its 11 classes"),
        ),
        ("segment everyday objects, in VOC's 21 classes, trained on COCO", *best("coco21", "COCO")),
        ("segment everyday objects, in VOC's 21 classes, trained on VOC and COCO", *best("voc", "VOC")),
        ("segment rooms and landscapes, in 32 classes of ADE20K", *best("ade20k32", "ADE20K")),
        (
            f"train the network with the highest published mIoU at 768x384 that takes at most {budget} ms",
            f"`{balanced.name}`",
            _figures(balanced),
        ),
        ("train the fastest network with a published mIoU", f"`{fast.name}`", _figures(fast)),
        ("train the smallest network", f"`{small.name}`", _figures(small)),
        ("train the most accurate network", f"`{accurate.name}`", _figures(accurate)),
        ("use several inputs or tasks", *best("streets", "synthetic streets")),
    ]
    return markdown("I want to | begin with | figures", cells)


def _figures(choice: Choice) -> str:
    """The figures of a network in words."""
    time = f"{choice.milliseconds:.1f} ms and " if choice.milliseconds else ""
    text = f"{choice.parameters / 1e6:.2f} M parameters; {time}{choice.gmacs:.2f} GMACs at 768x384"
    if choice.miou is None:
        return text
    score = f"mIoU {choice.miou:.2f} % on Cityscapes, published"
    if choice.size == "768x384":
        return f"{text}, {score}"
    width, height = map(int, choice.size.split("x"))
    return f"{text}; {choice.gmacs * width * height / math.prod(SIZE):.2f} GMACs at {choice.size}, {score}"
