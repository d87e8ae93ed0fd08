"""Seed files of both formats, hostile ones, and the background writer."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from common.data.outputs import BackgroundWriter
from common.data.seeds import FORMATS, read_seed, seed_path, write_seed
from common.run.errors import UserError

SEED = {
    7: np.random.default_rng(0).random((37, 50), dtype=np.float32),
    2: np.tile(np.linspace(0, 1, 50, dtype=np.float32), (37, 1)),
}


class Malicious:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def pickled(path: Path, content: object) -> Path:
    wrapped = np.empty((), dtype=object)
    wrapped[()] = content
    np.save(path, wrapped, allow_pickle=True)
    return path


def test_npy_is_what_the_papers_tools_read(tmp_path: Path) -> None:
    path = write_seed(tmp_path, "2007_000032", SEED)
    assert path == tmp_path / "2007_000032.npy"
    theirs = np.load(path, allow_pickle=True).item()
    ours = read_seed(path)
    assert list(ours) == [2, 7] and set(theirs) == {2, 7}
    for key in SEED:
        assert ours[key].dtype == theirs[key].dtype == np.float32
        assert (ours[key] == SEED[key]).all() and (theirs[key] == SEED[key]).all()


def test_npz_is_small_free_of_pickle_and_near(tmp_path: Path) -> None:
    path = write_seed(tmp_path, "a", SEED, "npz", stride=2)
    with np.load(path, allow_pickle=False) as content:
        assert content["cams"].dtype == np.float16 and content["cams"].shape == (2, 18, 25)
    seed = read_seed(path)
    assert list(seed) == [2, 7] and seed[2].shape == (37, 50) and seed[2].dtype == np.float32
    assert np.abs(seed[2] - SEED[2]).max() < 0.02  # the smooth one


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_seed_of_no_class(tmp_path: Path, fmt: str) -> None:
    assert read_seed(write_seed(tmp_path, "a", {}, fmt)) == {}


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_image_smaller_than_the_stride(tmp_path: Path, fmt: str) -> None:
    assert read_seed(write_seed(tmp_path, "a", {0: np.ones((2, 3), np.float32)}, fmt))[0].tolist() == [[1] * 3] * 2


def test_seed_path_finds_either_format(tmp_path: Path) -> None:
    assert seed_path(tmp_path, "a") is None
    write_seed(tmp_path, "a", SEED, "npz")
    assert seed_path(tmp_path, "a") == tmp_path / "a.npz"
    write_seed(tmp_path, "a", SEED)
    assert seed_path(tmp_path, "a") == tmp_path / "a.npy"


def test_a_malicious_pickle_is_not_run(tmp_path: Path) -> None:
    for content in (Malicious(tmp_path / "executed"), {0: Malicious(tmp_path / "executed")}):
        with pytest.raises(UserError, match="holds more than arrays"):
            read_seed(pickled(tmp_path / "a.npy", content))
    np.savez(tmp_path / "a.npz", keys=np.array([Malicious(tmp_path / "executed")], dtype=object), cams=0, size=0)
    with pytest.raises(UserError, match=r"a\.npz"):
        read_seed(tmp_path / "a.npz")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("kept", [0, 20, 0.5, 0.98])
def test_a_damaged_file_is_named(tmp_path: Path, fmt: str, kept: float) -> None:
    path = write_seed(tmp_path, "broken", SEED, fmt)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    with pytest.raises(UserError, match=f"broken.{fmt}"):
        read_seed(path)


@pytest.mark.parametrize("content, words", [
    ([1, 2], "not a dictionary"),
    ({"cat": SEED[2]}, "'cat' is no class index"),
    ({0: "text"}, "class 0 has a str where a map"),
    ({0: SEED[2], 1: SEED[2][:-1]}, r"one \(H, W\)"),
    ({0: SEED[2][0]}, r"one \(H, W\)"),
])  # fmt: skip
def test_a_pickle_of_something_else(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_seed(pickled(tmp_path / "a.npy", content))


def irnet_file(folder: Path, *, as_tensors: bool = True, **changes: object) -> Path:
    """A file as IRNet's and CRT's make_cam.py write it; ``changes`` replace entries."""
    high_res = np.stack([SEED[7], SEED[2]])
    content = {"keys": np.array([7, 2]), "cam": high_res[:, ::4, ::4], "high_res": high_res, **changes}
    if as_tensors:
        content |= {name: torch.from_numpy(content[name].copy()) for name in ("keys", "cam")}
    np.save(folder / "irnet.npy", content, allow_pickle=True)
    return folder / "irnet.npy"


@pytest.mark.parametrize("as_tensors", [True, False])
def test_irnet_files_are_read_at_the_images_size(tmp_path: Path, as_tensors: bool) -> None:
    """Whether keys and strided maps are tensors, as the reference leaves them, or arrays."""
    seed = read_seed(irnet_file(tmp_path, as_tensors=as_tensors))
    assert list(seed) == [2, 7] and all(np.array_equal(seed[key], SEED[key]) for key in SEED)
    assert all(cam.dtype == np.float32 for cam in seed.values())
    empty = {"keys": np.zeros(0, np.int64), "cam": np.zeros((0, 9, 9)), "high_res": np.zeros((0, 36, 36))}
    assert read_seed(irnet_file(tmp_path, as_tensors=as_tensors, **empty)) == {}


def test_tensors_may_be_views_that_need_a_gradient_or_lie_in_a_scalar(tmp_path: Path) -> None:
    """They are read as the numbers that they show."""
    maps = torch.from_numpy(np.stack([SEED[7], SEED[2], SEED[7]])).requires_grad_()
    path = irnet_file(tmp_path, as_tensors=False, keys=torch.tensor([[0, 7], [0, 2]])[:, 1], high_res=maps[:2].mul(1))
    assert np.array_equal(read_seed(path)[2], SEED[2])
    path = irnet_file(tmp_path, as_tensors=False, keys=torch.tensor([2, 7]).flip(0), high_res=maps.detach()[::2])
    assert np.array_equal(read_seed(path)[2], SEED[7])


@pytest.mark.parametrize("changes, words", [
    ({"keys": np.array([7])}, "one for each map"),
    ({"keys": np.array(["cat", "dog"])}, "'cat' is no class index"),
    ({"keys": 7}, "no list of distinct class indices"),
    ({"high_res": SEED[7]}, "one for each map"),
    ({"high_res": np.stack([SEED[7][0]] * 2)}, "one for each map"),
])  # fmt: skip
def test_irnet_files_that_are_wrong(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_seed(irnet_file(tmp_path, as_tensors=False, **changes))


class Calls:
    """Unpickling it would call a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def test_malicious_tensors_are_not_built(tmp_path: Path) -> None:
    """Neither code within a tensor's numbers, nor memory beyond them, nor another function of torch's."""
    inner = io.BytesIO()
    torch.save(Malicious(tmp_path / "executed"), inner)
    rebuild, (storage, *_) = torch.zeros(4).__reduce_ex__(2)
    for content, words in (
        (Calls(torch.storage._load_from_bytes, inner.getvalue()), "holds more than arrays"),
        (Calls(torch.load, str(tmp_path / "x.pth")), "holds more than arrays"),
        (torch.nn.Linear(2, 2), "holds more than arrays"),
        (Calls(rebuild, storage, 0, (1000, 1000), (1000, 1), False, {}), r"a\.npy is damaged"),
        (Calls(rebuild, "text", 0, (1,), (1,), False, {}), r"a\.npy is damaged"),
    ):
        with pytest.raises(UserError, match=words):
            read_seed(pickled(tmp_path / "a.npy", {"keys": [0], "high_res": content}))
    assert not (tmp_path / "executed").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for fmt in FORMATS:
        with pytest.raises(UserError, match=f"no file at .*gone.{fmt}"):
            read_seed(tmp_path / f"gone.{fmt}")


