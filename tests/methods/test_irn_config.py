"""IRN's configurations: what is published, and what no single key can check."""

import pytest

from common.run.config import config_path, load_config
from common.run.errors import UserError
from common.train.schedule import poly
from methods.irn.config import IRNConfig


def shipped(name: str, *overrides: str) -> IRNConfig:
    """A configuration of ``configs/``."""
    return load_config(IRNConfig, config_path(name), overrides)


@pytest.mark.parametrize(("name", "thresholds"), [("irn_cti", (0.40, 0.26)), ("irn_crt", (0.35, 0.15))])
def test_the_published_settings(name: str, thresholds: tuple[float, float]) -> None:
    """Thresholds of the two papers; everything else is IRNet's."""
    config = shipped(name)
    assert (config.labels.fg_threshold, config.labels.bg_threshold) == thresholds
    crf = config.labels.crf
    assert (config.labels.certainty, crf.iterations) == (0.7, 10)
    assert (crf.gaussian_sxy, crf.gaussian_compat) == (3, 3)
    assert (crf.bilateral_sxy, crf.bilateral_srgb, crf.bilateral_compat) == (50, 5, 10)
    assert (config.views.crop_size, config.views.scale, config.loss.radius) == (512, [0.5, 1.5], 10)
    assert (config.model.arch, config.model.frozen, config.model.pretrained) == ("resnet50", 5, "auto")
    optim, train, walk = config.optim, config.train, config.walk
    assert (optim.lr, optim.displacement_scale, optim.momentum, optim.weight_decay) == (0.1, 10, 1e-4, 1e-4)
    assert (train.epochs, train.batch_size, train.image_list) == (3, 32, "train_aug")
    assert (train.displacement_list, train.displacement_drop_last) == ("train", True)
    assert (walk.radius, walk.beta, walk.log2_rounds, walk.background) == (5, 10, 8, 0.25)
    assert (config.infer.image_list, config.infer.eval_list, config.infer.canvas) == ("train_aug", "train", 512)
    assert train.length(10582 // train.batch_size) == 990
    assert optim.lr * poly(989, 990, optim.power) == pytest.approx(0.1 * (1 / 990) ** 0.9)


def test_pairs_need_room() -> None:
    """A crop must be wider than what the pairs' sources leave out."""
    for name in ("irn_cti", "irn_crt", "irn_demo"):
        shipped(name).check()
    shipped("irn_cti", "views.crop_size=76").check()
    with pytest.raises(UserError, match=r"crop_size=72 has 18 cells a side.*radius=10: more than 18"):
        shipped("irn_cti", "views.crop_size=72").check()
