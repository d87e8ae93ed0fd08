"""A GPU without a GPU: inside `virtual_device`, tensors with real numbers say that they are on ``cuda``.

They wrap tensors of the CPU, which computes. What a GPU's owner would meet is met here:

* an operator that takes tensors of two devices fails; of another device may be what CUDA allows: scalars, indices;
* ``.numpy()`` and ``np.asarray`` of a tensor on the device fail;
* where the host reads what the device computes, or copies to it without ``non_blocking``, it waits for the device:
  such places are counted.

Not simulated: sparse tensors, memory, streams, kernels and their roundings, autocast, compilation, NCCL.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader

from common.run.files import ROOT

CPU = torch.device("cpu")
PROJECT = tuple(f"{ROOT / name}/" for name in ("common", "methods", "scripts"))
MEMORY = 5 << 30  # bytes that the device says were needed at most
aten = torch.ops.aten
BETWEEN_DEVICES = {aten._to_copy.default, aten.copy_.default}
INDEXING = {  # with indices on the CPU, as CUDA takes them
    aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default, aten._unsafe_index_put.default,
}  # fmt: skip
READS = {  # the host needs values, or a shape that values decide
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default, aten.bincount.default,
    aten.repeat_interleave.Tensor,
}  # fmt: skip
NO_NUMPY = "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."


class Waits(Counter[str]):
    """Host synchronisations by their place in the project, ``file:line``."""

    def note(self) -> None:
        """Counts one at the place in the project's own code that is running."""
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            path = frame.f_code.co_filename
            if path.startswith(PROJECT):
                self[f"{path.removeprefix(f'{ROOT}/')}:{frame.f_lineno}"] += 1
                return
            frame = frame.f_back
        self["elsewhere"] += 1


class VirtualTensor(Tensor):
    """A tensor on the virtual device; autograd's C++ side takes it for one without data."""

    _data: Tensor
    _where: torch.device

    @staticmethod
    def __new__(cls, data: Tensor, where: torch.device) -> "VirtualTensor":
        made = Tensor._make_wrapper_subclass(
            cls, data.shape, strides=data.stride(), storage_offset=data.storage_offset(), dtype=data.dtype,
            layout=data.layout, device="meta",
        )  # fmt: skip
        made._data = data
        made._where = where
        return made

    def __init__(self, data: Tensor, where: torch.device) -> None:
        """See the class."""

    device = property(lambda self: self._where)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    def __repr__(self) -> str:
        return f"VirtualTensor({self._data!r}, device='{self._where}')"

    def numpy(self, *arguments: Any, **options: Any) -> Any:
        """Fails as on a GPU."""
        raise TypeError(NO_NUMPY)

    __array__ = numpy

    def tolist(self) -> Any:
        """A list of a copy on the CPU."""
        return self.detach().cpu().tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        made: Tensor = self.detach().clone()
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made, self.requires_grad)
        return memo.setdefault(id(self), made)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().cpu().__reduce_ex__(protocol)  # a file is read back on the CPU

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        raise AssertionError(f"{function} outside virtual_device")


def is_virtual(device: Any) -> bool:
    """Whether a device is the virtual one, also under the name that C++ knows."""
    return device is not None and torch.device(device).type in ("cuda", "meta")


def located(device: Any) -> torch.device:
    """A device with its number: ``cuda`` is ``cuda:0``."""
    return torch.device("cuda", torch.device(device).index or 0) if is_virtual(device) else torch.device(device)


def data_of(value: Any) -> Any:
    """The tensor of the CPU behind a virtual one; anything else as it is."""
    return value._data if isinstance(value, VirtualTensor) else value


