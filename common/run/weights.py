"""Writes files of weights atomically, and reads them without running code in them."""

import mmap
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from common.run.errors import UserError, first_line
from common.run.files import AGAIN, LEAST_ROOM, atomic_write, require_weights
from common.run.pickles.arrays import ForeignNameError, PickleError
from common.run.pickles.stand_ins import checked_state, stand_in_dtype, stand_in_scalar
from common.run.pickles.torch_files import check_legacy, check_zip_pickle, torch_names

HEAD = 512  # bytes that tell the kind of a file
OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began before its zip files
MOST_HEADER = 100_000_000  # bytes of a header of safetensors, its library's own limit
DEEPEST = 16  # containers in containers whose values are looked at
FOREIGN = (  # how a file begins that is no file of weights, its kind, and what to do
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself", "Fetch it with git lfs pull."),
    (b"{", "a text in JSON, mostly a server's message", "Download the file again."),
    (b"[", "a text in JSON, mostly a server's message", "Download the file again."),
    (b"<", "a web page", "Download the file itself, not the page about it."),
    (b"\x93NUMPY", "a NumPy array", "Give the state dict as torch.save or safetensors write it."),
    (b"\x89HDF", "an HDF5 file", "Give the state dict as torch.save or safetensors write it."),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first."),
    (b"7z\xbc\xaf", "a 7z archive", "Unpack it first."),
    (b"Rar!", "a RAR archive", "Unpack it first."),
)


