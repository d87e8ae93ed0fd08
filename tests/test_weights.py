"""Files of weights: their kind is told by their first bytes, their state dict is found, and odd tensors are refused."""

import argparse
import collections
import gzip
import io
import json
import pickle
import resource
import struct
import tarfile
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from common.nets.load import COPIES, NESTINGS, load_checked, state_dict_in
from common.nets.options import ViTConfig
from common.run.errors import UserError
from common.run.weights import load_torch
from methods.crt.model import DeiTBranch
from methods.cti.model import CTI
from methods.dig.model import DiG
from methods.pcss.model import PCSS
from methods.toco.config import ToCoModelConfig
from methods.toco.model import ToCo
from tests.helpers import Malicious, assert_same

pytestmark = pytest.mark.usefixtures("one_thread")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


STATE: dict[str, Tensor] = dict(network().state_dict())


def saved(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def tarred(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"), io.BytesIO(content))
    return stream.getvalue()


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 99)
    return stream.getvalue()


# --- kinds of files


FILE = saved(STATE)
KINDS = {
    "a web page": b"\xef\xbb\xbf\n<!DOCTYPE html><html>404</html>",
    "a text in JSON": json.dumps({"message": "Not Found"}).encode(),
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "empty": b"",
    "filled with zeros": bytes(5000),
    "a plain pickle": pickle.dumps({"a": np.ones(3)}),
    "a part of a file": FILE[: len(FILE) // 2],
    "a zip archive that torch.save has not written": zipped("weights.pth"),
    "a TorchScript program": zipped("x/data.pkl", "x/constants.pkl"),
    "a tar archive": tarred(b"x"),
    "a gzip archive": gzip.compress(FILE),
    "a NumPy array": b"\x93NUMPY\x01\x00",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n",
    "neither a file of torch.save nor one of safetensors": b"caffe model",
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_files_are_called_by_their_kind(tmp_path: Path, kind: str, suffix: str) -> None:
    """Under any suffix, with advice; nobody is told to load an unsafe file."""
    path = tmp_path / f"x{suffix}"
    path.write_bytes(KINDS[kind])
    with pytest.raises(UserError, match=rf"x{suffix} cannot be read as weights: it is {kind}.*\. [A-Z].*\.$") as caught:
        load_torch(path)
    assert "load it once" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt", ""])
def test_weights_are_known_under_any_suffix(tmp_path: Path, suffix: str) -> None:
    """Of torch.save's formats and of safetensors."""
    path = tmp_path / f"x{suffix}"
    for content in (FILE, saved(STATE, _use_new_zipfile_serialization=False)):
        path.write_bytes(content)
        assert_same(state_dict_in(path), STATE)
    save_file(STATE, str(path))
    assert_same(dict(sorted(state_dict_in(path).items())), dict(sorted(STATE.items())))


def test_a_folder_and_a_whole_network(tmp_path: Path) -> None:
    """The class that a file needs is named."""
    with pytest.raises(UserError, match="it is a folder"):
        load_torch(tmp_path)
    torch.save(network(), tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"it names torch\.nn\.modules\.container\.Sequential.*state dict alone"):
        load_torch(tmp_path / "x.pth")


# --- harmless values beside the tensors


@pytest.mark.parametrize("is_zip", [True, False])
def test_harmless_values_are_read(tmp_path: Path, is_zip: bool) -> None:
    """As plain values: no constructor of NumPy's sees them."""
    counts = collections.defaultdict(list)
    counts["a"].append(np.float32(0.5))
    content = {
        "model": STATE, "args": argparse.Namespace(lr=0.1, out=Path("/a/b")), "more": types.SimpleNamespace(x=1),
        "best": np.float64(0.61), "epoch": np.int64(3), "history": counts, "array": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)), "size": torch.Size([2]), "dtype": torch.float16,
        "order": OrderedDict(a=(np.bool_(True), "x")),
    }  # fmt: skip
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=is_zip)
    found = load_torch(tmp_path / "x.pth")
    assert_same(found["model"], STATE)
    assert found["args"] == {"lr": 0.1, "out": str(Path("/a/b"))} and found["more"] == {"x": 1}
    assert (found["best"], found["epoch"], found["history"]) == (0.61, 3, {"a": [0.5]})
    assert_same(found["array"], torch.arange(6.0, dtype=torch.float64).view(2, 3))
    assert_same(found["fortran"], torch.arange(6).view(2, 3))
    assert found["size"] == torch.Size([2]) and found["dtype"] == torch.float16 and found["order"]["a"] == (True, "x")


class Calls:
    """Unpickling it would call a function and give the result a state."""

    def __init__(self, function: object, *arguments: object, state: object = None) -> None:
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple:
        return self.call


