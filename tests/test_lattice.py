"""The permutohedral lattice: against a loop over points, against exact Gaussian filtering, and as a linear map."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import Tensor

from common.crf.lattice import Lattice, bilateral_features, spatial_features
from common.run.errors import UserError


def smooth_image(height: int, width: int) -> Tensor:
    """Colours that change slowly, with a sharp edge and some noise; (3, H, W), 0 to 255."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    planes = torch.stack([rows, columns, (rows + columns) / 2]) * 100
    planes[:, :, width // 2 :] += 80
    return planes + 6 * torch.rand(planes.shape, generator=torch.Generator().manual_seed(0))


def points(n: int, d: int, spread: float = 2.0) -> Tensor:
    """Normal features (n, d), some of them zero, so that there are ties."""
    features = torch.randn(n, d, generator=torch.Generator().manual_seed(d)) * spread
    features[::3, 0] = 0
    return features


def by_a_loop(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The lattice's definition point by point, with a dictionary of vertices: float32 coordinates, float64 sums."""
    n, d = features.shape
    one = np.float32
    deviation, down = one(math.sqrt(2 / 3) * (d + 1)), one(1 / (d + 1))
    vertices: dict[tuple[int, ...], np.ndarray] = defaultdict(lambda: np.zeros(values.shape[1]))
    corners = []
    for feature, value in zip(features, values, strict=True):
        elevated, total = np.zeros(d + 1, np.float32), one(0)
        for j in range(d, 0, -1):
            scaled = feature[j - 1] * one(1 / math.sqrt(j * (j + 1)) * float(deviation))
            elevated[j] = total - one(j) * scaled
            total = total + scaled
        elevated[0] = total
        nearest = np.rint(elevated * down).astype(int) * (d + 1)
        order = np.argsort(-(elevated - nearest.astype(np.float32)), kind="stable")
        rank = np.argsort(order) + nearest.sum() // (d + 1)
        nearest += (d + 1) * ((rank < 0).astype(int) - (rank > d))
        rank %= d + 1
        offset = (elevated - nearest.astype(np.float32)) * down
        weights = np.zeros(d + 2)
        for i in range(d + 1):
            weights[d - rank[i]] += offset[i]
            weights[d + 1 - rank[i]] -= offset[i]
        weights[0] += 1 + weights[d + 1]
        for k in range(d + 1):
            key = tuple(int(x) for x in nearest + np.where(rank <= d - k, k, k - d - 1))
            corners.append((key, weights[k]))
            vertices[key] += weights[k] * value
    for axis in range(d + 1):
        step = np.full(d + 1, -1)
        step[axis] = d
        before = dict(vertices)
        for key in before:
            for neighbour in (tuple(np.array(key) + step), tuple(np.array(key) - step)):
                vertices[key] = vertices[key] + 0.5 * before.get(neighbour, 0)
    result = np.array([weight * vertices[key] for key, weight in corners]).reshape(n, d + 1, -1).sum(1)
    return result / (1 + 2.0**-d)


def dense(lattice: Lattice, n: int, transposed: bool = False) -> Tensor:
    """The linear map as a matrix, by filtering unit vectors."""
    return lattice.filter(torch.eye(n), transposed)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_as_a_loop_over_points(d: int) -> None:
    features, values = points(90, d), torch.rand(90, 3, generator=torch.Generator().manual_seed(9))
    expected = by_a_loop(features.numpy(), values.numpy())
    np.testing.assert_allclose(Lattice(features).filter(values), expected, rtol=2e-6, atol=2e-6)


def test_as_a_loop_over_the_pixels_of_an_image() -> None:
    """Column 0 is all ties."""
    features, values = bilateral_features(smooth_image(9, 8), 5.0, 15.0), torch.eye(72)[:, ::5]
    np.testing.assert_allclose(
        Lattice(features).filter(values), by_a_loop(features.numpy(), values.numpy()), rtol=2e-6, atol=2e-6
    )


@pytest.mark.parametrize("sigma_xy, sigma_rgb", [(50.0, 15.0), (50.0, 30.0), (2.0, 200.0)])
def test_approximates_the_gaussian(sigma_xy: float, sigma_rgb: float) -> None:
    features = bilateral_features(smooth_image(12, 10), sigma_xy, sigma_rgb)
    values = torch.rand(120, 4, generator=torch.Generator().manual_seed(1))
    exact = (-0.5 * torch.cdist(features.double(), features.double()) ** 2).exp() @ values.double()
    found = Lattice(features).filter(values).double()
    cosine = torch.nn.functional.cosine_similarity(found.flatten(), exact.flatten(), dim=0)
    scale = (found * exact).sum() / (exact * exact).sum()
    assert cosine > 0.99 and 0.5 < scale < 0.7, (cosine, scale)


def test_a_linear_map_and_its_transpose() -> None:
    n = 80
    lattice = Lattice(bilateral_features(smooth_image(8, 10), 3.0, 20.0))
    matrix = dense(lattice, n)
    values = torch.randn(n, 6, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(lattice.filter(values), matrix @ values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dense(lattice, n, transposed=True), matrix.T, rtol=1e-6, atol=1e-6)
    assert (matrix - matrix.T).abs().max() > 1e-4  # they do differ
    assert (matrix > -1e-6).all() and (matrix.diag() > 0.3).all()


def test_the_order_of_points_does_not_matter() -> None:
    features, values = points(200, 5, 0.7), torch.rand(200, 3)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        Lattice(features[order]).filter(values[order]), Lattice(features).filter(values)[order], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("offset", [o for o in itertools.product((-900.0, 0.0, 900.0), repeat=2) if any(o)])
def test_distant_points_do_not_mix(offset: tuple[float, float]) -> None:
    """Also where their coordinates are large and of either sign: fields of the vertices' numbers must not overlap."""
    cluster = points(40, 2, 0.5)
    matrix = dense(Lattice(torch.cat([cluster, cluster + torch.tensor(offset)])), 80)
    assert (matrix[:40, 40:] == 0).all() and (matrix[40:, :40] == 0).all()
    torch.testing.assert_close(matrix[:40, :40], dense(Lattice(cluster), 40), rtol=0, atol=0)


def test_features_of_pixels() -> None:
    image = torch.arange(24.0).view(3, 2, 4)
    features = bilateral_features(image, 2.0, 5.0)
    assert features.shape == (8, 5) and features.dtype == torch.float32
    torch.testing.assert_close(features[6], torch.tensor([2 / 2, 1 / 2, 6 / 5, 14 / 5, 22 / 5]))
    assert torch.equal(features[:, :2], spatial_features(2, 4, 2.0))


def test_float32_under_autocast_and_without_a_graph() -> None:
    features, values = points(50, 5), torch.rand(50, 2, requires_grad=True)
    expected = Lattice(features).filter(values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Lattice(features).filter(values)
    assert found.dtype == torch.float32 and torch.equal(found, expected) and not expected.requires_grad


@pytest.mark.parametrize("features, words", [
    (torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), "not finite"), (torch.tensor([[0.0, math.inf]]), "not finite"),
    (torch.tensor([[0.0], [1e7]]), "float32"), (torch.eye(5) * 3e4, "63 bits"),
])  # fmt: skip
def test_features_that_have_no_lattice(features: Tensor, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Lattice(features)
    assert Lattice(features, waits=False).filter(torch.ones(len(features), 1)).isnan().all()


@pytest.mark.parametrize("transposed", [False, True])
def test_the_number_of_vertices_need_not_be_known(transposed: bool) -> None:
    """Empty vertices change nothing, to the last bit."""
    features, values = points(90, 5), torch.rand(90, 3, generator=torch.Generator().manual_seed(9))
    lattice, roomy = Lattice(features), Lattice(features, waits=False)
    assert roomy.num_vertices == 6 * 90 > lattice.num_vertices
    assert torch.equal(roomy.filter(values, transposed), lattice.filter(values, transposed))
