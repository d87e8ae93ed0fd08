"""Random draws: generators seeded from integers, and their states as a part of a checkpoint."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch


def seed_everything(*parts: int) -> None:
    """Seeds Python, NumPy and torch (all devices) from integers."""
    value = _seed(parts)
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002 - timm draws from the global generator
    torch.manual_seed(value)


@contextlib.contextmanager
def draws_from(*parts: int) -> Iterator[None]:
    """Inside, the CPU generators are seeded from integers; afterwards they continue from their earlier state."""
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    value = _seed(parts)
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002
    torch.default_generator.manual_seed(value)
    try:
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])  # noqa: NPY002
        torch.set_rng_state(saved[2])


def shared_generator(*parts: int) -> torch.Generator:
    """A separate CPU generator, seeded from integers: equal integers give equal draws."""
    return torch.Generator().manual_seed(_seed(parts))


def _seed(parts: Sequence[int]) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


class RandomStates:
    """The generators of this process, the one of its own GPU included, as a part of a checkpoint."""

    def __init__(self, device: torch.device | None = None) -> None:
        """See the class; without a GPU as ``device`` there is nothing but the CPU's generators."""
        self.device = device if device is not None and device.type == "cuda" else None

    def state_dict(self) -> dict[str, Any]:
        """Their states, as tensors and plain containers."""
        kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
        version, internal, gauss = random.getstate()
        return {
            "python": [version, list(internal), gauss],
            "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
            "torch": torch.get_rng_state(),
            "cuda": [torch.cuda.get_rng_state(self.device)] if self.device else [],
        }

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        version, internal, gauss = states["python"]
        random.setstate((version, tuple(internal), gauss))
        kind, keys, position, has_gauss, cached = states["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
        torch.set_rng_state(states["torch"])
        if self.device and len(states["cuda"]) == 1:
            torch.cuda.set_rng_state(states["cuda"][0], self.device)