def test_values_that_only_look_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of addresses, types of fields, functions of NumPy's, code: refused, and nothing stays allowed."""
    monkeypatch.chdir(tmp_path)
    before = set(torch.serialization.get_safe_globals())
    kind = Calls(np.dtype, "O8", False, True, state=(3, "|", None, None, None, -1, -1, 0))
    fields = Calls(np.dtype, "V8", False, True, state=(3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0))
    reconstruct = np.ones(1).__reduce__()[0]
    for value in (
        kind, fields, Calls(reconstruct, np.ndarray, (0,), b"b", state=(1, (2,), kind, False, b"A" * 16)),
        Calls(reconstruct, np.ndarray, (0,), b"b", state=(1, (2**40,), np.dtype("f4"), False, b"A" * 16)),
        Calls(np.float64(1).__reduce__()[0], kind, b"A" * 8), Calls(np.ndarray, (2, 2), "f4"),
        Calls(np.load, "x"), Malicious(),
    ):  # fmt: skip
        torch.save({"model": STATE, "x": value}, "x.pth")
        with pytest.raises(UserError, match=r"x\.pth (holds more than tensors|cannot be read as weights)"):
            load_torch("x.pth")
    assert not Path("executed").exists() and set(torch.serialization.get_safe_globals()) == before


