"""PCSS's spectra against the complex transforms they stand for, and its block filters against the reference's loop."""

import pytest
import torch
from torch import Tensor

from common.run.errors import UserError
from methods.pcss.frequency import block_filters, filtered, half_plane, removed_blocks, spectrum, with_magnitude

pytestmark = pytest.mark.usefixtures("one_thread")
AXES = (-2, -1)
SIZES = [(8, 8), (7, 7), (2, 2), (1, 1), (4, 6), (5, 8), (6, 5)]


def random(*shape: int, seed: int = 0) -> Tensor:
    """Normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def literally_filtered(images: Tensor, weights: Tensor) -> Tensor:
    """Re IFFT2(ifftshift(weights * fftshift(FFT2(images)))) with weights over the centred spectrum."""
    shifted = torch.fft.fftshift(torch.fft.fft2(images.double()), dim=AXES)
    return torch.fft.ifft2(torch.fft.ifftshift(weights.double() * shifted, dim=AXES)).real


def whole_plane(half: Tensor, width: int) -> Tensor:
    """Half-plane weights (..., h, w//2+1) as whole ones (..., h, w) in FFT order: w(u, v) = w(-u, -v)."""
    rows = -torch.arange(half.shape[-2]) % half.shape[-2]
    columns = torch.arange(half.shape[-1], width)
    return torch.cat([half, half[..., rows, :][..., width - columns]], dim=-1)


def literally_with_magnitude(maps: Tensor, magnitude: Tensor) -> Tensor:
    """Re IFFT2(G exp(i arg FFT2(maps))) for G's half-plane."""
    phase = torch.fft.fft2(maps).angle()
    return torch.fft.ifft2(whole_plane(magnitude, maps.shape[-1]) * torch.exp(1j * phase)).real


@pytest.mark.parametrize("size", [8, 7, 2, 1, 12])
def test_a_half_plane_filters_like_the_whole_spectrum(size: int) -> None:
    """The real part of complex filtering, for masks without any symmetry, one for each image."""
    images, weights = random(3, 2, size, size), torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(1))
    found = filtered(spectrum(images), half_plane(weights), (size, size))
    torch.testing.assert_close(found.double(), literally_filtered(images, weights), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_a_magnitude_is_exchanged_as_by_complex_transforms(size: tuple[int, int]) -> None:
    """Value, and gradients to the maps and to the magnitude."""
    height, width = size
    maps, magnitude = random(2, 3, *size), random(2, 3, height, width // 2 + 1, seed=1).abs()
    wanted, results = random(2, 3, *size, seed=2), []
    for function, dtype in ((with_magnitude, torch.float32), (literally_with_magnitude, torch.float64)):
        inputs = [value.to(dtype, copy=True).requires_grad_() for value in (maps, magnitude)]
        value = function(*inputs)
        results.append((value, *torch.autograd.grad((value * wanted.to(dtype)).sum(), inputs)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("size", SIZES)
def test_its_own_magnitude_gives_a_map_back(size: tuple[int, int]) -> None:
    """To float tolerance, also maps of which a part is 0."""
    maps = random(2, 3, *size)
    maps[0, 1] = 0
    torch.testing.assert_close(with_magnitude(maps, spectrum(maps).abs()), maps, rtol=1e-4, atol=1e-5)


def test_no_spectrum_has_phase_zero() -> None:
    """As angle(0) = 0: value and gradient of the magnitude are those of phase 0; none reaches the map."""
    maps = torch.zeros(1, 1, 4, 6, requires_grad=True)
    magnitude = random(1, 1, 4, 4).abs().requires_grad_()
    wanted = random(1, 1, 4, 6, seed=2)
    found = with_magnitude(maps, magnitude)
    of_maps, of_magnitude = torch.autograd.grad((found * wanted).sum(), [maps, magnitude])
    expected = torch.fft.irfft2(magnitude.to(torch.complex64), s=(4, 6))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(of_magnitude, torch.autograd.grad((expected * wanted).sum(), magnitude)[0])
    assert not of_maps.any()  # and so is finite
    own = spectrum(maps).abs()  # what is mixed in training has the same zeros
    assert not torch.autograd.grad(with_magnitude(maps, own).sum(), maps)[0].any()


def test_spectra_stay_float32_under_autocast() -> None:
    """Maps in bf16 are transformed as float32, and come back as bf16."""
    maps, weights = random(2, 3, 6, 6).bfloat16(), random(6, 4, seed=1)
    magnitude = spectrum(random(2, 3, 6, 6, seed=2)).abs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spectra = spectrum(maps)
        image, mixed = filtered(spectra, weights, (6, 6)), with_magnitude(maps, magnitude)
    assert (spectra.dtype, image.dtype, mixed.dtype) == (torch.complex64, torch.float32, torch.bfloat16)
    assert torch.equal(spectra, spectrum(maps.float()))
    assert torch.equal(image, filtered(spectrum(maps.float()), weights, (6, 6)))
    assert torch.equal(mixed, with_magnitude(maps.float(), magnitude).bfloat16())


def reference_round(size: int, block: int, loss: Tensor) -> Tensor:
    """Step 2 and 3 of the reference (spec 3.2): block losses (g, g) where an image's loss is linear in its filter.

    Args:
        loss: what each frequency that is kept adds (S, S//2+1).
    """
    grid = size // block
    written = torch.full((grid, grid), float("nan"), dtype=torch.float64)
    for row in range(grid):
        for column in range(grid // 2 + 1):
            mask = torch.ones(size, size)
            blocks = [(row, column)]
            if row >= 1 and column >= 1:
                blocks.append((grid - row, grid - column))
            elif row == 0 and column >= 1:
                blocks.append((0, grid - column))
            for r, c in blocks:
                mask[block * r : block * (r + 1), block * c : block * (c + 1)] = 0
            value = (half_plane(mask).double() * loss).sum()
            for place in blocks:
                written[place] = value
    return written


@pytest.mark.parametrize(("size", "block", "filters"), [(224, 16, 106), (32, 8, 11), (48, 8, 22), (16, 8, 4)])
def test_block_filters_are_the_references(size: int, block: int, filters: int) -> None:
    """Each distinct one is there once, owns a block, and what is written for each block is what the loop writes."""
    found = block_filters(size, block)
    assert found.weights.shape == (filters, size, size // 2 + 1)
    assert len(found.weights.flatten(1).unique(dim=0)) == filters
    assert found.owner.unique().tolist() == list(range(filters))
    loss = random(size, size // 2 + 1).double()
    losses = (found.weights.double() * loss).sum((1, 2))
    torch.testing.assert_close(losses[found.owner], reference_round(size, block, loss))


def test_mirror_blocks_of_the_reference() -> None:
    """Off by one, and none in column 0."""
    assert removed_blocks(5, 3, 14) == [(5, 3), (9, 11)] and removed_blocks(0, 3, 14) == [(0, 3), (0, 11)]
    assert removed_blocks(0, 0, 14) == [(0, 0)] and removed_blocks(5, 0, 14) == [(5, 0)]
    assert set(removed_blocks(3, 7, 14)) == set(removed_blocks(11, 7, 14)) == {(3, 7), (11, 7)}


@pytest.mark.parametrize(("size", "block", "filters"), [(224, 16, 98), (32, 8, 8), (24, 8, 5)])
def test_corrected_filters_remove_a_block_and_its_conjugates(size: int, block: int, filters: int) -> None:
    """Exactly these frequencies; so they are symmetric about frequency 0. Two mirror blocks share a filter."""
    found, grid = block_filters(size, block, corrected=True), size // block
    assert len(found.weights) == filters == len(found.owner.unique()) and int(found.owner.min()) == 0
    assert torch.equal(found.owner, found.owner.flip(0, 1))
    opposite = -torch.arange(size) % size
    for index, weights in enumerate(found.weights):
        row, column = divmod(int((found.owner.flatten() == index).nonzero()[0]), grid)
        removed = torch.zeros(size, size, dtype=torch.bool)
        removed[block * row : block * (row + 1), block * column : block * (column + 1)] = True
        removed = torch.fft.ifftshift(removed)
        removed |= removed[opposite][:, opposite]
        assert torch.equal(whole_plane(weights, size), (~removed).float())


def test_an_image_that_does_not_divide_into_blocks_is_refused() -> None:
    """With both keys."""
    with pytest.raises(UserError, match=r"model\.img_size=224 is no multiple of fim\.block=15"):
        block_filters(224, 15)
