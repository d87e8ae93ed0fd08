"""The frozen diffusion model as DiG's training uses it: features for LFCA and denoised images for each batch."""

import torch
from torch import Tensor

from common.nets.options import ViTConfig
from common.run.device import Runtime
from common.tensors import compiled
from methods.dig.config import TIMESTEPS, GuideConfig, LossConfig, UNetConfig
from methods.dig.diffusion import GaussianDiffusion, Guidance
from methods.dig.diffusion_files import load_diffusion
from methods.dig.lfca import FeatureShape
from methods.dig.unet import UNet

# Values in a full-resolution map of all rows of a pass, if max_rows does not limit the rows. On CPUs larger maps are
# slower by half: they leave the caches, and the allocator takes fresh memory for each.
MAP_VALUES = 2**27
MAP_VALUES_CPU = 2**22


def feature_shape(config: GuideConfig, unet: UNetConfig) -> FeatureShape:
    """The shape of the classifier's diffusion features."""
    return FeatureShape(len(config.feature_timesteps), sum(unet.tap_channels))


class Guide:
    """Maps a process's part of a batch to its `Guidance`, as far as the epoch's losses read it.

    Attributes:
        diffusion: the model, frozen; None if no loss needs it, and then no file is read.
        source: its origin, for the log.
    """

    def __init__(
        self, config: GuideConfig, unet: UNetConfig, losses: LossConfig, model: ViTConfig, runtime: Runtime
    ) -> None:
        """Loads the diffusion model onto the device.

        Args:
            unet: the diffusion network.
            losses: the classifier's losses.
            model: the classifier, for image and patch size.

        Raises:
            UserError: as `load_diffusion` and `UNetConfig.check_size`.
        """
        self.config = config
        self.losses = losses
        self.processes = runtime.processes
        self.diffusion: GaussianDiffusion | None = None
        self.source = "none: no loss needs one"
        if not losses.uses_diffusion():
            return
        unet.check_size(model.img_size, "model.img_size")
        self.patch_size = model.patch_size
        diffusion = GaussianDiffusion(UNet(unet), TIMESTEPS).requires_grad_(False).eval()
        self.diffusion = diffusion
        self.source = str(load_diffusion(diffusion, config.file))
        on_cpu = runtime.device.type == "cpu"
        self._map_values = MAP_VALUES_CPU if on_cpu else MAP_VALUES
        layout = torch.channels_last if on_cpu else torch.preserve_format
        diffusion.to(runtime.device, memory_format=layout)  # type: ignore[call-overload]  # torch annotates either alone
        if runtime.config.compile:
            outputs = compiled(diffusion.model.outputs, True)
            diffusion.model.outputs = outputs  # type: ignore[method-assign]  # compiled in place of the method

    def __call__(self, images: Tensor, epoch: int, draws: torch.Generator) -> Guidance:
        """Features and denoised images.

        Args:
            images: this process's part of a micro-batch (B, 3, S, S), ImageNet-normalised, on the device.
            epoch: from 0; decides which losses count.
            draws: a generator that is the same on all processes and in a resumed run.
        """
        timesteps = self.config.feature_timesteps if self.losses.uses_features(epoch) else []
        denoise = self.config.denoise_timestep if self.losses.uses_denoised(epoch) else None
        count = len(timesteps) + (denoise is not None)
        if not count or self.diffusion is None:
            return Guidance(None, None)
        grid = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        noise = self.noise(images, count, draws)
        of_a_row = self.diffusion.model.config.dim * images.shape[-2] * images.shape[-1]
        max_rows = self.config.max_rows or max(self._map_values // of_a_row, 1)
        return self.diffusion.guide(images, grid, timesteps, denoise, noise, max_rows)

    def noise(self, images: Tensor, count: int, draws: torch.Generator) -> list[Tensor]:
        """Normal noise (B, 3, S, S) for each of ``count`` timesteps.

        It is drawn for the images of all processes, so that any number of processes sees the same noise.
        """
        seed = int(torch.randint(2**62, (), generator=draws))
        generator = torch.Generator(images.device).manual_seed(seed)
        size = len(images)
        shape = (self.processes.world * size, *images.shape[1:])
        own = slice(self.processes.rank * size, (self.processes.rank + 1) * size)
        return [torch.randn(shape, generator=generator, device=images.device)[own] for _ in range(count)]
