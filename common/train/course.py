"""The course of a training: its length, and when it validates, logs and saves. Imports no PyTorch."""

from dataclasses import dataclass

from common.data.options import check_batch
from common.run.config import at_least, option, some
from common.run.processes import process_count


@dataclass
class Position:
    """The current epoch and step of a run.

    Attributes:
        epoch: the current epoch, from 0.
        step: completed steps of this epoch.
        total_steps: completed steps since the start of the run.
        best: best validation score so far, or -1.
        validated: total_steps at the last validation, or -1.
    """

    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    best: float = -1.0
    validated: int = -1


@dataclass
class CourseConfig:
    """The course of any training; in this form without validation and without a file for each epoch.

    A training whose length is given in steps sets ``max_steps`` and leaves ``epochs`` large.
    """

    image_list: str = option("train_aug", "Training images: a list of the data set or a file.", flag="--train_list")
    epochs: int = option(60, "Epochs.", flag="--epochs", rule=at_least(1))
    batch_size: int = option(
        64, "Global batch: images of one optimiser step over all processes and micro-batches.",
        flag=("--batch_size", "--batch-size"), rule=at_least(1),
    )  # fmt: skip
    accumulation: int = option(1, "Micro-batches that a global batch is cut into, to save memory.", rule=at_least(1))
    max_steps: int = option(0, "Steps after which the training ends; 0: no limit.", rule=at_least(0))
    save_steps: int = option(
        0, "Steps between two writings of last.pth, besides once an epoch; 0: none.", rule=at_least(0)
    )
    print_freq: int = option(
        60, "Steps between two lines of the log.", flag=("--print_freq", "--print-freq"), rule=at_least(1)
    )

    def check(self) -> None:
        """Checks the batch for a single process.

        Raises:
            UserError: as `check_batch`.
        """
        check_batch(self.batch_size, 1, self.accumulation)

    def check_start(self, is_resumed: bool) -> None:
        """Checks the batch for the processes that a training has.

        Raises:
            UserError: as `check_batch`.
        """
        check_batch(self.batch_size, process_count(), self.accumulation)

    def needs_list(self, name: str) -> bool:
        """Whether the image list of that key is used."""
        return name != "val_list" or self.validates_at_all()

    def length(self, steps: int) -> int:
        """Steps of the whole run; ``steps`` is the number in an epoch."""
        length = self.epochs * steps
        return min(length, self.max_steps) if self.max_steps else length

    def is_over(self, position: Position) -> bool:
        """Whether all steps are done."""
        return position.epoch >= self.epochs or 0 < self.max_steps <= position.total_steps

    def saves_after(self, epoch: int) -> bool:
        """Whether last.pth is written at the end of this epoch."""
        return True

    def keeps(self, position: Position) -> bool:
        """Whether the weights at the end of this epoch, or of the run, get a file of their own."""
        return False

    def validates_at(self, position: Position, steps: int) -> bool:
        """Whether the weights are scored at this point; ``steps`` is the number in an epoch."""
        return False

    def validates_at_all(self) -> bool:
        """Whether the weights are ever scored."""
        return False


@dataclass
class TrainConfig(CourseConfig):
    """The course of a classifier's training."""

    val_list: str = option("train", "Images that validation scores seeds on; needs masks.", flag="--val_list")
    save_epochs: int = option(
        1, "Epochs between two epoch files that are kept; the last epoch has one, too.", rule=at_least(1)
    )
    validate_from: int = option(9, "Validate after every epoch from this one (from 0); -1: never.", rule=at_least(-1))
    validate_also: list[int] = option([], "Earlier epochs to validate after.", rule=some(at_least(0), least=0))

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
    """The course of a training that counts steps: it validates and keeps weights at given distances."""

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
