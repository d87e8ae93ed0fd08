"""The frozen diffusion model as DiG's training uses it: features for LFCA and denoised images for each batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.config import Rule, at_least, option
from common.errors import UserError
from common.pretrained import PRETRAINED_DIR
from common.runtime import Runtime
from common.vit import ViTConfig
from methods.dig.diffusion import DENOISE_TIMESTEP, FEATURE_TIMESTEPS, GaussianDiffusion, Guidance
from methods.dig.diffusion_config import TIMESTEPS
from methods.dig.diffusion_files import RELEASED_FILE, load_diffusion
from methods.dig.lfca import FeatureShape
from methods.dig.losses import LossConfig
from methods.dig.unet import UNet, UNetConfig

# Values of a full-resolution map of all rows in a pass, where max_rows does not say how many rows. On CPUs larger ones
# are slower by half: they leave the caches, and the allocator takes fresh memory for each.
MAP_VALUES, MAP_VALUES_CPU = 2**27, 2**22

_IN_RANGE = f"from 0 to {TIMESTEPS - 1}"


@dataclass
class GuideConfig:
    """What the frozen diffusion model is asked for."""

    file: str = option(
        str(PRETRAINED_DIR / RELEASED_FILE),
        "The diffusion model: the released file, one written by methods/dig/train_diffusion.py, or a state dict.",
    )
    feature_timesteps: list[int] = option(
        list(FEATURE_TIMESTEPS), "Timesteps whose decoder features LFCA reads.",
        rule=Rule(
            f"one or more whole numbers {_IN_RANGE}",
            lambda values: bool(values) and 0 <= min(values) <= max(values) < TIMESTEPS,
        ),
    )  # fmt: skip
    denoise_timestep: int = option(
        DENOISE_TIMESTEP, "Timestep that images are noised to and denoised from (the paper's text says 60).",
        rule=Rule(_IN_RANGE, lambda value: 0 <= value < TIMESTEPS),
    )  # fmt: skip
    max_rows: int = option(
        0,
        "Memory limit: pairs of image and timestep in a pass of the diffusion network; 0: by size, with the released "
        "network and 224 pixels 1 on CPUs and 41 elsewhere.",
        rule=at_least(0),
    )


def feature_shape(config: GuideConfig, unet: UNetConfig) -> FeatureShape:
    """The shape of the features that the classifier's LFCA gets."""
    return FeatureShape(len(config.feature_timesteps), sum(unet.tap_channels))


class Guide:
    """Maps a process's part of a batch to its `Guidance`, as far as the epoch's losses read it.

    Attributes:
        diffusion: the model, frozen; None where no loss needs one, and then no file is looked for.
        source: where it comes from, in words.
    """

    def __init__(
        self, config: GuideConfig, unet: UNetConfig, losses: LossConfig, model: ViTConfig, runtime: Runtime
    ) -> None:
        """Loads the diffusion model onto the device.

        Args:
            unet: the diffusion network.
            losses: which losses there are.
            model: the classifier, for image and patch size.

        Raises:
            UserError: there is no such file, or it holds another network; or the image size does not suit the network.
        """
        self.config, self.losses, self.processes = config, losses, runtime.processes
        self.diffusion, self.source = None, "none: no loss needs one"
        if not losses.uses_diffusion():
            return
        if model.img_size % unet.stride:
            raise UserError(
                f"model.img_size={model.img_size} does not suit the diffusion network, which takes multiples of "
                f"{unet.stride} (unet.dim_mults={list(unet.dim_mults)})"
            )
        self.patch_size = model.patch_size
        self.diffusion = GaussianDiffusion(UNet(unet), TIMESTEPS).requires_grad_(False).eval()
        self.source = str(load_diffusion(self.diffusion, config.file))
        on_cpu = runtime.device.type == "cpu"
        self._map_values = MAP_VALUES_CPU if on_cpu else MAP_VALUES
        self.diffusion.to(runtime.device, memory_format=torch.channels_last if on_cpu else torch.preserve_format)
        if runtime.config.compile:
            self.diffusion.model.outputs = torch.compile(self.diffusion.model.outputs)

    def __call__(self, images: Tensor, epoch: int, draws: torch.Generator) -> Guidance:
        """Features and denoised images.

        Args:
            images: this process's part of a micro-batch (B, 3, S, S), ImageNet-normalised, on the device.
            epoch: from 0; decides which losses count.
            draws: a generator that is the same on all processes, and in a resumed run.
        """
        timesteps = self.config.feature_timesteps if self.losses.uses_features(epoch) else []
        denoise = self.config.denoise_timestep if self.losses.uses_denoised(epoch) else None
        count = len(timesteps) + (denoise is not None)
        if not count:
            return Guidance(None, None)
        grid = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        noise = self.noise(images, count, draws)
        of_a_row = self.diffusion.model.config.dim * images.shape[-2] * images.shape[-1]
        max_rows = self.config.max_rows or max(self._map_values // of_a_row, 1)
        return self.diffusion.guide(images, grid, timesteps, denoise, noise, max_rows)

    def noise(self, images: Tensor, count: int, draws: torch.Generator) -> list[Tensor]:
        """Normal noise (B, 3, S, S) for each of ``count`` timesteps.

        It is drawn for the images of all processes, of which this one's are taken: any number of processes sees the
        same noise.
        """
        seed = int(torch.randint(2**62, (), generator=draws))
        generator = torch.Generator(images.device).manual_seed(seed)
        rank, world, size = self.processes.rank, self.processes.world, len(images)
        own, shape = slice(rank * size, (rank + 1) * size), (world * size, *images.shape[1:])
        return [torch.randn(shape, generator=generator, device=images.device)[own] for _ in range(count)]
