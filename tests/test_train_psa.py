"""PSA from seeds to scored masks. (Exact resume, two processes, a used folder: tests/test_training.py.)"""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from common.data.masks import read_mask
from common.data.seeds import read_seed, write_seed
from common.run.errors import UserError
from common.run.weights import load_torch
from methods.psa import infer_aff, make_crf
from methods.psa.losses import LOSS_TERMS
from tests.helpers import Scripts, assert_same, contents, evaluation_script, failure, last, metrics


class PSAScripts(Scripts):
    """PSA's scripts in the current folder, with the tiny experiment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, experiment: Path, seeds: Path) -> None:
        super().__init__(monkeypatch, experiment, "psa")
        self.seeds = seeds

    def scores(self, name: str, *arguments: object) -> int:
        """Writes the CRF scores in this process."""
        return self._call(make_crf, ("--name", name, "--exp", self._experiment, "--seeds", self.seeds, *arguments))

    def masks(self, name: str, *arguments: object) -> int:
        """Writes the masks in this process, with the run's own configuration."""
        return self._call(infer_aff, ("--name", name, "--seeds", self.seeds, *arguments))


@pytest.fixture(scope="module")
def experiment(experiments: Path) -> Path:
    """The YAML of the tiny experiment."""
    return experiments / "psa.yaml"


@pytest.fixture(scope="module")
def whole(experiment: Path, seeds: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An uninterrupted run with its scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        scripts = PSAScripts(patch, experiment, seeds)
        assert scripts.scores("whole") == 0
        assert scripts.train("whole", "runtime.num_workers=2") == 0
        return SimpleNamespace(last=last("whole"), metrics=metrics("whole"), folder=Path("experiment/whole").absolute())


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: Path, seeds: Path) -> PSAScripts:
    """The scripts, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return PSAScripts(monkeypatch, experiment, seeds)


@pytest.fixture
def scored(scripts: PSAScripts, whole: SimpleNamespace) -> PSAScripts:
    """The scripts in a folder where a run ``x`` has its scores."""
    shutil.copytree(whole.folder / "crf", "experiment/x/crf")
    return scripts


def assert_ends_like(name: str, whole: SimpleNamespace) -> None:
    """A run has the same last checkpoint, weights file and metrics, bitwise."""
    assert_same(last(name), whole.last)
    assert_same(metrics(name), whole.metrics)
    file = "ckpt/001net_trm.pth"
    assert_same(load_torch(f"experiment/{name}/{file}"), load_torch(whole.folder / file))


def test_from_seeds_to_scored_masks(
    scored: PSAScripts, whole: SimpleNamespace, capsys: pytest.CaptureFixture, seeds: Path
) -> None:
    """Scores of both exponents, a training that learns, palette masks with the seeds' classes, their mIoU."""
    run = whole.folder
    for alpha in ("04", "16"):
        assert len(contents(run / "crf" / alpha)) == 24
        for path in sorted((run / "crf" / alpha).iterdir())[:3]:
            maps = read_seed(path)
            assert list(maps) == [0, *(key + 1 for key in read_seed(seeds / path.name))]
            np.testing.assert_allclose(sum(maps.values()), 1, atol=1e-4)
    share = {a: np.mean([read_seed(path)[0].mean() for path in (run / "crf" / a).glob("*.npy")]) for a in ("04", "16")}
    assert share["04"] > share["16"]  # of background
    lines = whole.metrics
    assert [line["step"] for line in lines] == [4, 8, 12] and {"total", *LOSS_TERMS, "lr"} <= lines[0].keys()
    for line in lines:
        assert line["total"] == pytest.approx(line["bg"] / 4 + line["fg"] / 4 + line["neg"] / 2, rel=1e-5)
        assert line["lr"] == pytest.approx(0.02 * (1 - (line["step"] - 1) / 12) ** 0.9)
    assert lines[-1]["total"] < lines[0]["total"]
    log = (run / "log.txt").read_text()
    assert "exponents 4 and 16; momentum 0.0005" in log and "infer_aff.py --name whole" in log

    shutil.copytree(run, "experiment/x", dirs_exist_ok=True)
    assert scored.masks("x") == 0
    output = capsys.readouterr().out
    assert "6 masks written, 0 were there" in output and "mIoU over the 6 images of 'val'" in output
    for path in Path("experiment/x/masks").glob("*.png"):
        seed = read_seed(seeds / f"{path.stem}.npz")
        mask = read_mask(path)
        assert mask.shape == next(iter(seed.values())).shape
        assert set(np.unique(mask)) <= {0, *(key + 1 for key in seed)} and len(np.unique(mask)) > 1
        with Image.open(path) as image:
            assert image.mode == "P"
    score = json.loads(Path("experiment/x/eval_png.json").read_text())
    assert score["images"] == 6
    evaluation_script().main(["--name", "x", "--task", "png", "--dict_dir", "masks", "--list", "val", "--out", "again"])
    assert Path("experiment/x/again.csv").read_bytes() == Path("experiment/x/eval_png.csv").read_bytes()

    done = contents("experiment/x/masks")
    first = next(iter(done))
    Path("experiment/x/masks", first).unlink()
    capsys.readouterr()
    assert scored.masks("x", "infer.eval_list=") == 0
    assert contents("experiment/x/masks") == done and "mIoU" not in capsys.readouterr().out
    with pytest.raises(UserError, match="masks holds masks of another checkpoint or other settings"):
        scored.masks("x", "--bg_thr", "0.5")
    assert scored.masks("x", "--bg_thr", "0.5", "--overwrite") == 0
    assert contents("experiment/x/masks") != done


