"""Tensors, networks and autograd's contexts with the types that torch's annotations leave open."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., object])


class Context(FunctionCtx):
    """The context of an autograd function, with the attribute that torch's annotation lacks.

    A function adds its own attributes in a subclass, for annotations alone.
    """

    saved_tensors: tuple[Tensor, ...]


def required(value: T | None, name: str) -> T:
    """Returns a value that must not be None.

    Raises:
        ValueError: it is None.
    """
    if value is None:
        raise ValueError(f"no {name}")
    return value


def size_of(maps: Tensor) -> tuple[int, int]:
    """Height and width (h, w) of maps (..., h, w)."""
    height, width = maps.shape[-2:]
    return height, width


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """Sum of one or more tensors."""
    return sum(terms)  # type: ignore[return-value]  # an int only for no tensor at all


def tensor_on(
    values: Sequence[float] | Sequence[Sequence[float]], device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """A few numbers as a tensor on a device, in whose making the host does not wait for the device's earlier work."""
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)


def read_later(values: Tensor) -> Callable[[], Tensor]:
    """Begins to copy values to the host; the function that is returned waits for the copy and for nothing after it."""
    if values.device.type != "cuda":
        return lambda: values
    copy = values.to("cpu", non_blocking=True)  # into pinned memory
    copied = torch.cuda.Event()
    copied.record()

    def read() -> Tensor:
        copied.synchronize()
        return copy

    return read


def compiled(network: C, is_active: bool) -> C:
    """A module or function under torch.compile, if active; else itself."""
    # torch's annotation knows functions alone: of a module torch makes a module.
    return torch.compile(network) if is_active else network  # type: ignore[return-value]
