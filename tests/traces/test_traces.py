"""Whole training runs of the references, replayed by the methods' own scripts: ``--traces DIR --data DIR``."""

from pathlib import Path

import numpy as np
import pytest

from tests.traces.replay import Record, Replay, replay

CERTAIN_STEPS = 5  # float32: rounding grows from step to step, in two runs of the reference as well


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each record of the folder."""
    folder = metafunc.config.getoption("--traces")
    paths = sorted(folder.glob("*.npz")) if folder else []
    metafunc.parametrize("path", paths or [None], ids=[path.stem for path in paths] or ["no record"])


def test_a_recorded_run_is_repeated(
    path: Path | None, pytestconfig: pytest.Config, tmp_path: Path, one_thread: None
) -> None:
    """Every loss term, learning rate, weight decay, gradient norm and final weight is the reference's."""
    data = pytestconfig.getoption("--data")
    if path is None or data is None:
        pytest.skip("needs recorded runs and their images: --traces DIR --data DIR")
    record = Record(path)
    run, stored = replay(record, data.resolve(), tmp_path), record.stored
    differences = [
        float(np.abs(compare_term(record, run, term)).max(initial=0)) for term in record.meta["reference_terms"]
    ]
    np.testing.assert_allclose(run.lr, stored["reference_lr"], rtol=1e-12)
    np.testing.assert_allclose(run.weight_decay, stored["project_wd"], rtol=1e-12)
    names = [str(name) for name in stored["names"]]
    assert set(names) == set(run.norms)
    norms = np.array([run.norms[name] for name in names])
    is_known = np.isfinite(stored["reference_norms"])
    np.testing.assert_allclose(
        norms[is_known], stored["reference_norms"][is_known], rtol=1e-9 if record.is_double else 2e-2, atol=1e-7
    )
    compare_gradients(record, run)
    relative = np.abs(norms - stored["reference_norms"])[is_known] / np.maximum(
        stored["reference_norms"][is_known], 1e-6
    )
    print(f"{path.stem}: {len(run.losses)} steps, worst loss {max(differences):.1e}, worst norm {relative.max():.1e}")


def compare_term(record: Record, run: Replay, term: str) -> np.ndarray:
    """Compares a loss term in all steps that both sides compute; the differences.

    The reference has NaN where a kind of pixels is missing, and logs CRT's consistency before it counts.
    """
    found, expected = run.column(term), record.reference(term)
    assert len(found) == len(expected)
    counts = np.isfinite(expected)
    terms = record.meta["project_terms"]
    if term in terms:
        counts &= (found != 0) | (record.stored["project_losses"][:, terms.index(term)] != 0)
    steps = np.arange(len(found))
    if record.is_double:  # ToCo's energy loss is of float32 in the reference
        tolerance = np.full(len(found), 1e-8 if "ptc" in terms else 1e-10)
    else:
        tolerance = np.where(steps < CERTAIN_STEPS, 2e-5, 2e-2)
    differences = np.where(counts, found - np.where(counts, expected, 0), 0)
    assert (np.abs(differences) <= tolerance * np.maximum(1, np.abs(found))).all(), (
        record.path.stem,
        term,
        differences,
    )
    return differences


def compare_gradients(record: Record, run: Replay) -> None:
    """Norms of the gradients of the first step and, in float64, of the last."""
    if "grad_names" not in record.stored:
        return
    for place, found in zip(("first", "last") if record.is_double else ("first",), run.grad_norms, strict=False):
        expected = dict(
            zip(record.stored["grad_names"].tolist(), record.stored[f"reference_grad_norms_{place}"], strict=True)
        )
        for name, norm in expected.items():
            if np.isfinite(norm) and name in found:
                assert found[name] == pytest.approx(norm, rel=1e-6 if record.is_double else 1e-2, abs=1e-9), name
