"""Writes files atomically, whole or not at all, and reads pickled arrays without running their code."""

import contextlib
import io
import json
import os
import re
import socket
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from common.run.errors import UserError, first_line
from common.run.pickles.arrays import ForeignNameError, PickleError, check_array, plain_array
from common.run.pickles.read import loads

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
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:80]}.{_owner()}.", suffix=".tmp", dir=path.parent)
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


def temporary_name(path: Path) -> Path:
    """A name beside a path for a link that is to take its place; `sweep` knows it after a kill."""
    return path.with_name(f".{path.name[:80]}.{_owner()}.link.tmp")


def _owner() -> str:
    """This process on this machine, as temporary files name it."""
    return f"{os.getpid()}-{socket.gethostname().partition('.')[0][:40]}"


def sweep(folder: Path) -> None:
    """Deletes the temporary files that killed processes have left in a folder and those in it."""
    for path in folder.rglob(".*.tmp"):
        found = re.fullmatch(r"\..*\.(\d+)-([^.]*)\.[^.]*\.tmp", path.name)
        if found and found[2] == _owner().partition("-")[2] and not is_alive(int(found[1])):
            path.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Whether a process of this machine lives; one that has ended, and that its parent has not noticed, does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    with contextlib.suppress(OSError, IndexError):  # no such file: not Linux, or ended in between
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


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
    if Path(path).is_dir():
        raise UserError(f"{path} cannot be read as weights: it is a folder. Name the file in it.")
    if not Path(path).is_file():
        raise UserError(f"no weights file at {path}")


def write_json(path: str | Path, content: Any) -> None:
    """Writes ``content`` as indented JSON, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")


HEADER = 16_384  # bytes of a .npy file that hold its header; NumPy takes no longer one than 10,000
LEAST_ROOM = 2**26  # bytes that arrays in a .npz may always take
PACKED = 20  # times the size of a .npz that its arrays may take beyond that
AGAIN = "Copy it again, or have the program that wrote it make it again."


def load_npy(path: str | Path) -> Any:
    """Reads a ``.npy`` file: an array, or the pickled dictionary of arrays that the papers' tools write.

    Tensors in the dictionary become arrays. Nothing of a pickle is run, see `common.run.pickles`.

    Raises:
        UserError: no such file, a damaged one, or a pickle that names anything but arrays and tensors.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            shape, dtype, start = _array_header(file.read(HEADER))
            if not dtype.hasobject:
                check_content(shape, dtype, path.stat().st_size - start)
                file.seek(0)
                return np.load(file, allow_pickle=False)
            file.seek(start)
            content = loads(file.read())
    except FileNotFoundError:
        raise UserError(f"no file at {path}") from None
    except ForeignNameError as error:
        raise UserError(
            f"{path} is not read: its pickle holds more than arrays ({first_line(error)}), and reading it "
            "could run any code. Make the file again from arrays alone."
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    except PickleError as error:
        raise UserError(f"{path} is damaged or no file of arrays ({first_line(error)}). {AGAIN}") from error
    except Exception as error:  # NumPy's reader of headers raises a dozen types
        raise UserError(f"{path} is damaged ({type(error).__name__}: {first_line(error)}). {AGAIN}") from error
    is_scalar = isinstance(content, np.ndarray) and content.dtype == object and content.ndim == 0 and shape == ()
    return content.item() if is_scalar else content


def load_npz(path: str | Path, names: Sequence[str]) -> list[np.ndarray]:
    """Reads arrays of a ``.npz`` file; pickles and anything out of proportion to the file are refused.

    Args:
        names: of the arrays, without ``.npy``.

    Raises:
        UserError: no such file.
        PickleError: an array claims more than the file holds.
        Exception: of another type, for a damaged file; the caller knows its purpose, and reports it.
    """
    path = Path(path)
    try:
        room = PACKED * path.stat().st_size + LEAST_ROOM
        with zipfile.ZipFile(path) as archive:
            arrays = []
            for name in names:
                raw = _member(archive, f"{name}.npy", room)
                room -= len(raw)
                shape, dtype, start = _array_header(raw[:HEADER])
                is_fortran = b"'fortran_order': True" in raw[:start]
                size = check_content(shape, dtype, len(raw) - start)
                arrays.append(plain_array(raw[start : start + size], shape, dtype, is_fortran))
            return arrays
    except FileNotFoundError:
        raise UserError(f"no file at {path}") from None


def check_content(shape: tuple[int, ...], dtype: np.dtype, available: int) -> int:
    """The size in bytes of an array that a header describes.

    Raises:
        PickleError: fewer are there, or the array is none of numbers or text.
    """
    size = check_array(shape, "V" if dtype.names or dtype.shape else dtype.kind, dtype.itemsize)
    if size > available:
        raise PickleError(f"it claims {size} bytes where {available} are left")
    return size


def _array_header(head: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and length of the header of an array in NumPy's format."""
    stream = io.BytesIO(head)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote, and of odd literals in damaged ones
        shape, _, dtype = read(stream)
    return shape, dtype, stream.tell()


def _member(archive: zipfile.ZipFile, name: str, room: int) -> bytes:
    """A file in a zip as NumPy writes them: stored or deflated, not encrypted, of at most ``room`` bytes."""
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise PickleError(f"{name} in it is encrypted or packed in a way that NumPy does not use")
    if info.file_size > room:
        raise PickleError(f"{name} in it unpacks to {info.file_size} bytes, out of proportion to the file")
    with archive.open(info) as member:
        return member.read(info.file_size + 1)
