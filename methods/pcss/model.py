"""PCSS's network: MCTformer-V2 whose patch tokens can get another magnitude spectrum between two blocks (MPC)."""

from torch import Tensor, cat

from common.nets.mctformer import MCTformer
from common.nets.options import ViTConfig
from methods.pcss.frequency import with_magnitude


class PCSS(MCTformer):
    """The reference averages class-to-patch attention over the layers, and sums patch affinity."""

    def __init__(self, config: ViTConfig, num_classes: int) -> None:
        """See `MCTformer`."""
        super().__init__(config, num_classes)
        self.class_attention_weight = 1 / self.depth

    def patch_map(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patch tokens of (B, T, D) as a map (B, D, h, w): ``x_patch``."""
        return tokens[:, self.first_patch :].transpose(1, 2).unflatten(2, grid)

    def mixed(self, tokens: Tensor, grid: tuple[int, int], magnitude: Tensor) -> Tensor:
        """Tokens (B, T, D) with the magnitude G (B, D, h, w//2+1) for their patch map; other tokens do not change."""
        maps = with_magnitude(self.patch_map(tokens, grid), magnitude)
        return cat([tokens[:, : self.first_patch], maps.flatten(2).transpose(1, 2)], dim=1)
