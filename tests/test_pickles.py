"""Files of arrays: good ones come back bitwise, hostile ones end in one clear line, whatever they claim."""

import io
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.data.labels import read_labels
from common.data.seeds import read_seed, write_seed
from common.run.errors import UserError
from common.run.files import load_npy, load_npz
from common.run.pickles import machine
from common.run.pickles.arrays import PickleError
from common.run.pickles.read import loads
from tests.helpers import assert_same

RNG = np.random.default_rng(0)
SEED = {2: RNG.random((5, 7), dtype=np.float32), 7: RNG.random((5, 7), dtype=np.float32)}
DTYPE = "numpy dtype"
ARRAY = "numpy._core.multiarray _reconstruct"


# --- writing pickles by hand


def text(value: str) -> bytes:
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def raw(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def named(name: str) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def items(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def call(name: str, *parts: bytes) -> bytes:
    return named(name) + items(*parts) + b"R"


def dtype(kind: str, *state: bytes) -> bytes:
    made = call(DTYPE, text(kind), b"\x89", b"\x88")
    return made + items(*state) + b"b" if state else made


def flagged(kind: str, size: int = -1, flags: int = 0, fields: bytes = b"NNN") -> bytes:
    """A type with a state."""
    return dtype(kind, number(3), text("|"), fields, number(size), number(size), number(flags))


def array(kind: bytes, content: bytes, shape: tuple[int, ...] = (2, 2)) -> bytes:
    made = call(ARRAY, named("numpy ndarray"), items(number(0)), raw(b"b"))
    return made + items(number(1), items(*map(number, shape)), kind, b"\x89", content) + b"b"


def nested(count: int) -> bytes:
    """A tuple of two mentions of the tuple before, and so on: to hash or print it takes 2 ** count steps."""
    return b"Nq\0" + b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(count))


def doubled(count: int) -> bytes:
    """Lists of ten mentions of the list before."""
    first = b"(" + number(1) * 10 + b"lq\0" + b"0"
    return first + b"".join(b"(" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"lq" + bytes([i + 1]) + b"0"
                            for i in range(count)) + b"h" + bytes([count])  # fmt: skip


ADDRESSES = raw(b"A" * 32)
FIELD = b"N" + items(text("a")) + b"}" + text("a") + items(dtype("O8"), number(-64)) + b"s"
HOSTILE = {  # values under key 0
    "objects of bytes": array(dtype("O8"), ADDRESSES),
    "objects without flags": array(flagged("O8"), ADDRESSES),
    "objects by their class": array(call("numpy.dtypes ObjectDType"), ADDRESSES),
    "text of variable length": array(call("numpy.dtypes StringDType"), ADDRESSES),
    "a buffer of objects": call(
        "numpy._core.numeric _frombuffer", ADDRESSES, flagged("O8"), items(number(4)), text("C")),
    "a scalar object": call("numpy._core.multiarray scalar", dtype("O8"), raw(b"A" * 8)),
    "the constructor": call("numpy ndarray", items(number(30_000), number(30_000)), text("f4")),
    "the constructor with a buffer": call("numpy ndarray", items(number(1)), dtype("O8"), raw(b"A" * 8)),
    "a large array without content": call(ARRAY, named("numpy ndarray"), items(number(2**30)), raw(b"b")),
    "another class of arrays": call(ARRAY, named("numpy dtype"), items(number(0)), raw(b"b")),
    "a field outside": array(flagged("V1", 1, 0, FIELD), raw(b"A" * 4)),
    "void": array(dtype("V8"), ADDRESSES),
    "a subarray": array(flagged("f8", -1, 0, items(dtype("f8"), items(number(99))) + b"NN"), ADDRESSES),
    "metadata": array(dtype("f4", *map(number, (4, 0, 0)), *[b"N"] * 6), raw(b"A" * 16)),
    "dates": array(dtype("M8"), ADDRESSES),
    "a size of its own": array(flagged("f4", 1), raw(b"A" * 4)),
    "text of no size": array(flagged("S8", 0), ADDRESSES),
    "text of a negative size": array(flagged("U2", -8), ADDRESSES),
    "text of nothing": array(dtype("S0"), b"C\0", (2**31 - 1,)),
    "an overflowing shape": array(dtype("f4"), raw(b"AAAA"), (2**31 - 1, 2**31 - 1)),
    "an impossible empty shape": array(dtype("f4"), b"C\0", (0, 2**31 - 1, 2**31 - 1)),
    "a negative shape": array(dtype("f4"), raw(b"A" * 16), (-2, -2)),
    "a shape of shapes": array(dtype("f4"), raw(b"A"), ()).replace(b"(t", nested(60), 1),
    "too little content": array(dtype("f4"), raw(b"A" * 15)),
    "too much content": array(dtype("f4"), raw(b"A" * 17)),
    "characters that are none": array(dtype("U1"), raw(b"\xff" * 16)),
    "a slow encoding": call("_codecs encode", text("\u0101" * 60_000), text("punycode")),
    "one text as bytes many times": text("a" * 10**5) + b"q\0" + items(
        *[named("_codecs encode") + b"h\0" + text("latin1") + b"\x86R"] * 10_000),
    "a key of tuples": b"}" + nested(100) + b"Ns",
    "a name of tuples": nested(100) + text("x") + b"\x93",
    "a call of tuples": nested(100) + b")R",
    "a key of bytes": b"}" + raw(b"a") + b"Ns",
    "a key of numbers": b"}" + b"G" + struct.pack(">d", 1.5) + b"Ns",
    "shared lists": doubled(12),
    "shared arrays": array(dtype("u1"), raw(b"A" * 2**20), (2**20,)) + b"q\0" + items(*[b"h\0"] * 10**5),
    "a list of itself": b"]q\0h\0a",
    "nested lists": b"]" * 10**5 + b"a" * (10**5 - 1),
    "nested tuples": b")" + b"\x85" * 10**5,
    "open marks": b"(" * 10**6,
    "containers": b"(" + b"}" * 10**6 + b"l",
    "a far memo": b"}r" + struct.pack("<I", 10**8),
    "a memo that is not there": b"j" + struct.pack("<I", 10**8),
    "claimed bytes": b"B" + struct.pack("<I", 2**32 - 1),
    "claimed long bytes": b"\x8e" + struct.pack("<Q", 2**63),
    "claimed text": b"X" + struct.pack("<I", 2**32 - 1),
    "a claimed frame": b"\x95" + struct.pack("<Q", 2**62),
    "a huge integer": b"\x8a\xff" + b"\x7f" * 255,
    "a huge long": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "a state for a function": named("torch._utils _rebuild_tensor_v2") + b"N}\x86b",
    "a function as a value": named("numpy ndarray"),
    "a class of NumPy": named("numpy memmap"),
    "something persistent": text("x") + b"Q",
    "a registered extension": b"\x82\x01",
    "no array after all": named(ARRAY) + items(named("numpy ndarray"), items(number(0)), raw(b"b")) + b"R",
    "a tensor beyond its storage": call("torch._utils _rebuild_tensor_v2", b"N", number(0), items(), items(), b"\x89N"),
    "nothing on the stack": b"000R",
}  # fmt: skip


def hostile_file(value: bytes, wrap: Callable[[bytes], bytes] = lambda value: b"}" + number(0) + value + b"s") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    return stream.getvalue() + b"\x80\x04" + wrap(value) + b"."


def header(text: str, version: bytes = b"\x01\0", claimed: int | None = None) -> bytes:
    """A file in NumPy's format with any header, and no content."""
    size = len(text) if claimed is None else claimed
    return b"\x93NUMPY" + version + size.to_bytes(2 if version == b"\x01\0" else 4, "little") + text.encode()


HEADERS = {
    "a huge array": header("{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 1000000)}\n"),
    "an overflowing array": header("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}\n"),
    "a negative array": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}\n"),
    "a header of 4 GB": header("{", b"\x02\0", 2**32 - 1),
    "a nested header": header("{'descr': " + "(" * 5000 + "\n"),
    "void": header("{'descr': '|V2147483647', 'fortran_order': False, 'shape': (1,)}\n"),
    "text of nothing": header("{'descr': '|S0', 'fortran_order': False, 'shape': (1000000000000,)}\n"),
    "fields": header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (0,)}\n"),
    "objects in Fortran's order": header("{'descr': '|O', 'fortran_order': True, 'shape': (3,)}\n"),
    "another version": header("{}", b"\x09\0"),
}

