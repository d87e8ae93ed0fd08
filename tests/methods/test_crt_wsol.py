"""CRT's localisation: the schedule of the consistency loss, both optimisers, the CAMs that boxes are made of."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.data.transforms import eval_transform, normalised
from common.nets.options import ResNetConfig, ViTConfig
from common.run.config import config_path, load_config
from common.run.errors import UserError
from common.run.random import draws_from
from common.train.course import Position
from common.train.optim import set_lr
from methods.crt.wsol_config import WSOLConfig, WSOLLossConfig, WSOLModelConfig, WSOLViewConfig
from methods.crt.wsol_losses import WSOLStep, map_distance
from methods.crt.wsol_model import WSOL, class_cams
from methods.crt.wsol_optim import WSOLOptimConfig, wsol_optimizer
from methods.crt.wsol_views import WSOLViews

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = WSOLModelConfig(
    ResNetConfig("resnet18", blocks=[1, 1, 1, 1]),
    ViTConfig(img_size=48, patch_size=16, embed_dim=16, depth=2, num_heads=2, drop_path=0.0),
)


@pytest.fixture
def model() -> WSOL:
    """Tiny networks of seven classes with random weights; maps of 3 x 3 cells."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return WSOL(TINY, 7)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Five images and their one-hot labels."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.tensor([2, 0, 6, 2, 5])
    return torch.randn(5, 3, 48, 48, generator=generator), F.one_hot(targets, 7).float()


def test_the_consistency_loss_is_on_in_every_other_five_epochs() -> None:
    """Counted from 1: off 1-4, on 5-9, off 10-14, on 15-19, ... (reference: e div 5 is odd)."""
    config = WSOLLossConfig()
    on = [epoch for epoch in range(1, 61) if config.consistency_in(epoch - 1)]
    assert on == [*range(5, 10), *range(15, 20), *range(25, 30), *range(35, 40), *range(45, 50), *range(55, 60)]
    assert {config.consistency_in(epoch) for epoch in range(60)} == {0.0, 1.0}
    other = WSOLLossConfig(consistency=0.5, period=2)
    assert [other.consistency_in(epoch) for epoch in range(6)] == [0, 0.5, 0.5, 0, 0, 0.5]


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_what_a_step_minimises(model: WSOL, batch: tuple[Tensor, Tensor], weight: float) -> None:
    """Both cross-entropies of spatial means, and the mean distance of the maps where it is on, into both networks."""
    images, labels = batch
    terms = WSOLStep(model)(images, labels, weight, len(images))
    cnn, deit = model(images)
    assert cnn.shape == deit.shape == (5, 7, 3, 3)
    targets, distance = labels.argmax(1), (deit - cnn).abs().mean()
    expected = F.cross_entropy(cnn.mean((2, 3)), targets) + F.cross_entropy(deit.mean((2, 3)), targets)
    torch.testing.assert_close(terms["total"], expected + weight * distance)
    torch.testing.assert_close(terms["consistency"], distance)  # logged in all epochs
    assert terms["consistency"].requires_grad == (weight > 0)
    grads = torch.autograd.grad(terms["total"], (model.cnn.classifier.weight, model.deit.head.weight))
    wanted = torch.autograd.grad(expected + weight * distance, (model.cnn.classifier.weight, model.deit.head.weight))
    torch.testing.assert_close(grads, wanted)


def test_parts_of_any_size_make_the_mean_of_the_whole(model: WSOL, batch: tuple[Tensor, Tensor]) -> None:
    """As the last batch of an epoch is cut for several processes and micro-batches."""
    images, labels = batch
    step = WSOLStep(model)
    whole = step(images, labels, 1.0, 5)
    parts = [step(images[part], labels[part], 1.0, 5 / 3) for part in (slice(0, 1), slice(1, 3), slice(3, 5))]
    for name in ("total", "cls_cnn", "cls_deit", "consistency"):
        torch.testing.assert_close(torch.stack([part[name] for part in parts]).mean(), whole[name])


def test_maps_of_other_grids_are_compared_on_the_deits() -> None:
    """A constant difference is kept whatever the grids; equal grids are compared as they are."""
    deit = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(map_distance(deit + 0.25, deit), torch.full((2,), 0.25))
    torch.testing.assert_close(
        map_distance(torch.ones(2, 3, 4, 4), torch.full((2, 3, 8, 8), 3.0)), torch.full((2,), 2.0)
    )


def test_cams_are_maps_times_the_class_tokens_attention(model: WSOL, batch: tuple[Tensor, Tensor]) -> None:
    """Recomputed block by block with the attention written out; the logits stay those of the plain maps."""
    deit, images = model.deit.eval(), batch[0]
    logits, cams = class_cams(deit, images)
    with torch.no_grad():
        tokens, rows = deit.embed(images), 0
        for block in deit.blocks:
            attention = block.attn
            q, k, _ = attention.qkv(block.norm1(tokens)).reshape(5, 10, 3, 2, 8).permute(2, 0, 3, 1, 4)  # B h T d
            rows = rows + (q[:, :, :1] @ k.transpose(-2, -1) / 8**0.5).softmax(-1).mean(1)[:, 0, 1:]
            tokens, _ = block(tokens)
        maps = deit(images)
        expected = (maps * rows.view(5, 1, 3, 3)).relu()
    torch.testing.assert_close(cams, expected)
    torch.testing.assert_close(logits, maps.mean((2, 3)))
    assert (cams > 0).any() and (cams == 0).any()


