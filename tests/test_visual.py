"""Pictures say what they show."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.seed_labels import seed_labels
from common.score.counts import SweepCounts
from common.visual import (
    CAPTION_SIZE,
    ERRORS,
    MARGIN,
    PALETTE,
    cam_panels,
    contact_sheet,
    error_panel,
    heat_maps,
    overlay_cam,
    plot_curve,
    save_overlay,
)

CLASSES = ["cat", "dog"]
IMAGE = np.full((30, 40, 3), 128, np.uint8)
SEED = {0: np.tile(np.linspace(0, 1, 40, dtype=np.float32), (30, 1)), 1: np.full((30, 40), 0.5, np.float32)}


def test_overlay_goes_from_blue_to_red() -> None:
    shown = overlay_cam(IMAGE, SEED[0])
    assert shown.dtype == np.uint8 and shown.shape == IMAGE.shape
    left, right = shown[0, 0].astype(int), shown[0, -1].astype(int)
    assert left[2] > left[0] + 50 and right[0] > right[2] + 50
    assert (overlay_cam(IMAGE, SEED[0], opacity=0) == IMAGE).all()


def test_seed_labels_follow_the_evaluators_rules() -> None:
    labels = seed_labels(SEED, 0.5, (30, 40))
    assert set(np.unique(labels)) == {0, 1}  # class 1 is nowhere above 0.5
    tied = {0: SEED[1], 1: SEED[1]}
    assert (seed_labels(tied, 0.4, (30, 40)) == 1).all() and (seed_labels({}, 0.4, (30, 40)) == 0).all()
    counts = SweepCounts(3, [0.45])
    counts.add(SEED, np.zeros((30, 40), np.uint8))
    assert np.bincount(seed_labels(SEED, 0.45, (30, 40)).ravel()).tolist() == counts.predicted[0].tolist()


def test_panels_are_captioned_with_class_names() -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[0, 0], mask[1, 1] = 2, 255
    panels = cam_panels(IMAGE, SEED, CLASSES, 0.45, mask)
    captions = [caption for caption, _ in panels]
    assert captions == ["image", "true mask: dog", "seed at 0.45: cat, dog", "CAM: cat", "CAM: dog"]
    assert (panels[1][1][0, 0] == PALETTE[2]).all() and (panels[1][1][1, 1] == PALETTE[255]).all()
    assert [caption for caption, _ in cam_panels(IMAGE, {}, CLASSES, 0.4)] == ["image", "seed at 0.40: background"]


def test_contact_sheet_keeps_pixels_crisp(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    rows = [[("a caption that is much too long for so narrow a panel", picture), ("b", picture)], [("c", picture)]]
    contact_sheet(rows, tmp_path / "sheet.png", panel=80)
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.array(image)
    line = CAPTION_SIZE + MARGIN
    assert sheet.shape == (MARGIN + 2 * (60 + line + MARGIN), MARGIN + 2 * (80 + MARGIN), 3)
    enlarged = picture.repeat(2, axis=0).repeat(2, axis=1)
    top, left = MARGIN + line, MARGIN
    assert (sheet[top : top + 60, left : left + 80] == enlarged).all()
    assert sheet[MARGIN : MARGIN + line, left : left + 80].min() < 100  # there is a caption,
    assert (sheet[: MARGIN + line, left + 80 : left + 80 + MARGIN] == 255).all()  # cut to its panel
    assert (sheet[-60:, left + 80 + MARGIN :] == 255).all()  # the second row is shorter


def test_any_panel_is_filled(tmp_path: Path) -> None:
    contact_sheet([[("", np.zeros((30, 40, 3), np.uint8))]], tmp_path / "sheet.png", panel=100)
    with Image.open(tmp_path / "sheet.png") as image:
        dark = np.array(image)[..., 0] == 0
    assert (dark.any(axis=0).sum(), dark.any(axis=1).sum()) == (100, 75)


@pytest.mark.parametrize("shape", [(300, 20), (20, 300)])
def test_large_pictures_are_reduced(tmp_path: Path, shape: tuple[int, int]) -> None:
    seed = {1: np.zeros(shape, np.float32)}
    save_overlay(tmp_path / "vis" / "a.png", np.zeros((*shape, 3), np.uint8), seed, CLASSES, panel=90)
    with Image.open(tmp_path / "vis" / "a.png") as image:
        assert image.width == MARGIN + 2 * (90 + MARGIN) and image.height <= 90 + 2 * MARGIN + CAPTION_SIZE + MARGIN


def test_a_header_and_a_legend_stand_above_the_sheet(tmp_path: Path) -> None:
    """The panels move down by a line for each, and keep their pixels; a long line makes the sheet wider."""
    picture = np.full((30, 40, 3), 7, dtype=np.uint8)
    contact_sheet([[("a", picture)]], tmp_path / "plain.png", panel=80)
    legend = {"true box": (0, 200, 0), "box found": (230, 0, 0)}
    contact_sheet([[("a", picture)]], tmp_path / "sheet.png", panel=80, header=["run x, " * 30, "list"], legend=legend)
    with Image.open(tmp_path / "plain.png") as plain, Image.open(tmp_path / "sheet.png") as sheet:
        before, after = np.array(plain), np.array(sheet)
    moved = 3 * (CAPTION_SIZE + MARGIN)
    assert after.shape[0] == before.shape[0] + moved and after.shape[1] > 4 * before.shape[1]
    assert (after[moved + MARGIN :, : before.shape[1]] == before[MARGIN:]).all()
    above = after[:moved].reshape(-1, 3).tolist()
    assert [0, 200, 0] in above and [230, 0, 0] in above


def test_errors_are_told_apart() -> None:
    """Each pixel has the colour of its kind; ignored ones do not count."""
    labels, mask = np.array([[1, 0, 2, 2, 0, 1]]), np.array([[1, 1, 0, 1, 0, 255]], dtype=np.uint8)
    caption, picture = error_panel(labels, mask)
    kinds = "right class", "missed", "too much", "wrong class", "right background", "ignored"
    assert [tuple(pixel) for pixel in picture[0].tolist()] == [ERRORS[kind] for kind in kinds]
    assert caption == "errors: 60.0% of the pixels" and len(set(ERRORS.values())) == len(ERRORS)


def test_curve(tmp_path: Path) -> None:
    """With and without the scores of trivial predictions."""
    thresholds = np.arange(10) / 10
    marks = {"best: 45.00 at 0.90": (0.9, 45.0)}
    plot_curve(tmp_path / "curve.png", thresholds, thresholds * 50, marks, "title")
    bounds = {"all background: 10.66": 10.66}
    plot_curve(tmp_path / "bounds.png", thresholds, thresholds * 50, marks, "title", bounds)
    pixels = []
    for name in ("curve", "bounds"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.format == "PNG" and image.width > 500
            pixels.append(np.array(image.convert("RGB")))
    grey = [(np.abs(shown.astype(int) - 128).max(axis=2) < 6).sum() for shown in pixels]  # a dashed level line
    assert grey[1] > grey[0] + 30


@pytest.mark.parametrize("count", [1, 10, 23])
def test_heat_maps(tmp_path: Path, count: int) -> None:
    """Each map is there with its own values; ten stand in a row."""
    maps = np.zeros((count, 16, 16), np.float32)
    maps[-1] = 1
    names = [f"class {number}" for number in range(count)]
    heat_maps(tmp_path / "new" / "maps.png", maps, names, "frequency importance after epoch 2")
    with Image.open(tmp_path / "new" / "maps.png") as image:
        assert image.format == "PNG"
        pixels = np.array(image.convert("RGB"))
    rows, columns = -(-count // 10), min(count, 10)
    height, width = pixels.shape[:2]
    assert width > 130 * columns and 100 * rows < height < 250 * rows + 100
    dark, bright = ((pixels == colour).all(-1).sum() for colour in ((68, 1, 84), (253, 231, 36)))  # viridis' ends
    assert bright > 40**2 and dark >= 40**2 * (count - 1)


def test_the_title_over_one_heat_map_is_whole(tmp_path: Path) -> None:
    """Nothing of it is cut off at the sides."""
    heat_maps(tmp_path / "maps.png", np.zeros((1, 16, 16), np.float32), ["cat"], "frequency importance after epoch 2")
    with Image.open(tmp_path / "maps.png") as image:
        strip = np.array(image.convert("L"))[:20]
    assert strip.min() < 100 and strip[:, [0, -1]].min() == 255