def torch_zip(content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """A file of torch.save with a pickle written by hand, and one storage of 16 bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, part in (("data.pkl", b"\x80\x02" + content + b"."), ("version", b"3\n"), ("data/0", b"\0" * 16)):
            archive.writestr(f"x/{name}", part)
    return stream.getvalue()


def stored(count: int, size: int, stride: int = 1) -> bytes:
    """{"a": tensor of a size}, of a storage that claims a count of values."""
    storage = (
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuJ" + struct.pack("<i", count) + b"tQ"
    )
    sides = b"K\0J" + struct.pack("<i", size) + b"\x85K" + bytes([stride]) + b"\x85"
    rest = b"\x89ccollections\nOrderedDict\n)RtR"
    return b"}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" + storage + sides + rest + b"s"


NESTED = b"Nq\0" + b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60))
MANY = b"J\0\0\0\x7f\x85"
HOSTILE = {
    "a storage larger than its bytes": stored(2**28, 4),
    "a tensor larger than its storage": stored(4, 5),
    "a tensor that shows one value many times": stored(4, 2**28, 0),
    "a key of tuples": b"(" + NESTED + b"1}h\x3cNs",
    "a set of tuples": b"cbuiltins\nset\n](" + NESTED + b"e\x85R",
    "bytes by their number": b"c__builtin__\nbytearray\n" + MANY + b"R",
    "a tensor by its size": b"ctorch\nTensor\n" + MANY + b"R",
    "a new tensor by its size": b"ctorch\nTensor\n" + MANY + b"\x81",
    "a storage by its size": b"ctorch.storage\nUntypedStorage\n" + MANY + b"R",
    "a quantised tensor by its size": b"ctorch._utils\n_rebuild_qtensor\n(NK\0(" + b"J\0\0\0\x7fJ\0\0\0\x7ft)NNNtR",
    "a function by another": b"ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\nbytearray\nctorch\nTensor\n"
    + MANY + b"}tR",
    "a slow encoding": b"c_codecs\nencode\n(X\x60\xea\0\0" + b"\xc4\x81" * 30_000 + b"X\x08\0\0\0punycodetR",
    "a far memo": b"}r\0\xe1\xf5\x05",
    "open marks": b"(" * 10**5,
    "nested tuples": b")" + b"\x85" * 3 * 10**5,
}  # fmt: skip


@pytest.mark.parametrize("is_zip", [True, False])
def test_hostile_pickles_are_found_before_pytorch_reads_them(tmp_path: Path, is_zip: bool) -> None:
    """In either format; what they claim is neither allocated nor shown."""
    path = tmp_path / "x.pth"
    path.write_bytes(torch_zip(stored(4, 4)))
    assert_same(load_torch(path), {"a": torch.zeros(4)})
    path.write_bytes(torch_zip(stored(4, 4), zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match=r"its parts are packed"):
        load_torch(path)
    old = saved({}, _use_new_zipfile_serialization=False)
    for name, content in HOSTILE.items():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        path.write_bytes(torch_zip(content) if is_zip else old.replace(b"\x80\x02}q\0.", b"\x80\x02" + content + b"."))
        with pytest.raises(UserError, match=r"x\.pth (holds more|cannot be read as weights).*\. [A-Z].*\.$") as caught:
            load_torch(path)
        assert len(str(caught.value)) < 700, name
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024, name


# --- nestings and prefixes


def test_every_usual_nesting_is_taken_off(tmp_path: Path) -> None:
    """Alone, one within another, and beside copies of the weights."""
    path = tmp_path / "x.pth"
    other = {name: value + 1 for name, value in STATE.items()}
    for name in (*NESTINGS, *COPIES):
        for content in ({name: STATE, "epoch": 3, "optimizer": {}}, {"state_dict": {name: STATE}}):
            torch.save(content, path)
            assert_same(state_dict_in(path), STATE)
    for content in ({"state_dict": STATE, "state_dict_ema": other}, {"model": STATE, "ema": other, "epoch": 1},
                    {**STATE, "epoch": 3}, {name: value.numpy() for name, value in STATE.items()}):  # fmt: skip
        torch.save(content, path)
        assert_same(state_dict_in(path), STATE)


@pytest.mark.parametrize("prefix", [
    "module.", "module.module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "backbone.", "model.", "net.",
    "module.backbone.", "module.model.backbone.",
])  # fmt: skip
def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path, prefix: str) -> None:
    """Repeated ones, too."""
    torch.save({"state_dict": {prefix + name: value for name, value in STATE.items()}}, tmp_path / "x.pth")
    assert_same(state_dict_in(tmp_path / "x.pth"), STATE)


def test_names_that_are_a_networks_own_stay(tmp_path: Path) -> None:
    """A prefix that not all names have; and two names that a wrapper alone tells apart are an error."""
    state = {"backbone.weight": torch.ones(1), "classifier.weight": torch.ones(2)}
    torch.save(state, tmp_path / "x.pth")
    assert_same(state_dict_in(tmp_path / "x.pth"), state)
    torch.save({"module.a": torch.ones(1), "a": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"differ only in a wrapper's prefix \(module\.a, a\)"):
        state_dict_in(tmp_path / "x.pth")


def test_a_choice_is_asked_for(tmp_path: Path) -> None:
    """Where there are several, or a state dict lies under a name of its own; a wrong key lists those there are."""
    path = tmp_path / "x.pth"
    other = {name: value + 1 for name, value in STATE.items()}
    torch.save({"teacher": STATE, "student": other, "best": {"round 2": STATE}}, path)
    with pytest.raises(UserError, match=r"several state dicts \(teacher, student\): name one with --key"):
        state_dict_in(path)
    assert_same(state_dict_in(path, "student"), other)
    assert_same(state_dict_in(path, "best.round 2"), STATE)
    with pytest.raises(UserError, match=r"has no 'pupil'; found at its top: teacher, student, best\."):
        state_dict_in(path, "pupil")
    torch.save({"generator": STATE}, path)
    with pytest.raises(UserError, match=r"holds no state dict.*found at its top: generator\..*--key"):
        state_dict_in(path)


# --- tensors


@pytest.mark.parametrize(("value", "words"), [
    (torch.ones(4, 3, dtype=torch.int8), "is of type int8, where the model has float32"),
    (torch.ones(4, 3, dtype=torch.bool), "is of type bool, where"),
    (torch.ones(4, 3, dtype=torch.complex64), "is complex"),
    (torch.ones(4, 3).to_sparse(), "is sparse"),
    (torch.ones(4, 3).to_sparse_csr(), "is sparse"),
    (torch.ones(4, 3, device="meta"), "is without numbers"),
    (torch.quantize_per_tensor(torch.ones(4, 3), 0.1, 0, torch.qint8), "is quantised"),
    (torch.full((4, 3), torch.nan), "not finite"),
    (torch.full((4, 3), torch.inf), "not finite"),
    (torch.full((4, 3), 1e300, dtype=torch.float64), "not finite"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_weights_are_named(tmp_path: Path, value: Tensor, words: str) -> None:
    """From a file and from memory; the model is left as it was."""
    model = network()
    torch.save({**STATE, "0.weight": value}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=rf"x\.pth: the tensor 0\.weight .*{words}"):
        load_checked(model, state_dict_in(tmp_path / "x.pth"), str(tmp_path / "x.pth"))
    with pytest.raises(UserError, match=rf"memory: the tensor 0\.weight .*{words}"):
        load_checked(model, {**STATE, "0.weight": value}, "memory")
    assert_same(dict(model.state_dict()), STATE)


def test_other_precisions_and_counters() -> None:
    """Half and double weights are weights; counters are integers, and may be missing."""
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        state = {name: value.to(kind) if value.is_floating_point() else value for name, value in STATE.items()}
        assert str(load_checked(network(), state, "x")) == "7 of 7 tensors loaded"
    assert load_checked(network(), {k: v for k, v in STATE.items() if "num_batches" not in k}, "x").missing
    with pytest.raises(UserError, match="num_batches_tracked is of type float32, where the model has int64"):
        load_checked(network(), {**STATE, "1.num_batches_tracked": torch.tensor(1.0)}, "x")


# --- one backbone filter


SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
METHODS = {
    "CTI": lambda: CTI(ViTConfig(**SMALL), 3),
    "PCSS": lambda: PCSS(ViTConfig(**SMALL), 3),
    "DiG": lambda: DiG(ViTConfig(**SMALL), 3, None),
    "CRT": lambda: DeiTBranch(ViTConfig(**SMALL), 3),
    "ToCo": lambda: ToCo(ToCoModelConfig(**SMALL, aux_layer=-2), 3),
}


def backbone(size: int = 32, **options: Any) -> dict[str, Tensor]:
    """A checkpoint of timm's, all of its numbers random."""
    torch.manual_seed(1)
    vit = timm.models.VisionTransformer(size, 8, embed_dim=32, depth=2, num_heads=2, num_classes=10, **options)
    return {name: torch.randn_like(value) for name, value in vit.state_dict().items()}


def embedding(model: nn.Module) -> Tensor:
    """The position embeddings (N, D) of the patches that a model works with."""
    if isinstance(model, CTI):
        return model.pos_embed_pat[0]
    owner = getattr(model, "encoder", model)
    return owner.pos_embed[0, owner.num_tokens :]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [32, 56])