def test_the_deits_rate_falls_and_the_cnns_does_not(model: WSOL) -> None:
    """Counted from 1, in epochs 30 and 60; a step of either is that of an optimiser of its own."""
    config = WSOLOptimConfig()
    rates = [config.rate(Position(epoch=epoch), 60) for epoch in range(60)]
    assert rates == pytest.approx([5e-5] * 29 + [5e-6] * 30 + [5e-7])
    optimizer = wsol_optimizer(model, config)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    set_lr(optimizer, rates[40])
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == [5e-6, 5e-6, 0.005, 0.05]
    for name, parameter in model.named_parameters():
        old = before[name]
        if not parameter.requires_grad:
            assert torch.equal(parameter, old) and name.startswith("cnn.backbone."), name
            continue
        if name.startswith("deit."):
            decay = 0.05 if old.ndim > 1 and name not in ("deit.cls_token", "deit.pos_embed") else 0
            expected = old * (1 - 5e-6 * decay) - 5e-6
        else:
            expected = old - (0.05 if "classifier" in name else 0.005) * (1 + 1e-4 * old)
        torch.testing.assert_close(parameter, expected, msg=name)
    frozen = {name.split(".")[2] for name, value in model.named_parameters() if not value.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1", "layer2"}


def test_both_optimisers_states_are_put_back(model: WSOL) -> None:
    """Adam's means with them; a rate of the configuration is stronger than the saved one."""
    optimizer = wsol_optimizer(model, WSOLOptimConfig())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters() if parameter.requires_grad)
    other = wsol_optimizer(model, WSOLOptimConfig(cnn_lr=0.1))
    other.load_state_dict(optimizer.state_dict())
    first, second = (each.scheduled.state_dict()["state"] for each in (optimizer, other))
    assert first.keys() == second.keys() and all(torch.equal(first[k]["exp_avg"], second[k]["exp_avg"]) for k in first)
    other.step()
    assert [group["lr"] for group in other.constant.param_groups] == [0.1, 1.0]


def test_overflowing_gradients_leave_both_networks_alone(model: WSOL) -> None:
    """The loss scaling of fp16 sees the gradients of both."""
    optimizer = wsol_optimizer(model, WSOLOptimConfig())
    before = {name: value.clone() for name, value in model.named_parameters()}
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(model.deit.head.bias.sum() + model.cnn.classifier.weight.sum() * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_training_views() -> None:
    """A crop of the image brought to a square, maybe mirrored; drawn anew each time."""
    image = Image.linear_gradient("L").resize((40, 60)).rotate(30).convert("RGB")
    views = WSOLViews(WSOLViewConfig(24), 16)
    square = eval_transform(image.resize((24, 24), Image.Resampling.BILINEAR))
    crops = [square[:, y : y + 16, x : x + 16] for y in range(9) for x in range(9)]
    seen = set()
    for seed in range(20):
        with draws_from(seed):
            (view,) = map(normalised, views(image))
        matches = [
            (number, mirrored)
            for number, crop in enumerate(crops)
            for mirrored in (False, True)
            if torch.allclose(view, crop.flip(-1) if mirrored else crop, atol=1e-6)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 15 and {mirrored for _, mirrored in seen} == {False, True}


def test_the_papers_settings() -> None:
    """What the published configuration says, and crops that do not fit."""
    config = load_config(WSOLConfig, config_path("crt_cub"))
    config.check()
    assert (config.model.deit.arch, config.model.deit.img_size, config.model.deit.drop_path) == (
        "deit_small_patch16_224", 224, 0.1,
    )  # fmt: skip
    assert (config.model.cnn.arch, config.views.resize, config.eval.cam_threshold) == ("resnet50", 256, 0.1)
    assert (config.train.epochs, config.train.batch_size, config.train.drop_last) == (60, 64, False)
    assert all(config.train.validates(epoch) for epoch in range(60)) and config.train.val_list == "test"
    assert (config.optim.lr, config.optim.decay, config.optim.decay_epochs) == (5e-5, 0.1, 30)
    assert (config.optim.cnn_lr, config.optim.cnn_head_scale, config.optim.cnn_weight_decay) == (0.005, 10, 1e-4)
    assert (config.optim.weight_decay, config.optim.betas, config.optim.eps) == (0.05, [0.9, 0.999], 1e-8)
    assert (config.loss.consistency, config.loss.period, config.runtime.seed) == (1.0, 5, 26)
    config.views.resize = 200
    with pytest.raises(UserError, match=r"views\.resize=200 leaves no room for a crop of model\.deit\.img_size=224"):
        config.check()
