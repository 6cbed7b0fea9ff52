"""One pass over a labelled set -> confusion matrix."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from edgeseg.engine.metrics import ConfusionMatrix
from edgeseg.layers import resize
from edgeseg.pixel2pixel import Pixel2Pixel
from edgeseg.preprocess import to_input


@torch.inference_mode()
def evaluate(
    model: Pixel2Pixel, dataset: Dataset[tuple[Tensor, Tensor]], *, task: str | None = None, bf16: bool = False
) -> ConfusionMatrix:
    """Scores `model` on pairs of a uint8 image [3,H,W] and a label map [h,w], 255 ignored.

    Images are preprocessed as the weights say; logits are resized to the label map's own size before the argmax.

    Args:
        model: Put into evaluation mode for the pass.
        dataset: Has a length and gives the pairs.
        task: A segmentation task of the model; by default the first.
        bf16: Run the network under bfloat16 autocast.
    """
    task = task or next(iter(model.tasks))
    matrix = ConfusionMatrix(model.tasks[task].channels)
    parameter = next(model.parameters())
    was_training = model.training
    model.eval()
    try:
        for index in range(len(dataset)):  # type: ignore[arg-type]
            image, target = dataset[index]
            x = to_input(image, model.preprocess).to(parameter).contiguous(memory_format=torch.channels_last)
            with torch.autocast(parameter.device.type, torch.bfloat16, enabled=bf16):
                logits = model.decode(x)[task]
            matrix.update(resize(logits.float(), target.shape[-2:])[0].argmax(dim=0).to(target.device), target)
    finally:
        model.train(was_training)
    return matrix
