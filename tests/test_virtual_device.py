"""Every script runs on a GPU, as far as a machine without one can show; and the host does not wait for it."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.crf.lattice import Lattice, bilateral_features
from common.run.errors import UserError, run_script
from common.run.gpu_memory import gpu_memory_of_scripts
from common.tensors import read_later, tensor_on
from common.train.checkpoint import Checkpoints
from common.train.trainer import Trainer
from methods.irn import make_ir_label
from methods.psa import make_crf
from tests.golden import test_golden as golden
from tests.golden.harness import Case, cases, compare
from tests.helpers import SCRIPTS_OF, Scripts
from tests.virtual_device import MEMORY, Waits, virtual_device

BEFORE = {"psa": make_crf, "irn": make_ir_label}
SETTINGS = {  # three steps: nothing is logged, saved or validated in the first two
    "toco": ("loss.seg_after=0",), "diffusion": ("ema.after=0", "train.save_every=3"), "cti": ("loss.memory_size=1",),
    "dig": ("loss.cam_start_epoch=0",),
}  # fmt: skip
INFERENCE = {
    "cti": ("--dict",), "pcss": ("--dict",), "dig": ("--dict",), "toco": ("--dict",),
    "psa": ("--seeds", "SEEDS"), "irn": ("--seeds", "SEEDS"),
}  # fmt: skip
GOLDEN = ("cti_infer_voc", "pcss_infer", "dig_unet", "crt_cnn")  # a cheap case of each network
SLOW_GOLDEN = ("cti_forward_voc", "cti_forward_coco", "pcss_forward", "dig_vit", "dig_lfca", "toco_forward", "crt_deit",
               "crt_wsol", "deeplab_test", "irn_edge", "psa_net")  # fmt: skip


def test_devices_are_kept_apart() -> None:
    """Tensors of two devices do not mix; scalars and indices may come from the CPU; numbers are the CPU's."""
    values = torch.arange(6.0).view(2, 3)
    with virtual_device():
        moved = values.to("cuda")
        assert moved.is_cuda and moved.device == torch.device("cuda", 0) and moved.cpu().equal(values)
        with pytest.raises(RuntimeError, match=r"same device.*cpu, cuda:0"):
            moved + values
        with pytest.raises(RuntimeError, match="same device"):
            moved.to("cuda:1") + moved
        for convert in (lambda tensor: tensor.numpy(), np.asarray):
            with pytest.raises(TypeError, match="convert cuda:0 device type tensor to numpy"):
                convert(moved)
        assert (moved + torch.tensor(1.0)).tolist() == (values + 1).tolist()
        assert moved[torch.tensor([1])].tolist() == moved[[1]].tolist() == values[1:].tolist()
        layer = torch.nn.Linear(3, 1).to("cuda")
        layer(moved).sum().backward()
        assert layer.weight.grad.device.type == "cuda" and layer.weight.grad.tolist() == [values.sum(0).tolist()]
    assert not torch.zeros(1).is_cuda and torch.Generator is torch._C.Generator


def test_waits_are_counted() -> None:
    """Where values, or shapes that values decide, reach the host, and for copies that do not run beside it."""
    with virtual_device() as waits:
        moved = torch.arange(6.0).to("cuda", non_blocking=True)
        moved.cumsum(0).to("cpu", non_blocking=True)
        read_later(moved)()
        moved[tensor_on([1], moved.device)] = moved.where(moved > 2, 0.0)[0]
        assert not waits
        for number, action in enumerate(
            (
                float, bool, torch.Tensor.cpu, lambda x: x.tolist(), torch.nonzero, lambda x: x[x > 2], torch.unique,
                lambda x: x[[1]], lambda x: torch.tensor([1], device=x.device),
            ), 1,
        ):  # fmt: skip
            action(moved[0] if action in (float, bool) else moved)
            assert waits.total() == number, action


