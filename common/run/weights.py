"""Writes files of weights atomically, and reads them without running code in them."""

import pickle
from pathlib import Path
from typing import Any

import torch

from common.run.errors import UserError, first_line
from common.run.files import atomic_write, require_weights


def save_torch(path: str | Path, content: Any) -> None:
    """`torch.save`, atomically: a full disk or a kill leaves the previous file as it was."""
    with atomic_write(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # the zip writer reports a failed write of its stream as RuntimeError
            raise OSError(f"writing failed, is the disk full? ({str(error).splitlines()[0]})") from error


def load_torch(path: str | Path) -> Any:
    """Reads tensors and plain containers from a ``.pth`` or ``.safetensors`` file; code in it is never run.

    Raises:
        UserError: no such file, a damaged one, or one that needs code to be read.
    """
    path = Path(path)
    require_weights(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(str(path))
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain containers, and is not read: loading it could run any code. "
            "If you trust its origin, load it once yourself and save only its state dict "
            f"(torch.save(model.state_dict(), ...)). Detail: {first_line(error)}"
        ) from error
    except Exception as error:  # the readers raise a dozen types for damaged files
        raise UserError(
            f"{path} cannot be read as weights ({type(error).__name__}: {first_line(error)}). "
            "Is it complete? Copy or download it again."
        ) from error
