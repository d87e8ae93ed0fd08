"""Pieces of a training loop: stop signals, loss bookkeeping, progress. The loop itself stays in each method's
script.
"""

import contextlib
import math
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from common.checkpoint import Position
from common.config import at_least, option
from common.dist import Processes
from common.errors import UserError, preview
from common.runtime import Runtime


@dataclass
class CourseConfig:
    """The course of any training run; as it is, of one without validation and without a file for each epoch.

    A run that is as long as so many steps sets ``max_steps`` and leaves ``epochs`` large.
    """

    image_list: str = option("train_aug", "Training images: a list of the data set or a file.", flag="--train_list")
    epochs: int = option(60, "Epochs.", flag="--epochs", rule=at_least(1))
    batch_size: int = option(
        64, "Global batch: images of one optimiser step over all processes and micro-batches.",
        flag=("--batch_size", "--batch-size"), rule=at_least(1),
    )  # fmt: skip
    accumulation: int = option(1, "Micro-batches that a global batch is cut into, to save memory.", rule=at_least(1))
    max_steps: int = option(0, "Stop after so many steps in all; 0: no limit.", rule=at_least(0))
    save_steps: int = option(0, "Write last.pth every so many steps, besides once an epoch; 0: not.", rule=at_least(0))
    print_freq: int = option(
        60, "Steps between two lines of the log.", flag=("--print_freq", "--print-freq"), rule=at_least(1)
    )

    def length(self, steps: int) -> int:
        """Steps of the whole run; ``steps`` are those of an epoch."""
        return min(self.epochs * steps, self.max_steps or math.inf)

    def is_over(self, position: Position) -> bool:
        """Whether all steps are done."""
        return position.epoch >= self.epochs or 0 < self.max_steps <= position.total_steps

    def saves_after(self, epoch: int) -> bool:
        """Whether last.pth is written after this epoch, too."""
        return True

    def keeps(self, position: Position) -> bool:
        """Whether the weights at the end of this epoch, or of the run, get a file of their own."""
        return False

    def validates_at(self, position: Position, steps: int) -> bool:
        """Whether the weights are scored at this point; ``steps`` are those of an epoch."""
        return False

    def validates_at_all(self) -> bool:
        """Whether the weights are ever scored."""
        return False


@dataclass
class TrainConfig(CourseConfig):
    """The course of a classifier's training."""

    val_list: str = option("train", "Images that validation scores seeds on; needs masks.", flag="--val_list")
    save_epochs: int = option(1, "Keep an epoch file every so many epochs (and for the last one).", rule=at_least(1))
    validate_from: int = option(9, "Validate after every epoch from this one (from 0); -1: never.")
    validate_also: list[int] = option([], "Earlier epochs to validate after.")

    def keeps(self, position: Position) -> bool:
        """Every ``save_epochs`` epochs and at the end of the run."""
        done = position.epoch + 1
        return done % self.save_epochs == 0 or done == self.epochs or self.is_over(position)

    def validates(self, epoch: int) -> bool:
        """Whether seeds are scored after this epoch."""
        return epoch in self.validate_also or 0 <= self.validate_from <= epoch

    def validates_at(self, position: Position, steps: int) -> bool:
        """At the end of an epoch after which seeds are scored, or of the run in the middle of it."""
        return (position.step == steps or self.is_over(position)) and self.validates(position.epoch)

    def validates_at_all(self) -> bool:
        """Whether seeds are scored after any epoch."""
        return any(self.validates(epoch) for epoch in range(self.epochs))


@dataclass
class StepCourseConfig(CourseConfig):
    """The course of a training that counts steps: validation and files of weights every so many."""

    val_list: str = option("val", "Images that are validated on; needs masks.", flag="--val_set")
    eval_steps: int = option(
        0, "Steps between two validations; the last step is one, too. 0: never.", flag="--eval_iters", rule=at_least(0)
    )
    keep_steps: int = option(
        5000, "Steps between two files of weights; the last step gets one, too. 0: that alone.", rule=at_least(0)
    )

    def validates_at(self, position: Position, steps: int) -> bool:
        """Every ``eval_steps`` steps, and at the end."""
        return self.validates_at_all() and (self.is_over(position) or _is_due(position, self.eval_steps))

    def validates_at_all(self) -> bool:
        """Whether the weights are ever scored."""
        return self.eval_steps > 0

    def keeps_weights(self, position: Position, is_last: bool) -> bool:
        """Whether the weights at this point get a file of their own."""
        return is_last or _is_due(position, self.keep_steps)


def _is_due(position: Position, every: int) -> bool:
    return every > 0 and position.total_steps > 0 and position.total_steps % every == 0


class StopRequest:
    """Turns SIGTERM and SIGINT into a wish that the loop reads at the end of a step; a second SIGINT stops at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def restore(self) -> None:
        """Puts the previous handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def wanted(self, processes: Processes) -> bool:
        """Whether any process was asked to stop; all give the same answer."""
        return processes.any(self.signal is not None)

    @property
    def exit_code(self) -> int:
        """The shell's convention for a process ended by that signal."""
        return 128 + (self.signal or 0)


