"""The pairs of method and backbone of timm that `test_backbones` leaves out: a training step, bitwise resume, seeds."""

from pathlib import Path

import pytest

from tests.helpers import Scripts
from tests.test_backbones import METHODS, PAIRS, VARIANTS, trained_and_resumed

OTHERS = [
    (method, variant)
    for method in METHODS
    for variant in VARIANTS
    if method != "crt" and (method, variant) not in PAIRS
]
SIZES = "patch_size=16", "depth=3", "embed_dim=32", "num_heads=2", "drop_path=0"


@pytest.mark.parametrize(("method", "variant"), OTHERS)
def test_a_step_a_resumed_step_and_seeds(
    method: str, variant: str, experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scripts = Scripts(monkeypatch, experiments / f"{method}.yaml", method)
    network, _ = trained_and_resumed(scripts, method, variant, SIZES)
    scripts.infer("whole", "--dict", "infer.eval_list=", *network)
    assert any(Path("experiment/whole/dict").glob("*.npy"))
