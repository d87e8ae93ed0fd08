"""DiG's Gaussian diffusion: noise schedule, training loss, DDIM sampling, and guidance of the classifier.

Sigmoid schedule, v-prediction; images lie in [-1, 1] unless a method says [0, 1] or ImageNet-normalised. Symbols: B
images, T timesteps, K timesteps of the features, abar = cumulative product of 1 - beta, v = sqrt(abar) noise - sqrt(1 -
abar) x0.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.data.transforms import MEAN, STD
from common.run.errors import UserError
from common.run.progress import progress
from common.tensors import tensor_on
from methods.dig.config import DENOISE_TIMESTEP, FEATURE_TIMESTEPS
from methods.dig.unet import UNet


class Posterior(NamedTuple):
    """The normal distribution of x_{t-1} given x_t and x0: mean (B, 3, H, W); variance and its log (B, 1, 1, 1)."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor


class Guidance(NamedTuple):
    """The diffusion model's inputs to DiG's training; None where they were not requested.

    Attributes:
        features: X (B, K*F, h, w), the decoder's taps at K timesteps, timestep-major: (B, 5120, h, w) by default.
        denoised: images (B, 3, H, W) noised and denoised in one step, ImageNet-normalised.
    """

    features: Tensor | None
    denoised: Tensor | None


def sigmoid_betas(timesteps: int) -> Tensor:
    """Variances (T,), float64, of the noise added at each step: sigmoid schedule from -3 to 3 with temperature 1."""
    low = torch.tensor(-3.0).sigmoid().double()
    high = torch.tensor(3.0).sigmoid().double()
    progress = torch.linspace(0, timesteps, timesteps + 1, dtype=torch.float64) / timesteps  # u_k
    level = (high - (6 * progress - 3).sigmoid()) / (high - low)
    level = level / level[0]
    return (1 - level[1:] / level[:-1]).clamp(0, 0.999)


def schedule_buffers(timesteps: int) -> dict[str, Tensor]:
    """The 13 tables (T,) of a released checkpoint by name, float32, computed in float64."""
    betas = sigmoid_betas(timesteps)
    alphas = 1 - betas
    abar = alphas.cumprod(0)
    abar_prev = torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
    variance = betas * (1 - abar_prev) / (1 - abar)
    tables = {
        "betas": betas,
        "alphas_cumprod": abar,
        "alphas_cumprod_prev": abar_prev,
        "sqrt_alphas_cumprod": abar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - abar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - abar).log(),
        "sqrt_recip_alphas_cumprod": (1 / abar).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / abar - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * abar_prev.sqrt() / (1 - abar),
        "posterior_mean_coef2": alphas.sqrt() * (1 - abar_prev) / (1 - abar),
        "loss_weight": abar,  # of v: snr / (snr + 1)
    }
    return {name: table.float() for name, table in tables.items()}


