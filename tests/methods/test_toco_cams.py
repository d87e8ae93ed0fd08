"""ToCo's CAMs over views, and its seeds. (Their numbers are compared with the reference's in tests/golden.)"""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.toco.cams import multi_scale_cams, seed_maps
from methods.toco.config import ToCoInferConfig

SIZE = (41, 53)


class Network(nn.Module):
    """Stands for ToCo: two kinds of CAMs of 5 classes and 6 logits, at an eighth of the image's size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maps = nn.Conv2d(3, 16, 8, stride=8).requires_grad_(False)
        self.seen: list[tuple[int, ...]] = []

    def cams(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 5, h, w) twice."""
        self.seen.append(tuple(images.shape))
        return self.maps(images)[:, :5], self.maps(images)[:, 5:10]

    def segment(self, images: Tensor) -> Tensor:
        """(b, 6, h, w)."""
        self.seen.append(tuple(images.shape))
        return self.maps(images)[:, 10:]


@pytest.fixture
def network(one_thread: None) -> Network:
    return Network()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def by_hand(network: Network, image: Tensor, kind: int, scales: Sequence[float], flip: bool) -> Tensor:
    """The maps (5, H, W) of one image (1, 3, H, W), view by view and class by class."""
    size, total = tuple(image.shape[-2:]), torch.zeros(5, *image.shape[-2:])
    for scale in scales:
        view = resized(image, (int(size[0] * scale), int(size[1] * scale)))
        plain = resized(network.cams(view)[kind], size)[0]
        mirrored = resized(network.cams(view.flip(-1))[kind], size)[0].flip(-1)
        total += torch.stack([plain, mirrored if flip else plain, torch.zeros_like(plain)]).amax(0)
    return torch.stack([(cam - cam.min()) / (cam.max() - cam.min() + 1e-5) for cam in total])


@pytest.mark.parametrize("scales", [(1.0, 0.5, 1.5), (0.5, 1.5), (1.0,)])
@pytest.mark.parametrize("flip", [True, False])
def test_multi_scale_cams_view_by_view(network: Network, images: Tensor, scales: tuple, flip: bool) -> None:
    """Upsample, larger of the two, rectify; sum over scales, 1 among them; minimum to 0, maximum to 1."""
    found = multi_scale_cams(network.cams, images, scales, flip=flip)
    wanted = (1.0, *(scale for scale in scales if scale != 1))
    for kind, maps in enumerate(found):
        assert maps.dtype == torch.float32 and maps.min() == 0 and 0.999 < maps.max() < 1
        for image, cams in zip(images.split(1), maps, strict=True):
            torch.testing.assert_close(cams, by_hand(network, image, kind, wanted, flip), rtol=1e-4, atol=1e-5)


def test_known_maps_are_not_computed_again(network: Network, images: Tensor) -> None:
    """The same maps, with one view less; gradients do not flow, whatever the maps were made with."""
    expected = multi_scale_cams(network.cams, images)
    first = tuple(maps.requires_grad_() for maps in network.cams(images))
    network.seen.clear()
    found = multi_scale_cams(network.cams, images, first=first)
    assert len(network.seen) == 5
    for maps, others in zip(found, expected, strict=True):
        assert torch.equal(maps, others) and not maps.requires_grad


def test_image_and_mirror_image_are_one_batch_on_accelerators(network: Network, images: Tensor) -> None:
    """But for the view whose maps are known."""
    network, views = network.to("meta"), images.to("meta")
    for first, batches in ((None, [4, 4, 4]), (network.cams(views), [2, 4, 4])):
        network.seen.clear()
        found = multi_scale_cams(network.cams, views, first=first)
        assert [shape[0] for shape in network.seen] == batches
        assert all(maps.shape == (2, 5, *SIZE) for maps in found)


def test_maps_without_positive_values_are_zero(images: Tensor) -> None:
    """No division by zero."""
    for maps in multi_scale_cams(lambda views: 2 * (torch.full((len(views), 5, 5, 6), -3.0),), images):
        assert maps.shape == (2, 5, *SIZE) and not maps.any()


@pytest.mark.parametrize("kind", ["cam", "cam_aux"])
@pytest.mark.parametrize("side", [32, 0])
def test_seeds_are_the_cams_of_the_labels(network: Network, images: Tensor, kind: str, side: int) -> None:
    """Of a square, brought to the images' size; an image without labels has none."""
    config = ToCoInferConfig(seed_map=kind, cam_size=side)
    labels = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 0, 0, 0.0]])
    some, none = seed_maps(network, config)(images, labels).maps
    assert some.shape == (2, *SIZE) and none.shape == (0, *SIZE)
    image = resized(images[:1], (side, side)) if side else images[:1]
    expected = resized(by_hand(network, image, kind == "cam_aux", (1, 0.5, 1.5), True)[None], SIZE)[0, [1, 3]]
    torch.testing.assert_close(some, expected, rtol=1e-4, atol=1e-5)
    assert {shape[2] for shape in network.seen} == ({16, 32, 48} if side else {20, 41, 61})


@pytest.mark.parametrize("flip", [True, False])
def test_seeds_of_the_segmentation(network: Network, images: Tensor, flip: bool) -> None:
    """At the image's own size: larger logits of image and mirror image, summed over scales, probabilities."""
    config = ToCoInferConfig(seed_map="seg", flip=flip, seg_scales=[1.0, 1.5])
    maps = seed_maps(network, config)(images, torch.tensor([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0.0]])).maps
    for image, found, classes in zip(images.split(1), maps, ([0, 4], [1]), strict=True):
        total = torch.zeros(1, 6, *SIZE)
        for scale in (1.0, 1.5):
            view = resized(image, (int(SIZE[0] * scale), int(SIZE[1] * scale)))
            plain, mirrored = (resized(network.segment(part), SIZE) for part in (view, view.flip(-1)))
            total += torch.maximum(plain, mirrored.flip(-1)) if flip else plain
        expected = total.softmax(1)[0, 1:][classes]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_settings_tell_seeds_apart() -> None:
    """Everything that changes a seed, and nothing else."""
    plain = ToCoInferConfig().settings()
    for change in (
        {"seed_map": "seg"}, {"cam_size": 0}, {"scales": [1.0]}, {"flip": False}, {"seg_scales": [1.0]},
        {"batch_size": 1}, {"format": "npz"},
    ):  # fmt: skip
        assert ToCoInferConfig(**change).settings() != plain, change
    assert ToCoInferConfig(image_list="val", num_workers=0, vis_limit=1).settings() == plain
