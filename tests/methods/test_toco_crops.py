"""ToCo's local crops against brute force. (The reference's choice is compared in tests/golden.)"""

import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor

from common.run.errors import UserError
from methods.toco.crops import crop_candidates, draw_ranks, local_crops, positions, window_size

pytestmark = pytest.mark.usefixtures("one_thread")
HEIGHT, WIDTH, SIZE, CROPS = 30, 26, 8, 5


def regions(batch: int, seed: int = 1) -> Tensor:
    """Region maps in which each value covers about a third, in blocks."""
    coarse = torch.randint(0, 3, (batch, 6, 6), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return coarse.repeat_interleave(5, 1).repeat_interleave(5, 2)[:, :HEIGHT, :WIDTH]


def picks(batch: int, crops: int = CROPS, seed: int = 2) -> Tensor:
    """Uniform draws."""
    return torch.rand(batch, crops, generator=torch.Generator().manual_seed(seed))


def pixels(batch: int) -> Tensor:
    """Images in which every value occurs once."""
    return torch.arange(batch * 3 * HEIGHT * WIDTH, dtype=torch.float32).view(batch, 3, HEIGHT, WIDTH)


def test_crops_are_what_lies_at_their_positions() -> None:
    """Crop by crop, inside the image, all different, centred on a candidate; the globals are positive."""
    images, roi = pixels(3), regions(3)
    crops, flags, topleft = local_crops(images, roi, picks(3), SIZE)
    assert crops.shape == (3 * CROPS, 3, SIZE, SIZE) and crops.is_contiguous() and flags.shape == (3, 2 + CROPS)
    assert flags[:, :2].all()
    for number in range(CROPS):
        for image in range(3):
            top, left = topleft[image, number].tolist()
            assert 0 <= top <= HEIGHT - SIZE and 0 <= left <= WIDTH - SIZE
            expected = images[image, :, top : top + SIZE, left : left + SIZE]
            assert torch.equal(crops[3 * number + image], expected)
            assert roi[image, top + SIZE // 2, left + SIZE // 2] < 2
    for image in range(3):
        assert len({tuple(place) for place in topleft[image].tolist()}) == CROPS


def test_flags_count_foreground_twice() -> None:
    """By a recount; both values occur."""
    images, roi = pixels(8), regions(8)
    roi[:4, :, 8:] = 0  # some crops without foreground
    _, flags, topleft = local_crops(images, roi, picks(8), SIZE)
    for image, number in itertools.product(range(8), range(CROPS)):
        top, left = topleft[image, number].tolist()
        total = sum(roi[image, top : top + SIZE, left : left + SIZE].flatten().tolist())
        assert flags[image, 2 + number] == (total / SIZE**2 > 0.2)
    assert flags[:, 2:].any() and not flags[:, 2:].all()


@pytest.mark.parametrize(("foreground", "uncertain", "positive"), [(10, 0, False), (0, 20, False), (10, 1, True)])
def test_a_share_of_a_fifth_is_still_negative(foreground: int, uncertain: int, positive: bool) -> None:
    """Of a crop of 100 pixels."""
    roi = torch.zeros(1, 12, 12, dtype=torch.uint8)
    crop = torch.zeros(100, dtype=torch.uint8)
    crop[:foreground], crop[foreground : foreground + uncertain] = 2, 1
    roi[0, :10, :10] = crop.view(10, 10)
    found = local_crops(torch.zeros(1, 3, 12, 12), roi, lambda counts: torch.tensor([[0]]), 10, 1)
    assert found.topleft.tolist() == [[[0, 0]]] and found.flags.tolist() == [[True, True, positive]]


def test_candidates() -> None:
    """All but foreground inside the margin; the whole window of an image with too few."""
    roi = torch.full((3, HEIGHT, WIDTH), 2, dtype=torch.uint8)
    margin = SIZE // 2
    roi[0, margin, margin : margin + CROPS] = torch.tensor([0, 1, 0, 1, 1])  # just enough
    roi[1, margin, margin : margin + CROPS - 1] = 0  # one too few
    roi[2, :margin], roi[2, :, -margin:] = 0, 0  # only in the margin
    candidates = crop_candidates(roi, SIZE, CROPS)
    assert candidates.shape == (3, HEIGHT - SIZE, WIDTH - SIZE)
    assert candidates[0].nonzero().tolist() == [[0, column] for column in range(CROPS)]
    assert candidates[1:].all()
    topleft = local_crops(pixels(3), roi, picks(3), SIZE).topleft
    assert topleft[0].sort(0).values.tolist() == [[0, column] for column in range(CROPS)]


def test_positions_of_ranks() -> None:
    """In row-major order."""
    candidates = regions(2)[:, :11, :13] < 2
    for image in range(2):
        places = candidates[image].nonzero()
        ranks = torch.arange(len(places))
        assert torch.equal(positions(candidates[image : image + 1], ranks[None])[0], places)


def test_every_set_is_drawn_alike() -> None:
    """Exhaustively: as many grids of draws lead to each set of 3 of 5; all different, also of just enough."""
    grid = [(torch.arange(count) + 0.5) / count for count in (3, 4, 5)]  # a draw for each outcome of each step
    draws = torch.cartesian_prod(*grid)
    ranks = draw_ranks(draws, torch.full((len(draws),), 5))
    sets = Counter(frozenset(row) for row in ranks.tolist())
    assert set(sets) == {frozenset(subset) for subset in itertools.combinations(range(5), 3)}
    assert set(sets.values()) == {6}
    assert (draw_ranks(draws, torch.full((len(draws),), 3)).sort(1).values == torch.arange(3)).all()


def test_extreme_draws() -> None:
    """The largest number below 1 stays among the candidates, of which each image has its own number."""
    counts = torch.tensor([5, 8, 123904, 2**24])
    for draw in (0.0, 1 - 2**-24):
        ranks = draw_ranks(torch.full((4, 5), draw), counts)
        assert (ranks >= 0).all() and (ranks < counts[:, None]).all()
        assert all(len(set(row)) == 5 for row in ranks.tolist())


def test_a_function_may_choose() -> None:
    """It gets the numbers of candidates, and says which."""
    roi, seen = regions(2), []

    def last_ones(counts: Tensor) -> Tensor:
        seen.append(counts)
        return counts[:, None] - 1 - torch.arange(CROPS)

    topleft = local_crops(pixels(2), roi, last_ones, SIZE, CROPS).topleft
    for image in range(2):
        places = (roi[image, 4:-4, 4:-4] < 2).nonzero()
        assert seen[0][image] == len(places) and torch.equal(topleft[image], places.flip(0)[:CROPS])


def test_images_without_room() -> None:
    """For eight different crops."""
    assert window_size(11, 12, 9) == (3, 4)  # odd crops keep their last row inside
    for height, width in ((97, 103), (96, 200), (50, 50)):
        with pytest.raises(UserError, match=f"{height} x {width} pixels has no room for 8 .* 96 x 96"):
            local_crops(torch.zeros(1, 3, height, width), torch.zeros(1, height, width), picks(1, 8), 96)
    assert len(local_crops(torch.zeros(1, 3, 97, 104), torch.zeros(1, 97, 104), picks(1, 8), 96).images) == 8
