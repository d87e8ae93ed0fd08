"""Tensors and networks with the types that torch's annotations leave open."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

C = TypeVar("C", bound=Callable[..., object])


def size_of(maps: Tensor) -> tuple[int, int]:
    """Height and width (h, w) of maps (..., h, w)."""
    height, width = maps.shape[-2:]
    return height, width


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """Sum of one or more tensors."""
    return sum(terms)  # type: ignore[return-value]  # an int only where there is no tensor


def compiled(network: C, is_active: bool) -> C:
    """A module or function under torch.compile, if active; else itself."""
    # torch's annotation knows functions alone: of a module torch makes a module.
    return torch.compile(network) if is_active else network  # type: ignore[return-value]
