"""Files of DiG's diffusion models: every form is read, what does not fit is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from common.run.errors import UserError
from common.run.weights import load_torch
from methods.dig.config import UNetConfig
from methods.dig.diffusion import GaussianDiffusion
from methods.dig.diffusion_files import load_diffusion, save_diffusion
from methods.dig.ema import EMA
from methods.dig.unet import UNet
from tests.helpers import Malicious, assert_same, fill_disk
from tests.methods.test_dig_diffusion import TABLES, photos, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def diffusion() -> GaussianDiffusion:
    """A seeded diffusion model."""
    return tiny()


def write_dump(path: Path, diffusion: GaussianDiffusion) -> None:
    """A trainer's file after one step."""
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=8e-5, betas=(0.9, 0.99))
    diffusion(photos()).backward()
    optimizer.step()
    save_diffusion(path, diffusion, 700_000, optimizer, EMA(diffusion), torch.amp.GradScaler("cuda", enabled=False))


FORMS = {
    "model": lambda state: {"model": state, "data": None},
    "wrapper": lambda state: state,
    "distributed": lambda state: {f"module.{name}": value for name, value in state.items()},
    "prefixed": lambda state: {name: value for name, value in state.items() if name not in TABLES},
    "bare": lambda state: {name.removeprefix("model."): state[name] for name in state if name not in TABLES},
    "bare_with_tables": lambda state: {name.removeprefix("model."): value for name, value in state.items()},
}


def test_a_written_file_is_a_trainers_file(diffusion: GaussianDiffusion, tmp_path: Path) -> None:
    """Its keys and names are the released one's; what it says about itself is reported in one line."""
    write_dump(tmp_path / "own.pt", diffusion)
    content = load_torch(tmp_path / "own.pt")
    assert list(content) == ["step", "model", "opt", "ema", "scaler", "version"]
    assert content["scaler"] is None and content["opt"]["state"] and "online_model.betas" in content["ema"]
    other = tiny(1)
    found = load_diffusion(other, tmp_path / "own.pt")
    assert_same(dict(other.state_dict()), dict(diffusion.state_dict()))
    assert (found.step, found.lr, found.betas, found.replaced) == (700_000, 8e-5, (0.9, 0.99), ())
    assert str(found) == f"{tmp_path / 'own.pt'} (step 700000, version wsss 1, lr 8e-05, betas (0.9, 0.99))"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(diffusion: GaussianDiffusion, tmp_path: Path, form: str) -> None:
    """With the published schedule where a file has none."""
    torch.save(FORMS[form](dict(diffusion.state_dict())), tmp_path / "x.pt")
    other = tiny(1)
    found = load_diffusion(other, tmp_path / "x.pt")
    assert_same(dict(other.state_dict()), dict(diffusion.state_dict()))
    assert (found.step, found.version, found.lr, found.betas) == (None,) * 4 and "(weights only)" in str(found)


def test_safetensors_are_read(diffusion: GaussianDiffusion, tmp_path: Path) -> None:
    """As state dicts."""
    save_file(dict(diffusion.state_dict()), str(tmp_path / "x.safetensors"))
    other = tiny(1)
    load_diffusion(other, tmp_path / "x.safetensors")
    assert_same(dict(other.state_dict()), dict(diffusion.state_dict()))


def test_a_files_own_schedule_is_used_and_reported(diffusion: GaussianDiffusion, tmp_path: Path) -> None:
    """As the reference uses it."""
    state = dict(diffusion.state_dict())
    torch.save({"model": state | {"loss_weight": torch.ones(1000)}}, tmp_path / "x.pt")
    found = load_diffusion(diffusion, tmp_path / "x.pt")
    assert found.replaced == ("loss_weight",) and "NOT the published" in str(found) and "\n" not in str(found)
    assert diffusion.loss_weight.min() == 1


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """A state dict that lacks one name."""
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: without(state, "model.mid_attn.norm.g"), "does not fit.*1 missing"),
    (lambda state: without(state, "betas"), "does not fit.*1 missing"),
    (lambda state: without(state, "model.init_conv.weight"), "does not fit.*1 missing"),
    (lambda state: state | {"model.extra": torch.zeros(1)}, "does not fit.*1 left over"),
    (lambda state: state | {"betas": torch.zeros(500)}, "does not fit.*1 of another shape"),
    (lambda state: state | {"model.init_conv.weight": torch.zeros(())}, "does not fit.*1 of another shape"),
    (lambda state: {"model": {}}, "holds no state dict"),
    (lambda state: {"model": {"betas": 3}}, "holds no state dict"),
    (lambda state: {1: torch.zeros(1)}, "holds no state dict"),
    (lambda state: [1, 2], "holds no state dict"),
    (lambda state: {"model": Malicious()}, "could run any code"),
    (lambda state: UNet(UNetConfig(16, [1, 2, 2])).state_dict(),
     r"holds a diffusion network of dim=16, dim_mults=\[1, 2, 2\], .* asks for dim=8, dim_mults=\[1, 2\]"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict], object], message: str
) -> None:
    """In words, and the model stays as it was."""
    monkeypatch.chdir(tmp_path)
    diffusion = tiny()
    before = {name: value.clone() for name, value in diffusion.state_dict().items()}
    torch.save(change(dict(tiny(1).state_dict())), "x.pt")
    with pytest.raises(UserError, match=message):
        load_diffusion(diffusion, "x.pt")
    assert_same(dict(diffusion.state_dict()), before)
    assert not Path("executed").exists()


def test_odd_facts_in_a_file_are_passed_over(diffusion: GaussianDiffusion, tmp_path: Path) -> None:
    """They are only for the log."""
    odd = {"step": "many", "version": [1], "opt": {"param_groups": [{"lr": None, "betas": 3}]}}
    torch.save({"model": diffusion.state_dict(), **odd}, tmp_path / "x.pt")
    assert "(weights only)" in str(load_diffusion(diffusion, tmp_path / "x.pt"))


def test_a_missing_file_says_the_three_ways(diffusion: GaussianDiffusion, tmp_path: Path) -> None:
    """Fetch, train, or do without."""
    with pytest.raises(UserError, match=r"no diffusion model at .*nothing\.pt") as failure:
        load_diffusion(diffusion, tmp_path / "nothing.pt")
    for way in ("model-140-pascal.pt, into pretrained/", "methods/dig/train_diffusion.py", "loss.weights=[1,0,0,0,0]"):
        assert way in str(failure.value)


def test_a_damaged_file_and_a_full_disk(
    diffusion: GaussianDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Are said to be so; what stood there before is kept."""
    path = tmp_path / "x.pt"
    write_dump(path, diffusion)
    whole = path.read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_diffusion(diffusion, tmp_path / "half.pt")
    fill_disk(monkeypatch, 1000)
    with pytest.raises(UserError, match="could not write"):
        write_dump(path, diffusion)
    assert path.read_bytes() == whole