CHILD = """
import resource, signal, sys, time
from pathlib import Path
from common.run.errors import UserError
from common.run.files import load_npy
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 400 * 2**20,) * 2)
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, end=": ", flush=True)
    signal.alarm(20)
    start = time.process_time()
    try:
        load_npy(path)
        print("VALUE")
    except UserError as error:
        spent, taken = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f"{spent:.2f} s, {taken // 1024} MB: {error}", flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits of memory are set as on Linux")
def test_hostile_files_end_in_one_clear_line(tmp_path: Path) -> None:
    """In a process of limited memory and time: the file, the reason and the remedy; within 3 s and 200 MB."""
    for name, value in HOSTILE.items():
        (tmp_path / f"{name}.npy").write_bytes(hostile_file(value))
        (tmp_path / f"{name}, alone.npy").write_bytes(hostile_file(value, lambda value: value))
    for name, content in HEADERS.items():
        (tmp_path / f"{name}, header.npy").write_bytes(content)
    done = subprocess.run([sys.executable, "-c", CHILD, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stdout[-300:], done.stderr[-300:])
    lines = done.stdout.splitlines()
    assert len(lines) == len(list(tmp_path.iterdir()))
    for line in lines:
        found = re.match(r"(.+\.npy): ([\d.]+) s, (\d+) MB: .*/\1 is (damaged|not read).*\. [A-Z].*\.$", line)
        assert found and float(found[2]) < 3 and int(found[3]) < 200, line
        assert len(line) < 700, line


# --- good files


GOOD = {
    "seeds": SEED,
    "numbers of NumPy as keys": {np.int64(3): SEED[2]},
    "numbers of NumPy": {0: np.float32(0.5), 1: np.int64(7), 2: np.bool_(True), "x": np.float16(2)},
    "half and double": {0: SEED[2].astype(np.float16), 1: SEED[2].astype(np.float64)},
    "big-endian": {0: SEED[2].astype(">f4"), 1: np.arange(3).astype(">i2")},
    "the order of Fortran": {0: np.asfortranarray(SEED[2]), 1: SEED[2][:, ::2]},
    "text and bytes": {"a": np.array(["b", "cde"]), "b": np.array([b"x", b"yz"]), "c": b"raw", "d": b"x" * 5000},
    "empty": {"keys": np.zeros(0, np.int64), "high_res": np.zeros((0, 9, 9), np.float32)},
    "an ordered dictionary": OrderedDict(a=np.arange(3), b=[1, (2.5, None, True)]),
    "labels": {2007000032 + index: np.eye(20, dtype=np.float32)[index % 20] for index in range(50)},
    "plain values": {"a": [1, -(2**40), 1.5, "x", None, False], "b": (), "c": {}},
    "complex and unsigned": {0: np.arange(4, dtype=np.complex64), 1: np.arange(4, dtype=np.uint16)},
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", GOOD)
def test_good_files_come_back(tmp_path: Path, name: str, protocol: int) -> None:
    """Bitwise as NumPy reads them, types and memory order included, in every version of pickles."""
    wrapped = np.empty((), dtype=object)
    wrapped[()] = GOOD[name]
    content = hostile_file(b"", lambda value: value)[:-3] + pickle.dumps(wrapped, protocol=protocol)
    (tmp_path / "x.npy").write_bytes(content)
    found = load_npy(tmp_path / "x.npy")
    assert_same(found, GOOD[name])
    for key, value in GOOD[name].items():
        if isinstance(value, np.ndarray):
            assert found[key].flags.writeable and found[key].flags.aligned
            assert found[key].flags.f_contiguous == (value.flags.f_contiguous and value.ndim > 0) or value.ndim < 2


def test_names_of_either_numpy_and_text_of_python_2(tmp_path: Path) -> None:
    """NumPy 1 names numpy.core; Python 2 writes bytes as its text and counts what it keeps from 1."""
    new = pickle.dumps({0: SEED[2]}, protocol=2)
    assert_same(loads(new.replace(b"numpy._core", b"numpy.core")), {0: SEED[2]})
    short = b"U\x04\x00\x00\x80\x3f"
    kind = call(DTYPE, b"U\x02f4", number(0), number(1)) + b"q\x01"
    kind += items(number(3), b"U\x01<", b"NNN", number(-1), number(-1), number(0)) + b"b"
    made = call("numpy.core.multiarray _reconstruct", named("numpy ndarray"), items(number(0)), b"U\x01b")
    found = loads(b"\x80\x02" + made + items(number(1), items(number(1)), kind, b"\x89", short) + b"b.")
    assert_same(found, np.ones(1, np.float32))
    assert loads(b"\x80\x02U\x01\xe9.") == "é"


def test_tensors_become_arrays(tmp_path: Path) -> None:
    """Of every type that NumPy has; a view shows its own numbers; bfloat16 is refused."""
    for kind in (torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64):
        tensor = (torch.rand(3, 4) * 5).to(kind)
        np.save(tmp_path / "x.npy", np.array({"a": tensor, "b": tensor.t()[1:]}, dtype=object), allow_pickle=True)
        assert_same(load_npy(tmp_path / "x.npy"), {"a": tensor.numpy(), "b": tensor.t()[1:].numpy()})
    np.save(tmp_path / "x.npy", np.array({0: torch.ones(2, dtype=torch.bfloat16)}, dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="BFloat16Storage"):
        load_npy(tmp_path / "x.npy")


def test_a_tensor_that_grows_is_refused(tmp_path: Path) -> None:
    """One number shown 900 million times."""
    tensor = torch.ones(1).expand(30_000, 30_000)
    np.save(tmp_path / "x.npy", np.array({0: tensor}, dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="out of proportion"):
        load_npy(tmp_path / "x.npy")


# --- compact files


def packed(path: Path, name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A compact seed with one member replaced."""
    write_seed(path.parent, path.stem, SEED, "npz")
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()} | {f"{name}.npy": content}
    with zipfile.ZipFile(path, "w", method) as archive:
        for member, value in members.items():
            archive.writestr(member, value)
    return path


