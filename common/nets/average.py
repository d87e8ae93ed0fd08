"""Averages the weights of the last checkpoints of a training (Izmailov et al., "Averaging Weights", 2018)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from common.run.errors import UserError, preview

STATISTICS = ("running_mean", "running_var")


def averaged_state(paths: Sequence[Path], read: Callable[[Path], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of the state dicts in some files, summed in float64; whole numbers are those of the last one.

    Args:
        read: gives the state dict in a file.

    Raises:
        UserError: the files hold weights of different networks, or of one whose batch normalisation was trained: its
            running statistics are those of single weights.
    """
    total: dict[str, Tensor] = {}
    first = read(paths[0])
    for path in paths:
        state = read(path)
        if total and {name: value.shape for name, value in state.items()} != _shapes(total):
            other = sorted(set(state) ^ set(total)) or [n for n in state if state[n].shape != total[n].shape]
            raise UserError(
                f"--average: {path} and {paths[0]} hold weights of different networks ({preview(other, 3)}); average "
                "checkpoints of one training"
            )
        moved = [name for name in state if name.endswith(STATISTICS) and not torch.equal(state[name], first[name])]
        if moved:
            raise UserError(
                f"--average does not apply to this network: the running statistics of its batch normalisation "
                f"({preview(moved, 2)}) belong to the weights of a single checkpoint. Take one, with --load_epo"
            )
        for name, value in state.items():
            if not value.is_floating_point():
                total[name] = value
            elif name in total:
                total[name] += value.double()
            else:
                total[name] = value.double()
    count = len(paths)
    return {name: value / count if value.is_floating_point() else value for name, value in total.items()}


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}
