"""Files of diffusion models, interchangeable with the released one: reading with every check, and writing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.nets.load import load_checked
from common.run.errors import UserError, preview
from common.run.weights import load_torch, save_torch
from methods.dig.config import require_diffusion
from methods.dig.diffusion import GaussianDiffusion, schedule_buffers

VERSION = "wsss 1"  # of the format written here; where lucidrains' trainer puts the version of its package


@dataclass(frozen=True)
class DiffusionFile:
    """The facts that a file states about itself; None for a fact that it lacks.

    Attributes:
        path: of the file.
        step: training steps behind it.
        version: of the program that wrote it.
        lr: learning rate of its optimiser.
        betas: of its Adam.
        replaced: names of the file's tables that differ from the published schedule; the file's own are used.
    """

    path: Path
    step: int | None = None
    version: str | None = None
    lr: float | None = None
    betas: tuple[float, float] | None = None
    replaced: tuple[str, ...] = ()

    def __str__(self) -> str:
        facts = {"step": self.step, "version": self.version, "lr": self.lr, "betas": self.betas}
        known = [f"{name} {value}" for name, value in facts.items() if value is not None]
        line = f"{self.path} ({', '.join(known) or 'weights only'})"
        if self.replaced:
            line += f"; NOT the published noise schedule or loss: its own {preview(self.replaced, 3)}"
        return line


def start_diffusion(diffusion: GaussianDiffusion, file: str, is_resumed: bool) -> str:
    """Starts a model from a file, if a training begins and names one; returns the weights' origin, for the log.

    Raises:
        UserError: as `load_diffusion`.
    """
    if is_resumed:
        return "resumed"
    return str(load_diffusion(diffusion, file)) if file else "random"


def load_diffusion(diffusion: GaussianDiffusion, path: str | Path) -> DiffusionFile:
    """Loads the raw weights (not the EMA's) and the noise schedule of a file, all or nothing.

    Args:
        diffusion: the model that is loaded.
        path: a trainer's file (``model`` among other keys), or a state dict of the wrapper or of the U-Net alone, whose
            schedule is then the published one. A state dict may be a ``.safetensors``.

    Raises:
        UserError: the file does not exist, is damaged or unsafe, or holds another network.
    """
    path = require_diffusion(path)
    content = load_torch(path)
    dump = content if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping) else {}
    state = _named_as_wrapper(dump.get("model", content), diffusion, path)
    _check_size(state, diffusion, path)
    load_checked(diffusion, state, str(path))
    published = schedule_buffers(diffusion.timesteps)
    replaced = (name for name, table in published.items() if not _is_close(state[name], table))
    step = dump.get("step")
    version = dump.get("version")
    return DiffusionFile(
        path=path,
        step=step if isinstance(step, int) else None,
        version=version if isinstance(version, str) else None,
        **_adam_facts(dump.get("opt")),
        replaced=tuple(replaced),
    )


def save_diffusion(
    path: str | Path,
    diffusion: GaussianDiffusion,
    step: int,
    optimizer: torch.optim.Optimizer | None = None,
    ema: nn.Module | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Writes a trainer's file, with the keys and names of the released one.

    Args:
        path: of the file.
        diffusion: the model itself, not wrapped for distributed training.
        step: training steps behind it.
        optimizer: its optimiser.
        ema: its `EMA`.
        scaler: of mixed precision; left out if it is switched off.

    Raises:
        UserError: the file could not be written.
    """
    states = {
        name: None if part is None else part.state_dict()
        for name, part in (("opt", optimizer), ("ema", ema), ("scaler", scaler))
    }
    states["scaler"] = states["scaler"] or None
    save_torch(path, {"step": step, "model": diffusion.state_dict(), **states, "version": VERSION})


def _named_as_wrapper(state: Any, diffusion: GaussianDiffusion, path: Path) -> dict[str, Tensor]:
    """A state dict under the wrapper's names; the published tables are added to a file without tables.

    Raises:
        UserError: it is no state dict.
    """
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    ):
        raise UserError(f"{path} holds no state dict (a mapping of parameter names to tensors)")
    tables = schedule_buffers(diffusion.timesteps)
    named = {}
    for name, value in state.items():
        name = name.removeprefix("module.")
        named[name if name in tables or name.startswith("model.") else f"model.{name}"] = value
    return named if named.keys() & tables.keys() else {**tables, **named}


def _check_size(state: Mapping[str, Tensor], diffusion: GaussianDiffusion, path: Path) -> None:
    """Refuses a network of another size, and names the configuration that it needs.

    Raises:
        UserError: the network has other widths or another number of stages.
    """

    def width(name: str) -> int:
        return state[name].shape[0] if name in state and state[name].ndim == 4 else 0

    dim = width("model.init_conv.weight")
    stages: list[int] = []
    while dim:
        prefix = f"model.downs.{len(stages)}.3"
        leaving = width(f"{prefix}.1.weight") or width(f"{prefix}.weight")
        if not leaving:
            break
        stages.append(leaving // dim)
    config = diffusion.model.config
    if stages and (dim, stages) != (config.dim, list(config.dim_mults)):
        raise UserError(
            f"{path} holds a diffusion network of dim={dim}, dim_mults={stages}, but the configuration asks for "
            f"dim={config.dim}, dim_mults={list(config.dim_mults)}: set them as in the file, or name another file"
        )


def _adam_facts(state: Any) -> dict[str, Any]:
    """``lr`` and ``betas`` of the first parameter group, if this is an optimiser's state."""
    groups = state.get("param_groups") if isinstance(state, Mapping) else None
    group = groups[0] if isinstance(groups, list) and groups and isinstance(groups[0], Mapping) else {}
    lr = group.get("lr")
    betas = group.get("betas")
    return {
        "lr": lr if isinstance(lr, int | float) else None,
        "betas": tuple(betas) if isinstance(betas, tuple | list) else None,
    }


def _is_close(table: Tensor, published: Tensor) -> bool:
    """Whether a table equals the published one up to rounding."""
    return torch.allclose(table.float().cpu(), published, rtol=1e-3, atol=1e-6)
