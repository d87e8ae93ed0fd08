"""IRN's network: sizes, the two branches, the released checkpoint's names; and the mean displacement."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from common.data.dataset import DataConfig, ImageSet
from common.data.transforms import eval_transform
from common.nets.load import load_checked
from common.run.device import Runtime
from common.run.errors import UserError
from common.run.options import RuntimeConfig
from common.run.processes import Processes
from methods.irn.config import IRNModelConfig
from methods.irn.displacement import mean_displacement
from methods.irn.model import IRN, unique_tensors
from tests.helpers import assert_same

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = IRNModelConfig("resnet18", blocks=[1, 1, 1, 1])


@pytest.fixture(scope="module")
def model() -> IRN:
    """A small network with random weights; tests leave it as they found it."""
    torch.manual_seed(0)
    return IRN(SMALL).eval()


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
@pytest.mark.parametrize("size", [(32, 32), (33, 50), (70, 41)])
def test_maps_are_of_a_quarter_of_the_size_rounded_up(arch: str, size: tuple[int, int]) -> None:
    """Whatever the stages' own rounding; each branch alone gives the same."""
    model, images = IRN(IRNModelConfig(arch, blocks=[1, 1, 1, 1])).eval(), torch.randn(2, 3, *size)
    with torch.no_grad():
        edge, displacement = model(images)
        height, width = (-(-side // 4) for side in size)
        assert edge.shape == (2, 1, height, width) and displacement.shape == (2, 2, height, width)
        assert torch.equal(model.edge(images), edge) and torch.equal(model.displacement(images), displacement)


def test_the_mean_displacement_is_subtracted_in_evaluation_only(model: IRN) -> None:
    """dy and dx each have theirs; the boundary has nothing to do with it."""
    images, mean = torch.randn(1, 3, 32, 32), torch.tensor([2.0, -3.0])
    with torch.no_grad():
        edge, plain = model(images)
        model.mean_shift.running_mean.copy_(mean)
        shifted_edge, shifted = model(images)
        trained = model.train()(images)[1]
        model.eval().mean_shift.running_mean.zero_()
    torch.testing.assert_close(shifted, plain - mean.view(1, 2, 1, 1))
    assert torch.equal(trained, plain) and torch.equal(shifted_edge, edge)


def released(model: IRN) -> dict[str, Tensor]:
    """The network's tensors as the reference saves them: under several names, with constants."""
    state = dict(model.state_dict())
    stages = {"conv1": "stage1.0", "bn1": "stage1.1", **{f"layer{n}": f"stage{n + 1}.0" for n in range(1, 5)}}
    aliases: dict[str, Tensor] = {"fc_dp7.4.running_mean": state["mean_shift.running_mean"]}
    for name, value in state.items():
        module, _, rest = name.partition(".")
        if module == "resnet50":
            part, _, inner = rest.partition(".")
            aliases[f"{stages[part]}.{inner}"] = aliases[f"backbone.{stages[part][5:]}.{inner}"] = value
        elif module.startswith("fc_"):
            kind, number = module[3:-1], int(module[-1])
            aliases[f"{kind}_layers.{number - 1}.{rest}"] = value
    constants = {f"path_indices{number}": torch.zeros(1, 2, 3, dtype=torch.int64) for number in range(20)}
    return {**state, **aliases, **constants, "disp_target": torch.zeros(1, 2, 152, 1)}


def test_released_files_load_strictly(model: IRN) -> None:
    """All their other names and constants are ignored, nothing else is."""
    other = IRN(SMALL)
    state = released(model)
    assert len(state) > 2 * len(model.state_dict())
    with pytest.raises(UserError, match="left over"):
        load_checked(other, state, "x")
    load_checked(other, unique_tensors(state), "x")
    assert_same(dict(other.state_dict()), dict(model.state_dict()))
    for wrong in (
        {**state, "fc_edge7.weight": torch.zeros(1)},
        {k: v for k, v in state.items() if k != "fc_edge6.bias"},
    ):
        with pytest.raises(UserError, match="does not fit"):
            load_checked(other, unique_tensors(wrong), "x")


def test_the_names_of_the_full_network() -> None:
    """358 tensors of ResNet-50: what is left of the released file's 1056."""
    names = list(IRN(IRNModelConfig()).state_dict())
    assert len(names) == 358 and sum(name.startswith("resnet50.") for name in names) == 318
    expected = {f"fc_edge{n}.{part}" for n in range(1, 6) for part in ("0.weight", "1.weight", "1.bias")}
    expected |= {f"fc_dp{n}.{part}" for n in range(1, 8) for part in ("0.weight", "1.weight", "1.bias")}
    expected |= {"fc_edge6.weight", "fc_edge6.bias", "fc_dp7.3.weight", "mean_shift.running_mean"}
    assert {name for name in names if not name.startswith("resnet50.")} == expected


SIZES = [(20, 40), (50, 18), (32, 32), (24, 24), (40, 40)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Five images of several sizes."""
    root, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    (root / "images").mkdir()
    for number, size in enumerate(SIZES):
        pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
    return ImageSet(DataConfig(dataset="folder", root=str(root)), "all")


def estimate(
    model: IRN, images: ImageSet, batch_size: int, drop_last: bool, processes: Processes | None = None
) -> Tensor:
    runtime = Runtime(RuntimeConfig(device="cpu"), processes or Processes())
    return mean_displacement(model, images, 32, batch_size, drop_last, runtime, 0)


def of_batch(model: IRN, images: ImageSet, indices: list[int]) -> Tensor:
    """The mean over a batch of canvases of 32 x 32, by hand."""
    canvases = torch.zeros(len(indices), 3, 32, 32)
    for canvas, index in zip(canvases, indices, strict=True):
        pixels = eval_transform(images.load_image(index))[:, :32, :32]
        canvas[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    with torch.no_grad():
        return model(canvases)[1].mean((0, 2, 3))


def test_the_mean_displacement_is_a_mean_of_whole_batches(model: IRN, images: ImageSet) -> None:
    """Each counts alike, the incomplete one is left out or counts like the others; a former mean plays no part."""
    model.mean_shift.running_mean.fill_(7)
    found = {drop_last: estimate(model, images, 2, drop_last) for drop_last in (True, False)}
    assert not model.mean_shift.running_mean.any() and not model.training
    means = torch.stack([of_batch(model, images, batch) for batch in ([0, 1], [2, 3], [4])])
    torch.testing.assert_close(found[True], means[:2].mean(0))
    torch.testing.assert_close(found[False], means.mean(0))
    assert not torch.allclose(found[True], found[False], rtol=1e-3)


def test_a_single_incomplete_batch_is_not_left_out(model: IRN, images: ImageSet) -> None:
    """There would be nothing left."""
    torch.testing.assert_close(estimate(model, images, 32, True), of_batch(model, images, [0, 1, 2, 3, 4]))


def test_processes_share_the_batches(model: IRN, images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them have the same mean as one, bitwise."""
    shares: list[list[Tensor]] = []

    def give(processes: Processes, value: list[Tensor]) -> None:
        shares.append(value)
        raise InterruptedError

    monkeypatch.setattr(Processes, "gather_objects", give)
    for rank in (0, 1):
        with pytest.raises(InterruptedError):
            estimate(model, images, 1, False, Processes(rank, rank, 2))
    assert [len(share) for share in shares] == [3, 2]
    monkeypatch.setattr(Processes, "gather_objects", lambda processes, value: shares)
    together = estimate(model, images, 1, False, Processes(0, 0, 2))
    monkeypatch.undo()
    assert torch.equal(together, estimate(model, images, 1, False))