class GaussianDiffusion(nn.Module):
    """A U-Net that predicts v, and the tables of its noise schedule.

    Its state dict has the form of a released checkpoint's ``model``: the tables, and the network under ``model.``. As
    it holds the tables, a checkpoint replaces the schedule.
    """

    loss_weight: Tensor

    def __init__(self, model: UNet, timesteps: int = 1000) -> None:
        """Wraps a network.

        Args:
            model: maps (B, 3, H, W) and timesteps (B,) to v; only `guide` uses more of it.
            timesteps: T.
        """
        super().__init__()
        self.model = model
        self.timesteps = timesteps
        for name, table in schedule_buffers(timesteps).items():
            self.register_buffer(name, table)

    def _at(self, name: str, t: Tensor) -> Tensor:
        """Values (B, 1, 1, 1) of a table at timesteps (B,)."""
        return self.get_buffer(name)[t][:, None, None, None]

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """x_t: images (B, 3, H, W) in [-1, 1] with the noise (drawn, if not given) of timesteps (B,)."""
        noise = torch.randn_like(x0) if noise is None else noise
        return self._at("sqrt_alphas_cumprod", t) * x0 + self._at("sqrt_one_minus_alphas_cumprod", t) * noise

    def v_target(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """v of images and their noise (B, 3, H, W) at timesteps (B,)."""
        return self._at("sqrt_alphas_cumprod", t) * noise - self._at("sqrt_one_minus_alphas_cumprod", t) * x0

    def x0_from_v(self, xt: Tensor, t: Tensor, v: Tensor) -> Tensor:
        """The image that x_t and v stand for, not clipped."""
        return self._at("sqrt_alphas_cumprod", t) * xt - self._at("sqrt_one_minus_alphas_cumprod", t) * v

    def x0_from_noise(self, xt: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The image that x_t and its noise stand for, not clipped."""
        return self._at("sqrt_recip_alphas_cumprod", t) * xt - self._at("sqrt_recipm1_alphas_cumprod", t) * noise

    def noise_from_x0(self, xt: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """The noise that leads from an image to x_t."""
        return (self._at("sqrt_recip_alphas_cumprod", t) * xt - x0) / self._at("sqrt_recipm1_alphas_cumprod", t)

    def posterior(self, x0: Tensor, xt: Tensor, t: Tensor) -> Posterior:
        """The distribution of x_{t-1}; its log-variance is finite at t = 0, where the variance is 0."""
        mean = self._at("posterior_mean_coef1", t) * x0 + self._at("posterior_mean_coef2", t) * xt
        return Posterior(mean, self._at("posterior_variance", t), self._at("posterior_log_variance_clipped", t))

    def errors(self, images: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """Mean squared error (B,) of the predicted v.

        Args:
            images: (B, 3, H, W) in [0, 1].
            t: timesteps (B,).
            noise: (B, 3, H, W); drawn, if not given.
        """
        x0 = 2 * images - 1
        noise = torch.randn_like(x0) if noise is None else noise
        predicted = self.model(self.q_sample(x0, t, noise), t)
        return (predicted - self.v_target(x0, t, noise)).square().flatten(1).mean(1)

    def forward(self, images: Tensor, t: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """The training loss, a scalar: mean over images of abar_t times the error of v at a random timestep.

        Args:
            images: (B, 3, H, W) in [0, 1].
            t: timesteps (B,); drawn uniformly, if not given.
            noise: (B, 3, H, W); drawn, if not given.
        """
        if t is None:
            t = torch.randint(self.timesteps, (len(images),), device=images.device)
        return (self.loss_weight[t] * self.errors(images, t, noise)).mean()

    def ddim_timesteps(self, steps: int) -> list[int]:
        """The ``steps`` + 1 timesteps that DDIM visits, from T - 1 down to -1, which stands for the image.

        Raises:
            UserError: there is less than one step, or the model has fewer timesteps.
        """
        if not 1 <= steps <= self.timesteps:
            raise UserError(f"sampling takes 1 to {self.timesteps} steps, not {steps}")
        return torch.linspace(-1, self.timesteps - 1, steps + 1).int().flip(0).tolist()

    @torch.no_grad()
    def sample(self, noise: Tensor, steps: int = 150, title: str = "") -> Tensor:
        """Images made from noise by deterministic DDIM (eta 0), x0 clipped to [-1, 1] in every step.

        Args:
            noise: the start, standard normal (B, 3, H, W).
            steps: of the sampler.
            title: of the progress bar; empty: no bar.

        Returns:
            (B, 3, H, W) in [0, 1].
        """
        x = noise
        pairs = list(itertools.pairwise(self.ddim_timesteps(steps)))
        for now, after in progress(pairs, title, active=bool(title)):
            t = torch.full((len(x),), now, device=x.device)
            x0 = self.x0_from_v(x, t, self.model(x, t)).clamp(-1, 1)
            x = self.q_sample(x0, torch.full_like(t, after), self.noise_from_x0(x, t, x0)) if after >= 0 else x0
        return (x + 1) / 2

    @torch.no_grad()  # not inference_mode: the classifier's layers must be able to keep X for their backward pass
    def guide(
        self,
        images: Tensor,
        grid: tuple[int, int],
        feature_timesteps: Sequence[int] = FEATURE_TIMESTEPS,
        denoise_timestep: int | None = DENOISE_TIMESTEP,
        noise: Sequence[Tensor] | None = None,
        max_rows: int | None = None,
    ) -> Guidance:
        """Decoder features and denoised images for the classifier's training, in as few passes as memory allows.

        Every timestep has its own noise; all noise is drawn first, so neither draws nor result depend on ``max_rows``.

        Args:
            images: (B, 3, H, W), ImageNet-normalised.
            grid: (h, w) of the features: the classifier's patches.
            feature_timesteps: the K timesteps of X, in this order; empty: no features.
            denoise_timestep: timestep from which images are denoised; None for no denoised images.
            noise: (B, 3, H, W) for each timestep of X, then for the denoised images; drawn, if not given.
            max_rows: largest number of (image, timestep) rows per forward pass; None: all.

        Raises:
            UserError: the images' sides do not suit the network.
        """
        timesteps = [*feature_timesteps, *([] if denoise_timestep is None else [denoise_timestep])]
        if not timesteps:
            return Guidance(None, None)
        mean = MEAN.to(images.device, non_blocking=True)
        std = STD.to(images.device, non_blocking=True)
        x0 = ((images * std + mean) * 2 - 1).repeat(len(timesteps), 1, 1, 1)  # K*B 3 H W, timestep-major
        t = tensor_on(timesteps, images.device).repeat_interleave(len(images))
        noisy = self.q_sample(x0, t, None if noise is None else torch.cat(tuple(noise)))
        count = len(feature_timesteps) * len(images)  # the first rows are for features, all others for v
        features, v = self._chunked(noisy, t, grid, count, max_rows or len(noisy))
        if features is not None:
            features = features.unflatten(0, (-1, len(images))).transpose(0, 1).flatten(1, 2)  # B K*F h w
        if v is not None:
            v = ((self.x0_from_v(noisy[count:], t[count:], v) + 1) / 2 - mean) / std
        return Guidance(features, v)

    def _chunked(
        self, noisy: Tensor, t: Tensor, grid: tuple[int, int], count: int, size: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Features (count, F, h, w) of the first ``count`` rows, v of the others, by passes of ``size`` rows."""
        features: list[Tensor] = []
        v: list[Tensor] = []
        for start in range(0, len(noisy), size):
            rows = slice(start, start + size)
            split = max(count - start, 0)
            wants_v = start + size > count and len(noisy) > count
            output = self.model.outputs(
                noisy[rows], t[rows], grid if split else None, slice(split), slice(split, None) if wants_v else None
            )
            features += [] if output.features is None else [output.features]
            v += [] if output.v is None else [output.v]
        return torch.cat(features) if features else None, torch.cat(v) if v else None
