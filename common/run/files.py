"""Writes files atomically, whole or not at all, and reads pickled arrays without running their code."""

import contextlib
import io
import json
import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from common.run.errors import UserError, first_line

ROOT = Path(__file__).resolve().parents[2]  # of the repository: configs/ and data/lists/ are found from here


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb", durable: bool = True) -> Iterator[IO]:
    """Opens a temporary file beside ``path`` and puts it in its place when the block ends without an exception.

    Args:
        durable: Also force the data onto the disk (fsync) before the rename. Switched off for the many small files of a
            seed folder: a lost one is simply made again.

    Raises:
        UserError: the disk is full or the folder cannot be written; a previous file at ``path`` is untouched.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, mode) as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # noqa: PTH101 - mkstemp makes private files; give what open() gives
        os.replace(temporary, path)  # noqa: PTH105 - the one call that is atomic on every platform
        temporary = None
    except OSError as error:
        raise UserError(
            f"could not write {path}: {error.strerror or error}. The previous file, if any, is intact."
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def has_content(path: Path) -> bool:
    """Whether there is a file that is not empty: some file systems leave empty ones after a loss of power."""
    try:
        return path.is_file() and path.stat().st_size > 0
    except FileNotFoundError:  # deleted in between
        return False


def require_weights(path: str | Path) -> None:
    """Makes sure that a file of weights is there.

    Raises:
        UserError: it is not.
    """
    if not Path(path).is_file():
        raise UserError(f"no weights file at {path}")


def write_json(path: str | Path, content: Any) -> None:
    """Writes ``content`` as indented JSON, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")


# Names in NumPy's own pickles of arrays and scalars, in the spellings of NumPy 1 and 2.
_ALLOWED = {
    (module, name)
    for core in ("numpy.core", "numpy._core")
    for module, name in (
        (f"{core}.multiarray", "_reconstruct"),
        (f"{core}.multiarray", "scalar"),
        (f"{core}.numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), ("collections", "OrderedDict")}


def _storage(content: bytes) -> Any:
    """The numbers of a pickled tensor, which are a file of torch's within the pickle."""
    import torch

    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _array(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *unused: Any) -> np.ndarray:
    """A pickled tensor as an array of its own; as_strided refuses one that shows more than its storage has."""
    import torch

    numbers = torch._utils._rebuild_tensor(storage, 0, (storage._size(),), (1,))
    return numbers.as_strided(size, stride, offset).numpy().copy()


# Functions that pickled tensors call, and the safe ones that run instead.
_TENSORS = {("torch._utils", "_rebuild_tensor_v2"): _array, ("torch.storage", "_load_from_bytes"): _storage}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits NumPy arrays, tensors, which become arrays, and plain containers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _TENSORS:
            return _TENSORS[module, name]
        if (module, name) in _ALLOWED or (module == "numpy.dtypes" and name.endswith("DType")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def load_npy(path: str | Path) -> Any:
    """Reads a ``.npy`` file: an array, or the pickled dictionary of arrays that the papers' tools write.

    Tensors in the dictionary become arrays.

    Raises:
        UserError: no such file, a damaged one, or a pickle that names anything but arrays and tensors.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
            if not dtype.hasobject:
                file.seek(0)
                return np.load(file, allow_pickle=False)
            content = _ArrayUnpickler(io.BytesIO(file.read())).load()
    except FileNotFoundError:
        raise UserError(f"no file at {path}") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is not read: its pickle holds more than arrays ({first_line(error)}), and reading it "
            "could run any code."
        ) from error
    except Exception as error:  # truncated pickles raise EOFError, ValueError, AttributeError, IndexError, ...
        raise UserError(f"{path} is damaged ({type(error).__name__}: {first_line(error)})") from error
    is_scalar = isinstance(content, np.ndarray) and content.dtype == object and content.ndim == 0 and shape == ()
    return content.item() if is_scalar else content
