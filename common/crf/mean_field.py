"""Mean-field inference of the dense CRF (Kraehenbuehl and Koltun, NIPS 2011) on the permutohedral lattice."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from common.crf.lattice import Lattice, bilateral_features, spatial_features
from common.crf.options import CRFConfig
from common.tensors import size_of

EPSILON = 1e-20  # of the normalisation (reference: densecrf's DenseKernel)


class NormalizedKernel:
    """A pairwise term with Potts compatibility: weight n K (n Q), normalised symmetrically by n = 1 / sqrt(K 1)."""

    def __init__(self, features: Tensor, weight: float) -> None:
        """Builds the lattice of the pixels' features (n, d), in units of the kernel's standard deviations."""
        self.weight = weight
        self.lattice = Lattice(features)
        self.norm = (self.lattice.filter(features.new_ones(len(features), 1)) + EPSILON).rsqrt()  # n 1

    def messages(self, marginals: Tensor) -> Tensor:
        """Messages to each pixel about its labels, (n, C)."""
        return self.weight * self.norm * self.lattice.filter(self.norm * marginals)


@torch.no_grad()
def mean_field(unary: Tensor, kernels: Sequence[NormalizedKernel], iterations: int) -> Tensor:
    """Approximate marginals of every pixel.

    Args:
        unary: energies, float32 (n, C).
        kernels: the pairwise terms.
        iterations: parallel updates of all pixels.

    Returns:
        float32 (n, C); they sum to 1 over C.
    """
    marginals = (-unary).softmax(dim=1)
    for _ in range(iterations):
        marginals = sum((kernel.messages(marginals) for kernel in kernels), start=-unary).softmax(dim=1)
    return marginals


def lattice_marginals(image: np.ndarray, unary: np.ndarray, config: CRFConfig) -> np.ndarray:
    """Marginals of an image's dense CRF, on the device of the configuration.

    Args:
        image: uint8 RGB (H, W, 3).
        unary: energies, float32 (n, H, W).

    Returns:
        float32 (n, H, W), which sum to 1 over n.
    """
    pixels = torch.tensor(image, device=config.device).permute(2, 0, 1)
    position = spatial_features(*size_of(pixels), config.gaussian_sxy, pixels.device)
    colour = bilateral_features(pixels, config.bilateral_sxy, config.bilateral_srgb)
    kernels = [
        NormalizedKernel(features, weight)
        for features, weight in ((position, config.gaussian_compat), (colour, config.bilateral_compat))
    ]
    energies = torch.tensor(unary, device=config.device).flatten(1).T.contiguous()  # H*W n
    marginals = mean_field(energies, kernels, config.iterations)
    return marginals.T.reshape(unary.shape).cpu().numpy()
