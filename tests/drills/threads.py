"""Four threads that call one network at once, each another or the same function."""

from __future__ import annotations

import copy
import json
import pickle
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import nn

import edgeseg
from edgeseg.data import Streets
from edgeseg.engine import TrainConfig, evaluate, train
from edgeseg.predict.predictor import Predictor
from edgeseg.zoo.registry import BUILDERS

from .drill import PLAN, Drill, expect, no_files
from .models import ENCODER, PHOTO, SIZE, kept

THREADS = 4
CALLS = 6  # of each thread
OTHER = PHOTO[:, ::-1].copy()


def _saved(save: Callable[[edgeseg.Pixel2Pixel, Path], object], file: str, model: edgeseg.Pixel2Pixel) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder) / file)
        return next(path.read_bytes() for path in Path(folder).rglob("model*.safetensors"))


def _score(model: edgeseg.Pixel2Pixel) -> float:
    labels = np.zeros(PHOTO.shape[:2], np.uint8)
    samples = [(torch.from_numpy(PHOTO.transpose(2, 0, 1).copy()), torch.from_numpy(labels).long())]
    return evaluate(model, samples, workers=0).pixel_accuracy


def _exported(model: edgeseg.Pixel2Pixel) -> Predictor:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        edgeseg.export_onnx(model, path, size=SIZE)
        return edgeseg.load_segmenter(path, threads=1)


@cache
def _segmenter() -> Predictor:
    """One segmenter that all threads use."""
    return _exported(kept())


@cache
def _optimized() -> edgeseg.Pixel2Pixel:
    return edgeseg.optimize(kept())


def _loaded(model: edgeseg.Pixel2Pixel) -> torch.Tensor:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        edgeseg.save_checkpoint(model, path)
        return _logits(edgeseg.create_model("fpn", checkpoint_path=path).eval())


def _configured(model: edgeseg.Pixel2Pixel) -> np.ndarray:
    own = copy.deepcopy(model)
    own.configure(preprocess=replace(model.preprocess, size=(64, 64)))
    return own.predict(PHOTO)


def _folder(export: Callable[[edgeseg.Pixel2Pixel, Path], object], model: edgeseg.Pixel2Pixel) -> str:
    """The names of the files that an export writes; their bytes may differ in the last bits of numbers."""
    with tempfile.TemporaryDirectory() as folder:
        export(model, Path(folder) / "result")
        return ", ".join(sorted(path.name for path in Path(folder).rglob("*")))


def _program(model: edgeseg.Pixel2Pixel) -> torch.Tensor:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        edgeseg.export_program(model, path, size=SIZE, dynamic=())
        program = torch.export.load(path).module()
    with torch.inference_mode():
        (logits,) = program(_input())
    return logits


def _quantized(model: edgeseg.Pixel2Pixel) -> float:
    with tempfile.TemporaryDirectory() as folder:
        done = edgeseg.export(model, Path(folder) / "int8.onnx", precision="int8", images=[PHOTO, OTHER], size=SIZE)
        return round(done.agreement["segmentation"], 2)


def _trained(_: edgeseg.Pixel2Pixel) -> int:
    """The epochs of a run; its weights depend on the random numbers, of which PyTorch has one row for all threads."""
    streets = Streets(size=(32, 64), length=4)
    model = edgeseg.create_model("fpn", encoder=ENCODER, channels=8, tasks=streets.tasks)
    config = TrainConfig(epochs=2, batch_size=2, img_resize=SIZE, rand_crop=SIZE, workers=0, bf16=False)
    with tempfile.TemporaryDirectory() as folder:
        train(model, streets, None, config, Path(folder) / "run")
        return len((Path(folder) / "run/metrics.jsonl").read_text().splitlines())


def _registered(_: edgeseg.Pixel2Pixel) -> int:
    """A network that registers itself by a name of its own, and whose name is free again."""
    name = f"drill_{uuid4().hex}"
    edgeseg.register_model(name)(lambda config: nn.Conv2d(3, config.tasks["segmentation"].channels, 1))
    try:
        return sum(each.numel() for each in edgeseg.create_model(name, num_classes=7).parameters())
    finally:
        del BUILDERS[name]


def _input() -> torch.Tensor:
    return torch.linspace(-1, 1, 3 * SIZE[0] * SIZE[1]).reshape(1, 3, *SIZE)


def _logits(network: Callable[[torch.Tensor], Mapping[str, torch.Tensor]]) -> torch.Tensor:
    with torch.inference_mode():
        return network(_input())["segmentation"]


