"""The options that several verbs have, and the model that they mean."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgeseg
from edgeseg.data import DATASETS

if TYPE_CHECKING:
    import torch

    from edgeseg.networks.pixel2pixel import Pixel2Pixel
    from edgeseg.predict.predictor import Predictor

DEFAULT_MODEL = "fpn_aspp_mobilenetv2_tv_edgeailite.camvid"


def add_model(verb: argparse.ArgumentParser) -> None:
    """--model, --checkpoint and --device."""
    verb.add_argument("--model", metavar="NAME[.TAG]", help=f"default {DEFAULT_MODEL}, or the checkpoint's")
    verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of your own for the model")
    add_device(verb)


def add_device(verb: argparse.ArgumentParser) -> None:
    """--device."""
    verb.add_argument("--device", default="cpu", help="such as cuda (default cpu)")


def add_dataset(verb: argparse.ArgumentParser, *, required: bool = True) -> None:
    """--dataset, --data-path and what they take."""
    verb.add_argument(
        "--dataset",
        "--dataset-name",
        "--dataset_name",
        required=required,
        choices=sorted(DATASETS),
        metavar="NAME",
        help=", ".join(sorted(DATASETS)),
    )
    verb.add_argument("--data-path", "--data_path", type=Path, metavar="DIR", help="needed by all but streets")
    verb.add_argument(
        "--download", action="store_true", help="fetch the set where it is missing (camvid, voc_segmentation)"
    )
    verb.add_argument("--skip-unreadable", action="store_true", help="leave out samples whose files cannot be read")
    verb.add_argument(
        "--channels", type=int, metavar="N", help="channels that photos are read with, such as 1 for gray (default 3)"
    )
    verb.add_argument(
        "--mask-suffix", metavar="SUFFIX", help="of images_masks: ending of the masks' names, such as _mask.png"
    )
    verb.add_argument(
        "--skip-unlabelled", action="store_true", help="of images_masks: leave out photos that do not have a mask"
    )
    verb.add_argument("--image-folders", nargs="+", metavar="DIR", help="folders of Cityscapes, one per input")
    verb.add_argument("--flow-folders", nargs="+", metavar="DIR", help="which image folders hold optical flow")
    verb.add_argument("--inputs", nargs="+", metavar="NAME", help="of streets: flow, image")
    verb.add_argument("--tasks", nargs="+", metavar="NAME", help="of streets and Cityscapes: semantic, depth, motion")
    verb.add_argument("--length", type=int, help="of streets: number of samples")
    verb.add_argument("--overlap", choices=["ignore", "original"], help="of COCO: pixels of several objects")


def dataset_options(options: argparse.Namespace, model: Predictor | None = None) -> dict[str, Any]:
    """Returns the keyword arguments of `load_dataset` that the options of `add_dataset` stand for.

    Args:
        options: Parsed options.
        model: If there is a model already, photos are read with as many channels as it takes.
    """
    channels = options.channels
    if channels is None and model is not None and model.in_channels[-1] != 3:
        channels = model.in_channels[-1]
    given = {
        "channels": channels,
        "mask_suffix": options.mask_suffix,
        "on_unlabelled": "skip" if options.skip_unlabelled else None,
        "download": options.download or None,
        "on_error": "skip" if options.skip_unreadable else None,
        "image_folders": options.image_folders,
        "flow_folders": options.flow_folders,
        "inputs": tuple(options.inputs) if options.inputs else None,
        "targets": tuple(options.tasks) if options.tasks else None,
        "length": options.length,
        "overlap": options.overlap,
    }
    return {name: value for name, value in given.items() if value is not None}


def load_model(options: argparse.Namespace, device: torch.device) -> Pixel2Pixel:
    """The model of --model and --checkpoint, ready to predict."""
    name = options.model or DEFAULT_MODEL
    if options.checkpoint is not None and options.model is None:
        from edgeseg.storage.checkpoint import read_checkpoint_config

        config = read_checkpoint_config(options.checkpoint)
        name = config.name if config else ""
        if not name:
            raise ValueError(f"{options.checkpoint} does not say which model it is; pass --model NAME")
    tagged = "." in name or options.checkpoint is not None
    model = edgeseg.create_model(name, pretrained=not tagged, checkpoint_path=options.checkpoint)
    return on_device(model, device).eval()


def load_network(options: argparse.Namespace, device: torch.device) -> Predictor:
    """The model of these in its inference form, or the file of --onnx."""
    if options.onnx is None:
        from edgeseg.networks.optimize import with_hooks

        model = load_model(options, device)
        return model if model.config.quantization or with_hooks(model) else edgeseg.optimize(model)
    from edgeseg.predict.onnx import OnnxSegmenter

    if options.model or options.checkpoint:
        raise ValueError("pass --onnx, or --model and --checkpoint, not both")
    return OnnxSegmenter(options.onnx)


def on_device(model: Pixel2Pixel, device: torch.device) -> Pixel2Pixel:
    """The model, moved to a device."""
    try:
        return model.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"cannot use --device {device}: {error}") from error
