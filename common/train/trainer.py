"""The engine of the training loop; every training script shows the loop itself:

    for _ in trainer.epochs():
        for batch in trainer.batches():
            losses = trainer.forward(*batch.views, batch.labels, batch.epoch)
            trainer.learn(losses, batch)
        if trainer.validation_is_due():
            trainer.record(lambda: trainer.score_seeds(model.foreground_maps(config.infer.seed_map)))
    return trainer.close("Seeds: ...")

It keeps the order of the batches, accumulation, loss scaling, stop signals, checkpoints, log and exact resume.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.data.dataset import ImageSet, LabelledImages, TrainingImages
from common.data.loader import EpochBatches, TrainViews, train_loader
from common.data.sizes import require_sizes
from common.data.transforms import normalised_views
from common.nets.vit import ClassMaps
from common.run.device import Runtime
from common.run.folder import BEST_FILE, EPOCH_FILE
from common.run.log import RunLog
from common.run.pool import usable_workers
from common.run.processes import stop_processes
from common.run.random import shared_generator
from common.run.script import Setup, start_run
from common.score.images import scored_images
from common.seeds.infer import MapsOf, view_maps
from common.seeds.score import validate
from common.seeds.thresholds import write_entry
from common.tensors import compiled
from common.train.checkpoint import Checkpoints, Stateful
from common.train.course import Position
from common.train.identity import changes_of_resumed, identity_of
from common.train.optim import Optimizer, adamw, set_lr
from common.train.schedule import Rate, learning_rate
from common.train.step import Batch, TrainingStep
from common.train.watch import LossWatch, ProgressLine, StepClock, StopRequest, label_accuracy


class Trainer:
    """The verbs of a training loop; see the module. Made when data and model are there.

    Attributes:
        log: the run's log.
        position: the current epoch and step.
        val_images: the images of the validation, if there is any.
        scaler: the loss scaling of fp16.
        sampler: the order of the batches.
        total_steps: steps of the whole run.
    """

    _progress: ProgressLine  # of the epoch in progress

    def __init__(
        self, setup: Setup, images: TrainingImages, views: Callable[[Any], list[Tensor]], model: nn.Module,
        step: TrainingStep, start: str, *, parts: Mapping[str, Stateful] | None = None,
        optimizer: Optimizer | None = None, rate: Rate | None = None, clip: float = 0.0,
        load: Callable[[int], Any] | None = None, val_images: TrainingImages | None = None, drop_last: bool = True,
        inputs: Mapping[str, Iterable[Path]] | None = None,
    ) -> None:  # fmt: skip
        """Restores a resumed run, and makes the run folder, as all input has proved to be there.

        Args:
            views: makes the random views of an image, or of the result of ``load``.
            model: the network, on the device; the epoch files hold its state dict.
            step: model and losses.
            start: origin of the first weights, for the log.
            parts: the method's state besides weights, equal on all processes.
            optimizer: of the model's parameters, with its learning rate; None for AdamW by the section ``optim``.
            rate: learning rate of the next step, which a group of parameters multiplies by its own ``lr_scale``; None
                for the warmed-up cosine by the section ``optim``.
            clip: largest norm of the gradient of all parameters together; 0: not clipped.
            load: reads an image with its mask or maps, by index in ``images``; None: the image alone.
            val_images: the images of the validation; None: the list ``train.val_list``, which needs masks.
            drop_last: whether the incomplete last batch of an epoch is left out; a step that takes it weights its
                losses by `EpochBatches.mean_part`.
            inputs: files that ``load`` reads, by a plural noun: a resumed run must find the same ones.
        """
        self.setup = setup
        self.config = setup.config
        self.runtime: Runtime = setup.runtime
        self.processes = setup.processes
        self.train = self.config.train
        is_resumed = setup.args.resume
        seed = self.config.runtime.seed

        images.require_labels()
        self.val_images: Any = None  # of the kind that the script's validation takes
        if self.train.validates_at_all():
            kind = ImageSet if images.labels is None else LabelledImages
            self.val_images = val_images or scored_images(kind, self.config.data, self.train.val_list, self.config.eval)
        self.sampler = EpochBatches(
            len(images), self.train.batch_size, seed, self.processes.rank, self.processes.world,
            self.train.accumulation, drop_last,
        )  # fmt: skip
        require_sizes(images, self.processes)
        self.loader = train_loader(
            TrainViews(images, views, seed, load, self.config.runtime.byte_views), self.sampler,
            usable_workers(self.config.runtime.num_workers), pin_memory=self.runtime.device.type == "cuda",
        )  # fmt: skip
        self.total_steps = self.train.length(len(self.sampler))

        self.model = model
        self.module = _wrapped(step, self.runtime)
        self.logits = step.logits
        self.optimizer = optimizer or adamw(model, self.config.optim, self.train.batch_size)
        self.peak = self.optimizer.param_groups[0]["lr"]  # before a resumed state replaces it
        self.rate = rate or self._cosine
        self.clip = clip
        self.scaler = self.runtime.grad_scaler()
        accuracies = [f"accuracy_{name}" for name in step.logits]
        self.watch = LossWatch(("total", *step.terms, *accuracies), images.ids, lambda: self.checkpoints.kept())
        self.clock = StepClock()
        self._shown: dict[str, float] = {}  # the last averages
        self.stop = StopRequest()

        identity = identity_of(setup, images, drop_last, inputs or {})
        state = {"optimizer": self.optimizer, "scaler": self.scaler, **(parts or {})}
        self.checkpoints = Checkpoints(
            setup.run.checkpoints, model, state, {"watch": self.watch}, self.processes, identity, self.runtime.device
        )
        self.position = self.checkpoints.resume() if is_resumed else Position()
        self._tuned: dict[str, Any] | None = None  # thresholds that the last validation found
        self._is_interrupted = False
        self._is_finished = False

        changes = changes_of_resumed(setup) if is_resumed else []
        start_run(setup.run, self.config, self.processes, setup.args.overwrite)
        resumed_at = self.position.total_steps if is_resumed else None
        is_scored = self.position.validated == self.position.total_steps
        self.log = RunLog(setup.run.path, self.processes.is_main, resumed_at, is_scored)
        for line in changes:
            self.log.say(line)
        labels = "no labels" if images.labels is None else f"{len(images.classes)} classes"
        self.log.say(
            f"{setup.run.path}: {len(images)} images, {labels}, {len(self.sampler)} steps an epoch on "
            f"{self.runtime.describe()}"
        )
        self.log.say(f"weights: {start}")

    # The loop

    def epochs(self) -> Iterator[int]:
        """Yields the current epoch until the run is over or a signal has asked to stop.

        An epoch that validation divides is yielded once for each of its parts.
        """
        position = self.position
        self.log.say(
            f"epochs {position.epoch} to {self._num_epochs() - 1}, {self.total_steps} steps in all, peak learning rate "
            f"{self.peak:.3g}"
        )
        is_open = position.step > 0 or not self.train.is_over(position)  # a signal may have come after the last step
        while is_open:
            epoch = position.epoch
            yield epoch
            if self._is_interrupted:  # the resumed run closes a finished epoch
                return
            if self.epoch_is_complete():
                position.epoch = epoch + 1
                position.step = 0
            is_open = not self.train.is_over(position)
            if self.train.saves_after(epoch) or not is_open:
                self.save_last()
            if is_open and self.is_stopping():
                return
        self._is_finished = True

    def batches(self) -> Iterator[Batch]:
        """Yields the rest of the epoch's (micro-)batches, until its end, a validation, the step limit or a signal."""
        position = self.position
        self._is_interrupted = False
        if not (self._score_is_missing() or self.train.is_over(position)):  # else a resumed run has no step to do here
            self.sampler.start_at(position.epoch, position.step)
            self._progress = ProgressLine(
                position.epoch, self._num_epochs(), len(self.sampler), position.step, self.processes.is_main
            )
            self._progress.show(self._shown)
            self.clock.start()
            self.module.train()
            for number, (views, labels, indices) in enumerate(self.loader):
                batch = self._batch(number % self.train.accumulation, views, labels, indices)
                yield batch
                if not batch.is_last:
                    continue
                if self.is_stopping() or self.train.is_over(position) or self._score_is_missing():
                    break
                if self.train.save_steps and position.total_steps % self.train.save_steps == 0:
                    self.watch.check()
                    self.save_last()
            self._progress.close()
        self.watch.check()
        self._is_interrupted = self.is_stopping()
        if not self._is_interrupted and self.train.keeps(position):
            self.checkpoints.save_weights(EPOCH_FILE.format(position.epoch))

    def forward(self, *inputs: Any) -> dict[str, Tensor]:
        """Losses of a (micro-)batch: calls the step module under the configured number format."""
        with self.runtime.autocast():
            return self.module(*inputs)

    def learn(self, losses: dict[str, Tensor], batch: Batch) -> bool:
        """Backward pass, and with a step's last micro-batch the optimiser's step and the log.

        Args:
            losses: of `forward`.

        Returns:
            Whether a step was completed.
        """
        self.scaler.scale(losses["total"] / self.train.accumulation).backward()
        accuracies = {
            f"accuracy_{name}": label_accuracy(losses[f"logits_{name}"], batch.labels) for name in self.logits
        }
        self.watch.add({**losses, **accuracies}, batch.indices)
        if batch.is_last:
            self._update_weights()
            self.position.step += 1
            self.position.total_steps += 1
            self._log_losses()
        return batch.is_last

    def validation_is_due(self) -> bool:
        """Whether the weights are to be scored at this point."""
        return not self._is_interrupted and self._score_is_missing()

    def record(self, score: Callable[[], float]) -> None:
        """Scores the weights, and keeps them if they are the best so far.

        Args:
            score: scores the present weights, which stand in evaluation mode: the larger, the better.
        """
        self.save_last()  # scoring may fail; the resumed run begins with it
        self.model.eval()
        value = score()
        self.position.validated = self.position.total_steps
        files = [EPOCH_FILE.format(self.position.epoch)] * self.train.keeps(self.position)
        if value > self.position.best:
            self.position.best = value
            self.checkpoints.save_best()
            files.append(BEST_FILE)
        if self._tuned and self.processes.is_main:
            for file in files:
                write_entry(self.checkpoints.folder / file, self._tuned)

    def epoch_is_complete(self) -> bool:
        """Whether all steps of the current epoch are done, and no signal asks to stop before work at its end."""
        return not self._is_interrupted and self.position.step == len(self.sampler)

    def close(self, next_command: str) -> int:
        """Ends the run, or, where its loop was left early, saves everything to go on from.

        Args:
            next_command: the last line of the log.

        Returns:
            The exit code.
        """
        if not self._is_finished:
            self.save_last()
            self.log.say(
                f"stopped by signal {self.stop.signal} after step {self.position.total_steps}; go on with: "
                f"--name {self.setup.run.name} --resume"
            )
            return self.stop.exit_code
        self.checkpoints.finish()
        self.log.say(f"done: {self.position.total_steps} steps. {next_command}")
        self.log.close()
        stop_processes()
        return 0

    # Parts of the loop that scripts also call themselves

    def is_last_step(self) -> bool:
        """Whether the latest completed step is the run's last."""
        return self.position.total_steps == self.total_steps

    def is_stopping(self) -> bool:
        """Whether a signal asked any process to stop; collective: call it on every process."""
        return self.stop.wanted(self.processes)

    def save_last(self) -> None:
        """Saves everything that a resumed run needs; collective."""
        self.checkpoints.save_last(self.position)

    def save_weights(self, file: str) -> None:
        """Saves the weights in a file of their own; collective.

        Raises:
            UserError: as `check`.
        """
        self.check()
        self.checkpoints.save_weights(file)

    def check(self) -> None:
        """Checks losses and weights before the script writes files of them; collective.

        Raises:
            UserError: the last loss or the weights are not finite.
        """
        self.watch.check()
        self.checkpoints.check()

    def score_seeds(self, network: Callable[[Tensor], ClassMaps]) -> float:
        """Validation by seeds of the flips and scales of the section ``infer``; see `score_maps`.

        Args:
            network: images (b, 3, H, W) to foreground CAMs (b, C, h, w) and class logits, for the present weights.
        """
        return self.score_maps(view_maps(network, self.config.infer))

    def score_maps(self, maps_of: MapsOf) -> float:
        """Validation by seeds that a method makes itself: their best mIoU in percent, which is logged."""
        config, position = self.config, self.position
        miou, self._tuned = validate(
            maps_of, self.val_images, config.infer, config.eval, self.runtime, self.log, position.total_steps,
            position.epoch,
        )  # fmt: skip
        return miou

    # Internals

    def _num_epochs(self) -> int:
        """Epochs that the whole run begins."""
        return math.ceil(self.total_steps / len(self.sampler))

    def _cosine(self, position: Position, total: int) -> float:
        return learning_rate(position, len(self.sampler), self.train.epochs, self.peak, self.config.optim)

    def _batch(self, number: int, views: list[Tensor], labels: Tensor, indices: Tensor) -> Batch:
        """A micro-batch, the ``number``-th of its step (from 0), for which the optimiser is made ready."""
        position = self.position
        is_last = number == self.train.accumulation - 1
        draws = shared_generator(self.sampler.seed, position.epoch, position.step, number)
        *views, own_labels = self.runtime.to_device(*views, labels)
        views = normalised_views(views, 4)
        set_lr(self.optimizer, self.rate(position, self.total_steps))
        if isinstance(self.module, DistributedDataParallel):
            self.module.require_backward_grad_sync = is_last  # gradients are exchanged once a step
        return Batch(
            views, own_labels, labels, indices, position.epoch, position.total_steps, number == 0, is_last, draws
        )

    def _update_weights(self) -> None:
        """One step of the optimiser."""
        if self.clip:
            self.scaler.unscale_(self.optimizer)  # type: ignore[arg-type]  # asks for less than an Optimizer
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.scaler.step(self.optimizer)  # type: ignore[arg-type]  # asks for less than an Optimizer
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _log_losses(self) -> None:
        """Counts a step; writes the means since the last line, where one is due: over the ends of epochs, too."""
        position = self.position
        self._progress.advance()
        self.clock.advance()
        self.watch.steps += 1
        if position.total_steps % self.train.print_freq == 0 or position.total_steps == self.total_steps:
            steps = self.watch.steps
            self._shown = self.watch.averages(self.processes)
            timing = {
                "lr": self.optimizer.param_groups[0]["lr"], "seconds_per_step": self.clock.seconds_per_step(),
            }  # fmt: skip
            context = {"kind": "train", "epoch": position.epoch, "steps": steps}
            self.log.numbers(position.total_steps, {**self._shown, **timing}, **context)
            self._progress.show(self._shown)

    def _score_is_missing(self) -> bool:
        position = self.position
        is_new = self.val_images is not None and position.validated != position.total_steps
        return is_new and self.train.validates_at(position, len(self.sampler))


def _wrapped(step: TrainingStep, runtime: Runtime) -> nn.Module:
    """The step module under torch.compile and DistributedDataParallel, as configured.

    Buffers are not broadcast: a method's state is made equal on all processes by gathering its inputs.
    """
    wrapped = compiled(step, runtime.config.compile)
    if runtime.processes.world == 1:
        return wrapped
    devices = [runtime.device.index] if runtime.device.type == "cuda" else None
    return DistributedDataParallel(wrapped, device_ids=devices, broadcast_buffers=False)
