"""How to train, as data: readable without torch, so that `edgeseg train --help` is instant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A recipe, named as the original zoo's options where it has them. The defaults suit a few hundred street scenes.

    Args:
        epochs: Passes over the training set.
        batch_size: Images a step, over all processes; a last smaller batch is dropped.
        iter_size: Batches whose gradients are averaged before a step.
        optimizer: "sgd", "adam" or "adamw".
        lr: Highest learning rate of the encoder.
        decoder_lr: Factor on lr for the decoders.
        momentum: Of SGD; beta1 of Adam.
        nesterov: Nesterov momentum for SGD.
        weight_decay: On all parameters, which quantization likes.
        scheduler: "cosine", "poly" or "step".
        milestones: Epochs at which "step" multiplies the rate.
        multistep_gamma: By this.
        polystep_power: Exponent of "poly".
        warmup_epochs: Length of the linear warm-up.
        schedule_by: Change the rate at every "step" or, as the original does, every "epoch".
        clip_grad: Largest norm of the gradient; 0 for any.
        augmentation: "modern" or "original", see `edgeseg.data.transforms`.
        img_resize: Height and width of the images at scale 1, in evaluation and prediction too.
        rand_crop: Height and width of a training sample; default img_resize.
        rand_scale: Lowest and highest random scale.
        transform_rotation: Largest angle in degrees, half of the time.
        jitter: Strength of brightness, contrast and saturation changes.
        keep_aspect: Resize photos in their own aspect to as many pixels as img_resize has; else stretch them to it.
        class_weights: "none", "dataset" (those that the data set is published with) or "log" (from its frequencies).
        class_weights_probability: Share of the steps that use the weights.
        count_ignored: Divide the cross-entropy by all pixels, the ignored ones too, as the original does.
        label_smoothing: Share of the probability that goes to all classes alike.
        ohem: Probability up to which a pixel is hard; the cross-entropy takes only those, a 16th at least. 0 for all.
        dice: Weight of the Dice loss beside the cross-entropy.
        depth_losses: Of depth tasks; see `edgeseg.engine.depth`.
        depth_factors: Their weights.
        task_factors: Weights of the tasks' losses, in their order; default 1 each.
        balancing: How these weights go on: "fixed", "uncertainty", "dwa", "gradnorm" or "pseudo_gradnorm".
        aux_loss: Weight of a further prediction from the encoder's deepest feature, in training only.
        ema: Decay of the moving average of the weights, which is what is evaluated and saved; 0 for none.
        freeze_encoder: Train the decoders only.
        freeze_bn: Keep the statistics of all batch norms.
        sync_bn: Share the statistics of batch norms among processes, on GPUs.
        bf16: Run under bfloat16 autocast; by default where that is faster: on GPUs and on CPUs with AMX.
        compile: Run the network through torch.compile.
        quantize: Train with the rounding of 8 bit, see `edgeseg.deploy.qat`: "none", "per_channel" or "power_of_two".
            The ranges of activations are frozen after half of the epochs and one.
        weight_bits: Of quantize: 7 for processors whose 8-bit products saturate (x86 without VNNI), else 8.
        distillation: Of quantize: share of the loss, 0 to 1, that is the divergence from the float network's answers
            instead of the labels, so that training only undoes what the rounding does.
        seed: Of new layers, shuffling, augmentation and dropout.
        workers: Processes that augment.
        cache: Decode the training set once into memory; by default where it takes less than 2 GB.
        output_size: Height and width at which the original's protocol scores; default the labels' own.
        protocol: "native" or "original", see `evaluate`.
        evaluate_every: Epochs between evaluations.
        save_every: Minutes between checkpoints within an epoch.
    """

    epochs: int = 40
    batch_size: int = 8
    iter_size: int = 1
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.01
    decoder_lr: float = 4.0
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    scheduler: Literal["cosine", "poly", "step"] = "cosine"
    milestones: tuple[int, ...] = (100, 200)
    multistep_gamma: float = 0.25
    polystep_power: float = 0.9
    warmup_epochs: float = 2.0
    schedule_by: Literal["step", "epoch"] = "step"
    clip_grad: float = 0.0
    augmentation: Literal["modern", "original"] = "modern"
    img_resize: tuple[int, int] = (480, 640)
    rand_crop: tuple[int, int] | None = (320, 416)
    rand_scale: tuple[float, float] = (0.5, 1.5)
    transform_rotation: float = 0.0
    jitter: float = 0.4
    keep_aspect: bool = True
    class_weights: Literal["none", "dataset", "log"] = "log"
    class_weights_probability: float = 1.0
    count_ignored: bool = False
    label_smoothing: float = 0.0
    ohem: float = 0.0
    dice: float = 0.5
    depth_losses: tuple[str, ...] = ("smooth_l1", "scale")
    depth_factors: tuple[float, ...] = (1.0, 1.0)
    task_factors: tuple[float, ...] = ()
    balancing: Literal["fixed", "uncertainty", "dwa", "gradnorm", "pseudo_gradnorm"] = "fixed"
    aux_loss: float = 0.0
    ema: float = 0.998
    freeze_encoder: bool = False
    freeze_bn: bool = False
    sync_bn: bool = False
    bf16: bool | None = None
    compile: bool = False
    quantize: Literal["none", "per_channel", "power_of_two"] = "none"
    weight_bits: int = 8
    distillation: float = 0.0
    seed: int = 1
    workers: int = 1
    cache: bool | None = None
    output_size: tuple[int, int] | None = None
    protocol: Literal["native", "original"] = "native"
    evaluate_every: int = 10
    save_every: float = 10.0

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            if get_origin(kind) is Literal and getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} is one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")
        if len(self.depth_losses) != len(self.depth_factors):
            raise ValueError(f"{len(self.depth_losses)} depth_losses need as many depth_factors")
        if not 0 <= self.distillation <= (self.quantize != "none"):
            raise ValueError(f"distillation is 0 to 1 with quantize, else 0; got {self.distillation}")
        for name in ("epochs", "batch_size", "iter_size", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, got {getattr(self, name)}")


MODERN = TrainConfig()
# The original's script for Cityscapes; other data sets and encoders change a few options, see docs/training.md.
ORIGINAL = replace(
    MODERN,
    epochs=250,
    batch_size=12,
    optimizer="adam",
    lr=4e-4,
    decoder_lr=1.0,
    nesterov=False,
    weight_decay=1e-4,
    scheduler="step",
    warmup_epochs=5.0,
    schedule_by="epoch",
    augmentation="original",
    img_resize=(384, 768),
    rand_crop=None,
    rand_scale=(1.0, 2.0),
    transform_rotation=5.0,
    jitter=0.0,
    keep_aspect=False,
    class_weights="dataset",
    class_weights_probability=0.2,
    count_ignored=True,
    dice=0.0,
    ema=0.0,
    protocol="original",
    evaluate_every=1,
)
RECIPES = {"modern": MODERN, "original": ORIGINAL}
