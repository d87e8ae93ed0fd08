"""Laws of DiG's network, LFCA and configuration. (Numbers are compared in tests/golden.)"""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.nets.load import load_checked
from common.nets.options import ViTConfig
from common.run.config import load_config
from common.run.errors import UserError
from methods.dig.config import DiGConfig, UNetConfig
from methods.dig.guide import feature_shape
from methods.dig.lfca import DROP_PATH, LFCA, FeatureBlock, FeatureShape, convolved_inputs
from methods.dig.model import DiG, without_lfca

VIT = ViTConfig(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, drop_path=0.0)
CLASSES, FEATURES = 3, FeatureShape(2, 16)
pytestmark = pytest.mark.usefixtures("one_thread")


def normal(*shape: int, seed: int = 1) -> Tensor:
    """Seeded normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model() -> DiG:
    """A seeded network."""
    torch.manual_seed(0)
    return DiG(VIT, CLASSES, FEATURES).eval()


def lfca_shapes() -> dict[str, tuple[int, ...]]:
    """One LFCA of the released checkpoint."""
    shapes = {
        "diff_init.convbnrelu1.0.weight": (1024, 5120, 3, 3), "diff_init.convbn2.0.weight": (1024, 1024, 3, 3),
        "diff_init.branch.weight": (1024, 5120, 1, 1),
    }  # fmt: skip
    norms = {
        "diff_init.convbnrelu1.1": 1024,
        "diff_init.convbn2.1": 1024,
        "norm_k": 384,
        "norm_c1": 384,
        "norm_v": 1024,
    }
    for name, width in {**norms, "norm_p1": 1024}.items():
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    layers = {
        "query": (384, 384), "key": (384, 1024, 1, 1), "value": (1024, 1024, 3, 3), "mlp_c0": (384, 1024),
        "mlp_p0": (1024, 1024, 3, 3), "mlp_c1.0": (1536, 384), "mlp_c1.2": (384, 1536), "mlp_p1.0": (4096, 1024, 1, 1),
        "mlp_p1.2": (1024, 4096, 1, 1),
    }  # fmt: skip
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


@pytest.mark.parametrize("classes", [20, 80])
def test_names_and_shapes_of_the_released_checkpoint(classes: int) -> None:
    """Of what DiG adds to a DeiT, and the number of values."""
    with torch.device("meta"):
        state = DiG(ViTConfig(), classes).state_dict()
    found = {name: tuple(value.shape) for name, value in state.items() if not name.startswith(("blocks.", "patch_"))}
    expected = {
        "cls_token": (1, classes, 384), "pos_embed": (1, classes + 196, 384), "norm.weight": (384,),
        "norm.bias": (384,), "head.weight": (classes, 384, 3, 3), "head.bias": (classes,),
        **{f"LFCA{number}.{name}": shape for number in range(2) for name, shape in lfca_shapes().items()},
        "diff_head_p.0.weight": (1024, 1024, 3, 3), "diff_head_p.0.bias": (1024,),
        "diff_head_p.2.weight": (classes, 1024, 1, 1), "diff_head_p.2.bias": (classes,),
    }  # fmt: skip
    assert found == expected
    per_class = 2 * 384 + 9 * 384 + 1 + 1024 + 1
    assert sum(value.numel() for value in state.values()) == 213_733_032 + (classes - 20) * per_class


def test_epsilons_and_stochastic_depth(model: DiG) -> None:
    """The golden numbers do not see them."""
    for lfca in (model.LFCA0, model.LFCA1):
        assert lfca.drop_path.drop_prob == DROP_PATH == 0.1
        assert lfca.diff_init.convbnrelu1[1].eps == lfca.diff_init.convbn2[1].eps == 1e-5
        assert lfca.norm_k.eps == lfca.norm_v.eps == lfca.norm_c1.eps == lfca.norm_p1.eps == 1e-6
        assert all(norm.num_groups == 1 for norm in lfca.modules() if isinstance(norm, nn.GroupNorm))


def test_initialisation() -> None:
    """Kaiming for LFCA's convolutions, Xavier for key and value, 0.02 for linear layers and the patch MLP."""
    torch.manual_seed(0)
    lfca, fan = LFCA(64, FeatureShape(2, 64)), {}
    fan["diff_init.convbnrelu1.0"], fan["diff_init.convbn2.0"], fan["mlp_p0"] = 128 * 9, 64 * 9, 64 * 9
    fan["diff_init.branch"] = 128
    expected = {name: math.sqrt(2 / entering) for name, entering in fan.items()}
    expected |= dict.fromkeys(("query", "mlp_c0", "mlp_c1.0", "mlp_c1.2", "mlp_p1.0", "mlp_p1.2"), 0.02)
    expected |= {"key": math.sqrt(2 / 128), "value": math.sqrt(2 / (2 * 64 * 9))}
    layers = {name: module for name, module in lfca.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert layers.keys() == expected.keys()
    for name, layer in layers.items():
        assert layer.weight.std().item() == pytest.approx(expected[name], rel=0.06), name
        assert layer.bias is None or not layer.bias.any()
    for name, limit in (("key", math.sqrt(6 / 128)), ("value", math.sqrt(6 / (2 * 64 * 9)))):
        assert layers[name].weight.abs().max() <= limit  # uniform


def test_stochastic_depth_drops_whole_samples() -> None:
    """In training two independent draws for the map; class tokens are never dropped."""
    torch.manual_seed(0)
    lfca = LFCA(32, FEATURES).train()
    kv, q = normal(1, 16, 4, 4).expand(256, -1, -1, -1), normal(1, 19, 32, seed=2).expand(256, -1, -1)
    with torch.no_grad():
        classes, maps = lfca(kv, q, CLASSES, (4, 4))
        _, whole = lfca.eval()(kv[:1], q[:1], CLASSES, (4, 4))
    assert (classes - classes[:1]).abs().max() < 1e-5
    groups = {round(float(row.sum()), 3) for row in maps}
    assert len(groups) == 4 and round(float(whole.sum()), 3) not in groups  # kept branches are scaled up


def test_both_lfca_share_their_input_convolutions() -> None:
    """One convolution of all kernels gives what each block's own gives, also to its gradients."""
    torch.manual_seed(0)
    blocks, x, results = [FeatureBlock(32, 16), FeatureBlock(32, 16)], normal(2, 32, 5, 4), []
    for joint in (False, True):
        for block in blocks:
            block.zero_grad(set_to_none=True)
        outputs = [block(*parts) for block, parts in zip(blocks, convolved_inputs(blocks, x, joint), strict=True)]
        sum(output.square().sum() for output in outputs).backward()
        results.append(outputs + [parameter.grad for block in blocks for parameter in block.parameters()])
    for separate, joint in zip(*results, strict=True):
        torch.testing.assert_close(separate, joint, rtol=1e-4, atol=1e-5)
    alone = blocks[0](blocks[0].convbnrelu1[0](x), blocks[0].branch(x))
    torch.testing.assert_close(results[0][0], alone)


def test_queries_are_those_of_the_block(model: DiG) -> None:
    """The q rows of its qkv, before the scale, without gradient; the last block's first."""
    seen, hooks = [], []
    for block in model.blocks:
        hooks.append(block.attn.qkv.register_forward_hook(lambda _module, _inputs, output: seen.append(output)))
    images = normal(3, 3, 32, 32)
    _, queries = model.training_pass(images, query_rows=2)
    for hook in hooks:
        hook.remove()
    assert len(queries) == 2 and not any(query.requires_grad for query in queries)
    for query, expected in zip(queries, (seen[-1], seen[-2]), strict=True):
        torch.testing.assert_close(query, expected[:2, :, :32])
    assert model.training_pass(images)[1] == []


def test_fusing_depends_on_all_of_its_inputs(model: DiG) -> None:
    """Class logits and maps of the right shape; maps of another size than the patches' are resized to."""
    queries = [normal(2, 19, 32, seed=seed) for seed in (2, 3)]
    fused = model.fuse(normal(2, 32, 4, 4), queries, (4, 4))
    assert fused.cls.shape == fused.pcls.shape == (2, CLASSES) and fused.cams.shape == (2, CLASSES, 4, 4)
    assert fused.cams.min() >= 0
    swapped = model.fuse(normal(2, 32, 4, 4), queries[::-1], (4, 4))
    assert not torch.allclose(fused.cls, swapped.cls)
    assert model.fuse(normal(2, 32, 6, 5), queries, (4, 4)).cams.shape == (2, CLASSES, 6, 5)


def test_min_max_k(model: DiG) -> None:
    """Three largest positive scores less three largest negative ones, for hand-made maps."""
    scores = torch.tensor([5.0, -1.0, 1.0, 3.0, -4.0, 0.0, 2.0, -2.0, -8.0]).view(1, 1, 3, 3)
    few = torch.tensor([6.0, -3.0, -1.0, -1.0]).view(1, 1, 2, 2)
    assert model.pool(scores).item() == pytest.approx((5 + 3 + 2) / 3 - (8 + 4 + 2) / 3)
    assert model.pool(few).item() == pytest.approx(6 / 3 - (3 + 1 + 1) / 3)
    assert model.pool(torch.tensor([4.0, -2.0]).view(1, 1, 1, 2)).item() == pytest.approx(4 / 2 - 2 / 2)
    torch.testing.assert_close(model.pool(-scores), -model.pool(scores))


def test_a_whole_checkpoint_loads_into_the_light_network(model: DiG) -> None:
    """It makes the same seeds; strict about the classifier, indifferent to LFCA."""
    light = DiG(VIT, CLASSES, None).eval()
    assert not any(name.startswith(("LFCA", "diff_head")) for name in light.state_dict())
    state = model.state_dict()
    assert not load_checked(light, without_lfca(state), "x").missing
    images = normal(1, 3, 40, 24)
    assert torch.equal(light.foreground_maps("rcams")(images).cams, model.foreground_maps("rcams")(images).cams)
    load_checked(light, without_lfca(light.state_dict()), "x")  # of a run without diffusion model
    with pytest.raises(UserError, match=r"missing \(head.bias\)"):
        load_checked(light, without_lfca({name: value for name, value in state.items() if name != "head.bias"}), "x")
    with pytest.raises(UserError, match=r"left over \(LFCA2.x\)"):
        load_checked(light, without_lfca({**state, "LFCA2.x": torch.zeros(1)}), "x")


@pytest.mark.parametrize(
    ("config", "features", "message"),
    [
        (replace(VIT, embed_dim=36), FEATURES, "36, model.embed_dim.*multiples of 8"),
        (VIT, FeatureShape(2, 20), "20, from unet.dim.*multiples of 8"),
        (replace(VIT, depth=1), FEATURES, "model.depth is 1"),
    ],
)
def test_networks_too_odd_for_lfca(config: ViTConfig, features: FeatureShape, message: str) -> None:
    """They are refused with the keys to change; without LFCA they are fine."""
    with pytest.raises(UserError, match=message):
        DiG(config, CLASSES, features)
    DiG(config, CLASSES, None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.weights=[1,1,1]", "5 numbers"), ("loss.weights=[1,1,1,-1,1]", "none below 0"),
        ("loss.temperature=0", "above 0"), ("loss.alpha=1.5", "from 0 to 1"),
        ("diffusion.feature_timesteps=[]", "one or more"), ("diffusion.feature_timesteps=[1000]", "0 to 999"),
        ("diffusion.denoise_timestep=-1", "0 to 999"), ("diffusion.max_rows=-1", "at least 0"),
    ],
)  # fmt: skip
def test_values_that_a_field_does_not_allow(override: str, message: str) -> None:
    """The key and what it must be are named."""
    with pytest.raises(UserError, match=f"{override.split('=')[0]} is .*{message}"):
        load_config(DiGConfig, None, [override])


