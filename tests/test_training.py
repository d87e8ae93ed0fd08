"""The contract of every training script, one row each: to be interrupted or shared changes nothing, nor does a start
that fails. (What is one method's alone: tests/test_train_*.py.)
"""

import itertools
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from common.run.errors import UserError
from common.run.files import ROOT
from common.train.trainer import Trainer
from common.train.watch import ProgressLine
from methods.irn import make_ir_label
from methods.psa import make_crf
from tests.forks import return_memory
from tests.helpers import SCRIPTS_OF, Scripts, assert_close, assert_same, every_file, last, metrics, run_content


@dataclass(frozen=True)
class Training:
    """A row: a training script.

    Attributes:
        method: of its tiny experiment.
        settings: of its runs, besides.
        before: the script that makes what it trains on, from seeds, in the run folder.
        validates: whether it scores its weights.
        shared: settings of runs in which two processes equal one: nothing is drawn by each process for itself, and an
            epsilon that is large enough for Adam, which blows gradients that are zero but for rounding up to full
            steps.
        together: settings of the two processes alone.
        tolerance: of the weights of two processes, relative and absolute.
        free: beginnings of the names of logged numbers that may differ: the ranks of nearly equal logits.
        other: a setting that makes another network.
        wrong: settings, one at a time, that a start fails by.
    """

    method: str
    settings: tuple[str, ...] = ()
    before: ModuleType | None = None
    validates: bool = True
    shared: tuple[tuple[str, ...], ...] = ((),)
    together: tuple[str, ...] = ()
    tolerance: tuple[float, float] = (1e-4, 5e-5)
    free: tuple[str, ...] = ("accuracy_",)
    other: str = "model.depth=3"
    wrong: tuple[str, ...] = ("data.root=nowhere", "train.image_list=nothing", "train.batch_size=5000")

    @property
    def script(self) -> ModuleType:
        """The script as a module."""
        return SCRIPTS_OF[self.method][0]


HALF = ("train.batch_size=8", "train.print_freq=2", "train.validate_from=1")  # epochs of 3 steps, the last validated
SLOW_ADAM = ("optim.warmup_epochs=0", "optim.eps=1e-3", "model.drop_path=0")
TWO_EPOCHS = ("train.batch_size=12", "train.epochs=2", "optim.lr=0.001", "runtime.num_workers=1")  # of 2 steps
PRETRAINED = "model.pretrained=no.pth"
ROWS = (
    Training(  # stochastic depth, the memory of class tokens
        "cti", HALF, free=(),
        shared=((*SLOW_ADAM, "train.max_steps=4", "optim.lr=0.01", "loss.memory_size=2", "runtime.num_workers=2"),),
        wrong=(*Training.wrong, PRETRAINED),
    ),
    Training(  # rounds of frequency importance after the first two of three epochs
        "pcss", HALF,
        # By this seed no image is its own partner; an L1 norm's gradient would be the sign of rounding errors.
        shared=((*SLOW_ADAM, *TWO_EPOCHS, "runtime.seed=91"),),
        wrong=(*Training.wrong, PRETRAINED),
    ),
    Training(  # noise; LFCA is left out where two processes are compared: each draws its stochastic depth
        "dig", HALF,
        shared=((*SLOW_ADAM, *TWO_EPOCHS, "loss.weights=[1, 0, 0, 1, 10]"),),
        wrong=(*Training.wrong, PRETRAINED, "diffusion.file=nowhere.pt"),
    ),
    Training(  # an average of the weights, milestones, pictures
        "diffusion", validates=False, tolerance=(1e-4, 1e-5), other="unet.dim=16",
        shared=(("train.max_steps=3", "train.accumulation=2", "optim.eps=1e-3", "train.print_freq=1"),),
        wrong=(*Training.wrong, "train.init=no.pt", "views.size=17"),
    ),
    Training(  # a teacher; groups of two images as on the authors' GPUs, one in each process, or one group over both
        "toco",
        shared=tuple(
            ("train.max_steps=4", "optim.eps=1e-3", "loss.seg_after=1", "train.eval_steps=4", "runtime.num_workers=1",
             "labels.high=0.6", "labels.low=0.4", f"loss.group={group}")
            for group in (2, 0)
        ),
        wrong=(*Training.wrong, PRETRAINED),
    ),
    Training(  # fixed stages, two groups of rates
        "crt", HALF, tolerance=(1e-4, 1e-5), other="model.deit.depth=1",
        shared=(("train.max_steps=3", "train.accumulation=2", "loss.consistency_from=0"),),
        wrong=(*Training.wrong, "model.cnn.pretrained=no.pth", "views.crop_size=56"),
    ),
    Training(  # two optimisers, two best weights, an incomplete last batch
        "wsol", tolerance=(1e-3, 1e-4), free=("accuracy_", "val_"), other="model.deit.depth=1",
        shared=(("model.deit.drop_path=0", "train.epochs=2", "optim.eps=1e-3", "train.print_freq=1", "optim.lr=0.01"),),
        wrong=(*Training.wrong, "model.deit.pretrained=no.pth", "views.resize=30"),
    ),
    Training(  # pairs of pixels, counted over the global batch
        "psa", ("train.batch_size=8", "train.print_freq=2"), make_crf, validates=False, tolerance=(1e-4, 1e-5),
        other="", shared=(("train.max_steps=6",),), wrong=(*Training.wrong, "views.crop=17"),
    ),
    Training(  # a mean displacement, measured after the last step
        "irn", ("train.batch_size=8", "train.print_freq=2"), make_ir_label, validates=False, tolerance=(1e-3, 1e-4),
        other="model.blocks=[1, 1, 1, 2]",
        shared=(("train.max_steps=3", "train.accumulation=2", "train.print_freq=1"),),
        wrong=(*Training.wrong, PRETRAINED, "views.crop_size=16"),
    ),
    Training(  # a teacher that follows the network and replaces labels
        "vitseg", other="model.decoder=linear", together=("train.accumulation=1",),
        shared=(
            ("train.max_steps=3", "train.print_freq=1", "train.eval_steps=3", "optim.eps=1e-3", "train.accumulation=2"),
        ),
        wrong=(*Training.wrong, PRETRAINED, "train.masks=nowhere", "train.ignore=disputed"),
    ),
    Training(  # losses of a micro-batch by its number of pixels
        "deeplab", tolerance=(1e-4, 1e-6), other="model.width=8", together=("train.accumulation=1",),
        shared=(("train.max_steps=3", "train.print_freq=1", "train.eval_steps=3"),),
        wrong=(*Training.wrong, "train.init=no.pth", "train.masks=nowhere", "train.accumulation=3"),
    ),
)  # fmt: skip