class _Operators(TorchDispatchMode):
    """Computes every operator on the CPU, after a check of its devices."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        leaves = [leaf for leaf in tree_leaves((arguments, options)) if isinstance(leaf, Tensor)]
        virtual = [leaf for leaf in leaves if isinstance(leaf, VirtualTensor)]
        wanted = options.get("device")
        if not virtual and not is_virtual(wanted):
            return function(*arguments, **options)
        if function not in BETWEEN_DEVICES:
            check_devices(function, arguments, leaves, virtual)
        where = located(wanted) if wanted is not None else virtual[0]._where if virtual else CPU
        if function is aten.copy_.default:
            where = located(arguments[0].device)
        if self._waits(function, arguments, options, where):
            self.waits.note()
        plain = {name: value for name, value in options.items() if name != "pin_memory"}
        if wanted is not None:
            plain["device"] = CPU
        found = function(*tree_map(data_of, arguments), **tree_map(data_of, plain))
        if function is aten.copy_.default:
            return arguments[0]
        if where == CPU:
            return tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, found)
        wrapped = tree_map(lambda value: VirtualTensor(value, where) if _is_strided(value) else value, found)
        if function is aten._to_copy.default or not virtual:
            return wrapped
        return return_and_correct_aliasing(function, arguments, options, wrapped)

    @staticmethod
    def _waits(function: Any, arguments: Any, options: dict[str, Any], where: torch.device) -> bool:
        """Whether the host waits for this operator."""
        if function in BETWEEN_DEVICES:
            source = arguments[1] if function is aten.copy_.default else arguments[0]
            is_asynchronous = options.get("non_blocking", len(arguments) > 2 and arguments[2])
            return (where == CPU) == isinstance(source, VirtualTensor) and not is_asynchronous
        if function in INDEXING:
            indices = [index for index in arguments[1] if isinstance(index, Tensor)]
            is_copied = isinstance(arguments[0], VirtualTensor) and not all(index.is_cuda for index in indices)
            return is_copied or any(index.dtype in (torch.bool, torch.uint8) for index in indices)
        return function in READS


def check_devices(function: Any, arguments: Any, leaves: list[Tensor], virtual: list[VirtualTensor]) -> None:
    """Checks an operator's tensors.

    Raises:
        RuntimeError: they are on two devices, and neither scalars nor indices.
    """
    allowed = list(arguments[1]) if function in INDEXING and isinstance(arguments[0], VirtualTensor) else []
    others = [
        leaf for leaf in leaves
        if _is_strided(leaf) and leaf.dim() and not any(leaf is index for index in allowed)
    ]  # fmt: skip
    places = {str(tensor._where) for tensor in virtual} | {str(tensor.device) for tensor in others}
    if len(places) > 1:
        shapes = [tuple(tensor.shape) for tensor in others]
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, "
            f"{', '.join(sorted(places))}! ({function}; on the CPU: {shapes})"
        )


def _is_strided(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, VirtualTensor) and value.layout == torch.strided


class _Functions(TorchFunctionMode):
    """Replaces functions whose C++ side asks for a real device, or for the data of a tensor."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        if function in (torch.tensor, torch.as_tensor) and is_virtual(options.get("device")):
            return made_on(options.pop("device"), arguments[0], options)
        if function is Tensor.new_tensor and isinstance(arguments[0], VirtualTensor):
            options.setdefault("dtype", arguments[0].dtype)
            return made_on(options.pop("device", arguments[0].device), arguments[1], options)
        if function is F.scaled_dot_product_attention and isinstance(arguments[0], VirtualTensor):
            return attention(*arguments, **options)
        if function in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(arguments[0], VirtualTensor):
            arguments = (arguments[0], with_tensors(arguments[1]), *arguments[2:])
        if function is Tensor.cuda:
            return arguments[0].to("cuda")
        return function(*arguments, **options)


def made_on(device: Any, values: Any, options: dict[str, Any]) -> Tensor:
    """`torch.tensor` or `torch.as_tensor` on a device."""
    needs_gradient = options.pop("requires_grad", False)
    return torch.tensor(values, **options).to(device).requires_grad_(needs_gradient)


def with_tensors(index: Any) -> Any:
    """An index with tensors in place of lists, of which C++ would make tensors itself."""
    if isinstance(index, tuple):
        return tuple(with_tensors(part) for part in index)
    return torch.tensor(index) if isinstance(index, list) else index


def attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:  # fmt: skip
    """`F.scaled_dot_product_attention` by its definition: its kernels are chosen by the device that C++ sees."""
    assert attn_mask is None and not is_causal, "not needed here"
    weights = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    return F.dropout(weights.softmax(-1), dropout_p) @ v


class _Generator(torch._C.Generator):
    """`torch.Generator` of any device; all draw on the CPU."""

    def __new__(cls, device: Any = "cpu") -> "_Generator":
        return super().__new__(cls, "cpu")

    def __init__(self, device: Any = "cpu") -> None:
        """See the class."""


class _Event:
    """`torch.cuda.Event`: everything on this device is done at once."""

    def record(self) -> None:
        """Does nothing."""

    synchronize = record


def _constant(value: Any) -> Callable[..., Any]:
    return lambda *arguments, **options: value


@contextlib.contextmanager
def virtual_device(devices: int = 1) -> Iterator[Waits]:
    """Pretends that there are CUDA devices; gives the count of synchronisations."""
    waits = Waits()
    state = torch.zeros(16, dtype=torch.uint8)
    answers = {
        "_lazy_init": None, "is_available": True, "is_initialized": True, "device_count": devices, "current_device": 0,
        "set_device": None, "get_device_name": "virtual CUDA device", "get_device_capability": (9, 0),
        "synchronize": None, "empty_cache": None, "is_bf16_supported": True, "max_memory_allocated": MEMORY,
        "reset_peak_memory_stats": None, "get_rng_state": state, "set_rng_state": None, "manual_seed": None,
        "manual_seed_all": None, "mem_get_info": (80 << 30, 80 << 30),
    }  # fmt: skip
    load = DataLoader.__init__
    convert = torch.__future__.get_overwrite_module_params_on_conversion()
    with pytest.MonkeyPatch.context() as patch:
        for name, answer in answers.items():
            patch.setattr(torch.cuda, name, _constant(answer))
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch.cuda, "Event", _Event)
        patch.setattr(DataLoader, "__init__", lambda *parts, **named: load(*parts, **{**named, "pin_memory": False}))
        # Views of wrappers that were made in inference mode have no version counter.
        patch.setattr(torch.inference_mode, "__enter__", lambda self: torch.no_grad.__enter__(_gradients(self)))
        patch.setattr(torch.inference_mode, "__exit__", lambda self, *error: self.gradients.__exit__(*error))
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        torch._C._ensureCUDADeviceGuardSet()
        try:
            with _Functions(), _Operators(waits):
                yield waits
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(convert)


def _gradients(block: Any) -> torch.no_grad:
    """The `torch.no_grad` block that stands for an `torch.inference_mode` block."""
    block.gradients = torch.no_grad()
    return block.gradients
