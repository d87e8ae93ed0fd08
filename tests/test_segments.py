"""Segments: their formats, hostile files, and the vote over them against loops."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle_tools

from common.data.rle import region_pixels, run_lengths
from common.data.seed_labels import seed_labels
from common.data.segments import (
    SegmentFiles,
    Segments,
    read_segments,
    segments_of_entries,
    segments_of_labels,
    write_entries,
    write_labels,
)
from common.run.errors import UserError
from methods.segments.config import RULES, SegmentsSection, SlicConfig
from methods.segments.makers import label_map
from methods.segments.voting import segment_means, undecided, vote

SIZE = 9, 7
Case = tuple[dict[int, np.ndarray], list[np.ndarray], list[float]]


def code_of(mask: np.ndarray, packed: bool = True) -> dict:
    """Run lengths of a region as pycocotools writes them, packed or as numbers."""
    code = rle_tools.encode(np.asfortranarray(mask, dtype=np.uint8))
    if packed:
        return {"size": list(mask.shape), "counts": code["counts"].decode()}
    flat = np.concatenate([[0], mask.T.ravel(), [2]]).astype(int)
    edges = np.flatnonzero(np.diff(flat))
    return {"size": list(mask.shape), "counts": np.diff(edges, prepend=0).tolist() or [mask.size]}


def entries_of(masks: list[np.ndarray], scores: list[float]) -> list[dict]:
    return [{"segmentation": code_of(m), "predicted_iou": s} for m, s in zip(masks, scores, strict=True)]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A seed of some classes, overlapping regions with scores; some regions are empty, some pixels without one."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = draw(st.sampled_from([[], [2], [0, 3], [1, 4, 5]]))
    seed = {key: (rng.random(SIZE) * (rng.random(SIZE) < 0.7)).astype(np.float32) for key in classes}
    count = draw(st.integers(0, 6))
    masks = [rng.random(SIZE) < rng.choice([0.0, 0.1, 0.5, 1.0]) for _ in range(count)]
    return seed, masks, rng.choice([0.2, 0.9], count).tolist()


def owner_by_loops(masks: list[np.ndarray], scores: list[float], y: int, x: int) -> int | None:
    """The region in front: of the higher score, else the smaller, else the later."""
    covering = [i for i, mask in enumerate(masks) if mask[y, x]]
    return max(covering, key=lambda i: (scores[i], -masks[i].sum(), i), default=None)


def vote_by_loops(
    seed: dict, masks: list, scores: list, rule: str, threshold: float, min_cover: float
) -> tuple[dict, np.ndarray]:
    """The definition of the vote, pixel by pixel; and the undecided pixels."""
    labels = seed_labels(seed, threshold, SIZE)
    out = {key: values.copy() for key, values in seed.items()}
    is_undecided = np.zeros(SIZE, dtype=bool)
    for y, x in np.ndindex(SIZE):
        owner = owner_by_loops(masks, scores, y, x)
        if owner is None:
            continue
        pixels = [(int(i), int(j)) for i, j in np.argwhere(masks[owner])]
        shares = {label: sum(labels[p] == label for p in pixels) / len(pixels) for label in range(8)}
        is_undecided[y, x] = max(shares.values()) <= 0.5
        for key in seed:
            values = [float(seed[key][p]) for p in pixels]
            weights = [max(float(other[p]) for other in seed.values()) for p in pixels]
            total = sum(weights)
            weighted = sum(v * w for v, w in zip(values, weights, strict=True)) / total if total else 0.0
            value = {"mean": sum(values) / len(values), "max": max(values), "weighted": weighted}[rule]
            out[key][y, x] = value if shares[key + 1] >= min_cover else 0
    return out, is_undecided


@given(cases(), st.sampled_from(RULES), st.sampled_from([0.0, 0.3]), st.sampled_from([0.2, 0.5]))
@settings(max_examples=40, deadline=None)
def test_vote_equals_loops(case: Case, rule: str, min_cover: float, threshold: float) -> None:
    seed, masks, scores = case
    segments = segments_of_entries(entries_of(masks, scores), SIZE)
    expected, unsure = vote_by_loops(seed, masks, scores, rule, threshold, min_cover)
    found = vote(seed, segments, rule, threshold, min_cover)
    assert list(found) == list(expected)
    for key in found:
        assert found[key].dtype == np.float32
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-6, atol=0)
    assert np.array_equal(undecided(seed, segments, threshold), unsure)


@given(cases(), st.sampled_from(RULES))
@settings(max_examples=20, deadline=None)
def test_laws_of_the_vote(case: Case, rule: str) -> None:
    """Each pixel its own segment: identity, bit by bit. One segment: the image's mean. None: identity."""
    seed = case[0]
    pixels = segments_of_labels(np.arange(1, 64).reshape(SIZE))
    nothing = segments_of_labels(np.zeros(SIZE, dtype=np.uint8))
    for key, values in vote(seed, pixels, rule).items():
        assert np.array_equal(values, seed[key])
    for key, values in vote(seed, nothing, rule).items():
        assert np.array_equal(values, seed[key])
    for key, values in vote(seed, segments_of_labels(np.ones(SIZE, dtype=np.uint8)), "mean").items():
        np.testing.assert_array_equal(values, np.float32(seed[key].astype(np.float64).mean()))


