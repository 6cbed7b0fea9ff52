"""One pass over a labelled set -> confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from edgeseg.engine import distributed
from edgeseg.engine.metrics import ConfusionMatrix
from edgeseg.layers import resize
from edgeseg.pixel2pixel import Pixel2Pixel
from edgeseg.preprocess import to_input

Protocol = Literal["native", "original"]


@torch.inference_mode()
def evaluate(
    model: Pixel2Pixel,
    dataset: Any,
    *,
    task: str | None = None,
    protocol: Protocol = "native",
    size: Sequence[int] | None = None,
    output_size: Sequence[int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    bf16: bool = False,
    workers: int = 0,
) -> ConfusionMatrix:
    """Scores `model` on images and label maps, 255 ignored. Images are preprocessed as the weights say.

    Under torchrun each process scores its share, and all get the matrix of the whole set.

    Args:
        model: Put into evaluation mode for the pass.
        dataset: Has a length and gives pairs of a uint8 image [3,H,W] (or a tuple of them) and a label map [h,w] (or a
            dict of them by task).
        task: A segmentation task of the model; by default the first.
        protocol: "native" resizes the logits to the label map's own size before the argmax. "original" is how the zoo's
            published figures were taken: images stretched to `size`, the argmax there, then prediction and label map
            resized to `output_size` by nearest neighbour.
        size: Height and width at the network; default that of the model's preprocessing.
        output_size: Of the original's protocol; default the label map's own size.
        scales: Factors on `size`; the probabilities of all are averaged.
        flip: Average with the mirrored image too.
        bf16: Run the network under bfloat16 autocast.
        workers: Processes that decode.
    """
    task = task or next(iter(model.tasks))
    if model.tasks[task].kind != "segmentation":
        raise ValueError(f"{task!r} is no segmentation task")
    matrix = ConfusionMatrix(model.tasks[task].channels)
    parameter = next(model.parameters())
    preprocess = replace(model.preprocess, size=(size[0], size[1])) if size is not None else model.preprocess
    if protocol == "original":
        preprocess = replace(preprocess, keep_aspect=False)
    was_training = model.training
    model.eval()

    def logits(images: Sequence[Tensor], scale: float, mirror: bool) -> Tensor:
        inputs = [to_input(image, preprocess, scale=scale).to(parameter) for image in images]
        inputs = [(x.flip(-1) if mirror else x).contiguous(memory_format=torch.channels_last) for x in inputs]
        with torch.autocast(parameter.device.type, torch.bfloat16, enabled=bf16):
            output = model.decode(*inputs)[task].float()
        output = resize(output, inputs[0].shape[-2:]) if protocol == "original" else output
        return output.flip(-1) if mirror else output

    try:
        for images, target in _share(dataset, task, workers):
            views = [
                logits(images, scale, mirror) for scale in scales for mirror in ((False, True) if flip else (False,))
            ]
            if protocol == "native":
                views = [resize(view, target.shape[-2:]) for view in views]
            whole = [resize(view, views[0].shape[-2:]) for view in views]
            mean = whole[0] if len(whole) == 1 else torch.stack([view.softmax(dim=1) for view in whole]).mean(dim=0)
            prediction = mean[0].argmax(dim=0).to(target.device)
            if protocol == "original":
                scored = tuple(output_size or target.shape[-2:])
                prediction, target = _nearest(prediction, scored), _nearest(target, scored)
            matrix.update(prediction, target)
    finally:
        model.train(was_training)
    matrix.reduce()
    return matrix


class _Share(torch.utils.data.Dataset[tuple[tuple[Tensor, ...], Tensor]]):
    """What this process has to score: every n-th sample, as a tuple of images and one label map."""

    def __init__(self, dataset: Any, task: str) -> None:
        self.dataset, self.task = dataset, task
        self.indices = range(distributed.rank(), len(dataset), distributed.world_size())

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, ...], Tensor]:
        images, target = self.dataset[self.indices[index]]
        images = images if isinstance(images, tuple) else (images,)
        return images, target[self.task] if isinstance(target, dict) else target


def _share(dataset: Any, task: str, workers: int) -> DataLoader[Any]:
    return DataLoader(_Share(dataset, task), batch_size=None, num_workers=workers)


def _nearest(labels: Tensor, size: tuple[int, ...]) -> Tensor:
    if labels.shape[-2:] == size:
        return labels
    return F.interpolate(labels[None, None].float(), size=size, mode="nearest")[0, 0].to(labels.dtype)