def test_the_papers_settings() -> None:
    """What the two YAMLs say."""
    folder = Path(__file__).parents[2] / "configs"
    voc, coco = (load_config(DiGConfig, folder / f"{name}.yaml") for name in ("dig_eccv24", "dig_coco_eccv24"))
    for config in (voc, coco):
        assert config.loss.weights == [1, 1, 1, 1, 10] and config.loss.cam_start_epoch == 10
        assert config.diffusion.feature_timesteps == [0, 1, 2, 3, 4] and config.diffusion.denoise_timestep == 100
        assert config.views.scale == [0.3, 1.2] and config.train.epochs == 60 and not config.loss.merge_passes
        assert config.unet == UNetConfig() and feature_shape(config.diffusion, config.unet) == FeatureShape()
        assert config.runtime.precision == "fp32" and config.infer.seed_map == "rcams"
    assert (voc.train.batch_size, voc.loss.temperature, voc.loss.alpha, voc.views.auto_augment) == (32, 5, 0.2, "")
    assert (coco.train.batch_size, coco.loss.temperature, coco.loss.alpha) == (64, 10, 0.1)
    assert coco.views.auto_augment == "rand-m9-mstd0.5-inc1"
    assert [epoch for epoch in range(60) if voc.train.validates(epoch)] == list(range(9, 60))
    assert [epoch for epoch in range(60) if coco.train.validates(epoch)] == [3, *range(11, 60)]
