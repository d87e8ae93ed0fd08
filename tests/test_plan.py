"""The cost of a training before it is started, against real passes."""

import json
from pathlib import Path

import pytest

from common.pipeline.builders import PLANNED, named
from common.pipeline.plan import CONTEXT, GB, SPARE, Plan, gpu
from common.run.config import load_config
from common.run.errors import UserError
from common.train.cost import measured_saved, planned_cost
from tests.datasets import call
from tests.experiments import write_experiment

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = sorted(PLANNED)


@pytest.fixture
def tiny(shapes: Path, tmp_path: Path):
    """Writes a method's tiny experiment, as a YAML that names its method."""

    def write(method: str) -> Path:
        path = write_experiment(tmp_path / f"{method.lower()}.yaml", shapes, method.lower())
        path.write_text(f"method: {method}\n{path.read_text()}")
        return path

    return write


@pytest.mark.parametrize("method", METHODS)
def test_the_planned_activations_are_those_of_a_real_pass(method: str, tiny) -> None:
    config_class, step_work = map(named, PLANNED[method])

    def costs(images: int):
        work = step_work(load_config(config_class, tiny(method)), 6, images)
        return planned_cost(work), work

    cost, work = costs(2)
    assert measured_saved(work) == pytest.approx(cost.saved, rel=0.1)
    assert cost.gradients == sum(4 * p.numel() for p in work.model.parameters() if p.requires_grad)
    assert all(parameter.grad is None for parameter in work.model.parameters())  # nothing was computed
    assert cost.memory > cost.weights + cost.optimizer + cost.gradients
    twice, _ = costs(4)
    assert twice.flops == pytest.approx(2 * cost.flops, rel=0.01)
    assert 1.2 * cost.saved < twice.saved < 2.01 * cost.saved  # a weight's normalised form is saved once
    assert (twice.weights, twice.optimizer) == (cost.weights, cost.optimizer)


def test_fewer_bits_save_less(tiny) -> None:
    work = named(PLANNED["CTI"][1])(load_config(named(PLANNED["CTI"][0]), tiny("CTI")), 6, 16)
    whole, half = (planned_cost(work, precision) for precision in ("fp32", "bf16"))
    assert half.saved < 0.8 * whole.saved and half.flops == whole.flops and half.weights == whole.weights


def test_a_small_gpu_gets_smaller_micro_batches_of_the_same_global_batch(tiny) -> None:
    plan = Plan(str(tiny("ToCo")), ["loss.group=2", "train.batch_size=8"])
    assert plan.micro_batches() == [8, 4, 2]  # losses are normalised over groups of two images
    whole, half, least = (plan.cost(size).memory for size in (8, 4, 2))
    for memory, expected in ((whole, 8), (whole - 1e4, 4), (half - 1e4, 2)):
        fit = plan.fit(gpu(f"{(memory + 1e3) / SPARE / GB + CONTEXT / GB},1"), share=0.5)
        assert fit and (fit.micro_batch, fit.accumulation) == (expected, 8 // expected)
        assert fit.seconds == pytest.approx(fit.accumulation * plan.cost(expected).flops / 0.5e12)
    assert plan.fit(gpu(f"{(least - 1e4) / SPARE / GB + CONTEXT / GB},1"), share=0.5) is None


def test_the_course(tiny) -> None:
    plan = Plan(str(tiny("CTI")), [])
    assert (plan.course.images, plan.course.classes, plan.course.steps, plan.course.weight_files) == (24, 6, 12, 2)
    plan = Plan("toco_cvpr23", ["data.root=nowhere"])  # VOC's lists are shipped
    assert (plan.course.images, plan.course.classes, plan.course.steps) == (10_582, 20, 20_000)


def test_as_a_script(tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny("CRT")
    assert call(monkeypatch, "plan", "--exp", path, "--gpu", "a100", "--gpu", "0.61,1", "train.batch_size=8") == 0
    shown = capsys.readouterr().out
    assert "CRT, 24 images, 6 classes" in shown and "| A100 80 GB (80 GB) | 8 | train.accumulation=1 |" in shown
    assert "| 0.61 GB, 1 TFLOP/s (0.61 GB) | none | the smallest needs 0.7 GB |" in shown
    assert call(monkeypatch, "plan", "--exp", path, "--gpu", "a100", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["gpus"]["A100 80 GB"]["micro_batch"] == 4 and plan["micro_batch"]["saved"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--exp", "cti_cvpr24", "--gpu", "309"], "Did you mean 3090"),
        (["--exp", "cti_cvpr24", "--gpu", "24,-1"], "memory and speed as GB,TFLOPS"),
        (["--exp", "irn_cti"], "an experiment of IRN; planned are those of"),
        (["--exp", "cti_cvpr24", "--share", "35"], "above 0 and at most 1"),
        (["--exp", "cti_cvpr24", "--images", "10"], "only 10 training images"),
        (["--exp", "cti_cvpr24", "train.image_list=lost"], "--images N"),
        (["--exp", "cti_cvpr24", "--table"], "either --exp NAME or --table"),
        (["--exp", "cti_cvpr24", "data.dataset=folder", "data.classes=", "--images", "100"], "--classes N"),
    ],
)  # fmt: skip
def test_wrong_usage(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=message):
        call(monkeypatch, "plan", *arguments)
