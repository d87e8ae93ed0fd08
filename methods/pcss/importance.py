"""PCSS's frequency importance: the frequencies that a class's logits depend on, measured in rounds (the "FIM").

State and arithmetic only; `methods.pcss.fim` measures.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.pcss.config import FIMConfig
from methods.pcss.frequency import half_plane


class FrequencyImportance:
    """Importance masks of all classes, and the round in progress. A part of the checkpoint.

    Masks are hif in the reference: (C, S, S) in [0, 1] over the centred spectrum (frequency 0 at (S//2, S//2)).

    Attributes:
        current: the masks in force.
        previous: masks for classes that a round does not measure.
        max_loss: running maximum of a class's interpolated losses (C,).
        rounds: finished rounds.
        totals: losses of the round in progress, float64 (C, g, g), on the CPU.
        round_epoch: its epoch, or -1 outside a round.
        done: number of its images that are done.
    """

    def __init__(self, num_classes: int, size: int, config: FIMConfig, device: torch.device | str = "cpu") -> None:
        """No round yet: nothing is suppressed.

        Args:
            size: S, the side of the training images.
        """
        self.config = config
        self.size = size
        self.grid = size // config.block
        self.current = torch.zeros(num_classes, size, size, device=device)
        self.previous = self.current.clone()
        self.max_loss = torch.zeros(num_classes, device=device)
        self.totals = torch.zeros(num_classes, self.grid, self.grid, dtype=torch.float64)
        self.rounds = 0
        self.round_epoch = -1
        self.done = 0
        self._kept = half_plane(1 - self.current)

    def is_used_in(self, epoch: int) -> bool:
        """Whether images are suppressed in an epoch."""
        return epoch > self.config.start_epoch

    def is_due_after(self, epoch: int, epochs: int) -> bool:
        """Whether an epoch ends with a round; the last one does not, as nothing would use it."""
        since = epoch - self.config.start_epoch
        return since >= 0 and since % self.config.interval == 0 and epoch + 1 < epochs

    def kept(self, labels: Tensor) -> Tensor:
        """Half-plane weights (B, S, S//2+1) that suppress the shortcuts of images: mean of 1 - hif over their labels.

        Args:
            labels: multi-hot (B, C); an image without any is weighted by 1.
        """
        count = labels.sum(1).clamp(min=1)[:, None, None]
        with torch.autocast(labels.device.type, enabled=False):
            weights = torch.einsum("bc,chw->bhw", labels, self._kept) / count
        return torch.where(labels.any(1)[:, None, None], weights, 1.0)

    def begin_round(self, epoch: int) -> None:
        """Empties the totals, unless this round is in progress already."""
        if self.round_epoch != epoch:
            self.totals.zero_()
            self.round_epoch = epoch
            self.done = 0

    def add(self, losses: Tensor, images: int) -> None:
        """Takes summed losses (C, g, g) of some of the round's images."""
        self.totals += losses.double().cpu()
        self.done += images

    def finish_round(self) -> dict[str, Tensor]:
        """Turns the totals into masks (section 3.2).

        A class's losses L are interpolated to S x S; its mask is (L - min L) / (running max - min L). A class without a
        loss takes its mask of `previous`, which from the third round on is the mask of two rounds ago.

        Returns:
            ``min_ratio`` (C,): smallest over largest loss; NaN for a class that was not measured. ``max_ratio`` (C,):
            largest loss over running maximum; NaN for a class that was never measured.
        """
        losses = F.interpolate(
            self.totals.float().to(self.current.device)[None], size=(self.size, self.size), mode="bicubic",
            align_corners=False,
        )[0]  # fmt: skip
        low = losses.amin((1, 2))
        high = losses.amax((1, 2))
        self.max_loss = torch.maximum(self.max_loss, high)
        span = (self.max_loss - low)[:, None, None]
        measured = (high > 0)[:, None, None]
        new = torch.where(measured & (span > 0), (losses - low[:, None, None]) / span, 0.0)
        new = torch.where(measured, new, self.previous)
        self.previous = self.current if self.rounds else new.clone()
        self.current = new
        self.rounds += 1
        self._end_round()
        self._kept = half_plane(1 - self.current)
        return {"min_ratio": low / high, "max_ratio": high / self.max_loss}

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        names = ("current", "previous", "max_loss", "totals", "rounds", "round_epoch", "done")
        return {**{name: getattr(self, name) for name in names}, "measured_by": self._measured_by()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` returned; a round in progress under other settings begins anew."""
        for name in ("current", "previous", "max_loss", "totals"):
            getattr(self, name).copy_(state[name])
        self.rounds = state["rounds"]
        self.round_epoch = state["round_epoch"]
        self.done = state["done"]
        if state["measured_by"] != self._measured_by():
            self._end_round()
        self._kept = half_plane(1 - self.current)

    def _end_round(self) -> None:
        self.round_epoch = -1
        self.done = 0

    def _measured_by(self) -> list[int]:
        """The settings that all images of a round must share."""
        return [self.config.images_per_class, self.config.block, int(self.config.corrected)]