def test_a_failed_write_leaves_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_seed(tmp_path, "a", SEED)

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(UserError, match="No space left"):
        write_seed(tmp_path, "a", {0: SEED[2]})
    assert list(read_seed(tmp_path / "a.npy")) == [2, 7]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_background_writer_does_every_job(tmp_path: Path) -> None:
    with BackgroundWriter(max_pending=2) as writer:
        for index in range(20):
            writer.submit(lambda index=index: write_seed(tmp_path, str(index), {0: SEED[2]}))
    assert len(list(tmp_path.iterdir())) == 20


def fail() -> None:
    raise UserError("disk full")


def test_background_writer_raises_an_error_at_the_end() -> None:
    with pytest.raises(UserError, match="disk full"), BackgroundWriter() as writer:
        writer.submit(fail)


def test_background_writer_raises_an_error_at_a_later_job() -> None:
    later = []
    with pytest.raises(UserError, match="disk full"), BackgroundWriter(max_pending=1) as writer:
        writer.submit(fail)
        while True:
            writer.submit(lambda: later.append(1))
    assert not later


def test_background_writer_does_not_hide_the_bodys_own_error() -> None:
    with pytest.raises(ValueError, match="mine"), BackgroundWriter() as writer:
        writer.submit(fail)
        raise ValueError("mine")