def named(rows: tuple[Training, ...]) -> dict[str, Any]:
    """Arguments of `parametrize` or `fixture`."""
    return {"ids": [row.method for row in rows]}


@pytest.fixture(scope="module", params=ROWS, **named(ROWS))
def whole(
    request: pytest.FixtureRequest, experiments: Path, seeds: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """An uninterrupted run of a row: its folder before and after, and its steps."""
    row = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp(row.method))
        patch.setattr("matplotlib.figure.Figure.savefig", write_numbers)
        scripts, folder = Scripts(patch, experiments / f"{row.method}.yaml", row.method), Path("experiment/x")
        if row.before:
            assert scripts.call(row.before, "x", "--seeds", seeds) == 0
        given = every_file(folder)
        assert scripts.train("x", *row.settings) == 0
        lines = metrics("x")
        scores = [line["step"] for line in lines if line["kind"] == "validation"]
        assert bool(scores) == row.validates and any(line["kind"] == "train" for line in lines)
        content, steps = run_content("x"), last("x")["position"]["total_steps"]
    yield SimpleNamespace(row=row, given=given, content=content, steps=steps, scores=scores)
    return_memory()


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiments: Path, whole: SimpleNamespace) -> Scripts:
    """The row's scripts, called in a folder where a run ``x`` has what it trains on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", write_numbers)
    give(whole, "x")
    return Scripts(monkeypatch, experiments / f"{whole.row.method}.yaml", whole.row.method)


def give(whole: SimpleNamespace, name: str) -> None:
    """Gives a run what it trains on."""
    for place, content in whole.given.items():
        path = Path("experiment", name, place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_numbers(figure: Any, file: Any, **options: object) -> None:
    """Stands in for `Figure.savefig`, which takes longer than all the rest of a tiny run: writes what is drawn."""
    images = [image.get_array().tolist() for axes in figure.axes for image in axes.images]
    lines = [line.get_xydata().tolist() for axes in figure.axes for line in axes.lines]
    file.write(repr((figure.get_suptitle(), [axes.get_title() for axes in figure.axes], images, lines)).encode())


def test_every_training_script_has_a_row() -> None:
    """A new one joins the contract."""
    scripts = {Path(row.script.__file__).relative_to(ROOT) for row in ROWS}
    assert scripts == {path.relative_to(ROOT) for path in ROOT.glob("methods/*/train_*.py")} and len(scripts) >= 10


def test_a_run_may_be_stopped_after_every_step(
    scripts: Scripts, whole: SimpleNamespace, interrupt: Callable[[int], None]
) -> None:
    """One step a start: all files and log lines are bitwise those of an uninterrupted run."""
    for step in range(1, whole.steps + 1):
        interrupt(1)
        assert scripts.train("x", *(whole.row.settings if step == 1 else ["--resume"])) == 128 + signal.SIGTERM
        assert Path("experiment/x/log.txt").read_text().count(f"after step {step};") == 1
    assert scripts.train("x", "--resume") == 0
    assert_same(run_content("x"), whole.content)


def test_a_run_goes_on_with_other_workers_and_after_it_was_killed(
    scripts: Scripts, whole: SimpleNamespace, interrupt: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of an epoch, killed in the last step; resumed once more it changes nothing."""
    interrupt(2)
    assert scripts.train("x", *whole.row.settings, "runtime.num_workers=1") == 143
    assert last("x")["position"]["total_steps"] == last("x")["position"]["step"] == 2
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(ProgressLine, "advance", fail_at(whole.steps - 2))
        scripts.train("x", "--resume", "runtime.num_workers=2")
    assert 2 < last("x")["position"]["total_steps"] < whole.steps
    for _ in range(2):
        assert scripts.train("x", "--resume", "runtime.num_workers=0") == 0
        assert_same(run_content("x"), whole.content)


