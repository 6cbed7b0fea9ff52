"""The training loop: read `train` and `_Run` top to bottom, then `OptimizerStep`."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim.swa_utils import AveragedModel

from edgeseg.arguments import require_network
from edgeseg.data.base import LabelledDataset, name_of
from edgeseg.engine import distributed
from edgeseg.engine.balancing import BALANCERS
from edgeseg.engine.bfloat16 import trains_in_bfloat16
from edgeseg.engine.callbacks import Callback, Callbacks, Run
from edgeseg.engine.data_check import check_batch_norms, check_data, check_tasks
from edgeseg.engine.evaluation import evaluate_tasks
from edgeseg.engine.loading import raising, training_loader, training_samples
from edgeseg.engine.optimization import build_optimizer, learning_rate_factor, set_learning_rate
from edgeseg.engine.report import Log, Pictures
from edgeseg.engine.run_folder import claimed, clear, has_state
from edgeseg.engine.run_state import RunState
from edgeseg.engine.sampling import EpochSampler
from edgeseg.engine.signals import stoppable
from edgeseg.engine.step import Batch, OptimizerStep
from edgeseg.engine.sync_batch_norm import unshare_batch_norms
from edgeseg.engine.task_losses import TaskLosses, check_losses
from edgeseg.engine.teacher import SoftLabels, check_soft_labels
from edgeseg.engine.trained_network import (
    TrainedNetwork,
    check_model,
    float_copy,
    moving_average,
    prepared,
)
from edgeseg.machine.errors import is_out_of_memory
from edgeseg.machine.terminal import progress_bar, say
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.networks.quantized import freeze_ranges
from edgeseg.recipes import TrainConfig
from edgeseg.storage.checkpoint import save_checkpoint
from edgeseg.tasks import kind_of


def train(
    model: Pixel2Pixel,
    train_set: LabelledDataset,
    val_set: LabelledDataset | None,
    config: TrainConfig,
    output: str | os.PathLike[str],
    *,
    soft_labels: SoftLabels | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Pixel2Pixel:
    """Trains the tasks of `model` in place (for quantization-aware training, a copy of it).

    Under torchrun, and within `edgeseg.engine.distributed.process_group`, each process trains on its share of every
    batch. On Linux CPUs training is faster if the
    process calls `edgeseg.machine.memory.keep_freed_memory()` first, as `edgeseg train` does.

    Args:
        model: On the device to train on. Its preprocessing gets the image size of `config`.
        train_set: Training set; see `edgeseg.data.base.LabelledDataset`. A sample may lack the targets of some tasks.
        val_set: Validation set in the same format, scored every `evaluate_every` epochs; None skips validation.
        config: The recipe.
        output: Folder of the run, created if it is missing: `last.safetensors`, `best.safetensors` (by the first
            task), `metrics.jsonl`, and `run.pt`, from which a stopped run is resumed; `data_training.json`
            and `data_validation.json`, what is in the datasets. At the end `samples.png` (image, ground truth,
            prediction) and, if matplotlib is installed, `curves.png`.
        soft_labels: Soft labels of a teacher, used in addition to the labels of the training set; for photos without
            labels they are the only targets.
        resume: Resume the run in `output` if there is one. `config.epochs` may be higher than before.
        overwrite: Remove the files of the run in `output` if there is one, and no others.
        callbacks: Called while the run runs; see `edgeseg.engine.Callback`.

    Returns:
        Another model with the moving average of the weights after the last epoch, in evaluation mode. `model` has the
        weights of the last step, and `best.safetensors` those with the highest score.

    Raises:
        BlockingIOError: another process is training in `output`.
        FileExistsError: `output` holds a run, and neither `resume` nor `overwrite` says what becomes of it.
        FloatingPointError: the loss is not finite; the message names the images of the batch.
        KeyboardInterrupt: on Ctrl-C and SIGTERM, after saving.
        MemoryError: memory is short, or a process that loads photos was killed.
        NotADirectoryError: `output` is a file.
        OSError: a sample cannot be read, or a file of the run cannot be written; names the file.
        RuntimeError: a script without a `__main__` guard is run again by its own data-loading processes, or torchrun
            has started processes that are in no process group.
        TypeError: `config`, `soft_labels` or `callbacks` is of another type.
        ValueError: fewer images than an optimizer step uses, a sample that cannot be used, labels from which nothing
            can be learned, a model in another precision than float32, or a run to resume that had another model, recipe
            or number of training samples. The model predicts as before.

    Example:
        >>> import edgeseg
        >>> from edgeseg.data import Streets
        >>> from edgeseg.engine import TrainConfig, train
        >>> streets = Streets("train", size=(64, 96), length=4)
        >>> model = edgeseg.create_model("fpn", encoder="mobilenetv2", tasks=streets.tasks)
        >>> config = TrainConfig(
        ...     epochs=1, batch_size=4, img_resize=(64, 96), rand_crop=(64, 96), workers=0
        ... )
        >>> trained = train(model, streets, None, config, "runs/streets")
        training set, for cpu
        ...
        >>> file = "runs/streets/last.safetensors"
        >>> list(edgeseg.create_model("fpn", checkpoint_path=file).tasks)
        ['semantic']
    """
    output = Path(output)
    _check_call(model, config, soft_labels, callbacks)
    log = Log()
    watching = Callbacks([log, *callbacks, Pictures(val_set)])
    device = next(model.parameters()).device
    with (
        torch.enable_grad(),
        claimed(output, resume=resume, overwrite=overwrite),
        torch.random.fork_rng([device] if device.type == "cuda" else []),  # the run has a seed of its own
        _shortage_named(),
    ):
        resume = resume and has_state(output)
        with _unchanged_if_refused(model):
            run = _Run(model, train_set, val_set, config, output, watching, soft_labels, resume=resume)
        try:
            with stoppable() as stopped, run.watched():
                if not resume:
                    clear(output)  # an earlier run stays if a callback cannot start
                run.begin(log)
                while not run.ended():
                    run.epoch(stopped)
        finally:
            run.thaw()
        return run.averaged.eval()


def _check_call(model: Any, config: Any, soft_labels: Any, callbacks: Any) -> None:
    """Checks how `train` is called.

    Raises:
        RuntimeError, TypeError: as in `train`.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself finds out
        raise RuntimeError(
            "a process that decodes photos has run this script again; put what the script does below "
            "`if __name__ == '__main__':`, or pass TrainConfig(workers=0)"
        )
    distributed.require_group("train")
    require_network("train", model)
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config must be a TrainConfig, such as TrainConfig(epochs=40), got {type(config).__name__}")
    if not isinstance(soft_labels, SoftLabels | None):
        given = type(soft_labels).__name__
        raise TypeError(f"soft_labels must be SoftLabels, such as SoftLabels(Teacher([network], tasks)), got {given}")
    if isinstance(callbacks, Callback):
        raise TypeError(f"callbacks is a list, got a single {type(callbacks).__name__}")


