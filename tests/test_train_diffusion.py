"""DiG's diffusion model from training to files and previews.

(Exact resume, two processes, a used folder: tests/test_training.py.)
"""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from common.run.errors import UserError
from common.run.processes import Processes
from common.run.weights import load_torch
from common.train.step import Batch
from methods.dig import milestones
from methods.dig.config import UNetConfig
from methods.dig.diffusion import GaussianDiffusion
from methods.dig.diffusion_files import DiffusionFile, load_diffusion
from methods.dig.diffusion_step import draw_noise
from methods.dig.unet import UNet
from tests.datasets import truncate
from tests.helpers import Scripts, assert_same, contents, last, metrics

NETWORK = UNetConfig(dim=8, dim_mults=[1, 2])


def plot_quickly(path: Path, *args: object) -> None:
    """Stands in for `plot_loss`, which takes longer than all the rest of a tiny run."""
    path.write_text(repr(args))


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiments: Path) -> Scripts:
    """The script, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(milestones, "plot_loss", plot_quickly)
    return Scripts(monkeypatch, experiments / "diffusion.yaml", "diffusion")


@pytest.fixture(scope="module")
def whole(experiments: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An uninterrupted run, with the real loss curve."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        assert Scripts(patch, experiments / "diffusion.yaml", "diffusion").train("whole") == 0
        return SimpleNamespace(last=last("whole"), metrics=metrics("whole"), folder=Path("experiment/whole").absolute())


def assert_ends_like(name: str, whole: SimpleNamespace) -> None:
    """A run has the same last checkpoint, milestones, previews and metrics, bitwise."""
    assert_same(last(name), whole.last)
    assert_same(metrics(name), whole.metrics)
    for file in ("model-1.pt", "model-2.pt"):
        assert_same(load_torch(f"experiment/{name}/ckpt/{file}"), load_torch(whole.folder / "ckpt" / file), file)
    assert contents(f"experiment/{name}/previews") == contents(whole.folder / "previews")


def test_a_run_writes_checkpoints_milestones_previews_and_the_loss_curve(whole: SimpleNamespace) -> None:
    """And a log that tells how the classifier uses the last milestone."""
    run = whole.folder
    assert set(contents(run / "ckpt")) == {"last.pth", "model-1.pt", "model-2.pt"}
    assert set(contents(run / "previews")) == {"000005.png", "000008.png"}
    for picture in (run / "previews").iterdir():
        with Image.open(picture) as image:
            assert image.size == (3 * 18 + 2, 2 * 18 + 2) and len(image.convert("RGB").getcolors(10**6)) > 50
    with Image.open(run / "loss.png") as image:
        assert image.width > 400
    log = (run / "log.txt").read_text()
    assert "24 images, no labels, 6 steps an epoch" in log and "epochs 0 to 1, 8 steps in all" in log
    assert "diffusion.file=experiment/whole/ckpt/model-2.pt unet.dim=8" in log
    assert "--name NAME --exp dig_eccv24 data.root=" in log
    assert [(line["step"], line["lr"]) for line in whole.metrics] == [(step, 1e-3) for step in (4, 8)]
    assert all(0 < line["total"] < 2 for line in whole.metrics)


def test_milestones_are_read_back(whole: SimpleNamespace) -> None:
    """Raw weights, step and optimiser settings; the averaged weights are in the file, too, and are others."""
    diffusion = GaussianDiffusion(UNet(NETWORK))
    path = whole.folder / "ckpt" / "model-2.pt"
    assert load_diffusion(diffusion, path) == DiffusionFile(path, 8, "wsss 1", 1e-3, (0.9, 0.99))
    assert_same(dict(diffusion.state_dict()), whole.last["model"])
    content = load_torch(path)
    assert set(content) == {"step", "model", "opt", "ema", "scaler", "version"} and content["scaler"] is None
    assert_same(content["opt"], whole.last["optimizer"])
    ema = content["ema"]
    assert_same(dict(ema), whole.last["ema"])
    assert int(ema["step"]) == 8 and float(ema["initted"]) == 1
    name = "model.mid_block1.block1.proj.weight"
    assert torch.equal(ema[f"online_model.{name}"], content["model"][name])
    assert not torch.equal(ema[f"ema_model.{name}"], content["model"][name])


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    scripts: Scripts, whole: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in a preview, after the milestone's file: both come again."""

    def kill(*args: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(milestones, "save_preview", kill)
        scripts.train("x")
    assert last("x")["position"]["total_steps"] == 4
    assert scripts.train("x", "--resume", "runtime.num_workers=1") == 0
    assert_ends_like("x", whole)
    before = contents("experiment/x/ckpt")
    assert scripts.train("x", "--resume") == 0  # nothing is left to do
    assert contents("experiment/x/ckpt") == before


def test_cache_and_previews_change_nothing(scripts: Scripts, whole: SimpleNamespace, capsys) -> None:
    """The same weights and random states with images in memory and without previews."""
    assert scripts.train("x", "train.cache=true", "sampling.images=0") == 0
    assert "24 images in memory: 0 MiB" in capsys.readouterr().out
    assert not Path("experiment/x/previews").exists()
    assert_same(last("x"), whole.last)


def test_starting_from_a_file(scripts: Scripts, whole: SimpleNamespace, capsys: pytest.CaptureFixture) -> None:
    """Its raw weights; what is known about its training is printed. One of another size names the size."""
    file = whole.folder / "ckpt" / "model-2.pt"
    assert scripts.train("x", "--init", file, "train.max_steps=1", "optim.lr=0") == 0
    assert f"weights: {file} (step 8, version wsss 1, lr 0.001, betas (0.9, 0.99))" in capsys.readouterr().out
    assert_same(last("x")["model"], dict(load_torch(file)["model"]))
    with pytest.raises(UserError, match=r"dim=8, dim_mults=\[1, 2\], but .* dim=16"):
        scripts.train("y", "--init", file, "unet.dim=16")
    with pytest.raises(UserError, match=r"no diffusion model at nothing\.pt"):
        scripts.train("y", "--init", "nothing.pt")
    assert not Path("experiment/y").exists()


def test_any_folder_of_images_will_do(scripts: Scripts, shapes: Path) -> None:
    """No label file, no list."""
    shutil.copytree(shapes / "JPEGImages", "mine/images")
    folder = ("data.dataset=folder", "data.root=mine", "train.image_list=all", "train.max_steps=1")
    assert scripts.train("x", *folder) == 0
    assert "30 images, no labels" in Path("experiment/x/log.txt").read_text()
    assert scripts.train("voc", "train.image_list=all", "train.max_steps=1") == 0
    assert "30 images, no labels" in Path("experiment/voc/log.txt").read_text()


def test_noise_does_not_depend_on_the_number_of_processes() -> None:
    """Each process has its rows of what one process would have; nothing is drawn from the global generators."""

    def draw(rank: int, world: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.zeros(4 // world, 3, 5, 5)
        draws = torch.Generator().manual_seed(7)
        batch = Batch([images], images, images, torch.arange(len(images)), 0, 0, True, True, draws)
        return draw_noise(batch, Processes(rank, rank, world))

    state = torch.get_rng_state()
    t, noise = draw(0, 1)
    for whole, parts in zip((t, noise), zip(draw(0, 2), draw(1, 2), strict=True), strict=True):
        assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(state, torch.get_rng_state())
    assert len(t.unique()) > 1 and not torch.equal(noise[0], noise[1])


def test_the_gradient_is_clipped(scripts: Scripts, whole: SimpleNamespace) -> None:
    """With an epsilon that makes Adam follow the gradient's length, a tiny norm leaves the weights alone."""
    file, weights = whole.folder / "ckpt" / "model-2.pt", whole.last["model"]
    changes = []
    for clip in (0, 1e-6):
        options = ("--init", file, "train.max_steps=1", "optim.eps=1", f"optim.clip={clip}")
        assert scripts.train(f"clip{clip}", *options) == 0
        model = last(f"clip{clip}")["model"]
        changes.append(max(float((model[name] - value).abs().max()) for name, value in weights.items()))
    assert changes[0] > 1e-5 and changes[1] <= 1e-7


def test_other_number_formats(scripts: Scripts) -> None:
    """bf16 runs on a CPU; the weights stay float32."""
    assert scripts.train("x", "train.max_steps=2", "runtime.precision=bf16") == 0
    assert {value.dtype for value in last("x")["model"].values()} == {torch.float32}


def test_a_run_that_cannot_start_leaves_nothing(scripts: Scripts, own_data: Path) -> None:
    """Sizes that the network cannot take, wrong settings, a damaged image."""
    truncate(next((own_data / "JPEGImages").glob("2026_*")))
    for wrong, words in (
        (("views.size=17",), "views.size=17 does not suit.*multiples of 2"),
        (("sampling.steps=1001",), "sampling.steps is 1001; it must be from 1 to 1000"),
        (("train.image_list=nothing",), "no image list 'nothing'"),
        (("train.cache=true", f"data.root={own_data}"), r"2026_\d+\.jpg cannot be decoded"),
    ):
        with pytest.raises(UserError, match=words):
            scripts.train("x", *wrong)
    assert not Path("experiment").exists()


def test_weights_that_are_not_finite_are_not_kept(scripts: Scripts) -> None:
    """No milestone of a run that has gone wrong."""
    with pytest.raises(UserError, match="not finite"):
        scripts.train("x", "optim.lr=1e15", "train.save_every=2", "train.save_steps=0")
    assert not list(Path("experiment/x").glob("ckpt/*"))
