"""Laws of DiG's diffusion model and its average. (Its numbers are compared in tests/golden.)"""

import pytest
import torch
from torch import Tensor, nn

from common.data.transforms import MEAN, STD
from common.run.config import load_config
from common.run.errors import UserError
from methods.dig.config import UNetConfig
from methods.dig.diffusion import GaussianDiffusion
from methods.dig.ema import EMA, ema_decay
from methods.dig.unet import RMSNorm, UNet, UNetOutput
from tests.helpers import assert_same

TINY = UNetConfig(8, [1, 2])
BATCH, SIZE, GRID = 2, 8, (3, 2)
WIDTH = sum(TINY.tap_channels)
TABLES = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "loss_weight",
)  # fmt: skip
pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(seed: int = 0) -> GaussianDiffusion:
    """A seeded diffusion model."""
    torch.manual_seed(seed)
    return GaussianDiffusion(UNet(TINY))


def normal(*shape: int, seed: int = 1) -> Tensor:
    """Seeded normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def photos(seed: int = 1) -> Tensor:
    """Images in [0, 1]."""
    return torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def diffusion() -> GaussianDiffusion:
    """A seeded diffusion model."""
    return tiny()


@pytest.fixture
def images() -> Tensor:
    """ImageNet-normalised images."""
    return (photos() - MEAN) / STD


class Oracle(nn.Module):
    """Predicts the true v of known images (B, 3, H, W), given for timestep-major rows, in [-1, 1]."""

    def __init__(self, x0: Tensor) -> None:
        super().__init__()
        self.x0, self.schedule = x0, GaussianDiffusion(nn.Identity())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The v of the noise that leads from the images to x."""
        return self.schedule.v_target(self.x0, t, self.schedule.noise_from_x0(x, t, self.x0))

    def outputs(self, x: Tensor, t: Tensor, *_: object) -> UNetOutput:
        """v of all rows."""
        return UNetOutput(self(x, t), None)


def block_shapes(name: str, entering: int, leaving: int) -> dict[str, tuple[int, ...]]:
    """A residual block of the released checkpoint."""
    shapes = {"mlp.1.weight": (2 * leaving, 256), "mlp.1.bias": (2 * leaving,)}
    for part, channels in (("block1", entering), ("block2", leaving)):
        shapes |= {f"{part}.proj.weight": (leaving, channels, 3, 3)}
        shapes |= {f"{part}.{leaf}": (leaving,) for leaf in ("proj.bias", "norm.weight", "norm.bias")}
    if entering != leaving:
        shapes |= {"res_conv.weight": (leaving, entering, 1, 1), "res_conv.bias": (leaving,)}
    return {f"{name}.{leaf}": shape for leaf, shape in shapes.items()}


def attention_shapes(name: str, width: int, is_linear: bool) -> dict[str, tuple[int, ...]]:
    """An attention layer of the released checkpoint."""
    out = "to_out.0" if is_linear else "to_out"
    shapes = {"norm.g": (1, width, 1, 1), "to_qkv.weight": (384, width, 1, 1)}
    shapes |= {f"{out}.weight": (width, 128, 1, 1), f"{out}.bias": (width,)}
    shapes |= {"to_out.1.g": (1, width, 1, 1)} if is_linear else {}
    return {f"{name}.{leaf}": shape for leaf, shape in shapes.items()}


def released_shapes() -> dict[str, tuple[int, ...]]:
    """The released checkpoint's ``model``, written down stage by stage."""
    plain = {
        "init_conv": (64, 3, 7, 7), "time_mlp.1": (256, 64), "time_mlp.3": (256, 256), "final_conv": (3, 64, 1, 1),
        "downs.0.3.1": (64, 256, 1, 1), "downs.1.3.1": (128, 256, 1, 1), "downs.2.3.1": (256, 512, 1, 1),
        "downs.3.3": (512, 256, 3, 3), "ups.0.3.1": (256, 512, 3, 3), "ups.1.3.1": (128, 256, 3, 3),
        "ups.2.3.1": (64, 128, 3, 3), "ups.3.3": (64, 64, 3, 3),
    }  # fmt: skip
    shapes = {f"{name}.weight": shape for name, shape in plain.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in plain.items()}
    for stage, width in enumerate((64, 64, 128, 256)):
        shapes |= block_shapes(f"downs.{stage}.0", width, width) | block_shapes(f"downs.{stage}.1", width, width)
        shapes |= attention_shapes(f"downs.{stage}.2", width, stage < 3)
    for stage, (entering, width) in enumerate(((768, 512), (384, 256), (192, 128), (128, 64))):
        shapes |= block_shapes(f"ups.{stage}.0", entering, width) | block_shapes(f"ups.{stage}.1", entering, width)
        shapes |= attention_shapes(f"ups.{stage}.2", width, stage > 0)
    shapes |= block_shapes("mid_block1", 512, 512) | block_shapes("mid_block2", 512, 512)
    shapes |= attention_shapes("mid_attn", 512, False) | block_shapes("final_res_block", 128, 64)
    return dict.fromkeys(TABLES, (1000,)) | {f"model.{name}": shape for name, shape in shapes.items()}


