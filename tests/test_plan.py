"""The cost of a training before it is started, against real passes."""

import json
from pathlib import Path

import pytest

from common.pipeline.builders import PLANNED, named
from common.pipeline.plan import CONTEXT, GB, SPARE, Plan, gpu
from common.run.config import load_config
from common.run.errors import UserError
from common.train.cost import StepCost, measured_saved, planned_cost
from tests.datasets import call
from tests.experiments import write_experiment

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = sorted(PLANNED)
GB_ = int(GB)


@pytest.fixture
def tiny(shapes: Path, tmp_path: Path):
    """Writes a method's tiny experiment, as a YAML that names its method."""

    def write(method: str) -> Path:
        path = write_experiment(tmp_path / f"{method.lower()}.yaml", shapes, method.lower())
        path.write_text(f"method: {method}\n{path.read_text()}")
        return path

    return write


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the cost of a micro-batch by 1 GB and another for each image."""

    def cost(self: Plan, images: int) -> StepCost:
        return StepCost(flops=1e12 * images, weights=GB_, gradients=0, optimizer=0, saved=0, peak=images * GB_)

    monkeypatch.setattr(Plan, "cost", cost)


@pytest.mark.parametrize("method", METHODS)
def test_the_planned_activations_are_those_of_a_real_pass(method: str, tiny) -> None:
    config_class, step_work = map(named, PLANNED[method])
    work = step_work(load_config(config_class, tiny(method)), 6, 2)
    cost = planned_cost(work)
    assert measured_saved(work) == pytest.approx(cost.saved, rel=0.02)
    assert cost.gradients == sum(4 * p.numel() for p in work.model.parameters() if p.requires_grad)
    assert all(parameter.grad is None for parameter in work.model.parameters())  # nothing was computed
    assert cost.memory > cost.weights + cost.optimizer + cost.gradients


def test_the_cost_grows_with_images_and_bits(tiny) -> None:
    config_class, step_work = map(named, PLANNED["DeepLab"])
    config = load_config(config_class, tiny("DeepLab"))
    one, two, half = (
        planned_cost(step_work(config, 6, images), precision)
        for images, precision in ((4, "fp32"), (8, "fp32"), (8, "bf16"))
    )
    assert two.flops == half.flops == pytest.approx(2 * one.flops, rel=0.01)
    assert 1.2 * one.saved < two.saved < 2.01 * one.saved and half.saved < 0.8 * two.saved
    assert one.weights == two.weights == half.weights


@pytest.mark.usefixtures("linear")
def test_a_small_gpu_gets_smaller_micro_batches_of_the_same_global_batch(tiny) -> None:
    plan = Plan(str(tiny("ToCo")), ["loss.group=2", "train.batch_size=8"])
    assert plan.micro_batches() == [8, 4, 2]  # losses are normalised over groups of two images
    for room, expected in ((9.0, 8), (8.9, 4), (5.0, 4), (4.9, 2), (3.0, 2)):
        fit = plan.fit(gpu(f"{(room + 1e-3) / SPARE + CONTEXT / GB},1"), share=0.5)
        assert fit and (fit.micro_batch, fit.accumulation) == (expected, 8 // expected)
        assert fit.seconds == pytest.approx(16)  # 8 TFLOP at half of 1 TFLOP/s
    assert plan.fit(gpu(f"{2.9 / SPARE + CONTEXT / GB},1"), share=0.5) is None


def test_the_course(tiny) -> None:
    plan = Plan(str(tiny("CTI")), [])
    assert (plan.course.images, plan.course.classes, plan.course.steps, plan.course.weight_files) == (24, 6, 12, 2)
    plan = Plan("toco_cvpr23", ["data.root=nowhere"])  # VOC's lists are shipped
    assert (plan.course.images, plan.course.classes, plan.course.steps) == (10_582, 20, 20_000)


def test_as_a_script(tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny("DeepLab")
    assert call(monkeypatch, "plan", "--exp", path, "--gpu", "a100", "--json", "train.accumulation=1") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["gpus"]["A100 80 GB"]["micro_batch"] == 4 and plan["micro_batch"]["saved"] > 0


@pytest.mark.usefixtures("linear")
def test_tables(tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny("CRT")
    assert call(monkeypatch, "plan", "--exp", path, "--gpu", "a100", "--gpu", "2,1", "train.batch_size=8") == 0
    shown = capsys.readouterr().out
    assert "CRT, 24 images, 6 classes, 6 steps of 8 images" in shown
    assert "| A100 80 GB (80 GB) | 8 | train.accumulation=1 | 9.6 GB |" in shown
    assert "| 2 GB, 1 TFLOP/s (2 GB) | none | the smallest needs 2.6 GB |" in shown
    assert call(monkeypatch, "plan", "--table", "--gpu", "3090") == 0
    header, line, *rows = capsys.readouterr().out.strip().splitlines()
    assert len(rows) == 6 and all(row.count("|") == header.count("|") == line.count("|") for row in rows)


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
