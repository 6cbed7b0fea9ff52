"""How to train, as data: read without torch, so that `edgeseg train --help` is instant."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from edgeseg.records import Record


def option(default: Any, group: str, text: str) -> Any:
    """A field with the text that explains it, on the command line and in the documentation."""
    return field(default=default, metadata={"group": group, "help": text})


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainConfig(Record):
    """A training recipe. The defaults suit a few hundred street scenes. Options of TI's zoo keep their names.

    Example:
        >>> from dataclasses import replace
        >>> from edgeseg.engine import TrainConfig
        >>> config = TrainConfig(epochs=60, img_resize=(600, 800), rand_crop=(384, 512))
        >>> replace(config, lr=0.005).lr
        0.005
    """

    epochs: int = option(40, "schedule", "number of passes over the training set")
    batch_size: int = option(8, "schedule", "images per step over all processes; a last smaller batch is dropped")
    iter_size: int = option(1, "schedule", "number of batches whose gradients are averaged before each optimizer step")
    optimizer: Literal["sgd", "adam", "adamw"] = option("sgd", "optimizer", "algorithm that updates the weights")
    lr: float = option(0.01, "optimizer", "highest learning rate of the encoder")
    decoder_lr: float = option(4.0, "optimizer", "factor on the learning rate for the decoders")
    momentum: float = option(0.9, "optimizer", "momentum of SGD, or beta1 of Adam")
    nesterov: bool = option(True, "optimizer", "use Nesterov momentum with SGD")
    weight_decay: float = option(5e-4, "optimizer", "weight decay of all parameters")
    scheduler: Literal["cosine", "poly", "step"] = option("cosine", "schedule", "shape of the learning-rate schedule")
    milestones: tuple[int, ...] = option(
        (100, 200), "schedule", "numbers of completed epochs after which the step schedule lowers the learning rate"
    )
    multistep_gamma: float = option(0.25, "schedule", "learning-rate factor at each milestone")
    polystep_power: float = option(0.9, "schedule", "exponent of the poly schedule")
    warmup_epochs: float = option(
        2.0, "schedule", "length of the linear warm-up, in epochs; at most half of all epochs"
    )
    schedule_by: Literal["step", "epoch"] = option(
        "step", "schedule", "when the learning rate changes: every step, or every epoch as in TI's zoo"
    )
    clip_grad: float = option(0.0, "optimizer", "largest norm of the gradient; 0 does not clip")
    augmentation: Literal["modern", "original"] = option(
        "modern", "augmentation", "augmentation of edgeseg, or that of TI's zoo; see edgeseg.data.transforms"
    )
    img_resize: tuple[int, int] = option(
        (480, 640), "augmentation", "height and width of the images at scale 1, in evaluation and prediction too"
    )
    rand_crop: tuple[int, int] | None = option(
        (320, 416), "augmentation", "height and width of a training sample; img_resize if it is not set"
    )
    rand_scale: tuple[float, float] = option((0.5, 1.5), "augmentation", "lowest and highest random scale")
    transform_rotation: float = option(
        0.0, "augmentation", "largest angle of the rotation in degrees, applied half of the time"
    )
    mirror: float = option(
        0.5, "augmentation", "probability that a sample is mirrored; 0 where left and right are different classes"
    )
    jitter: float = option(
        0.4, "augmentation", "largest relative change of brightness, contrast and saturation; 0 for none"
    )
    keep_aspect: bool = option(
        True,
        "augmentation",
        "resize photos to as many pixels as img_resize has and keep their aspect ratio; otherwise stretch them to it",
    )
    class_weights: Literal["none", "dataset", "log"] = option(
        "log",
        "loss",
        "class weights: none; dataset, those published with the dataset, if any, for the first task only; or log, "
        "computed from the class frequencies of the training set",
    )
    class_weights_probability: float = option(1.0, "loss", "share of the steps that use the class weights")
    count_ignored: bool = option(
        False, "loss", "divide the cross-entropy by the number of all pixels including ignored ones, as TI's zoo does"
    )
    label_smoothing: float = option(0.0, "loss", "share of the target probability that is spread over all classes")
    ohem: float = option(
        0.0,
        "loss",
        "online hard example mining: count only pixels whose true class has at most this probability, and at "
        "least one pixel in 16; 0 counts all pixels",
    )
    dice: float = option(0.5, "loss", "weight of the Dice loss that is added to the cross-entropy")
    depth_losses: tuple[str, ...] = option(
        ("smooth_l1", "scale"),
        "loss",
        "losses of depth tasks, among smooth_l1, scale, error_variance, relative, berhu and silog",
    )
    depth_factors: tuple[float, ...] = option((1.0, 1.0), "loss", "weights of the depth losses, in their order")
    task_factors: tuple[float, ...] = option(
        (), "several tasks", "weights of the tasks' losses, in the order of the tasks; by default 1 each"
    )
    balancing: Literal["fixed", "uncertainty", "dwa", "gradnorm", "pseudo_gradnorm"] = option(
        "fixed",
        "several tasks",
        "method that adapts the weights of the tasks' losses during training: "
        "uncertainty (Kendall et al., 2018), dwa (Liu et al., 2019), gradnorm (Chen et al., 2018), or pseudo_gradnorm, "
        "the one of TI's zoo",
    )
    aux_loss: float = option(
        0.0, "loss", "weight of an auxiliary prediction from the deepest feature, made in training only"
    )
    ema: float = option(
        0.998, "optimizer", "decay of the moving average of the weights, which is evaluated and saved; 0 disables it"
    )
    freeze_encoder: bool = option(False, "network", "train the decoders only")
    freeze_bn: bool = option(False, "network", "keep the statistics of all batch norms")
    sync_bn: bool = option(False, "network", "share batch norm statistics among processes on GPUs")
    bf16: bool | None = option(
        None,
        "machine",
        "use bfloat16 autocast; by default where it is faster, on GPUs and on CPUs with AMX, except for "
        "quantization-aware training",
    )
    compile: bool = option(False, "machine", "compile the network with torch.compile")
    quantize: Literal["none", "per_channel", "power_of_two"] = option(
        "none",
        "quantization-aware training",
        "quantization-aware training, with this scheme of scales; activation ranges are frozen one epoch after "
        "half of the epochs",
    )
    weight_bits: Literal[7, 8] = option(
        8,
        "quantization-aware training",
        "bits of the weights in quantization-aware training: 7 for processors whose sums of 8-bit products "
        "saturate (x86 without VNNI), 8 for others",
    )
    distillation: float | None = option(
        None,
        "loss",
        "knowledge distillation: weight, 0 to 1, of the teacher's soft labels in the loss of labelled pixels; by "
        "default 0.5 with a teacher and 0 without; a value above 0 without a teacher makes quantization-aware "
        "training learn from its own float network",
    )
    seed: int = option(1, "machine", "seed of new layers, shuffling, augmentation and dropout")
    workers: int = option(1, "machine", "number of processes that load and augment images")
    cache: bool | None = option(
        None,
        "machine",
        "decode the training set once and keep it in memory; by default if it takes less than 2 GB and is a list or "
        "one of edgeseg's datasets, whose samples never change",
    )
    output_size: tuple[int, int] | None = option(
        None, "evaluation", "height and width at which the original protocol scores; by default the size of the labels"
    )
    protocol: Literal["native", "original"] = option(
        "native",
        "evaluation",
        "how validation scores: at the size of the labels, or as the published figures of TI's zoo were taken",
    )
    check_data: bool = option(
        False,
        "evaluation",
        "check all samples of both datasets before the first step; by default 32 of each, and all training samples if "
        "their classes are counted for the class weights or they are kept in memory",
    )
    evaluate_every: int = option(10, "evaluation", "number of epochs between evaluations")
    save_every: float = option(10.0, "machine", "minutes between checkpoints within an epoch")

    def check(self) -> None:
        """Counts are positive, shares lie between 0 and 1, and options that belong together agree."""
        for name in ("epochs", "batch_size", "iter_size", "evaluate_every"):
            self.require(getattr(self, name) >= 1, name, "must be at least 1")
        for name in (
            "workers", "lr", "decoder_lr", "weight_decay", "jitter", "dice", "aux_loss", "clip_grad", "warmup_epochs",
            "transform_rotation", "polystep_power", "multistep_gamma", "save_every",
        ):  # fmt: skip
            self.require(getattr(self, name) >= 0, name, "must not be negative")
        self.require(0 <= self.seed < 2**32, "seed", "must be 0 to 2**32 - 1")
        self.require(0 <= self.momentum < 1, "momentum", "must be at least 0 and below 1")
        self.require(all(factor >= 0 for factor in self.task_factors or ()), "task_factors", "must not be negative")
        self.require(not self.task_factors or any(self.task_factors), "task_factors", "must not all be 0")
        self.require(all(epoch >= 1 for epoch in self.milestones), "milestones", "must be at least 1")
        for name in ("label_smoothing", "ohem", "ema", "class_weights_probability", "mirror"):
            self.require(0 <= getattr(self, name) <= 1, name, "must be between 0 and 1")
        for name in ("img_resize", "rand_crop", "output_size"):
            size = getattr(self, name)
            self.require(size is None or min(size) >= 1, name, "must be a positive height and width")
        self.require(
            0 < self.rand_scale[0] <= self.rand_scale[1], "rand_scale", "must be a lowest and a highest factor above 0"
        )
        self._check_original_augmentation()
        self.require(len(self.depth_losses) > 0, "depth_losses", "must have at least one loss")
        self.require(0 <= self.teacher_share <= 1, "distillation", "must be between 0 and 1")
        for wrong, message in self._contradictions():
            if wrong:
                raise ValueError(f"TrainConfig.{message}")

    @property
    def teacher_share(self) -> float:
        """Share of a teacher in what is learned, if there is one."""
        return 0.5 if self.distillation is None else self.distillation

    def _contradictions(self) -> list[tuple[bool, str]]:
        """What cannot be combined: whether the recipe does so, and what to say then."""
        features = (
            f"balancing {self.balancing!r} needs gradients of the encoder's features, which "
            if self.balancing in ("gradnorm", "pseudo_gradnorm") else ""
        )  # fmt: skip
        return [
            (
                len(self.depth_losses) != len(self.depth_factors),
                f"depth_factors has one factor per depth loss, {len(self.depth_losses)} in all",
            ),
            (
                bool(features) and self.freeze_encoder,
                f"{features}freeze_encoder leaves out: choose another balancing",
            ),
            (
                bool(features) and self.compile,
                f"{features}a compiled network does not give: choose another balancing, or leave out compile",
            ),
            (
                self.freeze_encoder and self.quantize != "none",
                "freeze_encoder leaves out the encoder, and quantize measures the ranges of its features in training: "
                "leave out one of them",
            ),
            (
                self.balancing == "uncertainty" and len(set(self.task_factors)) > 1,
                'task_factors has no effect with balancing "uncertainty", which learns the weights from the losses: '
                "leave out one of them",
            ),
            (
                self.weight_bits != 8 and self.quantize == "none",
                "weight_bits belongs to quantization-aware training: set quantize too",
            ),
            (
                self.output_size is not None and self.protocol == "native",
                'output_size belongs to the protocol "original"; the protocol "native" scores at the size of the '
                "labels: leave out one of them",
            ),
        ]

    def _check_original_augmentation(self) -> None:
        """TI's augmentation crops without padding: first to `img_resize`, and then to `rand_crop`."""
        if self.augmentation != "original":
            return
        crop = self.rand_crop or self.img_resize
        if crop[0] > self.img_resize[0] or crop[1] > self.img_resize[1]:
            raise ValueError(
                f"TrainConfig.rand_crop {crop[0]}x{crop[1]} is larger than img_resize "
                f'{self.img_resize[0]}x{self.img_resize[1]}, and the augmentation "original" does not pad: lower '
                'rand_crop, or use the augmentation "modern"'
            )
        if self.rand_scale[0] < 1 and not self.keep_aspect:
            raise ValueError(
                f'TrainConfig.rand_scale begins at {self.rand_scale[0]}, and the augmentation "original" cannot crop '
                'img_resize from a smaller image: begin at 1 or more, or use the augmentation "modern"'
            )


TrainConfig.__doc__ = f"{TrainConfig.__doc__}\n\nArgs:\n" + "\n".join(
    f"    {entry.name}: {entry.metadata['help'][0].upper()}{entry.metadata['help'][1:]}."
    for entry in fields(TrainConfig)
)

MODERN = TrainConfig()
# The script of TI's zoo for Cityscapes. docs/ti.md has the options that change for other datasets and encoders.
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