MAP = np.ones((2, 2), np.float32)


@pytest.mark.parametrize(("content", "words"), [
    ({"1": MAP}, "'1' is no class index"),
    ({-1: MAP}, "-1 is no class index"),
    ({1.5: MAP}, "a key of a dictionary is a float"),
    ({True: MAP}, "a key of a dictionary is a bool"),
    ({0: MAP.astype(complex)}, "class 0 has values of type complex128"),
    ({0: MAP.astype(str)}, "class 0 has values of type <U"),
    ({0: MAP, 3: [[1.0, 1.0]]}, "class 3 has a list"),
    ({0: MAP, 3: np.array([[1, np.nan]])}, "map of class 3 holds values that are not finite.*diverged"),
    ({0: MAP, 3: np.array([[1, -np.inf]])}, "map of class 3 holds values that are not finite"),
    ({0: np.full((2, 2), 1e39)}, "map of class 0 holds values that are not finite"),
    ({"keys": np.array([1, 1]), "high_res": np.stack([MAP, MAP])}, "no list of distinct class indices"),
    ({"keys": np.array([True]), "high_res": MAP[None]}, "True is no class index"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:overflow")
def test_keys_are_indices_and_maps_finite_numbers(tmp_path: Path, content: dict, words: str) -> None:
    """The file, the class and the remedy are named."""
    np.save(tmp_path / "a.npy", np.array(content, dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=rf"a\.npy is .*{words}.*\. [A-Z].*\.$|a\.npy is .*{words}.* make it again"):
        read_seed(tmp_path / "a.npy")


@pytest.mark.parametrize(("name", "value", "words"), [
    ("keys", np.array([3, -3]), "no list of distinct"),
    ("cams", np.full((2, 1, 1), np.nan, np.float16), "not finite"),
    ("cams", np.full((2, 1, 1), np.inf, np.float16), "not finite"),
])  # fmt: skip
def test_compact_files_hold_indices_and_finite_maps(tmp_path: Path, name: str, value: np.ndarray, words: str) -> None:
    content = {"keys": np.array([7, 3]), "cams": np.ones((2, 1, 1), np.float16), "size": np.array([4, 4])}
    np.savez(tmp_path / "a.npz", **content)
    assert list(read_seed(tmp_path / "a.npz")) == [3, 7]
    np.savez(tmp_path / "a.npz", **content | {name: value})
    with pytest.raises(UserError, match=rf"a\.npz is .*{words}"):
        read_seed(tmp_path / "a.npz")


def test_maps_of_other_numbers_keep_their_values(tmp_path: Path) -> None:
    """Integers, half and double precision, and yes or no; keys of NumPy."""
    maps = {
        0: np.array([[0, 200]], np.uint8),
        np.int64(2): np.array([[0.5, 1]], np.float16),
        3: np.array([[True, False]]),
    }
    np.save(tmp_path / "a.npy", np.array(maps, dtype=object), allow_pickle=True)
    found = read_seed(tmp_path / "a.npy")
    assert {key: cam.tolist() for key, cam in found.items()} == {0: [[0, 200]], 2: [[0.5, 1]], 3: [[1, 0]]}
    assert all(cam.dtype == np.float32 for cam in found.values())
