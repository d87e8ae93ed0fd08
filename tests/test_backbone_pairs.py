"""The pairs of method and backbone of timm that `test_backbones` leaves out: a training step, bitwise resume, seeds."""

from pathlib import Path

import pytest

from tests.helpers import Scripts, assert_same, last
from tests.test_backbones import METHODS, PAIRS, VARIANTS

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
    settings, section = METHODS[method]
    network = f"{section}.arch={VARIANTS[variant]}", *(f"{section}.{size}" for size in SIZES)
    training = *network, *settings, "train.validate_from=-1" if method != "toco" else "train.eval_steps=0"
    assert scripts.train("whole", *training, "train.max_steps=2") == 0
    assert scripts.train("parts", *training, "train.max_steps=1") == 0
    assert scripts.train("parts", "--resume", "train.max_steps=2") == 0
    for part in ("model", "optimizer", "position"):
        assert_same(last("parts")[part], last("whole")[part])
    scripts.infer("whole", "--dict", "infer.eval_list=", *network)
    assert any(Path("experiment/whole/dict").glob("*.npy"))
