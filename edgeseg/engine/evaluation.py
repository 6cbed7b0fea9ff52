"""Evaluation: all tasks of a model are scored in one pass over a labelled dataset."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from edgeseg.arguments import require_choice, require_network, require_size
from edgeseg.data.base import LabelledDataset
from edgeseg.data.samples import check_classes, check_inputs, checked_sample, require_samples
from edgeseg.engine import distributed
from edgeseg.engine.loading import ErrorsAsValues, raising
from edgeseg.machine.terminal import progress_bar
from edgeseg.machine.workers import start_worker
from edgeseg.networks.modes import evaluating
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.predict.predictor import Predictor
from edgeseg.spec import Input, Preprocess, Task
from edgeseg.tasks import Metric, kind_of, to_target
from edgeseg.tasks.metrics import ConfusionMatrix
from edgeseg.vision.preprocess import to_input

Protocol = Literal["native", "original"]
Targets = dict[str, Tensor]


def evaluate(model: Predictor, dataset: LabelledDataset, *, task: str | None = None, **options: Any) -> ConfusionMatrix:
    """Scores one segmentation or binary task on a dataset.

    Args:
        model: As in `evaluate_tasks`.
        dataset: As in `evaluate_tasks`.
        task: Name of the task; by default the first.
        options: Further arguments of `evaluate_tasks`.

    Returns:
        The confusion matrix of the task; for a binary task, a `BinaryScores`.

    Raises:
        ValueError: the task is neither a segmentation nor a binary task, or as in `evaluate_tasks`.

    Example:
        >>> import edgeseg
        >>> from edgeseg.data import Streets
        >>> from edgeseg.engine import evaluate
        >>> streets = Streets("val", size=(96, 128), length=2, labels="camvid")
        >>> name = "fpn_aspp_mobilenetv2_tv_edgeailite"
        >>> model = edgeseg.create_model(name, pretrained=True, tasks=streets.tasks)
        >>> scores = evaluate(model, streets)
        >>> len(scores.iou), scores.counted <= 2 * 96 * 128, 0 <= scores.miou <= 1
        (11, True, True)
    """
    require_network("evaluate", model)
    task = task or next(iter(model.tasks))
    metric = evaluate_tasks(model, dataset, tasks=[task], **options)[task]
    if not isinstance(metric, ConfusionMatrix):
        raise ValueError(f"{task!r} is neither a segmentation nor a binary task; evaluate_tasks scores it")
    return metric


@torch.no_grad()
def evaluate_tasks(
    model: Predictor,
    dataset: LabelledDataset,
    *,
    tasks: Sequence[str] | None = None,
    protocol: Protocol = "native",
    size: Sequence[int] | None = None,
    output_size: Sequence[int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    bf16: bool = False,
    workers: int = 0,
    progress: str = "",
) -> dict[str, Metric]:
    """Scores tasks of a model in one pass over a dataset. Images are preprocessed as the weights need.

    Under torchrun, and within `edgeseg.engine.distributed.process_group`, each process scores its share, and all
    processes get the metrics of the whole dataset.

    Args:
        model: A network, which is in evaluation mode during the pass; or a segmenter of `edgeseg.load_segmenter`, which
            predicts as it does for users and takes no options except `tasks` and `workers`.
        dataset: Has a length and returns pairs of a uint8 image [3, H, W] (or a tuple of images) and a target (or a
            dictionary of targets by task): class ids [H, W] with 255 for ignored pixels, or depth [1, H, W] in metres
            with 0 for ignored pixels. A sample may lack the target of a task. Other forms that are understood are
            those of `edgeseg.data.samples.checked_sample`.
        tasks: Names of tasks; by default all.
        protocol: "native" resizes the logits to the target's own size before the argmax. "original" is how the
            published figures of TI's zoo were taken: images are stretched to `size`, the argmax is taken there, and
            prediction and target are resized to `output_size` by nearest neighbour.
        size: Height and width of the network's input; by default those of the model's preprocessing.
        output_size: Height and width of the original protocol; by default those of the target.
        scales: Factors on `size`; the probabilities of all scales are averaged.
        flip: Average with the mirrored image too.
        bf16: Run the network under bfloat16 autocast.
        workers: Number of processes that decode.
        progress: Title of a progress bar, which is shown on a terminal; none if it is empty.

    Returns:
        The metric of each task.

    Raises:
        ValueError: a task that the model does not have, or one for which no pixel of the dataset has a ground truth; a
            sample that cannot be used (names the sample); a dataset whose `tasks` have other classes than the model;
            sizes or scales that are not positive, or options that do not apply to this model or protocol.

    Example:
        >>> import edgeseg
        >>> from edgeseg.data import Streets
        >>> from edgeseg.engine import evaluate_tasks
        >>> streets = Streets("val", size=(96, 128), length=2, targets=("semantic", "depth"))
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", tasks=streets.tasks)
        >>> metrics = evaluate_tasks(model, streets)
        >>> {name: metric.headline("native")[0] for name, metric in metrics.items()}
        {'semantic': 'miou', 'depth': 'ard'}
    """
    require_network("evaluate_tasks", model)
    names = [tasks] if isinstance(tasks, str) else list(tasks or model.tasks)
    unknown = [name for name in names if name not in model.tasks]
    if unknown:
        raise ValueError(f"no task named {', '.join(unknown)}; this model has {', '.join(model.tasks)}")
    _check_views(protocol, size, output_size, scales)
    require_samples(dataset)
    check_classes(dataset, {name: model.tasks[name] for name in names})
    check_inputs(dataset, model.inputs)
    scorer: _Scorer
    if isinstance(model, Pixel2Pixel):
        scorer = NetworkScorer.of(model, protocol, size, output_size, scales, flip, bf16)
    elif protocol != "native" or size or tuple(scales) != (1.0,) or flip or bf16:
        raise ValueError(
            "an exported file is scored as it predicts, natively, at its own size and in a single view; leave out "
            "protocol, size, scales, flip and bf16"
        )
    else:
        scorer = _FileScorer(model, names)
    metrics = {name: kind_of(model.tasks[name]).metric(model.tasks[name]) for name in names}
    batches = samples_of(dataset, model, names, workers=workers, progress=progress)
    for images, targets in batches:
        with torch.inference_mode():
            scored = list(scorer.score(images, {name: targets[name] for name in names if name in targets}))
        for name, prediction, target in scored:  # the counts of a metric can be added to later
            metrics[name].update(prediction.reshape(target.shape), target)
    for metric in metrics.values():
        metric.reduce(distributed.total)
    empty = [name for name, metric in metrics.items() if not metric.counted]
    if empty:
        raise ValueError(
            f"no pixel of the dataset has a ground truth for {', '.join(empty)}: it is missing, or all of it is ignored"
        )
    for name, metric in metrics.items():
        wrong = kind_of(model.tasks[name]).wrong_metric(metric)
        if wrong:
            raise ValueError(f"{name}: {wrong}")
    return metrics


def samples_of(
    dataset: LabelledDataset, model: Predictor, tasks: Sequence[str], *, workers: int, progress: str
) -> Iterable[tuple[tuple[Tensor, ...], Targets]]:
    """Checked samples, decoded in `workers` processes: images and targets by task. Each process has its share."""
    share = _Share(dataset, {name: model.tasks[name] for name in tasks}, model.inputs)
    loader = DataLoader(
        ErrorsAsValues(share), batch_size=None, num_workers=workers, worker_init_fn=start_worker,
        generator=torch.Generator(),  # else the loader takes a random number of the process's own
    )  # fmt: skip
    shown = bool(progress) and not distributed.rank()
    return progress_bar(raising(loader), progress, "image", len(loader), shown=shown)


def _check_views(
    protocol: Protocol, size: Sequence[int] | None, output_size: Sequence[int] | None, scales: Sequence[float]
) -> None:
    """Raises a ValueError for sizes and scales that nothing can be scored at."""
    require_choice("protocol", protocol, Protocol)
    require_size("size", size)
    require_size("output_size", output_size)
    if output_size is not None and protocol != "original":
        raise ValueError("output_size belongs to the original protocol; the native one scores at the targets' own size")
    factors = () if isinstance(scales, str) or not isinstance(scales, Sequence) else scales
    if not factors or not all(0 < factor < math.inf for factor in factors):
        raise ValueError(f"scales are positive factors, got {scales!r}")


Scored = list[tuple[str, Tensor, Tensor]]  # name of a task, prediction, target


@dataclass(frozen=True)
class _FileScorer:
    """Scores an exported file by the maps that it predicts."""

    model: Predictor
    names: Sequence[str]

    def score(self, images: Sequence[Tensor], targets: Targets) -> Scored:
        """Predictions of one sample, at the size of the targets."""
        maps = self.model.predict_tasks(*images)
        predictions = {name: torch.from_numpy(to_target(maps[name])) for name in targets}
        return [(name, _nearest(predictions[name], target.shape[-2:]), target) for name, target in targets.items()]


@dataclass(frozen=True)
class NetworkScorer:
    """Scores a network by its logits, under either protocol and with several views."""

    model: Pixel2Pixel
    preprocess: Preprocess
    protocol: Protocol
    output_size: Sequence[int] | None
    views: Sequence[tuple[float, bool]]
    bf16: bool

    @classmethod
    def of(
        cls,
        model: Pixel2Pixel,
        protocol: Protocol,
        size: Sequence[int] | None,
        output_size: Sequence[int] | None,
        scales: Sequence[float],
        flip: bool,
        bf16: bool,
    ) -> NetworkScorer:
        """The scorer for the options of `evaluate_tasks`."""
        preprocess = replace(model.preprocess, size=(size[0], size[1])) if size is not None else model.preprocess
        if protocol == "original":
            preprocess = replace(preprocess, keep_aspect=False)
        views = [(scale, mirror) for scale in scales for mirror in ((False, True) if flip else (False,))]
        return cls(model, preprocess, protocol, output_size, views, bf16)

    def score(self, images: Sequence[Tensor], targets: Targets) -> Scored:
        """Predictions of one sample, at the size at which they are scored."""
        with evaluating(self.model):
            views = [self.outputs(images, scale, mirror) for scale, mirror in self.views]
        scored: Scored = []
        for name, target in targets.items():
            native = self.protocol == "native"
            size = target.shape[-2:] if native else self.preprocess.input_size(images[-1].shape[-2:])
            outputs = [view[name] for view in views]
            prediction = kind_of(self.model.tasks[name]).scored(outputs, size)[0].to(target.device)
            if not native:
                at = torch.Size(self.output_size or target.shape[-2:])
                prediction, target = _nearest(prediction, at), _nearest(target, at)
            scored.append((name, prediction, target))
        return scored

    def outputs(self, images: Sequence[Tensor], scale: float = 1.0, mirror: bool = False) -> dict[str, Tensor]:
        """The logits by task for one of the averaged views."""
        inputs = self.inputs(images, scale, mirror)
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=self.bf16):
            outputs = self.model.decode(*inputs)
        return {name: logits.float().flip(-1) if mirror else logits.float() for name, logits in outputs.items()}

    def inputs(self, images: Sequence[Tensor], scale: float = 1.0, mirror: bool = False) -> list[Tensor]:
        """The preprocessed images of a sample, on the device of the model."""
        parameter = next(self.model.parameters())
        return [
            to_input(image, self.preprocess, entry.kind, scale=scale, mirror=mirror)
            .to(parameter)
            .contiguous(memory_format=torch.channels_last)
            for entry, image in zip(self.model.inputs.values(), images, strict=True)
        ]


_Scorer = _FileScorer | NetworkScorer


class _Share(torch.utils.data.Dataset[tuple[tuple[Tensor, ...], Targets]]):
    """The samples that this process has to score: every n-th one, as a tuple of images and targets by task."""

    def __init__(self, dataset: LabelledDataset, tasks: Mapping[str, Task], inputs: Mapping[str, Input]) -> None:
        self.dataset, self.tasks, self.inputs = dataset, tasks, inputs
        self.indices = range(distributed.rank(), len(dataset), distributed.world_size())

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, ...], Targets]:
        images, targets = checked_sample(self.dataset, self.indices[index], self.tasks, self.inputs)
        # As plain tensors: the types of torchvision would follow every operation.
        plain = tuple(image.as_subclass(Tensor) for image in images)
        return plain, {name: target.as_subclass(Tensor) for name, target in targets.items()}


def _nearest(values: Tensor, size: torch.Size) -> Tensor:
    """A map [H, W] or [C, H, W] at another size, by nearest neighbour."""
    if values.shape[-2:] == size:
        return values
    four = values.reshape(1, -1, *values.shape[-2:]).float()
    return F.interpolate(four, size=list(size), mode="nearest").reshape(*values.shape[:-2], *size).to(values.dtype)
