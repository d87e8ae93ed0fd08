"""Loads checkpoints into networks, reports the match, and refuses a poor one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.data.dataset import ImageSet
from common.run.config import leaves
from common.run.errors import UserError, preview
from common.run.fingerprint import content_digest
from common.run.folder import EPOCH_FILE, epoch_checkpoint
from common.run.script import Setup, start_run
from common.run.weights import load_torch


def state_dict_in(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, at its top or under one of the usual keys; ``module.`` prefixes are dropped.

    Raises:
        UserError: the file is unreadable or unsafe, or holds no state dict.
    """
    content = load_torch(path)
    if isinstance(content, Mapping):
        for key in ("model", "state_dict", "model_state_dict"):
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise UserError(f"{path} holds no state dict (a mapping of parameter names to tensors)")
    return {name.removeprefix("module."): value for name, value in content.items()}


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


def load_checked(model: nn.Module, state: Mapping[str, Tensor], source: str, strict: bool = True) -> Coverage:
    """Copies a state dict into a model, by name and shape.

    Args:
        source: Its origin, for messages.
        strict: Every tensor must be present, with its shape; otherwise at least half of them.

    Raises:
        UserError: the match is too poor; the model is left as it was.
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
    poor = len(coverage.loaded) < (len(own) if strict else len(own) / 2)
    if poor or (strict and coverage.unexpected):
        hint = (
            " Another number of classes? Set data.* to the data set it was trained on." if coverage.wrong_shape else ""
        )
        raise UserError(f"{source} does not fit this model: {coverage}.{hint}")
    with torch.no_grad():
        for name in coverage.loaded:
            own[name].copy_(state[name])
    return coverage


def load_network(
    setup: Setup,
    images: ImageSet,
    model: nn.Module,
    needed: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda state: state,
    file: str = EPOCH_FILE,
    unit: str = "epoch",
) -> dict[str, Any]:
    """Loads the checkpoint that the command line names, makes the run folder, and logs which weights meet which images.

    Args:
        model: receives the weights, and is moved to the device in evaluation mode.
        needed: picks from a checkpoint what this network has, where trainings save more.
        file: the pattern of the checkpoints' names, and ``unit`` what their numbers count: see `epoch_checkpoint`.

    Returns:
        The file of the weights, a digest of its content, and the network's settings: part of the stamp of all files
        that they give.
    """
    args, run, runtime = setup.args, setup.run, setup.runtime
    checkpoint = args.load_pretrained or epoch_checkpoint(run.checkpoints, args.load_epo, file, unit)
    coverage = load_checked(model, needed(state_dict_in(checkpoint)), str(checkpoint))
    model.to(runtime.device).eval()
    start_run(run, setup.config, setup.processes, keep_config=True)
    setup.processes.say(
        f"{checkpoint}: {coverage}. {len(images)} images of {images.list_name!r} on {runtime.describe()}"
    )
    network = {
        leaf.key: leaf.default for leaf in leaves(setup.config.model) if leaf.key.rpartition(".")[2] != "pretrained"
    }
    return {"checkpoint": str(checkpoint), "weights": content_digest(checkpoint), "model": network}