def _gradients(model: edgeseg.Pixel2Pixel) -> torch.Tensor:
    return torch.autograd.grad(model(_input())["segmentation"].sum(), next(model.parameters()))[0]


ACTIONS: dict[str, Callable[[edgeseg.Pixel2Pixel], Any]] = {
    "predict": lambda model: model.predict(PHOTO),
    "predict another": lambda model: model.predict(OTHER),
    "predict tasks": lambda model: model.predict_tasks(PHOTO)["segmentation"],
    "predict frames": lambda model: np.stack(
        [frame["segmentation"] for frame in model.predict_frames([[PHOTO], [OTHER]])]
    ),
    "draw": lambda model: np.asarray(model.draw(PHOTO)),
    "prepare": lambda model: model.prepare(PHOTO)[0],
    "forward": _logits,
    "decode": lambda model: _logits(model.decode),
    "gradients": _gradients,
    "copy": lambda model: _logits(copy.deepcopy(model)),
    "pickle": lambda model: _logits(pickle.loads(pickle.dumps(model))),
    "optimize": lambda model: _logits(edgeseg.optimize(model)),
    "optimized": lambda _: _logits(_optimized()),
    "segmenter": lambda _: _segmenter().predict(PHOTO),
    "complexity": lambda model: str(edgeseg.complexity(model, SIZE)),
    "evaluate": _score,
    "save_checkpoint": partial(_saved, edgeseg.save_checkpoint, "model.safetensors"),
    "save_pretrained": partial(_saved, edgeseg.Pixel2Pixel.save_pretrained, "folder"),
    "load_checkpoint": _loaded,
    "configure": _configured,
    "register_model": _registered,
    "list_models": lambda _: ", ".join(edgeseg.list_models("fpn_*")),
    "list_weights": lambda _: ", ".join(edgeseg.list_weights()),
    "weights_info": lambda _: str(edgeseg.weights_info("espnetv2_s2p0.camvid")),
    "dataset": lambda _: Streets(size=(32, 64), length=4)[0][0],
    "create_model": lambda model: len(edgeseg.create_model("fpn", encoder=ENCODER).state_dict()),
    "model_info": lambda _: str(asdict(edgeseg.model_info("fpn_aspp_mobilenetv2_tv_edgeailite"))),
    "export": lambda model: _exported(model).predict(PHOTO),
    "export_program": _program,
    "export_web": partial(_folder, edgeseg.export_web),
    "export_tidl": partial(_folder, edgeseg.export_tidl),
    "quantize": _quantized,
    "train": _trained,
}
SLOW = ("export", "export_program", "export_web", "export_tidl", "quantize", "train")  # seconds; others: milliseconds


def plan(rng: Random, _: Path, work: Path) -> None:
    quick = [name for name in ACTIONS if name not in SLOW]
    calls = [[rng.choice(quick) for _ in range(CALLS)] for _ in range(THREADS)]
    for _number in range(rng.choice((0, 0, 0, 1, 2))):
        calls[rng.randrange(THREADS)][rng.randrange(CALLS)] = rng.choice(SLOW)
    (work / PLAN).write_text(json.dumps(calls))


@cache
def _alone(name: str) -> Any:
    """What a function returns if it is called by one thread."""
    return ACTIONS[name](kept())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):  # torch.export in another thread changes the last bits
        return float((one - other).abs().max()) <= 1e-5 * float(other.abs().max())
    return bool(np.array_equal(one, other))


def _state(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()] + [each.requires_grad for each in model.parameters()]


def call(work: Path) -> None:
    calls: list[list[str]] = json.loads((work / PLAN).read_text())
    model = kept()
    expected = {name: _alone(name) for thread in calls for name in thread}
    before, filters, start = _state(model), len(warnings.filters), threading.Barrier(THREADS)

    def run(names: list[str]) -> list[str]:
        start.wait()
        return [name for name in names if not _same(ACTIONS[name](model), expected[name])]

    with ThreadPoolExecutor(THREADS) as pool:
        wrong = sorted({name for names in pool.map(run, calls) for name in names})
    expect(not wrong, f"{', '.join(wrong)} differs in threads")
    expect(_state(model) == before, "the modes of the network have changed")
    expect(len(warnings.filters) == filters, "the filters of warnings have changed")
    expect(torch.is_grad_enabled(), "gradients are off")


DRILLS = (Drill("threads", no_files, plan, call, 200, "onnxscript", sample=3),)
