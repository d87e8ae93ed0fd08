"""The training of a classifier: batches, optimiser, checkpoints, log and validation around a method's step."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.checkpoint import Checkpoints, Position, Stateful
from common.data.dataset import ImageSet
from common.data.loader import EpochBatches, TrainViews, shared_generator, train_loader
from common.dist import stop_processes
from common.optim import adamw, learning_rate, scaled_lr, set_lr
from common.run import RunLog
from common.runtime import usable_workers
from common.scoring import scored_images, validate
from common.script import Setup, start_run
from common.training import LossWatch, ProgressLine, StopRequest, label_accuracy, micro_step, wrap_for_training

ACCURACIES = ("accuracy_cls", "accuracy_pcls")


class Batch(NamedTuple):
    """This process's part of a micro-batch, on the device.

    Attributes:
        views: random views of the images, each (B, 3, S, S).
        labels: multi-hot (B, C).
        epoch: from 0.
        draws: a CPU generator, the same on all processes and in a resumed run, for draws over the whole micro-batch.
    """

    views: list[Tensor]
    labels: Tensor
    epoch: int
    draws: torch.Generator


class Trainer:
    """Everything around a method's step. Made when data and model are there; then `run` trains.

    Attributes:
        log: the run's log.
        position: how far the training is.
    """

    def __init__(
        self, setup: Setup, images: ImageSet, views: Sequence[Callable], model: nn.Module, start: str, step: nn.Module,
        terms: Sequence[str], parts: Mapping[str, Stateful],
    ) -> None:  # fmt: skip
        """Puts a resumed run back where it was, and makes the run folder: all input has proved to be there.

        Args:
            views: the transforms that make an image's random views.
            model: the network, on the device; its state dict is what the epoch files hold.
            start: where its weights come from, in words.
            step: model and losses as one module, which gives a dictionary of losses: ``total``, ``terms``, and
                the logits ``logits_cls`` and ``logits_pcls`` (B, C).
            terms: names of the weighted losses that are logged besides their total.
            parts: the method's state besides weights, alike on all processes.
        """
        self.setup, self.config, self.runtime, self.processes = setup, setup.config, setup.runtime, setup.processes
        config, processes, resumed = self.config, self.processes, setup.args.resume
        self.train, seed = config.train, config.runtime.seed
        self.val_images = (
            scored_images(config.data, self.train.val_list, config.eval) if self.train.validates_at_all() else None
        )
        self.batches = EpochBatches(
            len(images), self.train.batch_size, seed, processes.rank, processes.world, self.train.accumulation
        )
        workers, is_cuda = usable_workers(config.runtime.num_workers), self.runtime.device.type == "cuda"
        self.loader = train_loader(TrainViews(images, views, seed), self.batches, workers, is_cuda)

        self.model, self.module = model, wrap_for_training(step, self.runtime)
        self.optimizer = adamw(model, config.optim, self.train.batch_size)
        self.scaler = self.runtime.grad_scaler()
        self.watch, self.stop = LossWatch(("total", *terms, *ACCURACIES), images.ids), StopRequest()
        identity = {
            "train.batch_size": self.train.batch_size, "training images": len(images), "classes": len(images.classes),
            "runtime.seed": seed,
        }  # fmt: skip
        state = {"optimizer": self.optimizer, "scaler": self.scaler, **parts}
        self.checkpoints = Checkpoints(setup.run.checkpoints, model, state, {"watch": self.watch}, processes, identity)
        self.position = self.checkpoints.resume() if resumed else Position()

        start_run(setup.run, config, processes, setup.args.overwrite)
        resumed_at = self.position.total_steps if resumed else None
        self.log = RunLog(setup.run.path, processes.is_main, resumed_at)
        self.log.say(
            f"{setup.run.path}: {len(images)} images, {len(images.classes)} classes, {len(self.batches)} steps an "
            f"epoch on {self.runtime.describe()}"
        )
        self.log.say(f"weights: {start}")

    def run(
        self,
        losses_of: Callable[[nn.Module, Batch], dict[str, Tensor]],
        cams_of: Callable[[], Callable[[Tensor], Tensor]],
        after_epoch: Callable[[int], None] = lambda epoch: None,
        seeds_by: str = "",
    ) -> int:
        """Trains to the end, or until a signal asks to stop.

        Args:
            losses_of: calls the (wrapped) step module on a batch.
            cams_of: gives the function that validation makes seeds with, for the present weights: images (b, 3, H, W)
                to foreground CAMs (b, C, h, w).
            after_epoch: what a method does at the end of a whole epoch; it returns early when `is_stopping`, and goes
                on from its own state in the resumed run.
            seeds_by: the script that writes the seeds, for the last line of the log.

        Returns:
            The exit code.
        """
        train, position = self.train, self.position
        peak = scaled_lr(self.config.optim, train.batch_size)
        self.log.say(f"epochs {position.epoch} to {train.epochs - 1}, peak learning rate {peak:.3g}")
        while not train.is_over(position):
            epoch = position.epoch
            self._train_epoch(losses_of, peak)
            if self.is_stopping():  # a finished epoch is closed by the resumed run
                return self._leave()
            if train.is_over(position) or train.keeps(epoch):
                self.checkpoints.save_epoch(epoch)
            if self.val_images is not None and train.validates(epoch) and position.validated != position.total_steps:
                self.checkpoints.save_last(position)  # validation may fail; the resumed run begins with it
                self._validate(cams_of())
            if position.step == len(self.batches):
                after_epoch(epoch)
                if self.is_stopping():
                    return self._leave()
                position.epoch, position.step = epoch + 1, 0
            self.checkpoints.save_last(position)
        name = self.setup.run.name
        self.log.say(f"done: {position.total_steps} steps. Seeds: python {seeds_by} --name {name} --dict")
        self.log.close()
        stop_processes()
        return 0

    def is_stopping(self) -> bool:
        """Whether a signal asked any process to stop; all give the same answer, so all have to ask."""
        return self.stop.wanted(self.processes)

    def _train_epoch(self, losses_of: Callable[[nn.Module, Batch], dict[str, Tensor]], peak: float) -> None:
        """The (rest of the) steps of the present epoch, until its end, the step limit or a signal."""
        train, position, epoch, steps = self.train, self.position, self.position.epoch, len(self.batches)
        self.batches.start_at(epoch, position.step)
        progress = ProgressLine(epoch, train.epochs, steps, position.step, self.processes.is_main)
        self.module.train()
        for micro, (views, labels, indices) in enumerate(self.loader, start=1):
            is_last_micro = micro % train.accumulation == 0
            draws = shared_generator(self.batches.seed, epoch, position.step, micro % train.accumulation)
            *views, labels = self.runtime.to_device(*views, labels)
            batch = Batch(views, labels, epoch, draws)
            set_lr(self.optimizer, learning_rate(position, steps, train.epochs, peak, self.config.optim))
            with micro_step(self.module, is_last_micro):
                with self.runtime.autocast():
                    losses = losses_of(self.module, batch)
                self.scaler.scale(losses["total"] / train.accumulation).backward()
            for accuracy in ACCURACIES:
                losses[accuracy] = label_accuracy(losses[accuracy.replace("accuracy", "logits")], labels)
            self.watch.add(losses, indices)
            if not is_last_micro:
                continue
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            position.step += 1
            position.total_steps += 1
            progress.advance()
            if position.total_steps % train.print_freq == 0 or position.step == steps:
                values = self.watch.averages(self.processes)
                timing = {"lr": self.optimizer.param_groups[0]["lr"], "seconds_per_step": progress.seconds_per_step()}
                self.log.numbers(position.total_steps, {**values, **timing}, kind="train", epoch=epoch)
                progress.show(values)
            if self.is_stopping() or train.is_over(position):
                break
            if train.save_steps and position.total_steps % train.save_steps == 0:
                self.watch.check()
                self.checkpoints.save_last(position)
        progress.close()
        self.watch.check()

    def _validate(self, cams_of: Callable[[Tensor], Tensor]) -> None:
        """Scores seeds of the validation list, and keeps the weights if they are the best so far."""
        position, config = self.position, self.config
        self.model.eval()
        score = validate(
            cams_of, self.val_images, config.infer, config.eval, self.runtime, self.log, position, position.epoch
        )
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