class LossWatch:
    """Averages loss terms on the device and stops the run at the first one that is not finite.

    Values are read one step late, so that the host never waits for the step it has just queued.
    """

    def __init__(self, terms: Sequence[str], ids: Sequence[str]) -> None:
        """Names the terms.

        Args:
            ids: image ids by data-set index, for the message.
        """
        self.terms, self._ids = list(terms), ids
        self._sum: Tensor | None = None
        self._count = 0
        self._pending: tuple[Tensor, Tensor] | None = None

    def add(self, losses: dict[str, Tensor], indices: Tensor) -> None:
        """Takes a (micro-)batch's terms, and checks those of the one before.

        Raises:
            UserError: a term of the batch before is not finite.
        """
        values = torch.stack([losses[name].detach().float() for name in self.terms])
        self.check()
        self._sum = values if self._sum is None else self._sum.to(values.device) + values
        self._count += 1
        self._pending = values, indices

    def check(self) -> None:
        """Checks the terms taken last; called before a checkpoint is written.

        Raises:
            UserError: one is not finite; it and the images are named.
        """
        if self._pending is None:
            return
        (values, indices), self._pending = self._pending, None
        wrong = [name for name, ok in zip(self.terms, values.isfinite().tolist(), strict=True) if not ok]
        if wrong:
            raise UserError(
                f"the loss is not finite: {', '.join(wrong)}, in a batch of the images "
                f"{preview([self._ids[i] for i in indices.tolist()], 16)}. "
                "The last checkpoint is from before this step and is kept. Lower optim.lr, use runtime.precision=fp32 "
                "or bf16 instead of fp16, "
                "or look at these images; then go on with --resume."
            )

    def averages(self, processes: Processes) -> dict[str, float]:
        """The terms' means over the steps since the last call and over all processes.

        Raises:
            UserError: as `check`.
        """
        self.check()
        means = processes.gather_rows((self._sum / self._count)[None]).mean(0).tolist()
        self._sum, self._count = None, 0
        return dict(zip(self.terms, means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What the next averages are made of, so that a resumed run logs the same numbers."""
        return {"sum": None if self._sum is None else self._sum.cpu(), "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` returned."""
        self._sum, self._count = state["sum"], state["count"]


class ProgressLine:
    """A tqdm bar over the steps of an epoch, on the main process, with losses and seconds a step."""

    def __init__(self, epoch: int, epochs: int, steps: int, first: int, active: bool) -> None:
        self._bar = tqdm(
            total=steps,
            initial=first,
            desc=f"epoch {epoch}/{epochs - 1}",
            disable=not active,
            leave=False,
            dynamic_ncols=True,
        )
        self._since, self._steps = time.perf_counter(), 0

    def advance(self) -> None:
        """One step is done."""
        self._bar.update()
        self._steps += 1

    def seconds_per_step(self) -> float:
        """The mean since the last call."""
        now = time.perf_counter()
        seconds = (now - self._since) / max(self._steps, 1)
        self._since, self._steps = now, 0
        return seconds

    def show(self, values: dict[str, float]) -> None:
        """Values behind the bar."""
        self._bar.set_postfix_str("  ".join(f"{name} {value:.3g}" for name, value in values.items()))

    def close(self) -> None:
        """Removes the bar."""
        self._bar.close()


def wrap_for_training(step: nn.Module, runtime: Runtime) -> nn.Module:
    """The step module under torch.compile and DistributedDataParallel, as configured.

    Buffers are not broadcast: a method's state is made equal on all processes by gathering its inputs.
    """
    wrapped = torch.compile(step) if runtime.config.compile else step
    if runtime.processes.world == 1:
        return wrapped
    devices = [runtime.device.index] if runtime.device.type == "cuda" else None
    return DistributedDataParallel(wrapped, device_ids=devices, broadcast_buffers=False)


def label_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Which share of an image's m labels is among its m largest logits, averaged over images with labels: a scalar.

    Args:
        logits: (B, C).
        labels: multi-hot (B, C).
    """
    count = labels.sum(1, keepdim=True)  # B 1
    rank = logits.argsort(dim=1, descending=True).argsort(dim=1)  # B C, 0 for the largest
    hits = ((rank < count) & (labels > 0)).sum(1)
    has_labels = count[:, 0] > 0
    return (hits / count[:, 0].clamp(min=1))[has_labels].mean() if has_labels.any() else logits.new_zeros(())


def micro_step(module: nn.Module, is_last: bool) -> contextlib.AbstractContextManager:
    """The block of one micro-batch's forward and backward pass: gradients are exchanged only in the last one of a
    step.
    """
    return module.no_sync() if isinstance(module, DistributedDataParallel) and not is_last else contextlib.nullcontext()