def test_names_shapes_and_number_of_parameters() -> None:
    """Those of the released checkpoint."""
    with torch.device("meta"):
        model = GaussianDiffusion(UNet(UNetConfig()))
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == released_shapes()
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())
    assert sum(parameter.numel() for parameter in model.parameters()) == 35_710_339
    assert model.model.config.tap_channels == [512, 256, 128, 64, 64]


def test_norms() -> None:
    """Group norms of 8 groups with eps 1e-5, RMS norms that only guard against zero; no others."""
    with torch.device("meta"):
        modules = list(UNet(UNetConfig()).modules())
    groups = [module for module in modules if isinstance(module, nn.GroupNorm)]
    assert len(groups) == 2 * 19 and all(module.eps == 1e-5 and module.num_groups == 8 for module in groups)
    assert sum(isinstance(module, RMSNorm) for module in modules) == 9 + 6  # all attentions, linear ones twice
    kinds = {type(module).__name__ for module in modules if not list(module.children())}
    assert {kind for kind in kinds if "Norm" in kind} == {"GroupNorm", "RMSNorm"}
    norm, x = RMSNorm(8), normal(1, 8, 2, 2)
    torch.testing.assert_close(norm(1e-9 * x), norm(x))  # an eps under the root would show
    torch.testing.assert_close(norm(x).square().mean(1), torch.ones(1, 2, 2))
    assert norm(0 * x).abs().max() == 0


@torch.no_grad()
def test_rows_do_not_depend_on_each_other(diffusion: GaussianDiffusion) -> None:
    """One call for several timesteps equals separate calls; asking for less changes nothing."""
    x, t = normal(3, 3, SIZE, SIZE), torch.tensor([0, 4, 900])
    model = diffusion.model
    both = model.outputs(x, t, GRID)
    assert both.v.shape == x.shape and both.features.shape == (3, WIDTH, *GRID)
    for row in range(3):
        alone = model.outputs(x[row : row + 1], t[row : row + 1], GRID)
        torch.testing.assert_close(alone.v[0], both.v[row])
        torch.testing.assert_close(alone.features[0], both.features[row])
    assert torch.equal(model(x, t), both.v) and torch.equal(model.features(x, t, GRID), both.features)
    mixed = model.outputs(x, t, GRID, slice(2), slice(2, None))
    torch.testing.assert_close(mixed.features, both.features[:2])
    torch.testing.assert_close(mixed.v, both.v[2:])
    assert not torch.allclose(model(x, t), model(x, t.flip(0)), atol=1e-3)