@contextmanager
def _shortage_named() -> Iterator[None]:
    """Turns a lack of memory, and the end of a process that loads photos, into a MemoryError that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if "DataLoader worker" in str(error):
            raise MemoryError(
                f"a process that loads photos has ended, as it does if memory is short: lower workers (--workers) or "
                f"batch_size (--batch-size), or pass cache=False (--no-cache): {error}"
            ) from error
        if is_out_of_memory(error):
            raise MemoryError(
                f"training needs more memory than there is: lower batch_size (--batch-size), and make up for it by "
                f"iter_size (--iter-size), or lower rand_crop (--rand-crop): {error}"
            ) from error
        raise


@contextmanager
def _unchanged_if_refused(model: Pixel2Pixel) -> Iterator[None]:
    """Restores the record of a model, and what of it is trained, if the block raises an error."""
    record, trained = model.config, [each for each in model.parameters() if each.requires_grad]
    try:
        yield
    except BaseException:
        model.configure(preprocess=record.preprocess, notes=record.notes)
        for each in trained:
            each.requires_grad_(True)
        raise


class _Run:
    """A training run: `epoch` runs one epoch, and `step` one optimizer step. Arguments are those of `train`.

    Attributes:
        steps: Number of optimizer steps per epoch.
        seen: What callbacks see of the run.
        state: The progress of the run and everything that it is resumed from.
        averaged: The moving average of the model.
    """

    def __init__(
        self,
        model: Pixel2Pixel,
        train_set: LabelledDataset,
        val_set: LabelledDataset | None,
        config: TrainConfig,
        output: Path,
        callbacks: Callbacks,
        soft_labels: SoftLabels | None,
        *,
        resume: bool,
    ) -> None:
        self.train_set, self.val_set, self.config, self.output = train_set, val_set, config, output
        self.device = device = next(model.parameters()).device
        check_model(model, config)
        check_tasks(model, train_set, val_set)
        check_losses(model, train_set, config)
        check_soft_labels(soft_labels, model, config)
        taught = [soft_labels.task] if soft_labels is not None else []
        samples = training_samples(train_set, model, config, soft_labels)
        distributed.require_same(len(samples), "number of training samples")
        self.sampler = EpochSampler(samples, config)
        self.steps = len(self.sampler)
        self.seen = Run(model, config, output, self.steps, 0, val_set is not None, self._figures(model))
        callbacks("check", self.seen)
        report = check_data(model, samples, val_set, config, output, unlabelled=taught)
        counts = {}
        if soft_labels is not None:
            counts[soft_labels.task] = soft_labels.prepare(train_set, model.tasks, model.inputs).float()
        self.loader = training_loader(samples, self.sampler, config, device)
        float_network = float_copy(model, config) if soft_labels is None else None
        self.model = prepared(model, samples, config, device)
        trained = [name for name, each in self.model.encoder.named_parameters() if each.requires_grad]
        self.frozen = trained if config.freeze_encoder else []
        if config.freeze_encoder:
            self.model.encoder.requires_grad_(False)
        if soft_labels is not None:
            self.model.configure(notes={**self.model.config.notes, **soft_labels.notes})
        self.network = TrainedNetwork(self.model, config).to(device)
        check_batch_norms(self.network, self.model, config)
        self.losses = TaskLosses(self.model, train_set, report, config, float_network, counts)
        self.average = AveragedModel(self.model, multi_avg_fn=moving_average(config.ema), use_buffers=True)
        # In training mode, so that the end of an evaluation clears what encoders keep while their weights are fixed.
        self.averaged = cast(Pixel2Pixel, self.average.module.train())
        factors = config.task_factors or [1.0] * len(self.model.tasks)
        self.balancer = BALANCERS[config.balancing](self.model.tasks, factors).to(device)
        others = [self.model.decoders, self.network.auxiliary, self.balancer]
        self.optimizer = build_optimizer(self.model.encoder, others, config)
        self.bf16 = trains_in_bfloat16(self.model, config, device)
        modules = {"model": self.model, "average": self.average}
        modules |= {"auxiliary": self.network.auxiliary, "balancer": self.balancer}
        self.state = RunState(
            self.model.config, config, modules, self.optimizer, len(samples), self.steps, callbacks,
            soft_labels.digest if soft_labels is not None else "",
        )  # fmt: skip
        self.saved = time.monotonic()
        self.seen.model = self.averaged
        if resume:
            self._say_schedule(self.state.load(output))
            for each in (self.model, self.averaged):
                # Whatever weights the model had before it was resumed.
                each.configure(preprocess=self.state.record.preprocess, notes=self.state.record.notes)
        self.step = OptimizerStep(
            self.network, self.losses, self.balancer, self.optimizer, config, device,
            bf16=self.bf16, name_of=partial(name_of, train_set),
        )  # fmt: skip
        self.call = callbacks
        self.seen.step = self.state.step

    def _figures(self, model: Pixel2Pixel) -> tuple[str, ...]:
        """The names of the losses and scores in the log."""
        tasks, protocol = model.tasks, self.config.protocol
        kinds = {name: kind_of(task).metric(task).headline(protocol)[0] for name, task in tasks.items()}
        scores = [_score_name(name, kind, model) for name, kind in kinds.items()] if self.val_set is not None else []
        return ("loss", *(f"{name}_loss" for name in tasks if len(tasks) > 1), *scores)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within this context the run runs: calls the callbacks at its start and at its end, however it ends."""
        try:
            self.call.start(self.seen)
            yield
        except BaseException as error:
            self.call.end(self.seen, error)
            raise
        self.call.end(self.seen, None)

    def thaw(self) -> None:
        """Ends what lasts as long as the run: the freezing of the encoder, and the sharing of batch norm statistics."""
        for model in (self.model, self.averaged):
            if self.config.sync_bn:
                unshare_batch_norms(model)
            for name in self.frozen:
                model.encoder.get_parameter(name).requires_grad_(True)

    def begin(self, log: Log) -> None:
        """Opens the log of a new or resumed run, and finishes an epoch whose evaluation failed."""
        if not self.ended():
            self.save()  # from here on the folder holds a run that can be resumed
        if distributed.rank() == 0:
            log.open(self.seen, done=self.seen.epoch - self.state.unfinished)
        if self.state.unfinished:
            self.finish_epoch()
            self._save_epoch()
            distributed.barrier()
        if self.ended():
            self.say_finished()

    def ended(self) -> bool:
        """Whether the last epoch is done, or a callback has stopped the run. All processes have to call it together."""
        return self.state.step >= self.config.epochs * self.steps or self._asked_to_stop()

    def _asked_to_stop(self) -> bool:
        return bool(distributed.total(torch.tensor([float(bool(self.seen.reason))])).any())

    def say_finished(self) -> None:
        """Says that there is nothing to do, with the score of the run."""
        if distributed.rank() == 0:
            why = f" ({self.seen.reason})" if self.seen.reason else ""
            score = f", best {self.state.score}" if self.state.score else ""
            more = "" if self.seen.reason else "; more epochs continue it"
            epoch, epochs = self.state.step // self.steps, self.config.epochs
            say(f"{self.output} is finished at epoch {epoch} of {epochs}{why}{score}{more}")

    def _say_schedule(self, before: int) -> None:
        """Says what another number of epochs than `before` does to the learning rate of a resumed run."""
        config, now = self.config, self.config.epochs
        if before == now or distributed.rank() != 0:
            return
        at = self.state.step / self.steps
        rates = (config.lr * learning_rate_factor(replace(config, epochs=n), at) for n in (before, now))
        say(
            "epochs {} -> {}: the {} schedule is that of {} epochs from here on; the learning rate goes on at {:.2g} "
            "instead of {:.2g}".format(before, now, config.scheduler, now, *reversed(list(rates)))
        )

    def epoch(self, stopped: Callable[[], bool]) -> None:
        """Runs the remaining steps of the current epoch, scores it if that is due, and saves the run.

        Args:
            stopped: Returns whether the run has to stop; called after each step.

        Raises:
            KeyboardInterrupt: the run was stopped; it is saved.
        """
        state, start = self.state, time.perf_counter()
        number, first = divmod(state.step, self.steps)
        self.sampler.epoch, self.sampler.start = number, first
        self.network.train()
        freeze_ranges(self.model, number > self.config.epochs // 2)
        # The state after the last step is saved below, together with the scores and the row of the log.
        for _ in self._steps(number, first):
            if state.step % self.steps == 0:
                break
            self._save_at_times()
            if stopped():
                self.save()
                raise KeyboardInterrupt(_stopped(state, self.output))
            if self._asked_to_stop():
                break
        if not self.config.ema:
            self.averaged.load_state_dict(self.model.state_dict())
        for each in (self.model, self.averaged):
            distributed.share_buffers(each)
        if state.step % self.steps == 0:
            self.balancer.end_epoch(self._means())
            state.unfinished = True
            try:
                self.finish_epoch(first, time.perf_counter() - start)
            except BaseException:
                self._save_epoch()  # all steps are done, whatever the evaluation or a callback makes of them
                raise
        self._save_epoch()
        distributed.barrier()
        if stopped() and not self.ended():
            raise KeyboardInterrupt(_stopped(state, self.output))

    def finish_epoch(self, first: int = 0, seconds: float | None = None) -> None:
        """Scores an epoch whose steps are done, if that is due, and passes its row to the log and the callbacks.

        Args:
            first: Number of its steps that were done before this process ran it.
            seconds: Time that the others took; None in a resumed run that makes up for an evaluation that failed.
        """
        number = self.state.step // self.steps - 1
        self.call("on_epoch_end", self.seen, self._row(number, first, seconds))
        self.state.losses, self.state.unfinished = {}, False

    def _means(self) -> dict[str, float]:
        """The mean losses of the steps of the current epoch."""
        return {name: value / self.steps for name, value in self.state.losses.items()}

    def _row(self, number: int, first: int, seconds: float | None) -> dict[str, float]:
        """The row of the log for an epoch whose steps are done, with scores if an evaluation is due."""
        config, means = self.config, self._means()
        row = {"epoch": number + 1, "loss": means["loss"], "lr": self.optimizer.param_groups[0]["lr"]}
        if seconds is not None:
            row["seconds"] = seconds
        if len(self.model.tasks) > 1:
            row |= {f"{name}_loss": means[name] for name in self.model.tasks}
            weights = zip(self.model.tasks, self.balancer.weights, strict=True)
            row |= {f"{name}_weight": float(weight) for name, weight in weights}
        if seconds is not None:
            row["images_per_second"] = (self.steps - first) * config.batch_size * config.iter_size / seconds
        if (number + 1) % config.evaluate_every == 0 or number + 1 == config.epochs:
            row |= self.score(number + 1)
        return row

    def _steps(self, number: int, first: int) -> Iterator[None]:
        """Runs the steps of an epoch from step `first` on; yields after each of them."""
        title = f"epoch {number + 1}/{self.config.epochs}"
        batches: list[Batch] = []
        with progress_bar(None, title, "step", self.steps, initial=first, shown=not distributed.rank()) as shown:
            for batch in raising(self.loader):
                batches.append(batch)
                if len(batches) < self.config.iter_size:
                    continue
                lr = set_learning_rate(self.optimizer, self.config, self.state.step / self.steps)
                means = self.step(batches, self.state.step)
                if self.config.ema:
                    self.average.update_parameters(self.model)
                for name, value in means.items():
                    self.state.losses[name] = self.state.losses.get(name, 0.0) + value
                batches = []
                self.state.step += 1
                self.seen.step = self.state.step
                self.call("on_step_end", self.seen, means)
                facts = {"loss": f"{means['loss']:.3f}", "lr": f"{lr:.2g}"} | _memory(self.device)
                shown.set_postfix(facts, refresh=False)
                shown.update()
                yield

    def score(self, epoch: int) -> dict[str, float]:
        """Scores all tasks on the validation set, and saves the weights if the first task is better than ever before.

        Args:
            epoch: Number of the epoch, counted from 1.

        Returns:
            The headline figures in percent; nothing without a validation set.
        """
        if self.val_set is None:
            return {}
        config = self.config
        metrics = evaluate_tasks(
            self.averaged,
            self.val_set,
            protocol=config.protocol,
            output_size=config.output_size,
            bf16=self.bf16,
            workers=config.workers,
            progress="evaluation",
        )
        figures = {name: metric.headline(config.protocol) for name, metric in metrics.items()}
        kind, first = next(iter(figures.values()))
        better = next(iter(metrics.values())).higher_is_better
        if (quality := first if better else -first) > self.state.best:
            self.state.best, self.state.score = quality, f"{kind} {first:.2f} at epoch {epoch}"
            if distributed.rank() == 0:
                facts: dict[str, Any] = {"recipe": asdict(config), "epoch": epoch, kind: first}
                save_checkpoint(self.averaged, self.output / "best.safetensors", **facts)
        row = {_score_name(name, kind, self.model): value for name, (kind, value) in figures.items()}
        self.seen.better |= {name: each.higher_is_better for name, each in zip(row, metrics.values(), strict=True)}
        self.call("on_evaluation", self.seen, metrics)
        return row

    def _save_epoch(self) -> None:
        """Saves the moving average of the weights, and the state."""
        if distributed.rank() == 0:
            facts: dict[str, Any] = {"recipe": asdict(self.config), "epoch": self.state.step // self.steps}
            save_checkpoint(self.averaged, self.output / "last.safetensors", **facts)
        self._save_state()

    def _save_at_times(self) -> None:
        """Saves the state every `save_every` minutes. Process 0 alone decides and saves; the others do not wait."""
        if time.monotonic() - self.saved > 60 * self.config.save_every:
            self._save_state()

    def save(self) -> None:
        """Saves the state now; all processes wait until it is written."""
        self._save_state()
        distributed.barrier()

    def _save_state(self) -> None:
        if distributed.rank() == 0:
            self.state.save(self.output)
        self.saved = time.monotonic()


def _score_name(task: str, kind: str, model: Pixel2Pixel) -> str:
    """The name of a task's score in the log, such as "miou" if there is one task and "depth_ard" among several."""
    return kind if len(model.tasks) == 1 else f"{task}_{kind}"


def _stopped(state: RunState, output: Path) -> str:
    """The message of a run that was stopped and saved."""
    return f"stopped after step {state.step}; go on with resume=True and the folder {output}"


def _memory(device: torch.device) -> dict[str, str]:
    """The highest memory use of a GPU so far in gigabytes, for the progress bar."""
    return {"GB": f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f}"} if device.type == "cuda" else {}
