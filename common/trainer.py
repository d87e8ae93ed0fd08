"""The training of a network: batches, optimiser, checkpoints, log and validation around a method's step."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from common.checkpoint import EPOCH_FILE, Checkpoints, Position, Stateful
from common.data.dataset import ImageSet
from common.data.loader import EpochBatches, TrainViews, shared_generator, train_loader
from common.dist import stop_processes
from common.infer import MapsOf, view_maps
from common.log import RunLog
from common.optim import adamw, learning_rate, set_lr
from common.runtime import usable_workers
from common.scoring import scored_images, validate
from common.script import Setup, start_run
from common.training import LossWatch, ProgressLine, StopRequest, label_accuracy, micro_step, wrap_for_training


class Batch(NamedTuple):
    """This process's part of a micro-batch, on the device.

    Attributes:
        views: what the method's transform gives, stacked: random views of the images, each (B, 3, S, S).
        labels: multi-hot (B, C); (B, 0) where the images have none.
        epoch: from 0.
        step: steps done since the start of the run.
        is_first: whether this is the step's first micro-batch.
        draws: a CPU generator, the same on all processes and in a resumed run, for draws over the whole micro-batch.
    """

    views: list[Tensor]
    labels: Tensor
    epoch: int
    step: int
    is_first: bool
    draws: torch.Generator


class Trainer:
    """Everything around a method's step. Made when data and model are there; then `run` trains.

    Attributes:
        log: the run's log.
        position: how far the training is.
        val_images: what the weights are validated on, if they ever are.
        scaler: the loss scaling of fp16.
        total_steps: the whole run's.
    """

    def __init__(
        self, setup: Setup, images: ImageSet, views: Callable[[Any], list[Tensor]], model: nn.Module,
        start: str, step: nn.Module, terms: Sequence[str], parts: Mapping[str, Stateful], *,
        logits: Sequence[str] = ("cls", "pcls"), optimizer: torch.optim.Optimizer | None = None,
        rate: Callable[[Position, int], float] | None = None, clip: float = 0.0,
        load: Callable[[int], Any] | None = None, val_images: ImageSet | None = None, drop_last: bool = True,
    ) -> None:  # fmt: skip
        """Puts a resumed run back where it was, and makes the run folder: all input has proved to be there.

        Args:
            views: makes the random views of an image, or of what ``load`` gives.
            model: the network, on the device; its state dict is what the epoch files hold.
            start: where its weights come from, in words.
            step: model and losses as one module, which gives a dictionary of losses: ``total``, ``terms``, and
                ``logits_NAME`` (B, C) for each of ``logits``.
            terms: names of the losses that are logged besides their total.
            parts: the method's state besides weights, alike on all processes.
            logits: names of the logits whose agreement with the labels is logged.
            optimizer: of the model's parameters, with its learning rate; None for AdamW by the section ``optim``.
            rate: the learning rate of the next step, given the position and the steps of an epoch, which a group of
                parameters multiplies by its own ``lr_scale``; None for the cosine by the section ``optim``.
            load: reads an image and what belongs to it, by index in ``images``; None: the image alone.
            clip: largest norm of the gradient of all parameters together; 0: not clipped.
            val_images: what the weights are validated on; None: the images of ``train.val_list``, which need masks.
            drop_last: whether the incomplete last batch of an epoch is left out; see `EpochBatches.mean_part` for how
                a step that takes it weights its losses.
        """
        self.setup, self.config, self.runtime, self.processes = setup, setup.config, setup.runtime, setup.processes
        config, processes, resumed = self.config, self.processes, setup.args.resume
        self.train, seed = config.train, config.runtime.seed
        self.val_images = None
        if self.train.validates_at_all():
            self.val_images = val_images or scored_images(
                config.data, self.train.val_list, config.eval, images.labels is not None
            )
        self.batches = EpochBatches(
            len(images), self.train.batch_size, seed, processes.rank, processes.world, self.train.accumulation,
            drop_last,
        )  # fmt: skip
        workers, is_cuda = usable_workers(config.runtime.num_workers), self.runtime.device.type == "cuda"
        self.loader = train_loader(TrainViews(images, views, seed, load), self.batches, workers, is_cuda)

        self.total_steps = self.train.length(len(self.batches))

        self.model, self.module, self.logits, self.clip = model, wrap_for_training(step, self.runtime), logits, clip
        self.optimizer = optimizer or adamw(model, config.optim, self.train.batch_size)
        self.peak = self.optimizer.param_groups[0]["lr"]  # before a resumed state replaces it
        self.rate = rate or self._cosine
        self.scaler = self.runtime.grad_scaler()
        accuracies = (f"accuracy_{name}" for name in logits)
        self.watch, self.stop = LossWatch(("total", *terms, *accuracies), images.ids), StopRequest()
        classes = 0 if images.labels is None else len(images.classes)
        identity = {
            "train.batch_size": self.train.batch_size, "training images": len(images), "classes": classes,
            "runtime.seed": seed, "train.drop_last": drop_last,
        }  # fmt: skip
        state = {"optimizer": self.optimizer, "scaler": self.scaler, **parts}
        self.checkpoints = Checkpoints(setup.run.checkpoints, model, state, {"watch": self.watch}, processes, identity)
        self.position = self.checkpoints.resume() if resumed else Position()

        start_run(setup.run, config, processes, setup.args.overwrite)
        resumed_at = self.position.total_steps if resumed else None
        self.log = RunLog(setup.run.path, processes.is_main, resumed_at)
        labels = f"{classes} classes" if classes else "no labels"
        self.log.say(
            f"{setup.run.path}: {len(images)} images, {labels}, {len(self.batches)} steps an epoch on "
            f"{self.runtime.describe()}"
        )
        self.log.say(f"weights: {start}")

    def run(
        self,
        losses_of: Callable[[nn.Module, Batch], dict[str, Tensor]],
        validate: Callable[[], float] | None = None,
        after_epoch: Callable[[int], bool] = lambda epoch: True,
        after_step: Callable[[Position], None] = lambda position: None,
        next_command: str = "",
    ) -> int:
        """Trains to the end, or until a signal asks to stop.

        Args:
            losses_of: calls the (wrapped) step module on a batch.
            validate: scores the present weights on `val_images`, which stand in evaluation mode: the larger, the
                better. None for a training without validation.
            after_epoch: what a method does at the end of a whole epoch; gives whether it is finished. It may return
                early when `is_stopping`, and goes on from its own state in the resumed run.
            after_step: what a method does after every step, before anything is saved: what it changes is part of the
                step, what it writes is written again should the run be resumed from before.
            next_command: what the last line of the log tells to do.

        Returns:
            The exit code.
        """
        train, position = self.train, self.position
        self.log.say(
            f"epochs {position.epoch} to {self._epochs() - 1}, {self.total_steps} steps in all, peak learning rate "
            f"{self.peak:.3g}"
        )
        is_open = position.step > 0 or not train.is_over(position)  # a signal may have come after the very last step
        while is_open:
            epoch = position.epoch
            self._train_epoch(losses_of, after_step)
            if self.is_stopping():  # a finished epoch is closed by the resumed run
                return self._leave()
            if train.keeps(position):
                self.checkpoints.save_weights(EPOCH_FILE.format(epoch))
            if self._validation_is_due():
                self.checkpoints.save_last(position)  # validation may fail; the resumed run begins with it
                self._validate(validate)
            if position.step == len(self.batches):
                if not after_epoch(epoch):
                    return self._leave()
                position.epoch, position.step = epoch + 1, 0
            is_open = not train.is_over(position)
            if train.saves_after(epoch) or not is_open:
                self.checkpoints.save_last(position)
            if self.is_stopping() and is_open:
                return self._leave()
        self.log.say(f"done: {position.total_steps} steps. {next_command}")
        self.log.close()
        stop_processes()
        return 0

    def is_stopping(self) -> bool:
        """Whether a signal asked any process to stop; all give the same answer, so all have to ask."""
        return self.stop.wanted(self.processes)

    def check(self) -> None:
        """Called by all processes before the method writes weights.

        Raises:
            UserError: the last loss or the weights are not finite.
        """
        self.watch.check()
        self.checkpoints.check()

    def _epochs(self) -> int:
        """How many epochs are begun in the whole run."""
        return math.ceil(self.total_steps / len(self.batches))

    def _cosine(self, position: Position, steps: int) -> float:
        return learning_rate(position, steps, self.train.epochs, self.peak, self.config.optim)

    def _train_epoch(
        self, losses_of: Callable[[nn.Module, Batch], dict[str, Tensor]], after_step: Callable[[Position], None]
    ) -> None:
        """The (rest of the) steps of the present epoch, until its end, a validation, the step limit or a signal."""
        train, position, epoch, steps = self.train, self.position, self.position.epoch, len(self.batches)
        if self._validation_is_due() or train.is_over(position):  # of a resumed run
            return
        self.batches.start_at(epoch, position.step)
        progress = ProgressLine(epoch, self._epochs(), steps, position.step, self.processes.is_main)
        self.module.train()
        for micro, (views, labels, indices) in enumerate(self.loader):
            number = micro % train.accumulation  # within the step
            is_last_micro = number == train.accumulation - 1
            draws = shared_generator(self.batches.seed, epoch, position.step, number)
            *views, labels = self.runtime.to_device(*views, labels)
            batch = Batch(views, labels, epoch, position.total_steps, number == 0, draws)
            set_lr(self.optimizer, self.rate(position, steps))
            with micro_step(self.module, is_last_micro):
                with self.runtime.autocast():
                    losses = losses_of(self.module, batch)
                self.scaler.scale(losses["total"] / train.accumulation).backward()
            for name in self.logits:
                losses[f"accuracy_{name}"] = label_accuracy(losses[f"logits_{name}"], labels)
            self.watch.add(losses, indices)
            if not is_last_micro:
                continue
            self._update_weights()
            position.step += 1
            position.total_steps += 1
            progress.advance()
            is_last = position.step == steps or train.is_over(position)
            if position.total_steps % train.print_freq == 0 or is_last:
                values = self.watch.averages(self.processes)
                timing = {"lr": self.optimizer.param_groups[0]["lr"], "seconds_per_step": progress.seconds_per_step()}
                self.log.numbers(position.total_steps, {**values, **timing}, kind="train", epoch=epoch)
                progress.show(values)
            after_step(position)
            if self.is_stopping() or train.is_over(position) or self._validation_is_due():
                break
            if train.save_steps and position.total_steps % train.save_steps == 0:
                self.watch.check()
                self.checkpoints.save_last(position)
        progress.close()
        self.watch.check()

    def _update_weights(self) -> None:
        """One step of the optimiser."""
        if self.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _validation_is_due(self) -> bool:
        position = self.position
        is_new = self.val_images is not None and position.validated != position.total_steps
        return is_new and self.train.validates_at(position, len(self.batches))

    def score_seeds(self, cams_of: Callable[[Tensor], Tensor]) -> float:
        """Validation by seeds of the flips and scales of the section ``infer``; see `score_maps`.

        Args:
            cams_of: images (b, 3, H, W) to foreground CAMs (b, C, h, w), for the present weights.
        """
        return self.score_maps(view_maps(cams_of, self.config.infer))

    def score_maps(self, maps_of: MapsOf) -> float:
        """Validation by seeds that a method makes itself: their best mIoU in percent, which is logged."""
        config, position = self.config, self.position
        return validate(
            maps_of, self.val_images, config.infer, config.eval, self.runtime, self.log, position, position.epoch
        )

    def _validate(self, score_of: Callable[[], float]) -> None:
        """Scores the weights, and keeps them if they are the best so far."""
        position = self.position
        self.model.eval()
        score = score_of()
        position.validated = position.total_steps
        if score > position.best:
            position.best = score
            self.checkpoints.save_best()

    def _leave(self) -> int:
        """Saves everything after a signal; the exit code."""
        self.checkpoints.save_last(self.position)
        self.log.say(
            f"stopped by signal {self.stop.signal} after step {self.position.total_steps}; go on with: "
            f"--name {self.setup.run.name} --resume"
        )
        return self.stop.exit_code