def test_features_leave_the_last_layers_out(diffusion: GaussianDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which serve v alone."""

    def fail(*_: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(diffusion.model.final_res_block, "forward", fail)
    x, t = normal(1, 3, SIZE, SIZE), torch.tensor([3])
    diffusion.model.features(x, t, GRID)
    with pytest.raises(AssertionError, match="called"):
        diffusion.model(x, t)


def test_sizes_that_do_not_halve_are_refused() -> None:
    """With the number they must be multiples of; others work, whatever the shape."""
    model, t = UNet(UNetConfig(8)), torch.tensor([0])
    for height, width in ((16, 20), (4, 8), (0, 8)):
        with pytest.raises(UserError, match=f"multiples of 8 pixels, not {width}x{height}"):
            model(normal(1, 3, height, width), t)
    assert model(normal(1, 3, 8, 16), t).shape == (1, 3, 8, 16)


@pytest.mark.parametrize("override", ["dim=12", "dim=0", "dim_mults=[]", "dim_mults=[1,0]"])
def test_impossible_widths_are_refused(override: str) -> None:
    """By the configuration."""
    with pytest.raises(UserError, match=override.partition("=")[0]):
        load_config(UNetConfig, overrides=[override])


def test_schedule(diffusion: GaussianDiffusion) -> None:
    """The published values, and how the tables hang together."""
    abar = diffusion.alphas_cumprod.double()
    for t, value in {0: 0.99970, 4: 0.99848, 60: 0.97839, 100: 0.96000, 500: 0.49834}.items():
        assert abar[t].item() == pytest.approx(value, abs=5e-6)
    assert diffusion.betas[0].item() == pytest.approx(3.0028e-4, rel=1e-4)
    assert abar[999].item() == pytest.approx(3.0e-7, rel=0.02)
    assert diffusion.sqrt_one_minus_alphas_cumprod[100].item() == pytest.approx(0.2, abs=1e-4)
    assert torch.equal(diffusion.loss_weight, diffusion.alphas_cumprod) and diffusion.alphas_cumprod_prev[0] == 1
    # Noising x0 to t and going back one step is noising it to t - 1.
    before, first, second = (
        diffusion.get_buffer(name).double()
        for name in ("alphas_cumprod_prev", "posterior_mean_coef1", "posterior_mean_coef2")
    )
    torch.testing.assert_close(first + second * abar.sqrt(), before.sqrt(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        diffusion.posterior_variance.double() + second**2 * (1 - abar), 1 - before, rtol=1e-4, atol=1e-6
    )


def test_conversions_invert_each_other(diffusion: GaussianDiffusion) -> None:
    """Between image, noise and v; the first step's posterior is the image itself."""
    x0, noise, t = normal(3, 3, 4, 4), normal(3, 3, 4, 4, seed=2), torch.tensor([10, 300, 700])
    xt = diffusion.q_sample(x0, t, noise)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(diffusion.x0_from_noise(xt, t, noise), x0, **close)
    torch.testing.assert_close(diffusion.noise_from_x0(xt, t, x0), noise, **close)
    torch.testing.assert_close(diffusion.x0_from_v(xt, t, diffusion.v_target(x0, t, noise)), x0, **close)
    first = diffusion.posterior(x0, xt, torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(first.mean, x0)
    assert first.variance.abs().max() == 0 and first.log_variance.isfinite().all()


def test_training_loss(diffusion: GaussianDiffusion) -> None:
    """Zero for the true v; for another abar times its squared error; timesteps and noise are drawn if not given."""
    x, t, noise = photos(), torch.tensor([0, 500]), normal(BATCH, 3, SIZE, SIZE, seed=2)
    assert GaussianDiffusion(Oracle(2 * x - 1))(x, torch.tensor([50, 500]), noise) < 1e-9
    target = diffusion.v_target(2 * x - 1, t, noise)
    predicted = diffusion.model(diffusion.q_sample(2 * x - 1, t, noise), t)
    errors = (predicted - target).square().mean((1, 2, 3))
    torch.testing.assert_close(diffusion(x, t, noise), (errors * diffusion.alphas_cumprod[t]).mean())
    torch.testing.assert_close(diffusion.errors(x, t, noise), errors)
    torch.manual_seed(3)
    first, second = diffusion(x), diffusion(x)
    assert first != second
    second.backward()
    assert all(parameter.grad.isfinite().all() for parameter in diffusion.parameters())


@pytest.mark.parametrize("steps", [1, 5, 1000])
def test_sampling_with_the_true_v_gives_the_image(steps: int) -> None:
    """From any noise, in any number of steps."""
    x, z = photos(), normal(BATCH, 3, SIZE, SIZE, seed=2)
    oracle = GaussianDiffusion(Oracle(2 * x - 1))
    torch.testing.assert_close(oracle.sample(z, steps), x, rtol=1e-4, atol=1e-3)
    beyond = GaussianDiffusion(Oracle(4 * x - 2)).sample(z, steps)
    assert beyond.min() >= 0 and beyond.max() <= 1


def test_sampling_timesteps(diffusion: GaussianDiffusion) -> None:
    """From the last to the image, evenly; impossible numbers are refused."""
    assert diffusion.ddim_timesteps(4) == [999, 749, 499, 249, -1]
    assert diffusion.ddim_timesteps(1000) == [*range(999, -1, -1), -1]
    for steps in (0, 1001):
        with pytest.raises(UserError, match="1 to 1000 steps"):
            diffusion.ddim_timesteps(steps)


def test_guide_is_what_its_parts_are(diffusion: GaussianDiffusion, images: Tensor) -> None:
    """Features timestep by timestep, the denoised image from its own noise; either may be left out."""
    noise = [normal(BATCH, 3, SIZE, SIZE, seed=seed) for seed in range(6)]
    whole = diffusion.guide(images, GRID, noise=noise)
    assert whole.features.shape == (BATCH, 5 * WIDTH, *GRID) and whole.denoised.shape == images.shape
    x0 = 2 * (images * STD + MEAN) - 1
    for number, part in enumerate(whole.features.split(WIDTH, dim=1)):
        t = torch.full((BATCH,), number)
        torch.testing.assert_close(part, diffusion.model.features(diffusion.q_sample(x0, t, noise[number]), t, GRID))
    t = torch.full((BATCH,), 100)
    xt = diffusion.q_sample(x0, t, noise[5])
    expected = ((diffusion.x0_from_v(xt, t, diffusion.model(xt, t)) + 1) / 2 - MEAN) / STD
    torch.testing.assert_close(whole.denoised, expected, rtol=1e-4, atol=1e-5)
    features, none = diffusion.guide(images, GRID, denoise_timestep=None, noise=noise[:5])
    torch.testing.assert_close(features, whole.features)
    assert none is None
    none, denoised = diffusion.guide(images, GRID, (), noise=noise[5:])
    torch.testing.assert_close(denoised, whole.denoised, rtol=1e-4, atol=1e-5)
    assert none is None and diffusion.guide(images, GRID, (), None) == (None, None)


@pytest.mark.parametrize("max_rows", [1, 3, 4, 5, 12, 100])
def test_chunks_change_nothing(diffusion: GaussianDiffusion, images: Tensor, max_rows: int) -> None:
    """Neither results nor draws, also where a chunk has rows of both kinds."""
    torch.manual_seed(5)
    whole = diffusion.guide(images, GRID)
    torch.manual_seed(5)
    chunked = diffusion.guide(images, GRID, max_rows=max_rows)
    torch.testing.assert_close(chunked.features, whole.features)
    torch.testing.assert_close(chunked.denoised, whole.denoised, rtol=1e-4, atol=1e-5)


def test_guide_draws_noise_for_every_timestep(diffusion: GaussianDiffusion, images: Tensor) -> None:
    """The same timestep twice gives two results; so does the next call."""
    torch.manual_seed(0)
    first, second = (diffusion.guide(images, GRID, (2, 2), None).features for _ in range(2))
    once, again = first.split(WIDTH, dim=1)
    assert not torch.allclose(once, again, atol=1e-5) and not torch.allclose(first, second, atol=1e-5)


def test_guide_with_the_true_v_gives_the_image_back(images: Tensor) -> None:
    """In its normalisation."""
    oracle = GaussianDiffusion(Oracle(2 * (images * STD + MEAN) - 1))
    torch.testing.assert_close(oracle.guide(images, GRID, ()).denoised, images, rtol=1e-4, atol=1e-4)


def test_guide_has_no_gradient_but_may_be_learned_from(diffusion: GaussianDiffusion, images: Tensor) -> None:
    """A layer on X gets gradients, the diffusion model none."""
    head = nn.Conv2d(5 * WIDTH, 1, 1)
    features, denoised = diffusion.guide(images, GRID)
    assert not features.requires_grad and not denoised.requires_grad
    head(features).sum().backward()
    assert head.weight.grad is not None and all(parameter.grad is None for parameter in diffusion.parameters())


def test_everything_is_made_on_the_images_device() -> None:
    """An operation with a tensor left on another device would fail."""
    model = tiny().to("meta")
    x, t = torch.empty(BATCH, 3, SIZE, SIZE, device="meta"), torch.zeros(BATCH, dtype=torch.int64, device="meta")
    guidance = model.guide(x, GRID, max_rows=5)
    assert {value.device.type for value in (*guidance, model(x), model.sample(x, 2), model(x, t))} == {"meta"}


def test_average_follows_its_closed_form() -> None:
    """A copy until the first update after step 100, then the mean that the decays 1 - (1 + n)^(-2/3) <= 0.995 give."""
    online = nn.Linear(1, 1, bias=False)
    ema = EMA(online)
    expected = None
    for step in range(400):
        with torch.no_grad():
            online.weight.fill_(float(step))
        ema.update(step)
        if step % 10 == 0:
            n = step - 100
            decay = 0.0 if step <= 110 else min(1 - (1 + n) ** (-2 / 3), 0.995)
            expected = step if expected is None else decay * expected + (1 - decay) * step
            assert ema.ema_model.weight.item() == pytest.approx(expected, rel=1e-5)
            assert bool(ema.initted) == (step > 100)
        assert ema.step.item() == step + 1
    assert expected < 399 and online.weight.item() == 399
    assert ema_decay(100) == 0 and ema_decay(10**6) == 0.995


def test_average_has_the_released_layout(diffusion: GaussianDiffusion) -> None:
    """And its state goes on where it was."""
    ema, names = EMA(diffusion), diffusion.state_dict().keys()
    state = ema.state_dict()
    expected = {f"{part}.{name}" for part in ("online_model", "ema_model") for name in names} | {"initted", "step"}
    assert state.keys() == expected and state["initted"].shape == state["step"].shape == (1,)
    assert not any(parameter.requires_grad for parameter in ema.ema_model.parameters())
    ema.update(110)
    other = EMA(tiny(1))
    other.load_state_dict(ema.state_dict())
    for average in (ema, other):
        nn.init.constant_(average.online_model.model.final_conv.weight, 1.0)
        average.update(120)
    assert_same(dict(ema.state_dict()), dict(other.state_dict()))