def test_every_method_resizes_the_position_grid(method: str, size: int) -> None:
    """A backbone of another training size starts from its own positions, not from random ones."""
    model, state = METHODS[method](), backbone(size)
    coverage = model.load_imagenet(state)
    grid = state["pos_embed"][0, 1:].T.view(1, 32, size // 8, size // 8)
    expected = F.interpolate(grid, size=(4, 4), mode="bicubic")[0].flatten(1).T
    torch.testing.assert_close(embedding(model).detach(), expected)
    assert not coverage.unexpected and not coverage.wrong_shape
    found = getattr(model, "encoder", model).state_dict()
    for name in ("blocks.1.attn.qkv.weight", "patch_embed.proj.bias", "norm.weight"):
        assert torch.equal(found[name], state[name])


@pytest.mark.parametrize("method", METHODS)
def test_backbones_of_another_kind_are_refused_with_the_reason(method: str) -> None:
    """Distilled, scaled, with registers, shortened, too deep, of another width; the model is left as it was."""
    model, plain = METHODS[method](), backbone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    distilled = {**plain, "dist_token": torch.zeros(1, 1, 32), "pos_embed": torch.zeros(1, 18, 32)}
    shorter = {name: value for name, value in plain.items() if name != "blocks.1.mlp.fc2.bias"}
    deeper = {**plain, "blocks.2.norm1.weight": torch.ones(32)}
    broken = {**plain, "norm.weight": torch.full((32,), torch.nan)}
    for state, words in (
        (distilled, "is distilled"), (backbone(init_values=1e-4), r"LayerScale.*blocks\.0\.ls1\.gamma"),
        (backbone(reg_tokens=2), "register tokens"), (backbone(class_token=False, global_pool="avg"), "no cls_token"),
        ({**plain, "pos_embed": torch.zeros(1, 16, 32)}, "one class token and a square grid"),
        (shorter, r"1 missing \(blocks\.1\.mlp\.fc2\.bias\)"), (deeper, r"1 left over \(blocks\.2"),
        ({name: value.repeat_interleave(2, -1) for name, value in plain.items()}, "of another shape"),
        (broken, r"the tensor norm\.weight holds values that are not finite"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=rf"the ImageNet checkpoint.*({words})"):
            model.load_imagenet(state)
    assert_same(dict(model.state_dict()), before)


def test_the_backbone_within_a_larger_network() -> None:
    """Its own part is taken, whatever lies beside it."""
    state = {f"backbone.{name}": value for name, value in backbone().items()} | {"decoder.weight": torch.ones(1)}
    model = METHODS["CTI"]()
    model.load_imagenet(state)
    assert torch.equal(model.cls_token, state["backbone.cls_token"])


# --- mutated files


@given(st.sampled_from([FILE, saved(STATE, _use_new_zipfile_serialization=False)]), st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@pytest.mark.filterwarnings("ignore")
def test_mutated_files_give_weights_or_a_clear_error(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    """Bytes changed or cut out."""
    changed = bytearray(content)
    start = data.draw(st.integers(0, len(changed) - 1))
    changed[start : start + data.draw(st.sampled_from([1, 1, 4, 100]))] = data.draw(st.binary(max_size=4))
    path = tmp_path / "x.pth"
    path.write_bytes(changed)
    try:
        load_checked(network(), state_dict_in(path), str(path))
    except UserError as error:
        assert "x.pth" in str(error) and "\n" not in str(error)
