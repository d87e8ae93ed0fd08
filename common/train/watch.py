"""Instruments of the training loop: stop signals, averages of the losses, progress, label accuracy."""

import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from common.run.errors import UserError, preview
from common.run.processes import Processes
from common.run.progress import ProgressBar
from common.tensors import read_later


class StopRequest:
    """Notes SIGTERM and SIGINT, which the loop asks for at the end of a step; a second SIGINT stops at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def wanted(self, processes: Processes) -> bool:
        """Whether any process was asked to stop; all give the same answer."""
        return processes.any(self.signal is not None)

    @property
    def exit_code(self) -> int:
        """The shell's convention for a process ended by that signal."""
        return 128 + (self.signal or 0)


class LossWatch:
    """Averages loss terms on the device and stops the run at the first one that is not finite.

    Values are read one step late, by a copy that was begun then, so that the host never waits for the step that it has
    just queued.
    """

    def __init__(self, terms: Sequence[str], ids: Sequence[str], kept: Callable[[], str] = lambda: "") -> None:
        """Names the terms.

        Args:
            ids: image ids by data-set index, for the message.
            kept: names the checkpoints that are kept, for the message.
        """
        self.terms, self._ids, self._kept = list(terms), ids, kept
        self._sum: Tensor | None = None
        self._count = 0
        self.steps = 0  # completed since the last averages
        self._pending: tuple[Callable[[], Tensor], Tensor] | None = None

    def add(self, losses: dict[str, Tensor], indices: Tensor) -> None:
        """Adds the terms of a (micro-)batch, and checks those of the batch before.

        Raises:
            UserError: a term of the batch before is not finite.
        """
        values = torch.stack([losses[name].detach().float() for name in self.terms])
        self.check()
        self._sum = values if self._sum is None else self._sum.to(values.device) + values
        self._count += 1
        self._pending = read_later(values), indices

    def check(self) -> None:
        """Checks the terms taken last; called before a checkpoint is written.

        Raises:
            UserError: one is not finite; it and the images are named.
        """
        if self._pending is None:
            return
        (read, indices), self._pending = self._pending, None
        wrong = [name for name, ok in zip(self.terms, read().isfinite().tolist(), strict=True) if not ok]
        if wrong:
            raise UserError(
                f"the loss is not finite: {', '.join(wrong)}, in a batch of the images "
                f"{preview([self._ids[i] for i in indices.tolist()], 16)}. "
                f"{self._kept()}Lower optim.lr, use runtime.precision=fp32 "
                "or bf16 instead of fp16, "
                "or look at these images; then go on with --resume."
            )

    def averages(self, processes: Processes) -> dict[str, float]:
        """The terms' means over the `steps` since the last call and over all processes; a new window begins.

        Raises:
            UserError: as `check`.
        """
        self.check()
        assert self._sum is not None, "no step since the last averages"
        means = processes.gather_rows((self._sum / self._count)[None]).mean(0).tolist()
        self._sum = None
        self._count = 0
        self.steps = 0
        return dict(zip(self.terms, means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Sum, count and steps of the next averages, so that a resumed run logs the same numbers."""
        return {"sum": None if self._sum is None else self._sum.cpu(), "count": self._count, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._sum = state["sum"]
        self._count = state["count"]
        self.steps = state.get("steps", 0)  # an earlier version ended the window with the epoch


class StepClock:
    """Mean seconds of a step, over the ends of epochs; work between epochs, such as validation, does not count."""

    def __init__(self) -> None:
        self._since = 0.0
        self._seconds = 0.0
        self._steps = 0

    def start(self) -> None:
        """Begins to count, or goes on after work that does not count."""
        self._since = time.perf_counter()

    def advance(self) -> None:
        """Counts a step."""
        now = time.perf_counter()
        self._seconds += now - self._since
        self._since = now
        self._steps += 1

    def seconds_per_step(self) -> float:
        """Mean seconds of a step since the last call."""
        seconds = self._seconds / max(self._steps, 1)
        self._seconds = 0.0
        self._steps = 0
        return seconds


class ProgressLine:
    """Progress over the steps of an epoch, on the main process, with the losses behind it."""

    def __init__(self, epoch: int, epochs: int, steps: int, first: int, active: bool) -> None:
        self._bar = ProgressBar(f"epoch {epoch}/{epochs - 1}", steps, first, active=active)

    def advance(self) -> None:
        """Counts a step."""
        self._bar.advance()

    def show(self, values: dict[str, float]) -> None:
        """Shows values behind the bar."""
        self._bar.show("  ".join(f"{name} {value:.3g}" for name, value in values.items()))

    def close(self) -> None:
        """Removes the bar."""
        self._bar.close()


def label_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean fraction of true labels among the top-m logits of an image with m labels; a scalar over labelled images.

    Args:
        logits: (B, C).
        labels: multi-hot (B, C).
    """
    count = labels.sum(1, keepdim=True)  # B 1
    rank = logits.argsort(dim=1, descending=True).argsort(dim=1)  # B C, 0 for the largest
    hits = ((rank < count) & (labels > 0)).sum(1)
    has_labels = count[:, 0] > 0
    shares = hits / count[:, 0].clamp(min=1)  # 0 for an image without labels
    return shares.sum() / has_labels.sum().clamp(min=1)  # of shapes that no data decides: the host need not wait