def test_hidden_pixels_vote_as_well() -> None:
    """The large region keeps the mean over all of its pixels under the small one in front."""
    values = np.arange(63, dtype=np.float32).reshape(SIZE)
    large, small = np.ones(SIZE, dtype=bool), np.zeros(SIZE, dtype=bool)
    small[0, :2] = True
    found = segment_means(values, segments_of_entries(entries_of([small, large], [0.5, 0.5]), SIZE))
    assert found[0, 0] == 0.5 and found[5, 5] == 31
    found = segment_means(values, segments_of_entries(entries_of([small, large], [0.5, 0.6]), SIZE))
    assert (found == 31).all()


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_run_lengths_are_those_of_pycocotools(number: int, packed: bool) -> None:
    rng = np.random.default_rng(number)
    size = tuple(rng.integers(1, 30, 2).tolist())
    mask = rng.random(size) < rng.choice([0.0, 0.03, 0.5, 0.97, 1.0])
    lengths = run_lengths(code_of(mask, packed), size)
    found = np.zeros(mask.size, dtype=bool)
    found[region_pixels(lengths, size)] = True
    assert np.array_equal(found.reshape(size), mask)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=127), max_size=12))
@settings(max_examples=150, deadline=None)
def test_any_packed_text_is_read_or_refused(text: str) -> None:
    """What is read fills the image."""
    try:
        lengths = run_lengths({"size": list(SIZE), "counts": text}, SIZE)
    except ValueError:
        return
    assert lengths.sum() == 63 and lengths.min() >= 0


FULL = {"size": [9, 7], "counts": [0, 63]}


@pytest.mark.parametrize(("entry", "words"), [
    ("x", "no names and values"), ({}, "no run lengths"), ({"segmentation": [[1, 2, 3, 4, 5, 6]]}, "no run lengths"),
    ({"segmentation": {**FULL, "size": [7, 9]}}, r"size \[7, 9\], but the image is of \[9, 7\]"),
    ({"segmentation": {**FULL, "size": [9, 7, 1]}}, "of size"), ({"segmentation": {"counts": [63]}}, "of size None"),
    ({"segmentation": {**FULL, "counts": [0, 64]}}, "above the number of pixels"),
    ({"segmentation": {**FULL, "counts": [64, -1]}}, "below 0"),
    ({"segmentation": {**FULL, "counts": [10**30]}}, "neither a list of whole numbers"),
    ({"segmentation": {**FULL, "counts": [1.5, 61.5]}}, "neither a list of whole numbers"),
    ({"segmentation": {**FULL, "counts": [True, 62]}}, "neither a list"),
    ({"segmentation": {**FULL, "counts": None}}, "neither a list"),
    ({"segmentation": {**FULL, "counts": [1, 2]}}, "fill 3 pixels of 63"),
    ({"segmentation": {**FULL, "counts": "é"}}, "characters"), ({"segmentation": {**FULL, "counts": "P"}}, "cut short"),
    ({"segmentation": {**FULL, "counts": "PPPPPPPP0"}}, "too long"),
    ({"segmentation": {**FULL, "counts": ""}}, "fill 0 pixels"),
    ({"segmentation": FULL, "predicted_iou": float("nan")}, "score is nan"),
    ({"segmentation": FULL, "score": "high"}, "score is 'high'"),
])  # fmt: skip
def test_hostile_regions_get_one_line(entry: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"segmentation": FULL}, entry]))
    with pytest.raises(UserError, match=rf"a\.json cannot be used as segments: region 1: .*{words}") as error:
        read_segments(path, SIZE)
    assert "\n" not in str(error.value)


def test_many_large_regions_are_no_memory_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.segments.MOST_PIXELS", 100)
    with pytest.raises(UserError, match="more than 100 pixels together"):
        read_segments([{"segmentation": FULL}] * 2, SIZE)


def png(path: Path, array: np.ndarray, mode: str) -> None:
    Image.fromarray(array).convert(mode).save(path)


def npz(path: Path, **arrays: np.ndarray) -> None:
    np.savez(path, **arrays)