def save_torch(path: str | Path, content: Any) -> None:
    """`torch.save`, atomically: a full disk or a kill leaves the previous file as it was."""
    with atomic_write(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # the zip writer reports a failed write of its stream as RuntimeError
            raise OSError(f"writing failed, is the disk full? ({str(error).splitlines()[0]})") from error


def load_torch(path: str | Path) -> Any:
    """Reads tensors and plain containers from a file of `torch.save` or safetensors, whatever its suffix.

    Code in it is never run. Of NumPy's arrays and numbers, of namespaces of arguments and of paths, which many
    checkpoints have beside their tensors, plain values are made.

    Raises:
        UserError: no such file, a damaged one, one of another kind, or one that needs code to be read.
    """
    path = Path(path)
    require_weights(path)
    try:
        if _is_safetensors(path):
            from safetensors.torch import load_file

            return load_file(str(path))
        # As an open file: by its name, torch.load would read a file of its own as one of another library.
        with torch.serialization.safe_globals(_STAND_INS), path.open("rb") as file:
            return _plain(torch.load(file, map_location="cpu", weights_only=True), {}, 0)
    except UserError:
        raise
    except (pickle.UnpicklingError, ForeignNameError) as error:
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        detail = f"it names {name[1]}" if name else first_line(error)
        raise UserError(
            f"{path} holds more than tensors and plain containers ({detail}), and is not read: loading it could run "
            "any code. Needed is the state dict alone, as torch.save(model.state_dict(), ...) writes it: make the file "
            "so where it was made, or ask its authors."
        ) from error
    except Exception as error:  # the readers raise a dozen types for damaged files
        raise UserError(
            f"{path} cannot be read as weights ({_reason(error)}). Is it complete? Copy or download it again."
        ) from error


def _reason(error: Exception) -> str:
    return first_line(error) if isinstance(error, PickleError) else f"{type(error).__name__}: {first_line(error)}"


def _is_safetensors(path: Path) -> bool:
    """Whether a file is one of safetensors; False: of `torch.save`.

    Raises:
        UserError: it is of another kind, as its first bytes tell.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= header <= MOST_HEADER:
        return True
    if head.startswith(OLD_FORMAT):
        with path.open("rb") as file:
            check_legacy(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), _NAMES)
        return False
    if head.startswith(b"PK"):
        _check_zip(path)
        return False
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, kind, advice in FOREIGN:
        if text.startswith(start):
            raise UserError(f"{path} cannot be read as weights: it is {kind}. {advice}")
    if not size:
        kind, advice = "empty", "Copy or download it again."
    elif head[257:262] == b"ustar":
        kind, advice = "a tar archive", "Unpack it first."
    elif head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        kind = "a plain pickle, which is not read as it could run any code"
        advice = "Give the state dict as torch.save or safetensors write it."
    elif not head.strip(b"\0"):
        kind, advice = "filled with zeros, as a broken download leaves it", "Download it again."
    else:
        kind = f"neither a file of torch.save nor one of safetensors (it begins with {head[:8]!r})"
        advice = "Is it complete? Copy or download it again."
    raise UserError(f"{path} cannot be read as weights: it is {kind}. {advice}")


def _check_zip(path: Path) -> None:
    """Refuses a zip that `torch.save` has not written, and one whose pickle is not to be read.

    Raises:
        UserError: it is another archive, or cut short.
        PickleError: see `check_zip_pickle`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            root = members[0].filename.split("/")[0] if members else ""
            content = next((archive.read(info) for info in members if info.filename == f"{root}/data.pkl"), b"")
    except Exception:  # BadZipFile, and other types for odd fields
        raise UserError(
            f"{path} cannot be read as weights: it is a part of a file, whose end is missing or damaged. "
            "Copy or download it again."
        ) from None
    if not content:
        raise UserError(
            f"{path} cannot be read as weights: it is a zip archive that torch.save has not written. Unpack it first, "
            "if a file of weights is in it."
        )
    if any(info.filename.endswith("constants.pkl") for info in members):
        raise UserError(
            f"{path} cannot be read as weights: it is a TorchScript program, not a state dict. Needed is the state "
            "dict, as torch.save(model.state_dict(), ...) writes it."
        )
    if any(info.compress_type != zipfile.ZIP_STORED for info in members):
        raise UserError(f"{path} cannot be read as weights: its parts are packed, as torch.save never does. {AGAIN}")
    stored = f"{root}/data/"
    sizes = {i.filename.removeprefix(stored): i.file_size for i in members if i.filename.startswith(stored)}
    check_zip_pickle(content, sizes, _NAMES)


# --- what stands for harmless types; none of them calls a constructor of NumPy's


class _Type:
    """A type of NumPy's numbers."""

    def __init__(self, *arguments: Any) -> None:
        self.inner = stand_in_dtype(arguments)

    def __setstate__(self, state: Any) -> None:
        self.inner.set_state(state)


class _NumPyArray:
    """An array of NumPy's."""

    def __init__(self, *arguments: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or type(state[2]) is not _Type:
            raise PickleError("the state of an array is not NumPy's")
        self.state = checked_state((*state[:2], state[2].inner, *state[3:]))


class _Class:
    """A class that is only named."""


class _Arguments:
    """A namespace of arguments."""

    def __init__(self, *unused: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.values = state


def _number(dtype: Any, raw: Any) -> Any:
    if type(dtype) is not _Type:
        raise PickleError("a number is not given as NumPy gives it")
    return stand_in_scalar(dtype.inner, raw).item()


def _path(*parts: Any) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise PickleError("a path is not made of text")
    return str(Path(*parts))


def _dictionary(*unused: Any) -> dict:
    return {}


def _stand_ins() -> list[Callable | tuple[Callable, str]]:
    found: list[Callable | tuple[Callable, str]] = [
        (_Type, "numpy.dtype"), (_Class, "numpy.ndarray"), (_dictionary, "collections.defaultdict"),
        (_Arguments, "argparse.Namespace"), (_Arguments, "types.SimpleNamespace"),
    ]  # fmt: skip
    for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
        found += [(_NumPyArray, f"{core}._reconstruct"), (_number, f"{core}.scalar")]
    for module in ("pathlib", "pathlib._local"):
        found += [(_path, f"{module}.{name}") for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")]
        found.append((_path, f"{module}.PureWindowsPath"))
    found += [(_Class, f"builtins.{name}") for name in ("int", "float", "list", "dict", "str", "bool")]
    return found


_STAND_INS = _stand_ins()
_NAMES = torch_names(entry[1] for entry in _STAND_INS if isinstance(entry, tuple))


def _plain(value: Any, done: dict[int, tuple[Any, Any]], depth: int) -> Any:
    """Puts values in the place of stand-ins within dictionaries and lists; NumPy's arrays become tensors.

    Args:
        done: parts that were seen, by their identity, and their values.
    """
    if type(value) is _NumPyArray and value.state is not None:
        array = value.state.built()
        return torch.from_numpy(array) if array.dtype.kind in "bifcu" and array.dtype.isnative else array
    if type(value) is _Arguments:
        return getattr(value, "values", {})
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
        size = value.numel() * value.element_size()
        if size > value.untyped_storage().nbytes() + LEAST_ROOM:
            raise PickleError(f"a tensor of it shows {size} bytes, but has {value.untyped_storage().nbytes()}")
    if not isinstance(value, dict | list | tuple) or depth > DEEPEST:
        return value
    if id(value) in done:
        return done[id(value)][1]
    done[id(value)] = value, value
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _plain(item, done, depth + 1)
    elif isinstance(value, list):
        value[:] = [_plain(item, done, depth + 1) for item in value]
    elif type(value) is tuple:
        plain = tuple(_plain(item, done, depth + 1) for item in value)
        done[id(value)] = value, plain
        return plain
    return value