def as_npy(value: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(value))
    return stream.getvalue()


@pytest.mark.parametrize(("name", "content", "words"), [
    ("cams", as_npy(np.zeros((2, 6000, 6000), np.float16)), "out of proportion"),
    ("cams", HEADERS["a huge array"], "claims"),
    ("cams", as_npy(np.zeros((2, 3), np.float16)), "no maps of 2 classes"),
    ("keys", as_npy([[1], [2]]), "no list of distinct"),
    ("keys", as_npy([1, 1]), "no list of distinct"),
    ("keys", as_npy([1.0, 2.0]), "no list of distinct"),
    ("size", as_npy([40_000, 40_000]), "out of proportion"),
    ("size", as_npy([-5, 7]), "not a height and a width"),
    ("size", as_npy([5.5, 7.5]), "not a height and a width"),
    ("size", as_npy([5]), "ValueError"),
])  # fmt: skip
def test_compact_files_that_claim_too_much(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    """Bombs, and descriptions that disagree with the content."""
    with pytest.raises(UserError, match=rf"a\.npz is no seed file.*{words}.*Copy it again"):
        read_seed(packed(tmp_path / "a.npz", name, content))


def test_other_packings_and_a_bomb_of_labels(tmp_path: Path) -> None:
    """LZMA, whose dictionary may take gigabytes, is not used by NumPy; a table of labels may not grow without end."""
    with pytest.raises(UserError, match="packed in a way"):
        read_seed(packed(tmp_path / "a.npz", "keys", as_npy([2, 7]), zipfile.ZIP_LZMA))
    assert_same(load_npz(packed(tmp_path / "b.npz", "keys", as_npy([2, 7])), ["keys"])[0], np.array([2, 7]))
    names, bits = np.array(["a"], dtype="S"), np.zeros((1, 10**8), np.uint8)
    np.savez_compressed(tmp_path / "l.npz", names=names, bits=bits, num_classes=np.int64(2))
    with pytest.raises(UserError, match=r"l\.npz is no label file.*out of proportion"):
        read_labels(tmp_path / "l.npz", ["a"], ["x", "y"], "folder")


# --- mutated files


def whole_files() -> list[bytes]:
    found = []
    for content in (SEED, {"a": torch.ones(2, 3), "b": np.float32(1)}, {"x": np.array(["a", "bc"])}):
        stream = io.BytesIO()
        np.save(stream, np.array(content, dtype=object), allow_pickle=True)
        found.append(stream.getvalue())
    stream = io.BytesIO()
    np.save(stream, SEED[2])
    return [*found, stream.getvalue()]


@given(st.sampled_from(whole_files()), st.data())
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_mutated_files_give_a_value_or_a_clear_error(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    """Bytes changed, inserted or cut out."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(changed)))
        count = data.draw(st.sampled_from([0, 1, 1, 4, 40]))
        changed[start : start + count] = data.draw(st.binary(max_size=5))
    path = tmp_path / "x.npy"
    path.write_bytes(changed)
    try:
        load_npy(path)
    except UserError as error:
        assert "x.npy is" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_whole_arrays_are_read_as_their_opcodes_tell(protocol: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running the opcodes of an array at once gives the same value or error as one by one, for mutated files, too."""
    table = {2007000032 + index: np.eye(5, dtype=np.float32)[index % 5] for index in range(40)}
    seeds = {2: SEED[2], 7: np.zeros((300, 70000), np.float32)[:, :0], 9: np.zeros((2, 2, 2), np.float16)}
    files = [pickle.dumps(table, protocol), pickle.dumps(seeds, protocol)]
    rng = np.random.default_rng(protocol)
    mutated = []
    for content in files * 150:
        changed = bytearray(content)
        for position in rng.integers(150, min(len(content), 600), 2):
            changed[position] = rng.choice([rng.integers(256), changed[position] ^ 1])
        mutated.append(bytes(changed))
    at_once = [outcome(content) for content in [*files, *mutated]]
    monkeypatch.setattr(machine, "run_array", lambda machine: None)
    for content, found in zip([*files, *mutated], at_once, strict=True):
        expected = outcome(content)
        assert type(found) is type(expected)
        if not isinstance(found, PickleError):
            assert_same(found, expected)
    assert_same(at_once[0], table)


def outcome(content: bytes) -> object:
    try:
        return loads(content)
    except PickleError as error:
        return error