def fail_at(number: int) -> Callable[[object], None]:
    """A function whose n-th call fails."""
    calls = itertools.count(1)

    def count(_: object) -> None:
        if next(calls) == number:
            raise MemoryError

    return count


VALIDATING = tuple(row for row in ROWS if row.validates)


@pytest.mark.parametrize("whole", VALIDATING, indirect=True, **named(VALIDATING))
def test_a_failed_validation_is_made_up_for(
    scripts: Scripts, whole: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps before it are saved; the resumed run begins with it."""
    record = Trainer.record

    def fail() -> float:
        raise UserError("the mask is damaged")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="mask is damaged"):
        patch.setattr(Trainer, "record", lambda trainer, score: record(trainer, fail))
        scripts.train("x", *whole.row.settings)
    position = last("x")["position"]
    assert (position["total_steps"], position["validated"], position["best"]) == (whole.scores[0], -1, -1)
    assert scripts.train("x", "--resume") == 0
    assert_same(run_content("x"), whole.content)


def test_two_processes_equal_one(scripts: Scripts, whole: SimpleNamespace) -> None:
    """Weights, optimiser and all other state, logged losses, validation; then one process goes on alone."""
    row = whole.row
    for number, shared in enumerate(row.shared):
        one, two = f"one{number}", f"two{number}"
        for name in (one, two):
            give(whole, name)
        output = scripts.together(scripts.train, two, *shared, *row.together)
        assert scripts.train(one, *shared) == 0
        steps = last(one)["position"]["total_steps"]
        assert output.count(f"done: {steps} steps") == 1 and "2 x cpu" in output
        assert_close(last(two), last(one), row.tolerance)
        for line, other in zip(metrics(one), metrics(two), strict=True):
            assert line.keys() == other.keys()
            for key in line.keys() - {"kind"}:
                if not key.startswith(row.free or "-"):
                    tolerance = {"abs": 0.5} if key.startswith("val_") else {"rel": 1e-3, "abs": 1e-6}
                    assert other[key] == pytest.approx(line[key], **tolerance), key
        assert run_content(one).keys() == run_content(two).keys()
        if not number:
            assert scripts.train(two, "--resume", f"train.max_steps={steps + 1}", "train.epochs=9") == 0


def test_a_start_that_fails_leaves_nothing(scripts: Scripts, whole: SimpleNamespace) -> None:
    """No run folder but what it was given; the corrected command may use the same name."""
    for wrong in whole.row.wrong:
        with pytest.raises(UserError):
            scripts.train("x", *whole.row.settings, wrong)
        assert every_file("experiment") == {f"x/{place}": content for place, content in whole.given.items()}, wrong
    with pytest.raises(UserError, match=r"no run folder experiment/y|nothing to resume"):
        scripts.train("y", "--resume")
    assert not Path("experiment/y").exists()


def test_a_used_folder(scripts: Scripts, whole: SimpleNamespace) -> None:
    """Refused, and every start in it that fails changes nothing; --resume goes on, --overwrite begins anew."""
    row = whole.row
    assert scripts.train("x", *row.settings, "train.max_steps=1") == 0
    before, content = every_file("experiment/x"), run_content("x")
    for arguments, words in (
        (row.settings, "not empty.*--resume.*--overwrite"), (("--resume", "--overwrite"), "give one of them"),
        (("--resume", "train.batch_size=6"), r"train\.batch_size was \d+, is 6"),
        (("--resume", "runtime.seed=1"), "runtime.seed was 0, is 1"),
        (("--resume", row.other), "does not fit this run"),
        (("--resume", "data.root=nowhere"), "at nowhere"), (("--overwrite", row.wrong[-1]), None),
    ):  # fmt: skip
        if arguments != ("--resume", ""):
            with pytest.raises(UserError, match=words):
                scripts.train("x", *arguments)
            assert every_file("experiment/x") == before, arguments
    assert scripts.train("x", "--resume", "train.max_steps=2") == 0
    assert last("x")["position"]["total_steps"] == 2
    Path("experiment/x/mine").touch()
    assert scripts.train("x", "--overwrite", *row.settings, "train.max_steps=1") == 0
    assert_same(run_content("x"), content)
