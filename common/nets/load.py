"""Loads checkpoints into networks, reports the match, and refuses a poor one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.data.dataset import ImageSet
from common.nets.average import averaged_state
from common.run.config import leaves
from common.run.device import Runtime
from common.run.errors import UserError, preview
from common.run.fingerprint import content_digest
from common.run.script import Setup, start_run
from common.run.weights import load_torch

# Keys under which state dicts lie in checkpoints, in the order in which they are taken.
NESTINGS = (
    "model", "state_dict", "model_state_dict", "model_state", "net", "network", "module", "params", "weights",
    "encoder", "backbone",
)  # fmt: skip
# Of other weights beside them; taken where a file has one of these alone.
COPIES = ("ema", "ema_state_dict", "model_ema", "state_dict_ema", "ema_model", "params_ema", "teacher", "student")
WRAPPERS = ("module.", "_orig_mod.")  # put before names by DistributedDataParallel and torch.compile
PREFIXES = ("backbone.", "model.", "net.")  # taken off if all names have it
DEEPEST = 6  # levels of nesting
COUNTER = "num_batches_tracked"  # of batch norms: old files lack it, and nothing reads it
PLAIN = (int, float, str, type(None))


def state_dict_in(path: Path, key: str = "") -> dict[str, Tensor]:
    """The state dict in a file, at its top or under the usual keys, without the prefixes of wrappers.

    Args:
        key: name under which it lies in the file, with dots between the names of several levels; empty: found.

    Raises:
        UserError: the file is unreadable or unsafe, holds no state dict, or several; or a tensor of it is none of plain
            numbers.
    """
    content = load_torch(path)
    for name in key.split(".") if key else ():
        if not isinstance(content, Mapping) or name not in content:
            raise UserError(f"{path} has no {key!r}; {_found(content)}")
        content = content[name]
    for _ in range(DEEPEST):
        name = _nesting(content, path)
        if not name:
            break
        content = content[name]
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds no state dict (a mapping of parameter names to tensors)")
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    others = [value for value in content.values() if not isinstance(value, Tensor)]
    if (
        len(tensors) <= len(others)
        or not all(isinstance(name, str) for name in tensors)
        or not all(isinstance(value, PLAIN) for value in others)
    ):
        raise UserError(f"{path} holds no state dict (a mapping of parameter names to tensors); {_found(content)}")
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            raise UserError(f"{path}: the tensor {name} is {_form(value)}; weights are dense real numbers")
    return _without_prefixes(tensors, path)


def _nesting(content: Any, path: Path) -> str:
    """The key under which the state dict lies; empty: it is the content itself.

    Raises:
        UserError: there are several, and none is the usual one.
    """
    if not isinstance(content, Mapping):
        return ""
    usual = [name for name in NESTINGS if isinstance(content.get(name), Mapping)]
    copies = [name for name in COPIES if isinstance(content.get(name), Mapping)]
    if len(usual or copies) > 1 and not (usual and usual[0] in NESTINGS[:3]):
        raise UserError(
            f"{path} holds several state dicts ({', '.join(usual or copies)}): name one with --key beside "
            "--load_pretrained, or save it as a file of its own"
        )
    return (usual or copies or [""])[0]


def _found(content: Any) -> str:
    """What lies in a file, for messages."""
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}"
    return (
        f"found at its top: {preview(content, 8) or 'nothing'}. If one of them is the state dict, name it with --key "
        "beside --load_pretrained"
    )


def _form(value: Tensor) -> str:
    if value.is_meta:
        return "without numbers (on the meta device)"
    if value.layout != torch.strided:
        return f"sparse ({str(value.layout).removeprefix('torch.')})"
    return f"quantised ({value.dtype})" if value.is_quantized else f"complex ({value.dtype})"


def _without_prefixes(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """A state dict without the prefixes of wrappers, and without one of `PREFIXES` that all names have.

    Raises:
        UserError: two names become one.
    """
    names = {name: name for name in state}
    while True:
        before = dict(names)
        for name, short in names.items():
            short = short.replace("._orig_mod.", ".")
            for wrapper in WRAPPERS:
                short = short.removeprefix(wrapper)
            names[name] = short
        for prefix in PREFIXES:
            if all(short.startswith(prefix) for short in names.values()):
                names = {name: short.removeprefix(prefix) for name, short in names.items()}
        if names == before:
            break
    if len(set(names.values())) < len(names):
        raise UserError(f"{path} holds tensors whose names differ only in a wrapper's prefix ({preview(state, 3)})")
    return {names[name]: value for name, value in state.items()}


@dataclass
class Coverage:
    """How well a checkpoint fits a model."""

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    wrong_shape: list[str]

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.missing) + len(self.wrong_shape)
        parts = [f"{len(self.loaded)} of {total} tensors loaded"]
        for title, names in (
            ("missing", self.missing),
            ("of another shape", self.wrong_shape),
            ("left over", self.unexpected),
        ):
            if names:
                parts.append(f"{len(names)} {title} ({preview(names, 3)})")
        return "; ".join(parts)


def load_checked(
    model: nn.Module, state: Mapping[str, Tensor], source: str, may_lack: tuple[str, ...] = ()
) -> Coverage:
    """Copies a state dict into a model, by name and shape: every tensor must be present, and no other.

    Args:
        source: Its origin, for messages.
        may_lack: Beginnings of the names of tensors that may be missing and then stay as they are; counters of batch
            norms always may.

    Raises:
        UserError: it does not fit, or a tensor has no finite numbers of the model's kind; the model is left as it was.
    """
    own = model.state_dict()
    coverage = Coverage(
        loaded=[name for name in own if name in state and state[name].shape == own[name].shape],
        missing=[name for name in own if name not in state],
        unexpected=[name for name in state if name not in own],
        wrong_shape=[
            f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    )
    lacking = [name for name in coverage.missing if not name.startswith(may_lack) and not name.endswith(COUNTER)]
    if lacking or coverage.wrong_shape or coverage.unexpected:
        hint = (
            " Another number of classes? Set data.* to the data set it was trained on." if coverage.wrong_shape else ""
        )
        needed = replace(coverage, missing=lacking)
        raise UserError(f"{source} does not fit this model: {needed}.{hint}")
    for name in coverage.loaded:
        _check_numbers(name, state[name], own[name], source)
    with torch.no_grad():
        for name in coverage.loaded:
            own[name].copy_(state[name])
    return coverage


def _check_numbers(name: str, value: Tensor, own: Tensor, source: str) -> None:
    """Refuses a tensor whose numbers are not those of a trained network.

    Raises:
        UserError: it is sparse, without numbers, of another kind than the model's, or not finite.
    """
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
        raise UserError(f"{source}: the tensor {name} is {_form(value)}; weights are dense real numbers")
    if value.is_floating_point() != own.is_floating_point():
        kinds = (str(dtype).removeprefix("torch.") for dtype in (value.dtype, own.dtype))
        raise UserError("{}: the tensor {} is of type {}, where the model has {}".format(source, name, *kinds))
    if own.is_floating_point() and not value.to(own.dtype).isfinite().all():
        raise UserError(
            f"{source}: the tensor {name} holds values that are not finite; the training that made it has diverged, or "
            "the file is damaged"
        )


def load_weights(
    model: nn.Module,
    checkpoint: Path,
    runtime: Runtime,
    needed: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda state: state,
    key: str = "",
    averaged: Sequence[Path] = (),
) -> Coverage:
    """Loads a checkpoint into a network, which is moved to the device in evaluation mode.

    Args:
        needed: picks from a checkpoint what this network has, where trainings save more.
        key: as `state_dict_in`.
        averaged: checkpoints whose mean is loaded instead.

    Raises:
        UserError: as `state_dict_in` and `load_checked`.
    """

    def read(path: Path) -> Mapping[str, Tensor]:
        return needed(state_dict_in(path, key))

    coverage = load_checked(model, averaged_state(averaged, read) if averaged else read(checkpoint), str(checkpoint))
    model.to(runtime.device).eval()
    return coverage


def weights_identity(checkpoint: Path, model: Any, averaged: Sequence[Path] = ()) -> dict[str, Any]:
    """The file of the weights, a digest of its content, and the network's settings, for stamps.

    Args:
        model: the section of the configuration.
        averaged: as `load_weights`.
    """
    network = {leaf.key: leaf.default for leaf in leaves(model) if leaf.key.rpartition(".")[2] != "pretrained"}
    mean = {"averaged": {str(path): content_digest(path) for path in averaged}} if averaged else {}
    return {"checkpoint": str(checkpoint), "weights": content_digest(checkpoint), "model": network, **mean}


def load_network(
    setup: Setup,
    images: ImageSet,
    model: nn.Module,
    needed: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda state: state,
) -> dict[str, Any]:
    """Loads the checkpoint that the command line names, makes the run folder, and logs which weights meet which images.

    Args:
        model: receives the weights, as by `load_weights`.
        needed: as `load_weights`.

    Returns:
        As `weights_identity`: part of the stamp of all files that the weights give.
    """
    run, runtime, checkpoint = setup.run, setup.runtime, setup.weights
    assert checkpoint is not None, "the script's kind uses no weights"
    coverage = load_weights(model, checkpoint, runtime, needed, setup.args.key, setup.averaged)
    start_run(run, setup.config, setup.processes, keep_config=True)
    source = f"mean of {len(setup.averaged)} checkpoints up to {checkpoint}" if setup.averaged else checkpoint
    setup.processes.say(f"{source}: {coverage}. {len(images)} images of {images.list_name!r} on {runtime.describe()}")
    return weights_identity(checkpoint, setup.config.model, setup.averaged)