@pytest.mark.parametrize(("name", "make", "words"), [
    ("a.json", lambda p: p.write_text('{"x": [1]}'), "holds no list of regions"),
    ("a.json", lambda p: p.write_text("["), "is no JSON, or damaged"),
    ("a.json", lambda p: p.write_text("[" * 10**5), "is no JSON, or damaged"),
    ("a.png", lambda p: p.write_bytes(b"no image"), "damaged or no"),
    ("a.png", lambda p: png(p, np.zeros((*SIZE, 3), dtype=np.uint8), "RGB"), "mode RGB"),
    ("a.png", lambda p: png(p, np.zeros((7, 9), dtype=np.uint8), "L"), r"\(7, 9\) pixels"),
    ("a.npz", lambda p: p.write_bytes(b"no archive"), "damaged or no"),
    ("a.npz", lambda p: npz(p, other=np.zeros(SIZE)), "damaged or no"),
    ("a.npz", lambda p: npz(p, labels=np.zeros(SIZE)), "whole numbers are needed"),
    ("a.npz", lambda p: npz(p, labels=np.full(SIZE, -1)), "number -1"),
    ("a.npz", lambda p: npz(p, labels=np.zeros((3, 9, 7), dtype=int)), r"\(3, 9, 7\) pixels"),
    ("a.npz", lambda p: npz(p, labels=np.array({}, dtype=object)), "damaged or no such file"),
    ("a.npz", lambda p: npz(p, labels=np.zeros((20, 20), dtype=int)), r"\(20, 20\) pixels"),
])  # fmt: skip
def test_hostile_label_maps_get_one_line(name: str, make: object, words: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}.*{words}") as error:
        read_segments(tmp_path / name, SIZE)
    assert "\n" not in str(error.value)


def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    """Or all labels were before the cut: a PNG ends with bytes without content."""
    labels = np.arange(63).reshape(SIZE)
    write_labels(tmp_path / "a.npz", labels)
    png(tmp_path / "a.png", labels.astype(np.uint8), "L")
    refused = 0
    for name in ("a.npz", "a.png"):
        content = (tmp_path / name).read_bytes()
        for end in range(0, len(content), 9):
            (tmp_path / name).write_bytes(content[:end])
            try:
                assert same(read_segments(tmp_path / name, SIZE), segments_of_labels(labels))
            except UserError:
                refused += 1
    assert refused > 15


def same(first: Segments, second: Segments) -> bool:
    return np.array_equal(first.owners(), second.owners()) and np.array_equal(first.counts, second.counts)


def test_all_formats_give_the_same_segments(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2, 300, 0, 2, 2, 1, 300], 7).reshape(SIZE)
    regions = [labels == number for number in (1, 2, 300)]
    write_labels(tmp_path / "a.npz", labels)
    Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "b.png")
    write_entries(tmp_path / "c.json", regions, [0.1, 0.2, 0.3])
    content = json.loads((tmp_path / "c.json").read_text())
    (tmp_path / "d.json").write_text(json.dumps({"image": {"file_name": "x"}, "annotations": content}))
    files = SegmentFiles(tmp_path, "folder")
    expected = segments_of_labels(labels)
    assert expected.counts.tolist() == [14, 21, 14] and (expected.owners() == -1).sum() == 14
    for image_id in "abcd":
        assert same(read_segments(files.find(image_id), SIZE), expected), image_id
    files.require("abcd", "all")
    with pytest.raises(UserError, match=r"1 of the 5 images of list 'all' have no segments in .*: e\. Make them with"):
        files.require(["a", "b", "c", "d", "e"], "all")
    with pytest.raises(UserError, match="no folder of segments"):
        SegmentFiles(tmp_path / "lost", "folder")


def test_one_json_for_all_images(tmp_path: Path) -> None:
    """COCO's results, and its instances, whose images may have no region."""
    regions = [{"image_id": 7, "segmentation": FULL, "score": 0.5, "category_id": 3}]
    path = tmp_path / "results.json"
    for content in (regions, {"images": [{"id": 7}, {"id": 9}], "annotations": regions}):
        path.write_text(json.dumps(content))
        files = SegmentFiles(path, "coco14")
        assert read_segments(files.find("000000000007"), SIZE).counts.tolist() == [63]
        assert files.find("000000000008") is None
    assert not len(read_segments(files.find("000000000009"), SIZE).counts)
    for content in ([{"segmentation": FULL}], {"images": 3}, [3], [{"image_id": "../x", "segmentation": FULL}]):
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"results\.json holds no .*regions|results\.json holds no regions"):
            SegmentFiles(path, "coco14")


@pytest.mark.parametrize("segmenter", ["meanshift", "slic", "felzenszwalb"])
def test_makers_separate_two_colours(segmenter: str) -> None:
    """No segment lies on both sides of a sharp edge, and all but small remains are covered."""
    image = np.full((40, 50, 3), 30, dtype=np.uint8)
    image[:, 25:] = (200, 180, 90)
    labels = label_map(image, SegmentsSection(segmenter=segmenter, slic=SlicConfig(count=8)))
    assert labels.shape == (40, 50) and labels.dtype.kind in "ui" and labels.min() >= 0
    left, right = ({*np.unique(part)} - {0} for part in (labels[:, :24], labels[:, 26:]))
    assert left and right and not left & right
    assert (labels == 0).mean() < 0.1
