"""How to train, as data: readable without torch, so that `edgeseg train --help` is instant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A recipe; the defaults suit a few hundred street scenes and an ImageNet encoder.

    Args:
        epochs: Passes over the training set.
        batch_size: Images a step; a last smaller batch is dropped.
        lr: Highest learning rate of the encoder. SGD with Nesterov momentum, linear warm-up, then cosine to 0.
        decoder_lr: Factor on lr for the decoders.
        momentum: Of SGD.
        weight_decay: On all parameters, which quantization likes.
        warmup_epochs: Length of the warm-up.
        size: Height and width of the images at scale 1, in evaluation and prediction too.
        crop: Height and width of a training sample.
        scale: Lowest and highest random scale.
        jitter: Strength of brightness, contrast and saturation changes.
        class_weights: Weigh the cross-entropy by the logarithmic frequency of the classes.
        dice: Weight of the Dice loss beside the cross-entropy.
        ema: Decay of the moving average of the weights, which is what is evaluated and saved.
        bf16: Run under bfloat16 autocast; by default where the processor computes in it.
        seed: Of new layers, shuffling, augmentation and dropout.
        workers: Processes that augment.
        evaluate_every: Epochs between evaluations.
    """

    epochs: int = 40
    batch_size: int = 8
    lr: float = 0.01
    decoder_lr: float = 4.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 2.0
    size: tuple[int, int] = (480, 640)
    crop: tuple[int, int] = (320, 416)
    scale: tuple[float, float] = (0.5, 1.5)
    jitter: float = 0.4
    class_weights: bool = True
    dice: float = 0.5
    ema: float = 0.998
    bf16: bool | None = None
    seed: int = 1
    workers: int = 1
    evaluate_every: int = 10
