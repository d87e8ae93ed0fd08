"""Cost of a training step before it runs: operations and memory, from tensors without data (PyTorch's fake tensors).

The step runs through PyTorch's own shape rules, so the cost is that of the code as it stands; neither a GPU nor memory
for the activations is needed.
"""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

Loss = Callable[[], Tensor]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepWork:
    """A method's training step, ready to be planned or measured.

    Attributes:
        loss: total loss of a micro-batch; reads its inputs from the closure.
        model: the trained network.
        frozen: further networks that the step only runs.
        states: copies of a trained parameter that the optimiser keeps (2 for Adam and AdamW, 1 for SGD with momentum).
        before: work before the loss without gradients, as the frozen network's of a guided training.
    """

    loss: Loss
    model: nn.Module
    frozen: tuple[nn.Module, ...] = ()
    states: int = 2
    before: Callable[[], object] | None = None

    def tensors(self) -> list[Tensor]:
        """Parameters and buffers of all networks."""
        return [
            tensor for network in (self.model, *self.frozen) for tensor in (*network.parameters(), *network.buffers())
        ]


@dataclass(frozen=True)
class StepCost:
    """Cost of one micro-batch; memory in bytes.

    Attributes:
        flops: floating-point operations of matrix products, convolutions and attention, forward and backward.
        weights: all networks' parameters and buffers.
        gradients: of the trained parameters.
        optimizer: the optimiser's state.
        saved: activations that the forward pass saves for the backward pass.
        peak: largest sum of activations, gradients and temporary tensors alive at a time.
    """

    flops: float
    weights: int
    gradients: int
    optimizer: int
    saved: int
    peak: int

    @property
    def memory(self) -> int:
        """The step's peak memory: weights, optimiser and everything alive at the worst moment."""
        return self.weights + self.optimizer + self.peak


def random_batch(images: int, size: int, classes: int) -> tuple[Tensor, Tensor]:
    """Stand-ins for a batch: views (B, 3, S, S), and labels (B, C) with two classes an image where there are two."""
    first = torch.arange(images) % classes
    labels = F.one_hot(first, classes) | F.one_hot((first + 1) % classes, classes)
    return torch.randn(images, 3, size, size), labels.float()


def planned_cost(work: StepWork, precision: str = "fp32") -> StepCost:
    """The cost of a step, found without computing or allocating anything.

    Args:
        work: networks with real weights on the CPU; they are left as they are.
        precision: ``fp32``, ``tf32``, ``bf16`` or ``fp16``, as ``runtime.precision``.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        # Autograd saves a weight itself or the mode's fake of it.
        known = [*work.tensors(), *map(mode.from_tensor, work.tensors())]
        return _cost(work, precision, known)


def measured_saved(work: StepWork, precision: str = "fp32") -> int:
    """Bytes that a real forward pass on the CPU saves for its backward pass; weights do not count."""
    if work.before:
        with torch.no_grad():
            work.before()
    with _Saved(work.tensors()) as saved, _autocast(precision):
        work.loss()
    return saved.total


def _cost(work: StepWork, precision: str, known: list[Tensor]) -> StepCost:
    gradients = sum(_bytes(parameter) for parameter in work.model.parameters() if parameter.requires_grad)
    counter = FlopCounterMode(display=False)
    with counter, _LiveBytes() as live:
        if work.before:
            with torch.no_grad(), _autocast(precision):
                work.before()
        with _Saved(known) as saved, _autocast(precision):
            total = work.loss()
        total.backward()
    work.model.zero_grad(set_to_none=True)
    return StepCost(
        flops=float(counter.get_total_flops()), weights=sum(map(_bytes, work.tensors())), gradients=gradients,
        optimizer=work.states * gradients, saved=saved.total, peak=live.peak,
    )  # fmt: skip


class _Saved:
    """Counts the storages that autograd saves, each once, parameters and buffers aside."""

    def __init__(self, known: list[Tensor]) -> None:
        self._sizes: dict[int, int] = {}
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._kept: list[Any] = list(known)  # an address may not be used again while they are counted
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    @property
    def total(self) -> int:
        """Bytes saved so far."""
        return sum(size for place, size in self._sizes.items() if place not in self._known)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._sizes[storage._cdata] = storage.nbytes()
        self._kept.append(storage)
        return tensor

    def __enter__(self) -> "_Saved":
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)
        self._kept.clear()


@dataclass
class _LiveBytes(TorchDispatchMode):
    """Follows the bytes of all tensors that operators make and that are still alive."""

    now: int = 0
    peak: int = 0
    _alive: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, storage: Any) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._alive:
            return
        self.now += size

        def forget(_: Any) -> None:
            self.now -= size
            self._alive.pop(place, None)

        self._alive[place] = weakref.ref(storage, forget)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _autocast(precision: str) -> torch.autocast:
    dtype = AUTOCAST.get(precision)
    return torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None)
