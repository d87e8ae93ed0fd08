"""Finding ImageNet weights and loading checkpoints: every spelling, and every refusal."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from common.nets import pretrained
from common.nets.load import load_checked, state_dict_in
from common.nets.options import ViTConfig
from common.nets.pretrained import OFFICIAL_FILES, imagenet_weights
from common.run.errors import UserError
from methods.cti.model import CTI
from tests.helpers import assert_same

ARCH = "deit_small_patch16_224"
SMALL = ViTConfig(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """A state dict; the current folder is empty and timm's hub out of reach."""

    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "_from_hub", unreachable)
    Path("pretrained").mkdir()
    return {"cls_token": torch.rand(1, 1, 4), "blocks.0.attn.qkv.weight": torch.rand(12, 4)}


@pytest.mark.parametrize("name", OFFICIAL_FILES[ARCH])
def test_official_files_are_found(weights: dict[str, Tensor], name: str) -> None:
    """Under every spelling that circulates."""
    path = Path("pretrained") / name
    if path.suffix == ".safetensors":
        save_file(weights, str(path))
    else:
        torch.save({"model": weights}, path)
    assert_same(imagenet_weights(ARCH, "auto"), weights)


@pytest.mark.parametrize("wrap", [
    lambda state: state, lambda state: {"model": state}, lambda state: {"state_dict": state, "epoch": 3},
    lambda state: {f"module.{name}": value for name, value in state.items()},
    lambda state: {"model": {f"module.{name}": value for name, value in state.items()}, "args": "x"},
])  # fmt: skip
def test_wrappers_and_prefixes_are_taken_off(weights: dict[str, Tensor], wrap) -> None:
    """As public checkpoints and DataParallel add them."""
    torch.save(wrap(weights), "x.pth")
    assert_same(imagenet_weights(ARCH, "x.pth"), weights)


def test_none_means_none(weights: dict[str, Tensor]) -> None:
    """Random weights on purpose."""
    assert imagenet_weights(ARCH, "none") is None


def test_nothing_found_says_where_and_what(weights: dict[str, Tensor], tmp_path: Path) -> None:
    """Both places, the file to fetch, and how to do without."""
    with pytest.raises(UserError) as caught:
        imagenet_weights(ARCH, "auto")
    message = str(caught.value)
    for part in (*OFFICIAL_FILES[ARCH], str(tmp_path), "timm's hub", "ConnectionError", "model.pretrained=none"):
        assert part in message, part
    with pytest.raises(UserError, match=r"no weights file at own\.pth"):
        imagenet_weights(ARCH, "own.pth")


def test_an_unknown_host_is_not_asked_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the hub's client, which would try for a minute, is never called."""

    def unresolved(*args: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.getaddrinfo", unresolved)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: pytest.fail("the hub's client was called"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="Name or service not known"):
        imagenet_weights(ARCH, "auto")


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, {"model": {"a": "b"}}, torch.zeros(3)])
def test_what_is_no_state_dict_is_refused(weights: dict[str, Tensor], content: object) -> None:
    """A file that loads, but holds something else."""
    torch.save(content, "x.pth")
    with pytest.raises(UserError, match=r"x\.pth holds no state dict"):
        state_dict_in(Path("x.pth"))


def test_another_class_count_is_refused_and_the_model_untouched() -> None:
    """The tensors and their shapes are named."""
    model = CTI(SMALL, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r"x does not fit.*pos_embed_cls \(1, 6, 32\) instead of \(1, 4, 32\).*classes"):
        load_checked(model, CTI(SMALL, 5).state_dict(), "x")
    assert_same(dict(model.state_dict()), before)


@pytest.mark.parametrize("may_lack", [(), ("head.",)])
def test_a_poor_match_is_refused(may_lack: tuple[str, ...]) -> None:
    """Foreign names, one tensor too many, and one too few that is not listed as one that may be missing."""
    model = CTI(SMALL, 3)
    state = dict(model.state_dict())
    with pytest.raises(UserError, match=r"0 of .* tensors loaded"):
        load_checked(model, {"layer1.weight": torch.zeros(3)}, "a ResNet", may_lack)
    fewer = {name: value for name, value in state.items() if name != "head.bias"}
    more = {**state, "fc.weight": torch.zeros(3)}
    for other, words in ((fewer, r"1 missing \(head.bias\)"), (more, r"1 left over \(fc.weight\)")):
        if may_lack and other is fewer:
            assert load_checked(model, other, "x", may_lack).missing == ["head.bias"]
        else:
            with pytest.raises(UserError, match=words):
                load_checked(model, other, "x", may_lack)


def test_own_weights_come_back() -> None:
    """Strictly, with a report."""
    source, model = CTI(SMALL, 3), CTI(SMALL, 3)
    coverage = load_checked(model, source.state_dict(), "x")
    assert_same(dict(model.state_dict()), dict(source.state_dict()))
    assert str(coverage) == f"{len(source.state_dict())} of {len(source.state_dict())} tensors loaded"


def test_imagenet_weights_of_another_size_are_refused() -> None:
    """A backbone whose dimensions were changed does not silently start from random weights."""
    imagenet = timm.create_model("deit_tiny_patch16_224", pretrained=False).state_dict()
    with pytest.raises(UserError, match="ImageNet checkpoint does not fit"):
        CTI(SMALL, 3).load_imagenet(imagenet)
