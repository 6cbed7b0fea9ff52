"""Constants added to the outputs of a decoder, by the weights of its last layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from edgeseg.networks.modes import evaluating
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.pixelwise import Convolution, is_pixelwise, last_convolutions

TOLERANCE = 1e-3  # of the outputs, relative to the largest constant or output


@torch.no_grad()
def add_constants(
    model: Pixel2Pixel, task: str, constants: Tensor, images: Sequence[Tensor], *, only_try: bool = False
) -> None:
    """Adds a constant to each output channel of a task, in place and without further operations.

    They go into the bias of the last convolution. The heads of TI's zoo have none; there they go into the batch norm
    before that convolution, since nothing but a linear layer lies between them and the logits.

    Args:
        model: A network in float32.
        task: Name of the task.
        constants: float32 [channels of the task].
        images: One preprocessed tensor per input, on which the result is checked.
        only_try: Find out whether an error would be raised, and leave the model as it is.

    Raises:
        ValueError: the last layers of the decoder cannot express the constants; the model is as it was.
    """
    decoder = model.decoders[task]
    state = {name: value.clone() for name, value in decoder.state_dict().items()}
    with evaluating(model):
        before = model.decode(*images)[task]
        _add(decoder, list(last_convolutions(model, task).values()), constants.to(before))
        after = model.decode(*images)[task]
    wanted = before + constants.to(before).view(-1, 1, 1)
    added = torch.allclose(after, wanted, rtol=0, atol=TOLERANCE * float(wanted.abs().max().clamp(min=1)))
    if only_try or not added:
        decoder.load_state_dict(state)
    if not added:
        raise ValueError(
            f"the last layer of the decoder of {task!r}, a {type(decoder).__name__}, cannot add constants to its "
            "outputs: it has to be a convolution that has a bias, or that directly follows a batch norm"
        )


def _add(decoder: nn.Module, convs: list[Convolution], constants: Tensor) -> None:
    """Adds the constants where they are expected to act; the caller checks that they do."""
    if not convs:
        return
    conv = convs[-1]
    if conv.bias is not None:
        conv.bias += constants
        return
    before = []
    for module in decoder.modules():
        if module is conv:
            break
        if isinstance(module, nn.BatchNorm2d) and module.affine and module.num_features == conv.in_channels:
            before.append(module)
    if before and is_pixelwise(conv):
        # The smallest change of the norm's biases that the convolution turns into the constants.
        inverse = torch.linalg.pinv(conv.weight.flatten(1).double())
        change = (inverse @ constants.double()).to(constants)
        cast(Tensor, before[-1].bias).add_(change)
