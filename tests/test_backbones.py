"""Methods with backbones of timm, tiny and random: training, bitwise resume, two processes, seeds, evaluation."""

from pathlib import Path

import pytest

from tests.helpers import Scripts, assert_close, assert_same, evaluation_script, last

VARIANTS = {
    "dinov2 with registers": "timm:vit_small_patch14_reg4_dinov2",
    "dinov3": "timm:vit_small_patch16_dinov3",
    "clip": "timm:vit_base_patch16_clip_224",
}
SIZES = "patch_size=8", "depth=4", "embed_dim=32", "num_heads=2", "drop_path=0"
METHODS = {  # settings, section of the backbone
    "cti": (("train.batch_size=8", "optim.eps=1e-3"), "model"),
    "pcss": (("train.batch_size=12", "runtime.seed=91", "optim.eps=1e-3", "optim.layer_decay=0.9"), "model"),
    "dig": (
        ("train.batch_size=8", "loss.weights=[1, 0, 0, 1, 10]", "loss.cam_start_epoch=0", "optim.eps=1e-3"),
        "model",
    ),
    "toco": (("labels.high=0.6", "labels.low=0.4", "optim.eps=1e-3", "optim.layer_decay=0.9"), "model"),
    "crt": (("train.batch_size=8", "loss.consistency_from=0"), "model.deit"),
}
PAIRS = (  # all fifteen have passed once; these are quick enough for every day
    ("cti", "dinov2 with registers"), ("pcss", "dinov3"), ("dig", "clip"), ("toco", "dinov2 with registers"),
    ("crt", "dinov3"),
)  # fmt: skip


def trained_and_resumed(
    scripts: Scripts, method: str, variant: str, sizes: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Trains the runs ``whole`` and ``parts``, the same two steps at once and one by one; the settings of network and
    training.
    """
    settings, section = METHODS[method]
    network = f"{section}.arch={VARIANTS[variant]}", *(f"{section}.{size}" for size in sizes)
    training = *network, *settings, "train.validate_from=-1" if method != "toco" else "train.eval_steps=0"
    assert scripts.train("whole", *training, "train.max_steps=2") == 0
    assert scripts.train("parts", *training, "train.max_steps=1") == 0
    assert scripts.train("parts", "--resume", "train.max_steps=2") == 0
    for part in ("model", "optimizer", "position"):
        assert_same(last("parts")[part], last("whole")[part])
    return network, training


@pytest.mark.parametrize(("method", "variant"), PAIRS)
def test_a_method_on_a_backbone(
    method: str, variant: str, experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps equal one and a resumed one, bitwise, and two processes; seeds of any size are written and scored."""
    monkeypatch.chdir(tmp_path)
    scripts = Scripts(monkeypatch, experiments / f"{method}.yaml", method)
    network, training = trained_and_resumed(scripts, method, variant, SIZES)
    scripts.together(scripts.train, "two", *training, "train.max_steps=2")
    assert_close(last("two"), last("whole"), (1e-4, 5e-5))
    scripts.infer("whole", "--dict", *network)
    assert any(Path("experiment/whole/dict").glob("*.npy"))
    evaluation_script().main(["--name", "whole", "--dict_dir", "dict", "--list", "val"])
    assert list(Path("experiment/whole").glob("eval*"))
