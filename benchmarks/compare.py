"""edgeseg beside segmentation_models_pytorch and torchvision.

    python benchmarks/compare.py train CAMVID MOBILENET_V2 EFFICIENTNET_LITE0
    python benchmarks/compare.py measure

`train` trains networks of both under one budget on CamVid: the same images, augmentation, steps and recipe, each with
ImageNet weights in the encoder (safetensors files, of torchvision's and of timm's layout). Hours on a CPU; it goes on
where it was stopped. `measure` counts, times, and writes the tables of docs/benchmarks.md, with the mIoU of what is
trained. Needs pip install edgeseg[benchmarks].
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from smp_networks import ARCHITECTURES, network

import edgeseg
from edgeseg.data.camvid import CamVid
from edgeseg.engine import TrainConfig, train

RUNS = Path("runs/compare")
BUDGET = TrainConfig(epochs=6, evaluate_every=6)
DECODERS = tuple(ARCHITECTURES)
Build = Callable[[argparse.Namespace], edgeseg.Pixel2Pixel]


def _ours(decoder: str) -> Build:
    name = f"{decoder}{'' if decoder == 'deeplabv3plus' else '_aspp'}_mobilenetv2_tv_edgeailite"
    return lambda options: edgeseg.create_model(
        name, tasks=CamVid(options.camvid).tasks, encoder_weights=options.mobilenet_v2
    )


def _theirs(decoder: str) -> Build:
    return lambda options: network(decoder, CamVid(options.camvid).tasks, options.mobilenet_v2)


def _efficientnet(options: argparse.Namespace) -> edgeseg.Pixel2Pixel:
    return edgeseg.create_model(
        "fpn", encoder="tf_efficientnet_lite0", tasks=CamVid(options.camvid).tasks,
        encoder_weights=options.efficientnet_lite0,
    )  # fmt: skip


# By the name of the run.
TRAINED: dict[str, Build] = {}
for each in DECODERS:
    TRAINED |= {f"edgeseg_{each}": _ours(each), f"smp_{each}": _theirs(each)}
TRAINED["edgeseg_fpn_efficientnet_lite0"] = _efficientnet


def train_all(options: argparse.Namespace) -> None:
    """Each network to the end, one after the other; scored on test."""
    for name, build in TRAINED.items():
        if options.networks and name not in options.networks:
            continue
        train(build(options), CamVid(options.camvid), CamVid(options.camvid, "test"), BUDGET, RUNS / name, resume=True)
        print(name, miou(name))


def miou(name: str) -> float | None:
    """Of a run's last weights, in percent, on test; None where it has not ended."""
    path = RUNS / name / "metrics.jsonl"
    last = json.loads(path.read_text().splitlines()[-1]) if path.is_file() else {}
    return last.get("miou") if last.get("epoch") == BUDGET.epochs else None


def main() -> None:
    """Trains, or measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("train")
    for name in ("camvid", "mobilenet_v2", "efficientnet_lite0"):
        verb.add_argument(name, type=Path)
    verb.add_argument("--networks", nargs="+", choices=TRAINED)
    verb.set_defaults(run=train_all)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
