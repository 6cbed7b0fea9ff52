"""One pass over a labelled set -> a metric for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from edgeseg.data.base import as_sample
from edgeseg.engine import distributed
from edgeseg.engine.depth import DepthErrors
from edgeseg.engine.metrics import ConfusionMatrix
from edgeseg.engine.signals import leave_signals_to_the_main_process
from edgeseg.images import input_size
from edgeseg.layers import resize
from edgeseg.pixel2pixel import Pixel2Pixel, labels_at
from edgeseg.prediction import Predictor
from edgeseg.preprocess import to_input
from edgeseg.spec import Task

Protocol = Literal["native", "original"]


Metric = ConfusionMatrix | DepthErrors


def evaluate(model: Predictor, dataset: Any, *, task: str | None = None, **options: Any) -> ConfusionMatrix:
    """Scores one segmentation task, by default the first; see `evaluate_tasks`."""
    task = task or next(iter(model.tasks))
    metric = evaluate_tasks(model, dataset, tasks=[task], **options)[task]
    if not isinstance(metric, ConfusionMatrix):
        raise ValueError(f"{task!r} is no segmentation task; evaluate_tasks scores it")
    return metric


@torch.inference_mode()
def evaluate_tasks(
    model: Predictor,
    dataset: Any,
    *,
    tasks: Sequence[str] | None = None,
    protocol: Protocol = "native",
    size: Sequence[int] | None = None,
    output_size: Sequence[int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    bf16: bool = False,
    workers: int = 0,
) -> dict[str, Metric]:
    """Scores tasks of `model` in one pass over images and targets. Images are preprocessed as the weights say.

    Under torchrun each process scores its share, and all get the metrics of the whole set.

    Args:
        model: A network, put into evaluation mode for the pass; or an `OnnxSegmenter`, which predicts as it does for
            users and takes none of the options but `tasks` and `workers`.
        dataset: Has a length and gives pairs of a uint8 image [3,H,W] (or a tuple of them) and a target (or a dict of
            them by task): a label map [h,w], 255 ignored, or depth [1,h,w] in metres, 0 ignored. A sample may lack the
            target of a task.
        tasks: Names of tasks; by default all.
        protocol: "native" resizes the logits to the target's own size before the argmax. "original" is how the zoo's
            published figures were taken: images stretched to `size`, the argmax there, then prediction and target
            resized to `output_size` by nearest neighbour.
        size: Height and width at the network; default that of the model's preprocessing.
        output_size: Of the original's protocol; default the target's own size.
        scales: Factors on `size`; the probabilities of all are averaged.
        flip: Average with the mirrored image too.
        bf16: Run the network under bfloat16 autocast.
        workers: Processes that decode.

    Raises:
        ValueError: a task that the model does not have, or without any target in the set; names it.
    """
    names = list(tasks or model.tasks)
    unknown = [name for name in names if name not in model.tasks]
    if unknown:
        raise ValueError(f"no task named {', '.join(unknown)}; this model has {', '.join(model.tasks)}")
    metrics = {name: _metric(model.tasks[name]) for name in names}
    samples = DataLoader(
        _Share(dataset, names[0]),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=leave_signals_to_the_main_process,
    )
    if not isinstance(model, Pixel2Pixel):
        if protocol != "native" or size or tuple(scales) != (1.0,) or flip or bf16:
            raise ValueError("an exported file is scored as it predicts: natively, at its size, in a single view")
        for images, targets in samples:
            maps = model.predict_tasks(*images)
            for name in [name for name in names if name in targets]:
                prediction = _nearest(torch.from_numpy(maps[name]), tuple(targets[name].shape[-2:]))
                metrics[name].update(prediction.reshape(targets[name].shape), targets[name])
        return _reduced(metrics)
    parameter = next(model.parameters())
    preprocess = replace(model.preprocess, size=(size[0], size[1])) if size is not None else model.preprocess
    if protocol == "original":
        preprocess = replace(preprocess, keep_aspect=False)
    was_training = model.training
    model.eval()

    def view(images: Sequence[Tensor], scale: float, mirror: bool) -> dict[str, Tensor]:
        """Logits by task for one of the averaged versions of the images."""
        inputs = [
            to_input(image, preprocess, name=name, scale=scale, mirror=mirror)
            .to(parameter)
            .contiguous(memory_format=torch.channels_last)
            for name, image in zip(model.input_names, images, strict=True)
        ]
        with torch.autocast(parameter.device.type, torch.bfloat16, enabled=bf16):
            outputs = model.decode(*inputs)
        return {name: outputs[name].float().flip(-1) if mirror else outputs[name].float() for name in names}

    try:
        for images, targets in samples:
            views = [
                view(images, scale, mirror) for scale in scales for mirror in ((False, True) if flip else (False,))
            ]
            for name in [name for name in names if name in targets]:
                target, task = targets[name], model.tasks[name]
                at = target.shape[-2:] if protocol == "native" else input_size(images[-1].shape[-2:], preprocess)
                prediction = _predicted([each[name] for each in views], task, at)[0].to(target.device)
                if protocol == "original":
                    scored = tuple(output_size or target.shape[-2:])
                    prediction, target = _nearest(prediction, scored), _nearest(target, scored)
                metrics[name].update(prediction.reshape(target.shape), target)
    finally:
        model.train(was_training)
    return _reduced(metrics)


def _reduced(metrics: dict[str, Metric]) -> dict[str, Metric]:
    """Over all processes; raises where nothing was counted."""
    for metric in metrics.values():
        metric.reduce()
    empty = [name for name, metric in metrics.items() if not bool(metric.counted)]
    if empty:
        raise ValueError(f"the data set has no target for {', '.join(empty)}")
    return metrics


def _metric(task: Task) -> Metric:
    return ConfusionMatrix(task.channels) if task.kind == "segmentation" else DepthErrors(task.range)


def _predicted(views: Sequence[Tensor], task: Task, size: Sequence[int]) -> Tensor:
    """Outputs [N,C,h,w] of several views -> labels [N,H,W] of their mean probabilities, or the mean depth [N,1,H,W]."""
    if task.kind == "segmentation" and len(views) == 1:
        return labels_at(views[0], size)
    maps = [resize(each, size) for each in views]
    if task.kind == "segmentation":
        return torch.stack([each.softmax(dim=1) for each in maps]).mean(dim=0).argmax(dim=1)
    return torch.stack(maps).mean(dim=0)


class _Share(torch.utils.data.Dataset[tuple[tuple[Tensor, ...], dict[str, Tensor]]]):
    """What this process has to score: every n-th sample, as a tuple of images and targets by task."""

    def __init__(self, dataset: Any, first: str) -> None:
        self.dataset, self.first = dataset, first
        self.indices = range(distributed.rank(), len(dataset), distributed.world_size())

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        images, targets = as_sample(self.dataset[self.indices[index]], self.first)
        # As plain tensors: torchvision's kinds would follow every operation.
        plain = tuple(image.as_subclass(Tensor) for image in images)
        return plain, {name: target.as_subclass(Tensor) for name, target in targets.items()}


def _nearest(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map [H,W] or [1,H,W] at another size."""
    if values.shape[-2:] == size:
        return values
    four = values.reshape(1, 1, *values.shape[-2:]).float()
    return F.interpolate(four, size=size, mode="nearest").reshape(*values.shape[:-2], *size).to(values.dtype)
