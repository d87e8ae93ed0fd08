"""The evaluation card: every count equals a loop over pixels, intervals, files."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.masks import write_mask
from common.data.seeds import write_seed
from common.run.errors import UserError
from common.score import boundary, means
from common.score import card as card_module
from common.score.average_precision import LEVELS, average_precision, level_counts
from common.score.bins import JointHistogram
from common.score.bootstrap import draws, interval
from common.score.boundary import boundary_distance
from common.score.card import card_lines, precision_card, read_card, read_counts
from common.score.counts import ConfusionCounts, SweepCounts, counts_by_argmax
from common.score.image_counts import REGION, CardCounts, PerImage
from common.score.per_image import COLUMNS
from common.score.sizes import size_scores
from tests.forks import run_together
from tests.helpers import evaluation_script

NAMES = ["background", "cat", "dog", "hen"]
THRESHOLDS = np.array([0.0, 0.25, 0.3, 0.5, 0.75])


def boundary_of(region: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of a region with a pixel outside it, or beyond the image, at most so far away in x and y: a loop."""
    height, width = region.shape
    found = np.zeros_like(region)
    for y, x in np.argwhere(region):
        if y < distance or x < distance or y >= height - distance or x >= width - distance:
            found[y, x] = True
        else:
            found[y, x] = not region[y - distance : y + distance + 1, x - distance : x + distance + 1].all()
    return found


def counts_by_loop(labels: np.ndarray, gt: np.ndarray, distance: int) -> np.ndarray:
    """truth, predicted, correct of regions and boundaries of all labels: (2, 3, K)."""
    found = np.zeros((2, 3, len(NAMES)), dtype=np.int64)
    for label in range(len(NAMES)):
        truth, predicted = gt == label, (labels == label) & (gt != 255)
        for kind, pair in enumerate([(truth, predicted), [boundary_of(part, distance) for part in (truth, predicted)]]):
            found[kind, :, label] = pair[0].sum(), pair[1].sum(), (pair[0] & pair[1]).sum()
    return found


def labels_at(seed: dict, threshold: float, shape: tuple) -> np.ndarray:
    stack = np.zeros((len(NAMES), *shape), np.float32)
    stack[0] = threshold
    for key, cam in seed.items():
        stack[key + 1] = cam
    return stack.argmax(axis=0)


