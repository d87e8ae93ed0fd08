"""Checkpoints: ``last.pth`` for exact resume, a bare state dict per epoch under the papers' names, and the best."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from common.run.errors import UserError, preview
from common.run.files import temporary_name
from common.run.folder import BEST_FILE, LAST_FILE, PREVIOUS_FILE
from common.run.processes import Processes
from common.run.random import RandomStates
from common.run.weights import load_torch, save_torch
from common.train.course import Position
from common.train.identity import other_run, replaced_images

FORMAT = 1  # of last.pth; a change that older files do not fit counts it up


class Stateful(Protocol):
    """A part of a checkpoint: model, optimiser, method state."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Any) -> Any: ...


class Checkpoints:
    """Writes and reads the checkpoints of one run."""

    def __init__(
        self, folder: Path, model: nn.Module, parts: Mapping[str, Stateful], own_parts: Mapping[str, Stateful],
        processes: Processes, identity: dict[str, Any], device: torch.device | None = None,
    ) -> None:  # fmt: skip
        """Names the parts.

        Args:
            model: the network, without wrappers; the epoch files hold its state dict.
            parts: everything else that is equal on all processes: optimiser, loss scaler, method state.
            own_parts: state that differs between processes, besides the random states.
            identity: settings that a resumed run must share with the saved one: see `identity_of`.
            device: of this process, whose generator is a part as well.
        """
        self.folder, self.model, self.processes, self.identity = folder, model, processes, identity
        self.parts: dict[str, Stateful] = {"model": model, **parts}
        self.own_parts: dict[str, Stateful] = {"random": RandomStates(device), **own_parts}
        self._saved: int | None = None  # steps done at the last checkpoint

    @property
    def last(self) -> Path:
        """The file to resume from."""
        return self.folder / LAST_FILE

    @property
    def previous(self) -> Path:
        """The checkpoint before the last one."""
        return self.folder / PREVIOUS_FILE

    def kept(self) -> str:
        """The checkpoints that a run which diverges can go on from, as text for its message."""
        if not self.last.is_file():
            return "There is no checkpoint yet. "
        earlier = f"; the one before it is {self.previous}: copy it to {LAST_FILE} to go on from there"
        return f"The last checkpoint, {self.last}, is kept{earlier if self.previous.is_file() else ''}. "

    def finish(self) -> None:
        """Deletes the checkpoint before the last, as the run is finished."""
        if self.processes.is_main:
            self.previous.unlink(missing_ok=True)

    def save_last(self, position: Position) -> None:
        """Saves everything needed to go on bitwise, the random states of all processes included."""
        own = self.processes.gather_objects({name: part.state_dict() for name, part in self.own_parts.items()})
        if self.processes.is_main:
            content: dict[str, Any] = {name: dict(part.state_dict()) for name, part in self.parts.items()}
            content |= {"model": self._weights(), "position": asdict(position), "own": own, "identity": self.identity}
            if self._saved not in (None, position.total_steps):
                keep_as(self.last, self.previous)
            content["format"] = FORMAT
            save_torch(self.last, content)
            self._saved = position.total_steps
        self.processes.barrier()

    def save_weights(self, file: str) -> None:
        """Saves the bare state dict in a file of this name."""
        if self.processes.is_main:
            save_torch(self.folder / file, self._weights())

    def save_best(self) -> None:
        """Saves the bare state dict as the best so far."""
        self.save_weights(BEST_FILE)

    def check(self) -> None:
        """Checks the weights; called before they are written.

        Raises:
            UserError: the weights are not finite after the last step; the losses only show it in the next step.
        """
        self._weights()

    def _weights(self) -> dict[str, Tensor]:
        """The network's state dict.

        Raises:
            UserError: as `check`.
        """
        state = dict(self.model.state_dict())
        # One answer for all tensors of a device: each answer has the host wait for the GPU.
        if not bool(torch.stack([value.isfinite().all() for value in state.values()]).all()):
            broken = [name for name, value in state.items() if not value.isfinite().all()]
            raise UserError(
                f"the weights are not finite after the last step: {preview(broken, 3)}. They are not saved. "
                f"{self.kept()}Lower optim.lr or use runtime.precision=fp32, then go on with --resume."
            )
        return state

    def _check_format(self, content: Any) -> None:
        """Checks the version and the parts of ``last.pth``; a file without a version is of the first one.

        Raises:
            UserError: it is of a newer version, or has other parts.
        """
        if not isinstance(content, dict):
            raise UserError(f"{self.last} does not fit this run: it holds no parts of a checkpoint")
        version = content.get("format", FORMAT)
        if version != FORMAT:
            raise UserError(
                f"{self.last} is a checkpoint of format {version}, this version of the project reads format {FORMAT}: "
                "resume it with the version of the project that wrote it"
            )
        needed = {*self.parts, "position", "own", "identity"}
        missing = sorted(needed - content.keys())
        unknown = sorted(content.keys() - needed - {"format"})
        if missing or unknown:
            texts = [f"it lacks {', '.join(missing)}"] * bool(missing) + [f"it has {', '.join(unknown)}"] * bool(
                unknown
            )
            raise UserError(f"{self.last} does not fit this run: {' and '.join(texts)}")

    def resume(self) -> Position:
        """Restores everything and returns the position.

        Raises:
            UserError: ``last.pth`` is missing or damaged, or it belongs to a run of another set-up.
        """
        content = load_torch(self.last)
        self._check_format(content)
        try:
            differing = other_run(content["identity"], self.identity)
            if differing:
                raise UserError(
                    f"{self.last} does not fit this run: {differing}. Resume it as it was, or start another run under "
                    "another --name"
                )
            replaced = replaced_images(content["identity"], self.identity)
            if replaced and self.processes.is_main:
                print(
                    f"note: {len(replaced)} image file(s) have changed since {self.last} was written, and are read as "
                    f"they are now: {preview(replaced)}"
                )
            for name, part in self.parts.items():
                part.load_state_dict(content[name])
            if len(content["own"]) == self.processes.world:
                for name, part in self.own_parts.items():
                    part.load_state_dict(content["own"][self.processes.rank][name])
            elif self.processes.is_main:
                print(
                    f"note: saved by {len(content['own'])} process(es), resumed by {self.processes.world}: "
                    "random draws of the model go on from fresh seeds"
                )
            position = Position(**content["position"])
            self._saved = position.total_steps
            return position
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise UserError(f"{self.last} does not fit this run ({type(error).__name__}: {error})") from error


def keep_as(path: Path, other: Path) -> None:
    """Gives a file a second name, in place of what had it; a copy where the disk has no such links."""
    new = temporary_name(other)
    new.unlink(missing_ok=True)
    if not path.is_file():
        return
    try:
        new.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, new)
    new.replace(other)
