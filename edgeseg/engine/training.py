"""The training loop: read `train` top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from edgeseg.data.base import as_sample, name_of
from edgeseg.data.transforms import AUGMENTATIONS, Augmented
from edgeseg.deploy.qat import freeze_ranges, quantize_aware
from edgeseg.engine import distributed
from edgeseg.engine.balancing import BALANCERS
from edgeseg.engine.config import TrainConfig
from edgeseg.engine.evaluation import evaluate_tasks
from edgeseg.engine.optimization import build_optimizer, set_learning_rate
from edgeseg.engine.report import Log, draw_curves, draw_samples, headline
from edgeseg.engine.run_state import FILE, RunState
from edgeseg.engine.sampling import EpochSampler
from edgeseg.engine.signals import leave_signals_to_the_main_process, stoppable
from edgeseg.engine.task_losses import TaskLosses
from edgeseg.layers import ConvNormAct
from edgeseg.memory import keep_freed_memory
from edgeseg.pixel2pixel import Pixel2Pixel
from edgeseg.preprocess import normalize
from edgeseg.processor import trains_faster_in_bf16
from edgeseg.spec import Quantization
from edgeseg.weights.checkpoint import save_checkpoint

CACHE_LIMIT = 2e9  # bytes of decoded samples
SAMPLES_TO_EQUALIZE = 32


def train(
    model: Pixel2Pixel, train_set: Any, val_set: Any | None, config: TrainConfig, output: Path, *, resume: bool = False
) -> Pixel2Pixel:
    """Trains the tasks of `model` in place (quantization-aware: a copy) and gives back its moving average.

    Started by torchrun, each process trains on its share of every batch.

    Args:
        model: On the device to train on. Its preprocessing gets the size of `config`.
        train_set: Has a length and gives images and targets: a uint8 image [3,H,W] and a label map [H,W] with 255 for
            ignored pixels, or a tuple of images and a dict of targets by task: label maps, and depth [1,H,W] in metres
            with 0 for unknown. A sample may lack the targets of some tasks.
        val_set: The like, scored every `evaluate_every` epochs; None for none.
        config: The recipe.
        output: Folder, made where it is missing, for `last.safetensors`, `best.safetensors` (by the first task),
            `metrics.jsonl`, `run.pt`, from which a stopped run goes on, and at the end `samples.png` (image, truth,
            prediction) and, with matplotlib, `curves.png`.
        resume: Go on with the run in `output` where there is one.

    Raises:
        FloatingPointError: the loss is not finite; names the batch's images.
        KeyboardInterrupt: on Ctrl-C and SIGTERM, after saving.
        ValueError: fewer images than a batch has, labels outside the classes, a run to resume that is another one.
    """
    keep_freed_memory()
    device = next(model.parameters()).device
    output.mkdir(parents=True, exist_ok=True)
    augment = AUGMENTATIONS[config.augmentation](
        config.img_resize,
        config.rand_crop or config.img_resize,
        config.rand_scale,
        keep_aspect=config.keep_aspect,
        rotation=config.transform_rotation,
        jitter=config.jitter,
    )
    samples = Augmented(train_set, augment, model.tasks, seed=config.seed, cache=_fits(train_set, config))
    sampler = EpochSampler(samples, config)
    loader = DataLoader(
        samples,
        batch_sampler=sampler,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        worker_init_fn=leave_signals_to_the_main_process,
        pin_memory=device.type == "cuda",
    )
    teacher = model.to(memory_format=torch.channels_last).eval() if config.distillation else None
    if config.distillation and model.quantization is not None:
        raise ValueError("distillation begins from a float network, this one is quantization-aware already")
    if config.quantize != "none" and model.quantization is None:
        how = Quantization(scheme=config.quantize, weight_bits=config.weight_bits)
        some = (samples[index][0] for index in range(min(len(samples), SAMPLES_TO_EQUALIZE)))
        model = quantize_aware(
            model, how, ([normalize(x.unsqueeze(0).to(device), model.preprocess) for x in images] for images in some)
        )
    model.preprocess = replace(model.preprocess, size=config.img_resize, keep_aspect=config.keep_aspect)
    if config.sync_bn and device.type == "cuda":
        model = cast(Pixel2Pixel, nn.SyncBatchNorm.convert_sync_batchnorm(model))
    model.to(memory_format=torch.channels_last)
    if config.freeze_encoder:
        model.encoder.requires_grad_(False)
    network = _Network(model, config).to(device)
    losses = TaskLosses(model, train_set, samples, config, teacher)
    average = AveragedModel(model, multi_avg_fn=_moving_average(config.ema), use_buffers=True)
    averaged = cast(Pixel2Pixel, average.module)
    balancer = BALANCERS[config.balancing](model.tasks, config.task_factors or [1.0] * len(model.tasks)).to(device)
    optimizer = build_optimizer(model.encoder, [model.decoders, network.auxiliary, balancer], config)
    bf16 = trains_faster_in_bf16(device) if config.bf16 is None else config.bf16
    modules = {"model": model, "average": average, "auxiliary": network.auxiliary, "balancer": balancer}
    state = RunState(model.name, config, modules, optimizer)
    if resume and (output / FILE).is_file():
        state.load(output)
    forward = _parallel(network, config, device)

    def step(batches: Sequence[tuple[Sequence[Tensor], Mapping[str, Tensor], Tensor]]) -> dict[str, float]:
        """One optimizer step on `iter_size` batches; the mean losses, of all and by task."""
        torch.manual_seed(config.seed * 1_000_003 + state.step * distributed.world_size() + distributed.rank())
        means: dict[str, float] = {}
        optimizer.zero_grad(set_to_none=True)
        for images, targets, indices in batches:
            inputs = [normalize(image.to(device), model.preprocess) for image in images]
            inputs = [image.contiguous(memory_format=torch.channels_last) for image in inputs]
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                outputs = forward(*inputs)
            features = outputs.pop("features")
            by_task = losses(inputs, outputs, {name: target.to(device) for name, target in targets.items()})
            loss = balancer.total(by_task, features)
            if not math.isfinite(value := float(loss.detach())):
                names = ", ".join(name_of(train_set, int(index)) for index in indices)
                raise FloatingPointError(
                    f"the loss is {value} in step {state.step + 1}; lower lr={config.lr}, or look at {names}"
                )
            (loss / len(batches)).backward()
            for name, each in {"loss": loss, **by_task}.items():
                means[name] = means.get(name, 0.0) + float(each.detach()) / len(batches)
        if config.clip_grad:
            nn.utils.clip_grad_norm_(network.parameters(), config.clip_grad)
        optimizer.step()
        if config.ema:
            average.update_parameters(model)
        return means

    def score(epoch: int) -> dict[str, float]:
        """Figures in percent of all tasks; the weights that are best at the first are kept."""
        metrics = evaluate_tasks(
            averaged,
            val_set,
            protocol=config.protocol,
            output_size=config.output_size,
            bf16=bf16,
            workers=config.workers,
        )
        figures = {name: headline(metric, config.protocol) for name, metric in metrics.items()}
        (kind, first), alone = next(iter(figures.values())), len(figures) == 1
        if (quality := first if kind == "miou" else -first) > state.best:
            state.best = quality
            if distributed.rank() == 0:
                facts: dict[str, Any] = {"recipe": asdict(config), "epoch": epoch, kind: first}
                save_checkpoint(averaged, output / "best.safetensors", **facts)
        return {kind if alone else f"{name}_{kind}": value for name, (kind, value) in figures.items()}

    steps = len(sampler)
    saved = time.monotonic()
    with stoppable() as stopped, Log(output, state.step // steps) as log:
        while state.step < config.epochs * steps:
            epoch, start = state.step // steps, time.perf_counter()
            sampler.epoch, sampler.start = epoch, state.step % steps
            network.train()
            freeze_ranges(model, epoch > config.epochs // 2)
            bar = tqdm(
                total=steps, initial=sampler.start, desc=f"epoch {epoch + 1}/{config.epochs}", leave=False,
                disable=True if distributed.rank() else None,
            )  # fmt: skip
            batches = []
            for batch in loader:
                batches.append(batch)
                if len(batches) < config.iter_size:
                    continue
                lr = set_learning_rate(optimizer, config, state.step / steps)
                for name, value in (means := step(batches)).items():
                    state.losses[name] = state.losses.get(name, 0.0) + value
                batches = []
                state.step += 1
                bar.set_postfix({"loss": f"{means['loss']:.3f}", "lr": f"{lr:.2g}"} | _memory(device), refresh=False)
                bar.update()
                if state.step % steps == 0:
                    break  # the epoch's end is saved with its score and its line in the log, never without them
                if stopped() or time.monotonic() - saved > 60 * config.save_every:
                    _save(state, output)
                    saved = time.monotonic()
                if stopped():
                    raise KeyboardInterrupt(f"stopped after step {state.step}; go on with resume, from {output}")
            bar.close()
            if not config.ema:
                averaged.load_state_dict(model.state_dict())
            seconds = time.perf_counter() - start
            means = {name: value / steps for name, value in state.losses.items()}
            balancer.end_epoch(means)
            row = {"epoch": epoch + 1, "loss": means["loss"], "lr": lr, "seconds": seconds}
            if len(model.tasks) > 1:
                row |= {f"{name}_loss": means[name] for name in model.tasks}
                row |= {f"{name}_weight": float(w) for name, w in zip(model.tasks, balancer.weights, strict=True)}
            row["images_per_second"] = (steps - sampler.start) * config.batch_size * config.iter_size / seconds
            if val_set is not None and ((epoch + 1) % config.evaluate_every == 0 or epoch + 1 == config.epochs):
                row |= score(epoch + 1)
            log.write(row)
            state.losses = {}
            if distributed.rank() == 0:
                save_checkpoint(averaged, output / "last.safetensors", recipe=asdict(config), epoch=epoch + 1)
            _save(state, output)
            saved = time.monotonic()
            if stopped() and state.step < config.epochs * steps:
                raise KeyboardInterrupt(f"stopped after epoch {epoch + 1}; go on with resume, from {output}")
    if distributed.rank() == 0:
        draw_curves(output)
        if val_set is not None:
            draw_samples(averaged, val_set, output / "samples.png")
    return averaged.eval()


class _Network(nn.Module):
    """What is trained: the model, and where the recipe has it an auxiliary prediction from the deepest feature."""

    def __init__(self, model: Pixel2Pixel, config: TrainConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.auxiliary = nn.ModuleDict()
        if config.aux_loss:
            torch.manual_seed(config.seed)
            channels = cast(list[int], model.encoder.channels)[-1]
            for name, task in model.tasks.items():
                if task.kind == "segmentation":
                    self.auxiliary[name] = nn.Sequential(
                        ConvNormAct(channels, 128, 3), nn.Conv2d(128, task.channels, 1)
                    )

    def forward(self, *images: Tensor) -> dict[str, Tensor]:
        """Logits by task at the decoders' stride, the auxiliary ones as `task/auxiliary`, and the deepest features."""
        features = self.model.encoder(images)
        outputs = {name: decoder(features) for name, decoder in self.model.decoders.items()}
        outputs |= {f"{name}/auxiliary": head(features[-1]) for name, head in self.auxiliary.items()}
        return outputs | {"features": features[-1]}

    def train(self, mode: bool = True) -> _Network:
        super().train(mode)
        if self.config.freeze_encoder:
            self.model.encoder.eval()
        if self.config.freeze_bn:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def _parallel(network: _Network, config: TrainConfig, device: torch.device) -> Callable[..., dict[str, Tensor]]:
    module: nn.Module = network
    if distributed.world_size() > 1:
        module = DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)
    return cast(Callable[..., dict[str, Tensor]], torch.compile(module) if config.compile else module)


def _moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """An exponential average that starts short, so that it soon forgets the untrained decoder."""

    def update(averages: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(now)(averages, values, count)

    return update


def _fits(dataset: Any, config: TrainConfig) -> bool:
    """Whether to decode the whole set into memory."""
    if config.cache is not None or len(dataset) == 0:
        return bool(config.cache)
    images, _ = as_sample(dataset[0], "")
    return sum(x.numel() for x in images) * 4 / 3 * len(dataset) < CACHE_LIMIT


def _memory(device: torch.device) -> dict[str, str]:
    return {"GB": f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f}"} if device.type == "cuda" else {}


def _save(state: RunState, output: Path) -> None:
    if distributed.rank() == 0:
        state.save(output)
    distributed.barrier()
