"""Fusion of seeds: laws and loops, the script, the search, and what it refuses."""

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.agreement import read_agreement, write_agreement
from common.data.lists import read_list
from common.data.seed_labels import seed_labels
from common.data.seeds import read_seed, write_seed
from common.run.errors import UserError
from methods.fusion.config import RULES
from methods.fusion.fusing import agreeing_runs, fuse, run_labels
from tests.datasets import call
from tests.helpers import contents, failure

SIZE = 5, 6


@st.composite
def runs_of_seeds(draw: st.DrawFn) -> tuple[list[dict], list[float], list[float]]:
    """Seeds of 2 to 4 runs, their weights and thresholds."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(2, 4))
    classes = draw(st.sampled_from([[0], [1, 4]]))
    seeds = [{key: np.round(rng.random(SIZE), 1).astype(np.float32) for key in classes} for _ in range(count)]
    weights = draw(st.sampled_from([[1 / count] * count, rng.dirichlet(np.ones(count)).tolist()]))
    return seeds, weights, rng.choice([0.2, 0.5], count).tolist()


def fuse_by_loops(seeds: list[dict], how: str, weights: list[float], thresholds: list[float]) -> dict:
    """The definition of the rules, pixel by pixel."""
    labels = [seed_labels(seed, threshold, SIZE) for seed, threshold in zip(seeds, thresholds, strict=True)]
    out = {key: np.zeros(SIZE) for key in seeds[0]}
    for key, y, x in itertools.product(seeds[0], *map(range, SIZE)):
        values = [float(seed[key][y, x]) for seed in seeds]
        counted = list(weights)
        if how == "vote":
            votes = [sum(w for w, o in zip(weights, labels, strict=True) if o[y, x] == m[y, x]) for m in labels]
            counted = [w if vote == max(votes) else 0.0 for w, vote in zip(weights, votes, strict=True)]
        mean = sum(w * v for w, v in zip(counted, values, strict=True)) / sum(counted)
        product = np.prod([v**w for w, v in zip(weights, values, strict=True)])
        rules = {"mean": mean, "vote": mean, "geometric": product, "min": min(values), "max": max(values)}
        out[key][y, x] = rules[how]
    return out


@given(runs_of_seeds(), st.sampled_from(RULES))
@settings(max_examples=50, deadline=None)
def test_rules_equal_loops(case: tuple, how: str) -> None:
    seeds, weights, thresholds = case
    found = fuse(seeds, how, weights, thresholds)
    for key, expected in fuse_by_loops(seeds, how, weights, thresholds).items():
        assert found[key].dtype == np.float32
        np.testing.assert_allclose(found[key], expected, rtol=1e-6, atol=1e-9)


@given(runs_of_seeds(), st.sampled_from(RULES))
@settings(max_examples=30, deadline=None)
def test_laws_of_the_fusion(case: tuple, how: str) -> None:
    """A run with itself gives itself; the order of the runs does not matter."""
    seeds, weights, thresholds = case
    for count in (2, 3):
        same = fuse([seeds[0]] * count, how, [1 / count] * count, [thresholds[0]] * count)
        for key, values in same.items():
            np.testing.assert_array_equal(values, seeds[0][key])
    found = fuse(seeds, how, weights, thresholds)
    turned = fuse(seeds[::-1], how, weights[::-1], thresholds[::-1])
    for key, values in found.items():
        np.testing.assert_allclose(values, turned[key], rtol=1e-6, atol=1e-9)


@given(runs_of_seeds())
@settings(max_examples=20, deadline=None)
def test_agreement_counts_the_most_frequent_label(case: tuple) -> None:
    seeds, _, thresholds = case
    found = agreeing_runs(run_labels(seeds, thresholds, SIZE))
    labels = [seed_labels(seed, threshold, SIZE) for seed, threshold in zip(seeds, thresholds, strict=True)]
    for y, x in np.ndindex(SIZE):
        assert found[y, x] == Counter(int(of_run[y, x]) for of_run in labels).most_common(1)[0][1]


def test_agreement_is_read_as_shares(tmp_path: Path) -> None:
    """Damaged files get one line."""
    write_agreement(tmp_path, "a", np.full(SIZE, 2), 3)
    np.testing.assert_array_equal(read_agreement(tmp_path, "a", SIZE), np.full(SIZE, np.float32(2) / np.float32(3)))
    with pytest.raises(UserError, match=r"no file at .*e\.npz"):
        read_agreement(tmp_path, "e", SIZE)
    np.savez(tmp_path / "b.npz", agreeing=np.full(SIZE, 4, dtype=np.uint8), runs=3)
    np.savez(tmp_path / "c.npz", agreeing=np.full(SIZE, 1))
    (tmp_path / "d.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:60])
    for image_id in "bcd":
        with pytest.raises(UserError, match=f"{image_id}.npz cannot be used as the agreement of runs"):
            read_agreement(tmp_path, image_id, SIZE)
    with pytest.raises(UserError, match=r"of \(5, 6\) pixels, but the image is of \(6, 5\)"):
        read_agreement(tmp_path, "a", (6, 5))


@pytest.fixture
def data(shapes: Path, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Arguments of the data set, in a folder with the seeds of the runs a and b; b's have other values."""
    monkeypatch.chdir(tmp_path)
    for path in sorted(seeds.glob("*.np?")):
        seed = read_seed(path)
        write_seed("experiment/a/dict", path.stem, seed)
        write_seed("experiment/b/dict", path.stem, {key: np.sqrt(values) / 2 for key, values in seed.items()}, "npz", 1)
    return f"data.root={shapes}", f"data.classes={shapes}/classes.txt", "runtime.num_workers=0"


