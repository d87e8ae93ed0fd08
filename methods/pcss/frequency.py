"""PCSS's work on spectra: filters images, exchanges magnitudes of token maps, removes blocks of frequencies.

Images and maps are real, so one half-plane of the spectrum holds all information (``rfft2``), and the real part of a
filtered image depends only on the part of the filter that is symmetric about frequency 0 (`half_plane`). Spectra are
complex64, also under autocast.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.tensors import size_of
from methods.pcss.config import check_blocks

Block = tuple[int, int]  # row and column


def half_plane(weights: Tensor) -> Tensor:
    """Weights (..., S, S) of a centred spectrum as weights (..., S, S//2+1) for `filtered`.

    Re IFFT(w F) of a real image equals IFFT(w' F) with w'(k) = (w(k) + w(-k)) / 2.
    """
    plain = torch.fft.ifftshift(weights, dim=(-2, -1))
    return ((plain + _opposite(plain)) / 2)[..., : weights.shape[-1] // 2 + 1]


def _opposite(weights: Tensor) -> Tensor:
    """w(-k) for weights (..., S, S) in FFT order."""
    return weights.flip(-2, -1).roll((1, 1), (-2, -1))


def spectrum(images: Tensor) -> Tensor:
    """The half-plane of the spectrum of images or maps (..., H, W): complex64 (..., H, W//2+1)."""
    with torch.autocast(images.device.type, enabled=False):
        return torch.fft.rfft2(images.float())


def filtered(spectra: Tensor, weights: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (..., H, W) of spectra (..., H, W//2+1) weighted by real weights that broadcast to them."""
    with torch.autocast(spectra.device.type, enabled=False):
        return torch.fft.irfft2(spectra * weights, s=size)


def with_magnitude(maps: Tensor, magnitude: Tensor) -> Tensor:
    """Maps (B, D, h, w) with another magnitude (B, D, h, w//2+1) and their own phase (0 where undefined).

    Gradients flow through phase and magnitude.
    """
    spectra = spectrum(maps)
    phase = torch.where(spectra == 0, torch.ones_like(spectra), torch.sgn(spectra))
    return filtered(phase, magnitude, size_of(maps)).to(maps.dtype)


@dataclass(frozen=True)
class BlockFilters:
    """Filters, each of which removes a block of the centred spectrum.

    Attributes:
        weights: half-plane weights (M, S, S//2+1), one for each distinct filter.
        owner: number of the filter whose loss is the importance of a block, int64 (g, g).
    """

    weights: Tensor
    owner: Tensor


def removed_blocks(row: int, column: int, grid: int) -> list[Block]:
    """The blocks that the reference removes together with block (row, column) of a grid x grid spectrum.

    Its mirror block is off by one (grid - row; grid - 1 - row is nearly the conjugate one), and column 0 has none.
    """
    if column == 0:
        return [(row, column)]
    return [(row, column), ((grid - row) % grid, grid - column)]


def block_filters(size: int, block: int, corrected: bool = False) -> BlockFilters:
    """All distinct filters for images of size x size pixels.

    Args:
        corrected: remove a block with exactly its conjugate frequencies, in place of the reference's mirror block.

    Raises:
        UserError: the image does not divide into blocks.
    """
    check_blocks(size, block)
    grid = size // block
    removals: dict[tuple[Block, ...], int] = {}
    owner = torch.full((grid, grid), -1)
    for row in range(grid):
        for column in range(grid if corrected else grid // 2 + 1):
            if corrected:
                removed = [(row, column)]
                owned = [(row, column), (grid - 1 - row, grid - 1 - column)]
                if owner[row, column] >= 0:
                    continue
            else:
                removed = owned = removed_blocks(row, column, grid)
            index = removals.setdefault(tuple(sorted(removed)), len(removals))
            for place in owned:  # a later filter overwrites an earlier one's loss, as in the reference
                owner[place] = index
    keep = torch.ones(len(removals), grid, grid)
    for blocks, index in removals.items():
        for place in blocks:
            keep[index][place] = 0
    keep = keep.repeat_interleave(block, 1).repeat_interleave(block, 2)  # M S S
    if corrected:
        plain = torch.fft.ifftshift(keep, dim=(-2, -1))
        return BlockFilters((plain * _opposite(plain))[..., : size // 2 + 1], owner)
    return BlockFilters(half_plane(keep), owner)
