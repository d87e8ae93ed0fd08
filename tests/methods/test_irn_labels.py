"""IRN's labels: two cuts of a seed, a CRF that starts from labels, and what becomes of their agreement."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.crf.options import CRFConfig
from common.data.images import ImageFile
from common.data.masks import read_mask
from common.data.seeds import Seed, write_seed
from common.run.errors import UserError
from methods.irn import labels
from methods.irn.config import LabelConfig
from methods.irn.labels import cut, ir_label, label_crf, write_label
from methods.irn.scoring import label_scores

CONFIG = LabelConfig(fg_threshold=0.6, bg_threshold=0.2)


def row(*values: float) -> np.ndarray:
    """A map (1, W)."""
    return np.array([values], dtype=np.float32)


@pytest.fixture
def crfs(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The CRF gives back what it starts with; its probabilities are recorded."""
    calls: list[np.ndarray] = []

    def unchanged(image: np.ndarray, probabilities: np.ndarray, config: CRFConfig) -> np.ndarray:
        calls.append(probabilities)
        return probabilities

    monkeypatch.setattr(labels, "dense_crf", unchanged)
    return calls


def test_a_cut_takes_the_largest_map_above_the_threshold() -> None:
    """A tie with the threshold is background, one of two classes the first; without classes all is background."""
    maps = np.stack([row(0.5, 0.51, 0.9, 0.2), row(0.5, 0.2, 0.9, 0.8)])
    assert cut(maps, 0.5).tolist() == [[0, 1, 1, 2]] and cut(maps, 0.5).dtype == np.uint8
    assert cut(np.zeros((0, 2, 3), dtype=np.float32), 0.5).tolist() == [[0] * 3] * 2
    # Compared as float32, in which the reference has threshold and maps.
    assert cut(row(np.float32(0.35))[None], 0.35).tolist() == [[0]]


def test_a_pixel_is_labelled_where_both_cuts_agree(crfs: list[np.ndarray]) -> None:
    """Class by the strict cut, background by the loose one, ignored between; labels are class index + 1."""
    seed = {17: row(0.7, 0.3, 0.1, 0.1, 0.0), 4: row(0.1, 0.1, 0.1, 0.4, 0.9)}
    assert ir_label(np.zeros((1, 5, 3), np.uint8), seed, CONFIG).tolist() == [[18, 255, 0, 255, 5]]
    assert len(crfs) == 2


def test_what_the_crf_makes_background_is_ignored_where_it_was_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CRFs' results are compared, not the cuts; a class that only the strict one finds stays."""
    results = iter([row(0, 1, 1, 0), row(1, 1, 0, 0)])
    monkeypatch.setattr(labels, "label_crf", lambda *args: next(results).astype(np.uint8))
    seed = {2: row(0.3, 0.9, 0.9, 0.1)}
    assert ir_label(np.zeros((1, 4, 3), np.uint8), seed, CONFIG).tolist() == [[255, 3, 3, 0]]


def test_the_crf_starts_from_labels_with_a_certainty(crfs: list[np.ndarray]) -> None:
    """The others share the rest, whatever their number."""
    found = label_crf(np.zeros((1, 4, 3), np.uint8), row(0, 1, 2, 3), 4, LabelConfig(certainty=0.7))
    assert found.tolist() == [[0, 1, 2, 3]]
    assert np.allclose(crfs[0][:, 0], 0.6 * np.eye(4) + 0.1, atol=1e-7) and crfs[0].dtype == np.float32


def test_an_image_without_classes_is_background(crfs: list[np.ndarray]) -> None:
    """And equal cuts need one CRF only."""
    assert not ir_label(np.zeros((2, 3, 3), np.uint8), {}, CONFIG).any() and not crfs
    ir_label(np.zeros((1, 2, 3), np.uint8), {1: row(0.9, 0.1)}, CONFIG)
    assert len(crfs) == 1


def test_the_crf_follows_the_images_edges() -> None:
    """The whole of a dark square is labelled, which the seed covers in part; nothing beyond it."""
    image = np.full((24, 24, 3), 220, dtype=np.uint8)
    image[6:18, 6:18] = 30
    y, x = np.mgrid[:24, :24]
    seed = {3: np.exp(-((y - 10) ** 2 + (x - 10) ** 2) / 60).astype(np.float32)}
    found = ir_label(image, seed, LabelConfig(fg_threshold=0.4, bg_threshold=0.26))
    inside = image[..., 0] == 30
    assert (found[inside] == 4).mean() > 0.8 and not (found[~inside] == 4).any()
    assert (found[~inside] == 0).mean() > 0.9 and not (found[inside] == 0).any()


def write(folder: Path, seed: Seed, size: tuple[int, int] = (12, 16)) -> Path:
    """An image and a seed file; the label's path."""
    Image.fromarray(np.full((*size, 3), 99, dtype=np.uint8)).save(folder / "a.png")
    write_seed(folder / "dict", "a", seed)
    return folder / "labels" / "a.png"


def test_labels_are_written_as_masks(tmp_path: Path, crfs: list[np.ndarray]) -> None:
    """Read back like any mask, in VOC's colours."""
    path = write(tmp_path, {79: np.linspace(0, 1, 12 * 16, dtype=np.float32).reshape(12, 16)})
    write_label(ImageFile(tmp_path / "a.png"), tmp_path / "dict", "a", path, CONFIG)
    with Image.open(path) as image:
        assert image.mode == "P"
    assert set(np.unique(read_mask(path)).tolist()) == {0, 80, 255}


@pytest.mark.parametrize(("seed", "words"), [
    ({1: np.zeros((12, 15), np.float32)}, r"a\.npy holds maps of \(12, 15\), but the image is of \(12, 16\)"),
    ({254: np.zeros((12, 16), np.float32)}, "the seed of a .* has class 254"),
])  # fmt: skip
def test_seeds_that_do_not_fit_are_refused(tmp_path: Path, seed: Seed, words: str) -> None:
    """The file is named, and nothing is written."""
    path = write(tmp_path, seed)
    with pytest.raises(UserError, match=words):
        write_label(ImageFile(tmp_path / "a.png"), tmp_path / "dict", "a", path, CONFIG)
    assert not path.exists()


def test_the_score_of_labels() -> None:
    """How much is labelled, and how much of that is right; nothing labelled is no number."""
    confusion = np.array([[50, 5, 0, 20], [5, 30, 0, 10], [0, 10, 0, 70]])  # truth x (three labels, ignored)
    found = label_scores(confusion)
    assert found == pytest.approx({
        "coverage": 50.0, "accuracy": 80.0, "accuracy_background": 100 * 50 / 55, "accuracy_foreground": 100 * 30 / 45,
    })  # fmt: skip
    empty = label_scores(np.array([[0, 0, 7], [0, 0, 3]]))
    assert empty["coverage"] == 0 and np.isnan(empty["accuracy"]) and np.isnan(empty["accuracy_foreground"])
