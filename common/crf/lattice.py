"""The permutohedral lattice in plain PyTorch: Gaussian filtering in a space of a few features, on CPUs and GPUs.

Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral lattice" (Eurographics 2010), with the
conventions of the dense CRF's C++ code (Kraehenbuehl and Koltun, NIPS 2011), which the energy loss of Tang et al. (ECCV
2018) shares: the vertices and the weights of a point follow that code operation by operation.

A point's value is splatted onto the d + 1 vertices of the simplex it lies in, the vertices are blurred along each of
the lattice's d + 1 axes, and points are interpolated from their vertices. The result approximates the unnormalised
Gaussian sum_j exp(-|f_i - f_j|^2 / 2) x_j up to a factor: along images it is 0.55 to 0.6 of it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from common.run.errors import UserError
from common.tensors import size_of

FARTHEST = 2**18  # elevated coordinates; beyond, float32 leaves too few bits for a point's place in its simplex
NO_VERTEX = torch.iinfo(torch.int64).max  # larger than the number of any vertex


def spatial_features(height: int, width: int, sigma_xy: float, device: torch.device | None = None) -> Tensor:
    """Column and row of every pixel in units of ``sigma_xy``, float32 (H*W, 2), row by row."""
    sigma = torch.full((), sigma_xy, device=device)  # a tensor, as CUDA multiplies by the inverse of a number
    rows, columns = (torch.arange(size, dtype=torch.float32, device=device) / sigma for size in (height, width))
    return torch.stack([columns.repeat(height), rows.repeat_interleave(width)], dim=1)


def bilateral_features(image: Tensor, sigma_xy: float, sigma_rgb: float) -> Tensor:
    """Column, row, red, green and blue of every pixel in units of their sigmas, float32 (H*W, 5), row by row.

    Args:
        image: (3, H, W), colours from 0 to 255.
        sigma_xy: pixels.
        sigma_rgb: colour difference (of 255).
    """
    position = spatial_features(*size_of(image), sigma_xy, image.device)
    colours = image.float().flatten(1).T / torch.full((), sigma_rgb, device=image.device)
    return torch.cat([position, colours], dim=1)


class Lattice:
    """The lattice of one set of points; made once, it filters any number of values.

    Nothing is added up atomically: results are the same every time, on GPUs too.

    Attributes:
        num_vertices: M, vertices of the lattice, without the empty one in place of all missing vertices.
    """

    @torch.no_grad()
    def __init__(self, features: Tensor, waits: bool = True) -> None:
        """Finds the points' simplices and connects their vertices.

        Args:
            features: (n, d), in units of the Gaussian's standard deviations.
            waits: the host reads the number of vertices, for which it waits on a GPU. Else there are as many as n
                points could have, most of them empty, and features that have no lattice give NaN; results are equal.

        Raises:
            UserError: the features are not finite, or so far apart that the vertices cannot be numbered in 63 bits.
        """
        with torch.autocast(features.device.type, enabled=False):
            elevated = _elevate(features.float().T.contiguous())  # d+1 n
            has_place = elevated.abs().max() < FARTHEST
            if waits and not bool(has_place):
                raise UserError(
                    "the features of a lattice are not finite, or too far apart for float32. Check the values, or use "
                    "larger sigmas"
                )
            rounded, place, weights = _simplices(elevated if waits else elevated.where(has_place, 0.0))
            keys, steps, colour, numbers = _vertex_keys(rounded, place)
            is_numbered = numbers < 2.0**63
            if waits and not bool(is_numbered):
                raise UserError(
                    f"the {features.shape[1]} features of a lattice are too far apart: its {float(numbers):.2g} "
                    "vertices cannot be numbered in 63 bits. Use larger sigmas"
                )
            # Each vertex's points in their order: a stable sort makes the sums those of a loop over points.
            keys, order = keys.flatten().sort(stable=True)
            vertex = F.pad((keys[1:] != keys[:-1]).cumsum(0), (1, 0))  # of every key
            self.num_vertices = int(vertex[-1]) + 1 if waits else len(keys)
            vertices = keys.new_full((self.num_vertices,), NO_VERTEX).scatter_(0, vertex, keys)
            self._blur = _neighbours(vertices, steps, colour)
            self._blur_weights = weights.new_full((self.num_vertices + 1, 3), 0.5)
            self._blur_weights[:, 2] = 1
            # The last bag of points has none: the vertex that does not exist.
            self._points = order % len(features)
            self._point_weights = weights.flatten()[order]
            self._first_points = torch.searchsorted(vertex, torch.arange(self.num_vertices + 1, device=vertex.device))
            corners = torch.empty_like(order)
            corners[order] = vertex
            alpha = 1 / (1 + 2.0 ** -features.shape[1])
            self._corners = corners.view_as(weights).T.contiguous()  # n d+1
            self._corner_weights = (weights * alpha).T.contiguous()
            if not waits:
                self._corner_weights.masked_fill_(~(has_place & is_numbered), math.nan)

    @torch.no_grad()
    def filter(self, values: Tensor, transposed: bool = False) -> Tensor:
        """Filters values of all points; a point's own value takes part. Not recorded for autograd.

        Args:
            values: (n, C).
            transposed: apply the transposed linear map, which blurs along the axes in reverse order (the two differ
                little, as vertices that do not exist pass nothing on).

        Returns:
            float32 (n, C), unnormalised.
        """
        with torch.autocast(values.device.type, enabled=False):
            at_vertices = F.embedding_bag(
                self._points, values.float(), self._first_points, mode="sum", per_sample_weights=self._point_weights
            )  # M+1 C
            for neighbours in reversed(self._blur) if transposed else self._blur:
                at_vertices = F.embedding_bag(
                    neighbours, at_vertices, mode="sum", per_sample_weights=self._blur_weights
                )
            return F.embedding_bag(self._corners, at_vertices, mode="sum", per_sample_weights=self._corner_weights)


def _simplices(elevated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The simplex of every point.

    Args:
        elevated: the points, see `_elevate`.

    Returns:
        Three tensors (d+1, n): the remainder-0 vertex in units of d+1, float32; for each coordinate, the number
        (from 0) of the vertex after which the simplex steps along it, int64; the point's weights of vertices 0 to d.
    """
    d = len(elevated) - 1
    down = _float32(1 / (d + 1))
    rounded = (elevated * down).round()
    difference = elevated - rounded * (d + 1)
    # Ranks of a stable descending sort; ties (a whole image column has them) decide which empty vertices there are.
    rank = rounded.sum(0).to(torch.int8).repeat(d + 1, 1)
    for i in range(d):
        for j in range(i + 1, d + 1):
            less = difference[i] < difference[j]
            rank[i] += less
            rank[j] += ~less
    wrap = (rank < 0).to(torch.int8) - (rank > d).to(torch.int8)  # back onto the plane whose coordinates sum to 0
    rounded += wrap
    place = (d - rank - wrap * (d + 1)).long()
    difference = (elevated - rounded * (d + 1)) * down
    ordered = torch.empty_like(difference).scatter_(0, place, difference)
    weights = torch.cat([ordered[:1] + (1 - ordered[-1:]), ordered[1:] - ordered[:-1]])
    return rounded, place, weights