def fuse_seeds(monkeypatch: pytest.MonkeyPatch, data: tuple[str, ...], *arguments: object) -> int:
    lists = ("--infer_list", "val", "infer.eval_list=val")
    return call(monkeypatch, "fuse_seeds", "--name", "f", "--exp", "fusion_demo", *lists, *data, *arguments)


def test_the_script_fuses_in_any_order_and_goes_on(
    shapes: Path, data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The same bytes from a b and b a; a lost file is made again; npy and npz are read; a score is reported."""
    ids = read_list(shapes / "ImageSets/Segmentation/val.txt", "voc12")
    assert fuse_seeds(monkeypatch, data, "a", "experiment/b/dict") == 0
    first = contents("experiment/f/dict"), contents("experiment/f/agreement")
    assert json.loads(Path("experiment/f/eval_cam.json").read_text())["images"] == len(ids)
    found = read_seed(f"experiment/f/dict/{ids[0]}.npy")
    a, b = read_seed(f"experiment/a/dict/{ids[0]}.npy"), read_seed(f"experiment/b/dict/{ids[0]}.npz")
    for key, values in found.items():
        np.testing.assert_allclose(values, (a[key].astype(float) + b[key]) / 2, rtol=1e-6, atol=1e-9)
    Path(f"experiment/f/dict/{ids[0]}.npy").unlink()
    capsys.readouterr()
    assert fuse_seeds(monkeypatch, data, "b", "a") == 0  # in the other order
    assert f"1 seeds written, {len(ids) - 1} were there" in capsys.readouterr().out
    assert (contents("experiment/f/dict"), contents("experiment/f/agreement")) == first
    message = failure(capsys, fuse_seeds, monkeypatch, data, "a", "b", "--how", "max")
    assert "experiment/f/dict holds seeds of another checkpoint or other settings" in message
    Path("experiment/b").rename("experiment/exp")  # a name that is a flag's as well
    assert fuse_seeds(monkeypatch, data, "a", "exp", "--how", "max", "--overwrite") == 0
    assert contents("experiment/f/dict") != first[0]


def test_what_cannot_be_fused(
    shapes: Path, data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Runs, weights, ids, classes and sizes that do not fit; one line each, and nothing is made."""
    ids = read_list(shapes / "ImageSets/Segmentation/val.txt", "voc12")
    for arguments, words in (
        ((), "which runs"), (("a",), "two or more"), (("a", "c"), "no seeds of 'c': neither experiment/c/dict nor c"),
        (("a", "b", "--how", "min", "--weights", "1", "2"), "no meaning for fuse.how=min"),
        (("a", "b", "--weights", "1", "2", "3"), "3 weights of 2 runs"),
        (("a", "b", "--weights", "1", "0"), "must be numbers above 0"),
        (("a", "b", "--thresholds", "0.1", "0.2", "0.3"), "3 thresholds of 2 runs"),
    ):  # fmt: skip
        assert words in failure(capsys, fuse_seeds, monkeypatch, data, *arguments)
    assert not Path("experiment/f").exists()
    seed = read_seed(f"experiment/a/dict/{ids[0]}.npy")
    values = next(iter(seed.values()))
    absent = min({*range(6)} - {*seed})
    for wrong, words in (
        ({**seed, absent: values}, "of different classes"), ({9: values}, "classes [9] of 6"),
        ({key: maps[1:] for key, maps in seed.items()}, "but the image is of"),
    ):  # fmt: skip
        write_seed("experiment/b/dict", ids[0], wrong, "npz", 1)
        assert words in failure(capsys, fuse_seeds, monkeypatch, data, "a", "b")
    Path(f"experiment/b/dict/{ids[0]}.npz").unlink()
    message = failure(capsys, fuse_seeds, monkeypatch, data, "a", "b")
    assert f"1 of the {len(ids)} images" in message and "experiment/b/dict" in message and ids[0] in message
    for run in "ab":
        write_seed(f"experiment/{run}/dict", ids[0], {})
    assert fuse_seeds(monkeypatch, data, "a", "b") == 0  # an image without labels
    assert read_seed(f"experiment/f/dict/{ids[0]}.npy") == {}
    with np.load(f"experiment/f/agreement/{ids[0]}.npz") as content:
        assert (content["agreeing"] == 2).all() and content["agreeing"].shape == values.shape


def test_search_tries_pairs_and_rules_on_other_images(
    data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Of two runs both alone and every rule; images that are reported are refused, by list or by id."""
    assert fuse_seeds(monkeypatch, data, "a", "b", "--search", "train") == 0
    result = json.loads(Path("experiment/f/search.json").read_text())
    tried = [(len(trial["runs"]), trial["how"]) for trial in result["trials"]]
    assert sorted(tried) == sorted([(1, ""), (1, ""), *((2, how) for how in RULES if how != "vote")])
    scores = [trial["mIoU"] for trial in result["trials"]]
    assert scores == sorted(scores, reverse=True) and result["list"] == "train"
    assert "best fusion: --how" in capsys.readouterr().out and not Path("experiment/f/dict").exists()
    message = failure(capsys, fuse_seeds, monkeypatch, data, "a", "b", "--search", "val")
    assert "are in infer.eval_list=val, which is reported" in message
