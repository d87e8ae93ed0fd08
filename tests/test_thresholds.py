"""Seeds calibrated by a threshold for each class: the law, and every stage that reads seeds."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from common.data.images import ImageFile
from common.data.masks import read_mask
from common.data.seeds import read_seed, write_seed
from common.data.thresholds import calibrated, read_thresholds
from common.run.config import load_config
from methods.irn.config import IRNConfig
from methods.irn.labels import ir_label, write_label
from methods.irn.walk import read_grid_maps
from methods.psa.config import PSAConfig
from methods.psa.marginals import write_image_marginals
from methods.segments.jobs import Inputs
from tests.helpers import evaluation_script

UNIT = st.floats(0, 1, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(UNIT, min_size=1, max_size=20), UNIT, UNIT)
@example([0.0], 1e-45, 1.0)
def test_each_class_gets_the_common_threshold(values: list[float], own: float, other: float) -> None:
    """0 and 1 stay, the order stays, and a value is above the mean threshold where it was above its own."""
    seed = np.sort(np.array([[0, *values, 1]], dtype=np.float32))
    found = calibrated({3: seed, 5: seed}, {3: own, 4: other})
    level = np.float32((own + other) / 2)
    assert found[5] is seed and (np.diff(found[3]) >= -1e-6).all()
    assert found[3][0, 0] == 0 and (own == 1 or found[3][0, -1] == pytest.approx(1, abs=1e-6))
    clear = np.abs(seed - np.float32(own)) > 1e-4 * (1 + 1 / max(1 - level, 1e-3))
    if own != float(level):
        assert ((found[3] > level) == (seed > np.float32(own)))[clear].all()
    assert calibrated({3: seed}, {})[3] is seed


def test_every_stage_reads_calibrated_seeds(tmp_path: Path) -> None:
    """IRN's labels and walk, PSA's marginals, the vote: as of the calibrated seed in a file of its own."""
    rng = np.random.default_rng(0)
    size, thresholds = (8, 12), {0: 0.2, 1: 0.7}
    seed = {key: rng.random(size).astype(np.float32) for key in (0, 1)}
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    image = ImageFile(tmp_path / "a.png")
    write_seed(tmp_path / "plain", "a", seed)
    write_seed(tmp_path / "made", "a", calibrated(seed, thresholds))
    irn, psa = load_config(IRNConfig), load_config(PSAConfig)
    write_label(image, tmp_path / "plain", "a", tmp_path / "label.png", irn.labels, thresholds)
    expected = ir_label(np.array(Image.open(tmp_path / "a.png")), calibrated(seed, thresholds), irn.labels)
    assert (read_mask(tmp_path / "label.png") == expected).all()
    grids = [
        read_grid_maps(tmp_path / folder, "a", size, 2, own)[1] for folder, own in (("plain", thresholds), ("made", {}))
    ]
    assert grids[0].equal(grids[1])
    for folder, own in (("plain", thresholds), ("made", {})):
        write_image_marginals(image, "a", tmp_path / folder, tmp_path / f"crf_{folder}", psa.crf, own)
    alpha = f"{psa.crf.alphas()[0]:02d}"
    found = [read_seed(tmp_path / f"crf_{folder}" / alpha / "a.npy") for folder in ("plain", "made")]
    assert all((found[0][key] == found[1][key]).all() for key in found[0])
    voted = [
        Inputs("a", image, tmp_path / folder, None, 2, own).read().seed
        for folder, own in (("plain", thresholds), ("made", {}))
    ]
    assert all((voted[0][key] == voted[1][key]).all() for key in seed)


def test_an_evaluation_writes_the_tuned_thresholds(
    shapes: Path, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --tune_on; without it the next evaluation deletes them."""
    monkeypatch.chdir(tmp_path)
    Path("experiment/x").mkdir(parents=True)
    Path("experiment/x/dict").symlink_to(seeds)
    Path("data.yaml").write_text(f"data: {{root: {shapes}, classes: {shapes}/classes.txt}}")
    line = ["--name", "x", "--dict_dir", "dict", "--data", "data.yaml", "--list", "train", "--num_workers", "1"]
    evaluation_script().main([*line, "--tune_on", "val"])
    path = Path("experiment/x/eval_cam_thresholds.json")
    names = (shapes / "classes.txt").read_text().split()
    tuned = json.loads(Path("experiment/x/eval_cam.json").read_text())["tuned"]["class_thresholds"]
    assert read_thresholds(path, names) == {names.index(name): tuned[name] for name in names if name in tuned}
    evaluation_script().main(line)
    assert not path.exists()