def _elevate(features: Tensor) -> Tensor:
    """The points on the plane of d+1 coordinates that sum to 0, (d+1, n); in float32, in the C++ code's order."""
    d, n = features.shape
    deviation = _float32(math.sqrt(2 / 3) * (d + 1))
    elevated = features.new_empty(d + 1, n)
    total = features.new_zeros(n)
    for j in range(d, 0, -1):
        scaled = features[j - 1] * _float32(1 / math.sqrt(j * (j + 1)) * deviation)
        elevated[j] = total - j * scaled
        total = total + scaled
    elevated[0] = total
    return elevated


def _float32(number: float) -> float:
    return torch.tensor(number, dtype=torch.float32).item()


def _vertex_keys(rounded: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Numbers the vertices of every point's simplex.

    Vertex k of a simplex has coordinates (d+1) u_i + k with whole u_i; k and the first d u_i tell it from all others.
    Its number packs them into fields as wide as these points need, u_i from 1: a neighbour that leaves a field's range
    on either side has a 0 there, which no vertex has, and so is not mistaken for a vertex.

    Returns:
        int64 (d+1, n); the worth of 1 in u_0 to u_{d-1} and u_d (0: it is not packed), int64 (d+1,), and in k, int64;
        how many numbers there are, float32.
    """
    d = len(rounded) - 1
    low, high = rounded[:d].aminmax(dim=1)
    sizes = high - low + 3  # u_i is that of vertex 0, or 1 below it
    worth = F.pad(sizes.long().cumprod(0), (1, 0), value=1)
    colour = worth[-1]
    steps = F.pad(worth[:-1], (0, 1))
    shifted = (rounded[:d] - (low[:, None] - 2)).long()
    first = (shifted * steps[:d, None]).sum(0)
    # Coordinate i is stepped along after vertex place_i: it gains 1 - (d+1) there, so u_i falls by 1, and k grows by 1.
    stepped = torch.empty_like(place).scatter_(0, place, steps[:, None].expand_as(place))
    keys = torch.cat([first[None], colour - stepped[:-1]]).cumsum(0)
    return keys, steps, colour, sizes.prod() * (d + 1)


def _neighbours(vertices: Tensor, steps: Tensor, colour: Tensor) -> list[Tensor]:
    """For each axis and vertex the two neighbours and itself, (M+1, 3); vertex M stands for missing neighbours.

    Args:
        vertices: the sorted numbers (M,) of the vertices; `NO_VERTEX` has no neighbours.
        steps: see `_vertex_keys`.
        colour: the worth of 1 in k.
    """
    d = len(steps) - 1
    size = len(vertices)
    # One way along axis j all coordinates fall by 1 and j grows by d+1, so k falls by 1, from 0 to d with a carry.
    fall = torch.where(vertices < colour, d * colour - steps.sum(), -colour)
    is_vertex = vertices != NO_VERTEX
    itself = torch.arange(size + 1, device=vertices.device)
    found = []
    for step in steps:
        wanted = vertices + (fall + step)
        index = torch.searchsorted(vertices, wanted).clamp_(max=size - 1)
        one_way = torch.where(is_vertex & (vertices[index] == wanted), index, size)
        other_way = torch.full_like(itself, size)
        other_way[one_way] = itself[:-1]
        other_way[size] = size
        found.append(torch.stack([F.pad(one_way, (0, 1), value=size), other_way, itself], dim=1))
    return found