@pytest.mark.parametrize("method", SCRIPTS_OF)
def test_scripts(method: str, experiments: Path, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training and an inference; no step waits, and a checkpoint waits once for the check of its weights."""
    monkeypatch.chdir(tmp_path)
    scripts = Scripts(monkeypatch, experiments / f"{method}.yaml", method)
    if method in BEFORE:
        assert scripts.call(BEFORE[method], "x", "--seeds", seeds) == 0
    checks: list[int] = []
    steps: list[Counter[str]] = []
    on_device = "runtime.device=cuda"
    with virtual_device() as waits:
        count_checks(monkeypatch, checks)
        count_steps(monkeypatch, waits, steps)
        settings = (on_device, "train.max_steps=3", "train.print_freq=100", "train.save_steps=0")
        assert scripts.train("x", *settings, *SETTINGS.get(method, ())) == 0
        in_steps = steps[-1] - steps[0]  # the last step, which is logged, begins where the last is counted
        assert not in_steps
        found = sum(count for place, count in waits.items() if place.startswith("common/train/checkpoint.py"))
        assert found == len(checks) > 0
        if SCRIPTS_OF[method][1]:
            arguments = [seeds if part == "SEEDS" else part for part in INFERENCE.get(method, ())]
            assert scripts.infer("x", on_device, *arguments) == 0


def count_checks(patch: pytest.MonkeyPatch, checks: list[int]) -> None:
    """Notes each check of the weights."""
    weights = Checkpoints._weights

    def check(self: Checkpoints) -> dict[str, torch.Tensor]:
        checks.append(1)
        return weights(self)

    patch.setattr(Checkpoints, "_weights", check)


def count_steps(patch: pytest.MonkeyPatch, waits: Waits, steps: list[Counter[str]]) -> None:
    """Notes the waits so far at the beginning of each step."""
    begin = Trainer._batch

    def batch(self: Trainer, *arguments: Any) -> Any:
        steps.append(Counter(waits))
        return begin(self, *arguments)

    patch.setattr(Trainer, "_batch", batch)


class DeviceCase(Case):
    """A golden case whose inputs lie on the device."""

    def make(self, recipe: Any) -> Any:
        """As `Case.make`."""
        with torch.device("cpu"):
            made = super().make(recipe)
        return made.to("cuda") if isinstance(made, torch.Tensor) else made


@pytest.mark.parametrize("name", [*GOLDEN, *SLOW_GOLDEN])
def test_golden_forward(name: str, pytestconfig: pytest.Config) -> None:
    """The networks' golden numbers, computed on the device."""
    if name in SLOW_GOLDEN and not pytestconfig.getoption("--complete"):
        pytest.skip("takes seconds: --complete")
    (case,) = (case for case in cases(pytestconfig.getoption("--golden")) if case.file == f"{name}.npz")
    run = golden.RUNNERS[case.entry["method"], case.entry["kind"]]
    forget_networks(run)
    with virtual_device(), torch.device("cuda"):
        compare(case, run(DeviceCase(case.folder, case.file, case.entry)))
    forget_networks(run)


def forget_networks(run: Callable) -> None:
    """Empties the caches of a golden runner's module: networks on the device are of no use outside."""
    for value in vars(sys.modules[run.__module__]).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


def test_peak_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that ends, well or not, tells the process that started it; without a GPU it tells nothing."""

    def fails() -> None:
        raise UserError("the disk is full")

    for main in (lambda: 0, fails):
        with gpu_memory_of_scripts() as needed:
            with pytest.raises(SystemExit):
                run_script(main)
            assert needed() == 0
            with virtual_device(), pytest.raises(SystemExit):
                run_script(main)
            assert needed() == MEMORY


def test_lattice() -> None:
    """The CRF's lattice filters on the device as on the CPU."""
    image = torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(0)) * 255
    values = torch.rand(42, 3, generator=torch.Generator().manual_seed(1))
    expected = Lattice(bilateral_features(image, 5.0, 20.0)).filter(values)
    with virtual_device() as waits:
        image, values = image.to("cuda"), values.to("cuda")
        for host_waits in (True, False):
            waits.clear()
            found = Lattice(bilateral_features(image, 5.0, 20.0), waits=host_waits).filter(values)
            assert found.is_cuda and bool(waits) == host_waits
            assert torch.equal(found.cpu(), expected)