def random_image(rng: np.random.Generator, shape: tuple[int, int], blocky: bool) -> tuple[dict, np.ndarray]:
    """A seed of up to three classes and a mask; blocky ones have regions with an inside."""
    keys = rng.permutation(len(NAMES) - 1)[: rng.integers(4)].tolist()
    small = tuple(-(-side // 4) for side in shape) if blocky else shape

    def grown(values: np.ndarray) -> np.ndarray:
        return np.kron(values, np.ones((4, 4), values.dtype))[: shape[0], : shape[1]] if blocky else values

    seed = {key: grown(rng.choice(np.append(THRESHOLDS, [0.1, 0.6, 1.0]), small).astype(np.float32)) for key in keys}
    return seed, grown(rng.choice([*range(len(NAMES)), 255], small, p=[0.4, 0.2, 0.15, 0.1, 0.15]).astype(np.uint8))


@settings(max_examples=140, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_counts_of_seeds_equal_a_loop(seed: int, height: int, width: int, blocky: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boundary, "RATIO", 0.02 + 0.1 * (seed % 2))  # distances of one and of several pixels
        check_counts_of_a_seed(np.random.default_rng(seed), height, width, blocky)


def check_counts_of_a_seed(rng: np.random.Generator, height: int, width: int, blocky: bool) -> None:
    maps, gt = random_image(rng, (height, width), blocky)
    sweep = SweepCounts(len(NAMES), THRESHOLDS)
    card = CardCounts(len(NAMES), len(THRESHOLDS))
    card.add_seed("a", maps, gt, sweep.add(maps, gt))
    distance = boundary_distance(gt.shape)
    for index, threshold in enumerate(THRESHOLDS):
        counts = card.at(index, NAMES)
        labels = labels_at(maps, threshold, gt.shape)
        for kind, (truth, predicted, correct) in enumerate(counts_by_loop(labels, gt, distance)):
            np.testing.assert_array_equal(counts.truth[kind, 0], truth)
            np.testing.assert_array_equal(counts.predicted[kind, 0], predicted)
            np.testing.assert_array_equal(counts.correct[kind, 0], correct)
        matrix = card.matrix(index, counts.truth[REGION, 0])
        pairs = [[((gt == true) & (labels == label)).sum() for label in range(4)] for true in range(4)]
        np.testing.assert_array_equal(matrix, pairs)
    slow = counts_by_argmax(maps, gt, len(NAMES), THRESHOLDS)
    found = [card.at(index, NAMES).correct[REGION, 0] for index in range(len(THRESHOLDS))]
    np.testing.assert_array_equal(found, slow[0])


@pytest.mark.parametrize("count", [255, 256, 700])
def test_counts_of_seeds_at_many_thresholds(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of thresholds that need more than a byte, and more pairs of label and threshold than 16 bits."""
    monkeypatch.setitem(globals(), "THRESHOLDS", np.arange(count) / count)
    for seed in range(2):
        check_counts_of_a_seed(np.random.default_rng(seed), 9, 13, True)


@pytest.mark.parametrize(("groups", "levels"), [(1, 2), (5, 256), (9, 101), (40, 700)])
def test_histograms_of_groups_equal_a_loop(groups: int, levels: int) -> None:
    """With lanes, and without for more groups and levels than 16 bits hold."""
    rng = np.random.default_rng(groups)
    group = rng.integers(0, groups, (23, 31)).astype(np.uint8)
    level = rng.integers(0, levels, (23, 31)).astype(np.min_scalar_type(levels - 1))
    expected = np.zeros((groups, levels), dtype=np.int64)
    for pair in zip(group.ravel(), level.ravel(), strict=True):
        expected[pair] += 1
    np.testing.assert_array_equal(JointHistogram(group, groups, levels)(level), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30))
def test_counts_of_labels_equal_a_loop(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    (_, gt), (_, labels) = (random_image(rng, (height, width), True) for _ in range(2))
    card = CardCounts(len(NAMES))
    card.add_labels("a", labels, gt, ConfusionCounts(len(NAMES)).add(labels, gt))
    counts = card.at(0, NAMES)
    found = np.stack([counts.truth, counts.predicted, counts.correct], axis=1)[:, :, 0]
    np.testing.assert_array_equal(found, counts_by_loop(labels, gt, boundary_distance(gt.shape)))


def test_counts_of_images_sum_to_the_totals() -> None:
    """Of seeds at every threshold, and of label maps, as the scores without a card have them."""
    rng = np.random.default_rng(3)
    sweep, matrix = SweepCounts(len(NAMES), THRESHOLDS), ConfusionCounts(len(NAMES))
    of_seeds, of_labels = CardCounts(len(NAMES), len(THRESHOLDS)), CardCounts(len(NAMES))
    for name in range(12):
        maps, gt = random_image(rng, (21, 17), bool(name % 2))
        of_seeds.add_seed(str(name), maps, gt, sweep.add(maps, gt))
        labels = labels_at(maps, 0.3, gt.shape).astype(np.uint8)
        of_labels.add_labels(str(name), labels, gt, matrix.add(labels, gt))
    for index in range(len(THRESHOLDS)):
        counts = of_seeds.at(index, NAMES)
        np.testing.assert_array_equal(counts.truth[REGION].sum(axis=0), sweep.truth)
        np.testing.assert_array_equal(counts.predicted[REGION].sum(axis=0), sweep.predicted[index])
        np.testing.assert_array_equal(counts.correct[REGION].sum(axis=0), sweep.correct[index])
    counts = of_labels.at(0, NAMES)
    totals = matrix.matrix.sum(axis=1), matrix.matrix[:, :-1].sum(axis=0), matrix.matrix.diagonal()
    for found, total in zip((counts.truth, counts.predicted, counts.correct), totals, strict=True):
        np.testing.assert_array_equal(found[REGION].sum(axis=0), total)


def test_a_shift_lowers_boundary_iou() -> None:
    """By 4 x 3 pixels: the regions hardly change, their boundaries do (docs/evaluation.md has the figures of VOC)."""
    rng = np.random.default_rng(0)
    card, matrix = CardCounts(len(NAMES)), ConfusionCounts(len(NAMES))
    rows, columns = np.indices((375, 500))
    for name in range(4):
        gt = np.zeros((375, 500), dtype=np.uint8)
        for label in (1, 2, 3):
            y, x, radius = rng.integers(80, 295), rng.integers(80, 420), rng.integers(60, 100)
            gt[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = label
        moved = np.pad(gt, ((4, 0), (3, 0)), mode="edge")[: gt.shape[0], : gt.shape[1]]
        card.add_labels(str(name), moved, gt, matrix.add(moved, gt))
    found = means.means(means.plain_totals(card.at(0, NAMES)), np.ones(len(NAMES), dtype=bool))
    assert found["mIoU"][0] > 90 and found["boundary_mIoU"][0] < found["mIoU"][0] - 10


def precision_by_loop(scores: np.ndarray, truth: np.ndarray) -> float:
    """Precision times added recall, from the highest score; equal scores together."""
    total, before = 0.0, 0.0
    for score in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= score
        recall = (chosen & truth).sum() / truth.sum()
        total += (recall - before) * (chosen & truth).sum() / chosen.sum()
        before = recall
    return 100 * total


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_average_precision_equals_a_loop(seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card_module, "draws", lambda images: draws(images, 3))
        check_average_precision(np.random.default_rng(seed))


def check_average_precision(rng: np.random.Generator) -> None:
    card = CardCounts(len(NAMES), len(THRESHOLDS))
    images = [random_image(rng, (5, 6), False) for _ in range(3)]
    for number, (maps, gt) in enumerate(images):
        card.add_seed(str(number), maps, gt, SweepCounts(len(NAMES), THRESHOLDS).add(maps, gt))
    truth = card.at(0, NAMES).truth[REGION]
    found = precision_card(card, truth, NAMES)
    gts = np.concatenate([gt.ravel() for _, gt in images])
    for key, name in enumerate(NAMES[1:]):
        scores = np.concatenate(
            [np.rint(maps.get(key, np.zeros(gt.shape)) * (LEVELS - 1)).ravel() for maps, gt in images]
        )
        positive = (gts == key + 1)[gts != 255]
        if positive.any():
            expected = precision_by_loop(np.clip(scores, 0, LEVELS - 1)[gts != 255], positive)
            assert found["classes"][name]["value"] == pytest.approx(expected)
        else:
            assert name not in found["classes"]
    known = [entry["value"] for entry in found["classes"].values()]
    assert found["mean"]["value"] == (pytest.approx(np.mean(known)) if known else None)
    pairs = [(np.rint(cam[gt != 255] * (LEVELS - 1)), (gt == key + 1)[gt != 255])
             for maps, gt in images for key, cam in maps.items()]  # fmt: skip
    if pairs and np.concatenate([positive for _, positive in pairs]).any():
        expected = precision_by_loop(*(np.concatenate(part) for part in zip(*pairs, strict=True)))
        assert found["PxAP"]["value"] == pytest.approx(expected)


def test_average_precision_by_hand() -> None:
    """Two of three pixels right, the wrong one in between: 1/2 * 1 + 1/2 * 2/3."""
    cam = np.array([[0.9, 0.5, 0.1]], np.float32)
    counts = level_counts(cam, JointHistogram(np.array([[1, 0, 1]], np.uint8), 3, LEVELS), 1)
    assert average_precision(counts) == pytest.approx(100 * (1 / 2 + 1 / 2 * 2 / 3))


def random_counts(rng: np.random.Generator, images: int, labels: int = 2) -> PerImage:
    """Images of different size and quality, as a data set has."""
    size = rng.lognormal(5, 0.5, (images, labels))
    present = rng.random((images, labels)) < 0.6
    quality = rng.beta(6, 2, (images, labels))
    truth = (size * present).astype(np.int64)
    correct = (truth * quality).astype(np.int64)
    predicted = correct + (size * rng.beta(1, 4, (images, labels)) * present).astype(np.int64)
    both = (np.stack([values, values // 2]) for values in (truth, predicted, correct))
    return PerImage([f"{number:04}" for number in range(images)], NAMES[:labels], *both)


def test_intervals_cover_the_true_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    weights = list(draws(100))
    monkeypatch.setattr(means, "draws", lambda images: weights)  # the same for every data set of this size
    population = random_counts(rng, 400_000)
    present = np.ones(2, bool)
    true = {name: value[0] for name, value in means.means(means.plain_totals(population), present).items()}
    found = [means.mean_intervals(random_counts(rng, 100)) for _ in range(500)]
    for name in ("mIoU", "mean_precision", "extra", "boundary_mIoU"):
        covered = sum(own[name].low <= true[name] <= own[name].high for own in found)
        assert 0.93 * 500 <= covered <= 0.97 * 500, (name, covered)


def test_scores_equal_their_definitions() -> None:
    """Means, shares and sizes of a few images, written out."""
    counts = random_counts(np.random.default_rng(3), 20, 3)
    truth, predicted, correct = (
        values.sum(axis=1).astype(float) for values in (counts.truth, counts.predicted, counts.correct)
    )
    union = truth + predicted - correct
    found = {name: score.value for name, score in means.mean_intervals(counts).items()}
    assert found["mIoU"] == found["mIoU_present"] == pytest.approx(100 * (correct / union)[REGION].mean())
    assert found["boundary_mIoU"] == pytest.approx(100 * (correct / union)[1].mean())
    assert found["missed"] == pytest.approx(100 * ((truth - correct) / union)[REGION].mean())
    assert found["extra"] == pytest.approx(100 * ((predicted - correct) / union)[REGION].mean())
    assert found["mean_precision"] == pytest.approx(100 * (correct / predicted)[REGION].mean())
    pixels, right = counts.truth[REGION], counts.correct[REGION]
    objects = sorted(
        (pixels[row, label] / pixels[row].sum(), right[row, label] / pixels[row, label])
        for row, label in np.argwhere(pixels).tolist()
        if label
    )
    sizes = size_scores(counts)
    assert sum(score.objects for score in sizes.values()) == len(objects)
    assert sizes["small"].recall.value == pytest.approx(
        100 * np.mean([r for _, r in objects[: sizes["small"].objects]])
    )
    assert sizes["large"].recall.value == pytest.approx(
        100 * np.mean([r for _, r in objects[-sizes["large"].objects :]])
    )
    assert sizes["large"].largest == pytest.approx(100 * objects[-1][0])


def test_a_rare_label_does_not_fall_to_0_in_draws_without_it() -> None:
    counts = random_counts(np.random.default_rng(1), 60)
    for values in (counts.truth, counts.predicted, counts.correct):
        values[:, :, 1] = 0
        values[:, 5, 1] = 100
    assert means.mean_intervals(counts)["mIoU_present"].low > 40  # counted as 0, it would be about 27


def test_interval_is_of_the_draws() -> None:
    found = interval(5.0, np.append(np.arange(1001.0), np.nan))
    assert found == (5.0, 25.0, 975.0)
    (weights,) = draws(7, 50)
    assert weights.shape == (50, 7) and (weights.sum(axis=1) == 7).all()
    assert np.array_equal(weights, next(draws(7, 50))) and not np.array_equal(weights, next(draws(7, 50, seed=1)))


MASKS = {"a": np.array([[0, 0, 1, 1], [0, 255, 1, 1]], np.uint8), "b": np.array([[0, 2, 2]], np.uint8)}
SEEDS = {
    "a": {0: np.array([[0.1, 0.3, 0.5, 0.9], [0.4, 0.9, 0.4, 0.6]], np.float32)},
    "b": {1: np.array([[0.2, 0.8, 0.3]], np.float32)},
}
COMMAND = ["--name", "x", "--gt_dir", "gt", "--list", "list.txt", "data.classes=classes.txt", "--dict_dir", "dict"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return evaluation_script()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with masks of two images, lists, classes (one never occurs), and seeds of a run ``x``."""
    monkeypatch.chdir(tmp_path)
    for name, mask in MASKS.items():
        write_mask(f"gt/{name}.png", mask)
        write_seed("experiment/x/dict", name, SEEDS[name])
    Path("list.txt").write_text("a\nb\n")
    Path("b.txt").write_text("b\n")
    Path("classes.txt").write_text("cat\ndog\nhen, red\n")
    return tmp_path


def test_card_of_an_evaluation(script: ModuleType, folder: Path, capsys: pytest.CaptureFixture) -> None:
    script.main([*COMMAND, "--card", "--num_workers", "1"])
    card, result = (
        read_card(Path("experiment/x"), "eval_cam"),
        json.loads(Path("experiment/x/eval_cam.json").read_text()),
    )
    assert card["labels"] == ["background", "cat", "dog", "hen, red"] and card["main"] == "best"
    for name in ("best", "fixed"):
        point = card["points"][name]
        assert point["absent"] == result[name]["absent"] == ["hen, red"]
        assert point["means"]["mIoU"]["value"] == pytest.approx(result[name]["mIoU"])
        assert point["means"]["mIoU_present"]["value"] == pytest.approx(result[name]["mIoU_present"])
        assert result[name]["mIoU_present"] == pytest.approx(result[name]["mIoU"] * 4 / 3)
        assert point["classes"]["cat"]["IoU"]["value"] == pytest.approx(result[name]["classes"]["cat"]["IoU"])
        assert point["classes"]["hen, red"]["IoU"] == {"value": None, "interval": [None, None]}
        assert read_counts(Path("experiment/x"), "eval_cam", name).correct[REGION].sum() == np.trace(point["confusion"])
    rows = Path("experiment/x/eval_cam_per_image.csv").read_text().splitlines()
    assert rows[0] == ",".join(COLUMNS) and "fixed,a,1,cat,4,3,3,4,3,3,75.0000,25.0000,0.0000" in rows
    assert card["oracle"]["classes"]["cat"] == {"threshold": 0.3, "IoU": pytest.approx(80)}
    assert all(Path(f"experiment/x/eval_cam_{name}.png").is_file() for name in ("confusion", "classes"))
    shown = capsys.readouterr().out
    assert "mIoU: hen, red. Over the labels that are present it is 72.22" in shown
    assert "\n".join(card_lines(card)) in shown

    script.main([*COMMAND, "--num_workers", "1"])  # without: the card of an earlier evaluation goes
    assert not list(Path("experiment/x").glob("*card*")) and not list(Path("experiment/x").glob("*per_image*"))
    assert "evaluation card" not in capsys.readouterr().out


def test_two_processes_write_the_card_of_one(script: ModuleType, folder: Path) -> None:
    """Every file but the pictures, byte by byte."""
    line = [*COMMAND, "--card", "--num_workers", "1", "--out"]
    script.main([*line, "one"])
    run_together(lambda: script.main([*line, "two"]))
    for end in (".json", ".csv", "_card.json", "_per_image.csv"):
        first, second = (Path(f"experiment/x/{stem}{end}").read_bytes() for stem in ("one", "two"))
        assert first == second and len(first) > 100


def test_threshold_of_another_list(script: ModuleType, folder: Path) -> None:
    script.main([*COMMAND, "--tune_on", "b.txt", "--card", "--num_workers", "1"])
    result = json.loads(Path("experiment/x/eval_cam.json").read_text())
    assert result["tuned"]["threshold"] == 0.2 and result["tuned"]["tuned_on"] == "b.txt"
    assert result["tuned"]["class_thresholds"] == {"background": 0.2, "dog": 0.2}
    assert read_card(Path("experiment/x"), "eval_cam")["main"] == "tuned"
    with pytest.raises(UserError, match="has none"):
        script.main([*COMMAND, "--task", "png", "--tune_on", "b.txt"])


DAMAGES = {
    "best,a,1,cat,4": [("best,a,1,cat,5", "different evaluations"), ("best,a,1,cat,x", "no table of a card"),
                       ("best,a,1,dog,4", "not of the evaluation's classes"), ("best,a,1,cat,1", "contradict"),
                       (f"best,a,1,cat,{10**20}", "contradict")],
    "point,id": [("id,point", "columns")],
    "fixed,b": [("fixed", "fields")],
    "best,b,2": [("best,b,9", "not of the")],
    "best,a,1,cat": [("best,a,0,background", "repeats label 0")],
}  # fmt: skip


def test_damaged_cards_are_refused(script: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for picture in ("draw_confusion", "draw_classes"):
        monkeypatch.setattr(card_module, picture, lambda *arguments: None)  # they take most of the time
    script.main([*COMMAND, "--card", "--num_workers", "1"])
    run = Path("experiment/x")
    table, card = run / "eval_cam_per_image.csv", run / "eval_cam_card.json"
    whole = table.read_text()
    for old, changes in DAMAGES.items():
        assert old in whole
        for new, words in changes:
            table.write_text(whole.replace(old, new, 1))
            with pytest.raises(UserError, match=words):
                read_counts(run, "eval_cam")
    table.write_text(whole)
    with pytest.raises(UserError, match="no point 'tuned'; it has: best, fixed"):
        read_counts(run, "eval_cam", "tuned")
    table.unlink()
    with pytest.raises(UserError, match="with --card"):
        read_counts(run, "eval_cam")
    for content in ("[]", "{", '{"points": {}}', '{"points": {"best": {"means": {"mIoU": 3}}}, "labels": []}'):
        card.write_text(content)
        with pytest.raises(UserError, match=r"eval_cam_card\.json (is no|holds list)"):
            read_counts(run, "eval_cam")
    card.unlink()
    with pytest.raises(UserError, match="with --card"):
        read_counts(run, "eval_cam")
