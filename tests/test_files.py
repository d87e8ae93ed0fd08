"""Files that are whole or not there, and reading that never runs code."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common.run.errors import UserError
from common.run.files import atomic_write, load_npy, write_json
from common.run.weights import load_torch, save_torch
from tests.datasets import truncate
from tests.helpers import Malicious, assert_same, contents, fill_disk

STATE = {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3), "nested": [{"a": 1}, "text", None]}


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Text and bytes; folders are made; permissions are those of an ordinary file; nothing else is left."""
    for mode, content in (("w", "text"), ("wb", b"bytes")):
        with atomic_write(tmp_path / "new" / "x", mode) as file:
            file.write(content)
            assert contents(tmp_path / "new").get("x") != content
    assert contents(tmp_path / "new") == {"x": b"bytes"}
    (tmp_path / "plain").touch()
    assert (tmp_path / "new" / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode
    write_json(tmp_path / "new" / "x", {"a": [1]})
    assert json.loads((tmp_path / "new" / "x").read_text()) == {"a": [1]}


@pytest.mark.parametrize("room", [0, 30])
@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_full_disk_leaves_the_previous_file(tmp_path: Path, monkeypatch, mode: str, room: int) -> None:
    """However much of the new file was written; no temporary file stays."""
    (tmp_path / "x").write_text("before")
    fill_disk(monkeypatch, room)
    with pytest.raises(UserError, match=r"could not write .*x: No space left on device.*intact"):
        with atomic_write(tmp_path / "x", mode) as file:
            for _ in range(3000):
                file.write("after " if mode == "w" else b"after ")
    assert contents(tmp_path) == {"x": b"before"}


def test_any_other_error_leaves_the_previous_file(tmp_path: Path) -> None:
    """An exception in the block comes through as it is."""
    (tmp_path / "x").write_text("before")
    with pytest.raises(ValueError, match="mine"), atomic_write(tmp_path / "x", "w") as file:
        file.write("after")
        raise ValueError("mine")
    assert contents(tmp_path) == {"x": b"before"}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A file where a folder is needed is a user's error."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="could not write"), atomic_write(tmp_path / "file" / "x"):
        pass


@pytest.mark.parametrize("room", [0, 600, 100_000])
def test_a_full_disk_leaves_the_previous_weights(tmp_path: Path, monkeypatch, room: int) -> None:
    """At the start, in the middle and towards the end of a checkpoint."""
    save_torch(tmp_path / "x.pth", STATE)
    fill_disk(monkeypatch, room)
    with pytest.raises(UserError, match=r"could not write .*x\.pth.*(No space left|disk full).*intact"):
        save_torch(tmp_path / "x.pth", {"weight": torch.rand(200, 200)})
    assert list(contents(tmp_path)) == ["x.pth"]
    assert_same(load_torch(tmp_path / "x.pth"), STATE)


def test_an_ordinary_error_while_saving_comes_through(tmp_path: Path) -> None:
    """Only failing writes are called a full disk."""
    with pytest.raises(Exception, match=r"pickle|serialize") as caught:
        save_torch(tmp_path / "x.pth", {"f": lambda: 0})
    assert not isinstance(caught.value, UserError) and not list(tmp_path.iterdir())
    assert not isinstance(caught.value, OSError) or caught.value.errno != errno.ENOSPC


def test_weights_come_back(tmp_path: Path) -> None:
    """Tensors and plain containers as `.pth`, tensors as safetensors."""
    save_torch(tmp_path / "x.pth", STATE)
    assert_same(load_torch(tmp_path / "x.pth"), STATE)
    tensors = {"a": torch.rand(3), "b": torch.arange(4)}
    save_file(tensors, str(tmp_path / "x.safetensors"))
    assert_same(load_torch(tmp_path / "x.safetensors"), tensors)


def test_weights_with_code_in_them_are_refused(tmp_path: Path, monkeypatch) -> None:
    """The code is not run, in either of torch's formats."""
    monkeypatch.chdir(tmp_path)
    for is_zip in (True, False):
        torch.save({"weight": torch.zeros(1), "x": Malicious()}, "x.pth", _use_new_zipfile_serialization=is_zip)
        with pytest.raises(UserError, match=r"x\.pth holds more than tensors.*run any code"):
            load_torch("x.pth")
    torch.save(torch.nn.Linear(1, 1), "x.pth")
    with pytest.raises(UserError, match="holds more than tensors"):
        load_torch("x.pth")
    assert not Path("executed").exists()


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_damaged_or_missing_weights_are_named(tmp_path: Path, name: str) -> None:
    """A truncated file, one of something else, an empty one, none."""
    if name == "x.pth":
        save_torch(tmp_path / name, STATE)
    else:
        save_file({"a": torch.rand(300)}, str(tmp_path / name))
    truncate(tmp_path / name)
    for content in (None, b"<html>404</html>", b""):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            load_torch(tmp_path / name)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match="no weights file at"):
        load_torch(tmp_path / name)


def test_arrays_and_dictionaries_of_them_are_read(tmp_path: Path) -> None:
    """Plain arrays of every kind, and the pickled dictionaries of the papers' tools."""
    dictionary = {3: np.random.default_rng(0).random((4, 5), dtype=np.float32), "a": np.int64(3), "b": [1.5, "x"]}
    for content in (np.arange(6).reshape(2, 3), np.array(["a", "bc"]), dictionary):
        np.save(tmp_path / "x.npy", content, allow_pickle=True)
        assert_same(load_npy(tmp_path / "x.npy"), content)


def test_arrays_with_code_in_them_are_refused(tmp_path: Path, monkeypatch) -> None:
    """A pickle that names anything but NumPy's arrays is not run."""
    monkeypatch.chdir(tmp_path)
    for content in ({0: Malicious()}, [Malicious()], Malicious(), {"f": np.save}):
        np.save("x.npy", np.array(content, dtype=object), allow_pickle=True)
        with pytest.raises(UserError, match=r"x\.npy is not read.*could run any code"):
            load_npy("x.npy")
    assert not Path("executed").exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array", b"\x93NUMPY\x01\x00\x04\x00{'a'"])
def test_damaged_arrays_are_named(tmp_path: Path, content: bytes) -> None:
    """As is a missing file."""
    with pytest.raises(UserError, match=r"no file at .*x\.npy"):
        load_npy(tmp_path / "x.npy")
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.npy is damaged"):
        load_npy(tmp_path / "x.npy")
