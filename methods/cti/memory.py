"""CTI's class-token memory (paper section 3.3): for each class the latest tokens of images with that label."""

import torch
from torch import Tensor


class TokenMemory:
    """A first-in first-out store of ``size`` tokens for each class, as one tensor.

    Attributes:
        counts: tokens ever pushed for each class, int64 (C,); the store holds the last ``size`` of them.
    """

    def __init__(self, num_classes: int, size: int, dim: int, device: torch.device | str = "cpu") -> None:
        self.num_classes = num_classes
        self.size = size
        # One spare row at the end takes the tokens that are not stored: a push then has no data-dependent shapes and
        # need not wait for the GPU.
        self._rows = torch.zeros(num_classes * size + 1, dim, device=device)
        self.counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self._counts_on_host = torch.zeros(num_classes, dtype=torch.int64, device="cpu")
        self._expected: Tensor | None = None

    def expect(self, labels: Tensor) -> None:
        """Takes the labels of the next `push` from the host, which then counts them without waiting for the GPU.

        Args:
            labels: multi-hot (B, C), on the CPU; the same values as those of the push.
        """
        self._expected = labels

    @torch.no_grad()
    def push(self, tokens: Tensor, labels: Tensor) -> None:
        """Stores ``tokens[b, c]`` wherever ``labels[b, c]`` is 1, in the order of the batch.

        Args:
            tokens: (B, C, D).
            labels: multi-hot (B, C).
        """
        present = labels > 0
        rank = present.long().cumsum(0)  # B C, from 1 for the first image that has the class
        pushed = present.sum(0)
        stored = present & (rank > pushed - self.size)  # of more than the memory holds, the last stay
        slots = (self.counts + rank - 1) % self.size + torch.arange(self.num_classes, device=rank.device) * self.size
        slots = torch.where(stored, slots, self.num_classes * self.size)
        self._rows[slots.flatten()] = tokens.flatten(0, 1).to(self._rows.dtype)
        self.counts += pushed
        expected = labels.cpu() if self._expected is None else self._expected
        self._counts_on_host += (expected > 0).sum(0)
        self._expected = None

    def lengths(self) -> Tensor:
        """Number of tokens stored for each class, int64 (C,)."""
        return self.counts.clamp(max=self.size)

    def is_full(self) -> bool:
        """Whether every class holds ``size`` tokens."""
        return bool((self._counts_on_host >= self.size).all())

    def means(self) -> Tensor:
        """G: the mean of the stored tokens of each class (C, D); zero for a class without tokens."""
        rows = self._rows[:-1].view(self.num_classes, self.size, -1)
        filled = torch.arange(self.size, device=rows.device) < self.lengths()[:, None]  # C size
        return (rows * filled[..., None]).sum(1) / self.lengths().clamp(min=1)[:, None]

    def state_dict(self) -> dict[str, Tensor]:
        """The state for a checkpoint."""
        return {"rows": self._rows[:-1].clone(), "counts": self.counts.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state_dict` returned."""
        self._rows[:-1].copy_(state["rows"])
        self.counts.copy_(state["counts"])
        self._counts_on_host.copy_(state["counts"])