def test_a_training_leaves_the_scores_alone(scored: PSAScripts, whole: SimpleNamespace) -> None:
    """They are not in its way, and --overwrite spares them; what another training left is in the way, and goes."""
    before = contents("experiment/x/crf/04")
    assert scored.train("x", "train.max_steps=1") == 0
    with pytest.raises(UserError, match=r"run folder experiment/x is not empty"):
        scored.train("x")
    Path("experiment/x/masks").mkdir()
    assert scored.train("x", "--overwrite") == 0
    assert contents("experiment/x/crf/04") == before and not Path("experiment/x/masks").exists()
    assert_ends_like("x", whole)
    with pytest.raises(UserError, match="no run folder experiment/other"):
        scored.train("other", "--resume")


def test_scores_are_made_once(scored: PSAScripts, capsys: pytest.CaptureFixture) -> None:
    """What is missing is made, and what is older than its seed; the same bytes; other settings are refused."""
    folder = Path("experiment/x/crf/04")
    before, names = contents(folder), sorted(path.name for path in folder.iterdir())
    (folder / names[0]).unlink()
    os.utime(folder / names[1], ns=(0, 0))
    assert scored.scores("x") == 0
    assert "2 CRF results written, 22 were there" in capsys.readouterr().out
    assert contents(folder) == before and (folder / names[1]).stat().st_mtime_ns > 0
    with pytest.raises(UserError, match="holds CRF marginals of another checkpoint or other settings"):
        scored.scores("x", "crf.iterations=1")
    with pytest.raises(UserError, match=r"crf.low_alpha=16 must be less than crf.high_alpha=16"):
        scored.scores("x", "--low_alpha", "16")
    assert scored.scores("x", "crf.iterations=1", "--overwrite") == 0
    assert contents(folder) != before


def test_scores_of_half_the_size(scripts: PSAScripts, whole: SimpleNamespace) -> None:
    """Nearly the same values; the training reads them."""
    assert scripts.scores("x", "crf.format=npz") == 0
    for path in sorted(Path("experiment/x/crf/16").iterdir())[:3]:
        exact = read_seed(whole.folder / "crf" / "16" / f"{path.stem}.npy")
        for key, values in read_seed(path).items():
            np.testing.assert_allclose(values, exact[key], atol=5e-4)
    assert scripts.train("x", "crf.format=npz", "train.max_steps=1") == 0


def test_what_is_missing_or_unfit_is_named(
    scored: PSAScripts, capsys: pytest.CaptureFixture, tmp_path: Path, seeds: Path
) -> None:
    """One line each, before anything is computed or written."""
    exp = scored._experiment
    message = failure(capsys, scored.train, "new")
    assert "no CRF marginals in experiment/new" in message and "methods/psa/make_crf.py --name new --seeds" in message
    assert not Path("experiment/new").exists()
    with pytest.raises(UserError, match="which seeds"):
        scored._call(make_crf, ("--name", "new", "--exp", exp))
    with pytest.raises(UserError, match="no folder of seeds nowhere"):
        scored._call(make_crf, ("--name", "new", "--exp", exp, "--seeds", "nowhere"))
    part = tmp_path / "part"
    shutil.copytree(seeds, part)
    first, second = sorted(part.glob("*.npy"))[:2]
    content = read_seed(first)
    first.unlink()
    with pytest.raises(UserError, match=f"1 of the 24 images of list 'train' have no file in .*{first.stem}.*--dict"):
        scored._call(make_crf, ("--name", "new", "--exp", exp, "--seeds", part))
    write_seed(part, first.stem, {key: cam[:-1] for key, cam in content.items()})
    with pytest.raises(UserError, match=rf"{first.name} holds maps of .*, but the image is of"):
        scored._call(make_crf, ("--name", "new", "--exp", exp, "--seeds", part))
    with pytest.raises(UserError, match=r"views.crop_size=17 does not suit .* multiple of 2 .* at least 18"):
        scored.train("x", "views.crop=17")
    shutil.copy(f"experiment/x/crf/04/{second.stem}.npy", f"experiment/x/crf/16/{first.stem}.npy")
    with pytest.raises(UserError, match=rf"{first.stem}"):
        scored.train("x", "train.epochs=1")
    with pytest.raises(UserError, match="no run folder experiment/none"):
        scored.masks("none")


def test_weights_from_elsewhere(
    scored: PSAScripts, whole: SimpleNamespace, tmp_path: Path, seeds: Path, capsys: pytest.CaptureFixture
) -> None:
    """They make a run of their own; a list without masks is not scored; seeds of another data set are refused."""
    weights = whole.folder / "ckpt" / "001net_trm.pth"
    arguments = ("--name", "y", "--exp", scored._experiment, "--load_pretrained", weights)
    assert scored._call(infer_aff, (*arguments, "--seeds", seeds, "infer.eval_list=train")) == 0
    assert "not scored: 24 of the 24 images of 'train' have no mask in experiment/y/masks" in capsys.readouterr().out
    shutil.copytree(seeds, tmp_path / "other")
    for path in (tmp_path / "other").glob("*.npz"):
        seed = {key + 15: cam for key, cam in read_seed(path).items()}
        write_seed(tmp_path / "other", path.stem, seed, "npz", stride=1)
    with pytest.raises(UserError, match=r"has classes \[1\d.* of 6"):
        scored._call(infer_aff, (*arguments, "--seeds", tmp_path / "other", "--overwrite"))
