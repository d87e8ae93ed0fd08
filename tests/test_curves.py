"""Thirty steps of every training, term by term, as this project computed them once: ``tests/curves/<method>.csv``.

A change that is not meant to change numbers leaves every curve as it is; one that is meant to is shown by its curve:

    .venv/bin/python -m pytest tests/test_curves.py --write-curves -k cti

Trainings of tiny networks on generated images, in one thread. Roundings grow from step to step: with two threads in
place of one, no term of any method differed by more than 2e-6 in the first three steps, 2e-5 in the first ten (total of
DiG) and 8e-5 up to the last (background loss of CTI); `tolerance` leaves about five times that.
"""

import csv
from pathlib import Path

import pytest

from methods.irn import make_ir_label
from methods.psa import make_crf
from tests.helpers import SCRIPTS_OF, Scripts, metrics

CURVES = Path(__file__).parent / "curves"
STEPS = 30
BEFORE = {"psa": make_crf, "irn": make_ir_label}
# Gradients that are zero but for rounding would be full steps of Adam with a smaller epsilon.
ADAM = ("optim.eps=1e-3", "model.drop_path=0.1")
EPOCHS = ("train.epochs=5",)  # of 6 steps
SETTINGS = {
    "cti": (*EPOCHS, *ADAM, "loss.memory_size=2"),
    "pcss": (*EPOCHS, *ADAM, "fim.interval=2", "fim.images_per_class=1", "loss.no_fixed_points=true"),
    "dig": (*EPOCHS, *ADAM),
    "diffusion": ("optim.eps=1e-3", f"train.max_steps={STEPS}", "train.save_every=30", "sampling.images=1"),
    "toco": ("optim.eps=1e-3", f"train.max_steps={STEPS}", "train.eval_steps=0", "labels.high=0.6", "labels.low=0.4"),
    "crt": (*EPOCHS, "loss.consistency_from=1"),
    "wsol": ("optim.eps=1e-3", "train.batch_size=8", "train.epochs=10", "train.validate_from=-1"),
    "psa": EPOCHS,
    "irn": EPOCHS,
    "vitseg": ("optim.eps=1e-3", f"train.max_steps={STEPS}", "train.eval_steps=0"),
    "deeplab": (f"train.max_steps={STEPS}", "train.eval_steps=0"),
}  # fmt: skip


DROPPED = ("kind", "epoch", "steps")


def tolerance(step: int) -> float:
    """Largest difference of a term in a step (from 0), relative to terms above 1."""
    return 5e-6 if step < 3 else 2e-5 if step < 10 else 4e-4


@pytest.mark.parametrize("method", SETTINGS)
def test_curve(
    method: str, experiments: Path, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
) -> None:  # fmt: skip
    """Every term and learning rate of thirty steps."""
    monkeypatch.chdir(tmp_path)
    found = curve(monkeypatch, experiments, seeds, method)
    path = CURVES / f"{method}.csv"
    if pytestconfig.getoption("--write-curves"):
        write_curve(path, found)
    expected = read_curve(path)
    assert len(found) == len(expected) == STEPS and found[0].keys() == expected[0].keys()
    for step, (row, stored) in enumerate(zip(found, expected, strict=True)):
        for name, value in stored.items():
            assert row[name] == pytest.approx(value, rel=tolerance(step), abs=tolerance(step)), (step, name)


def test_every_training_has_a_curve() -> None:
    """A new one needs settings and a file."""
    assert SETTINGS.keys() == SCRIPTS_OF.keys() == {path.stem for path in CURVES.glob("*.csv")}


def curve(
    patch: pytest.MonkeyPatch, experiments: Path, seeds: Path, method: str, *settings: str
) -> list[dict[str, float]]:
    """Trains in the current folder: a row of numbers for each step."""
    scripts = Scripts(patch, experiments / f"{method}.yaml", method)
    if method in BEFORE:
        assert scripts.call(BEFORE[method], "x", "--seeds", seeds) == 0
    assert scripts.train("x", *SETTINGS[method], "train.print_freq=1", *settings) == 0
    rows = [line for line in metrics("x") if line["kind"] == "train"]
    kept = [name for name in rows[0] if name not in DROPPED and not name.startswith("accuracy_")]
    return [{name: row[name] for name in kept} for row in rows]


def read_curve(path: Path) -> list[dict[str, float]]:
    """The rows of a curve."""
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def write_curve(path: Path, rows: list[dict[str, float]]) -> None:
    """Writes a curve with as many digits as float32 has."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(rows[0])
        table.writerows([[f"{value:.9g}" for value in row.values()] for row in rows])
