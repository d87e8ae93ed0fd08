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
    largest = {term: compare_term(record, run, term) for term in record.meta["reference_terms"]}
    np.testing.assert_allclose(run.lr, stored["reference_lr"], rtol=1e-12)
    np.testing.assert_allclose(run.weight_decay, stored["project_wd"], rtol=1e-12)
    largest["gradients"] = compare_gradients(record, run)
    largest["weights"] = compare_weights(record, run)
    print(f"{path.stem}: {len(run.losses)} steps;", ", ".join(f"{name} {value:.1e}" for name, value in largest.items()))


def compare_term(record: Record, run: Replay, term: str) -> float:
    """Compares a loss term in all steps that both sides compute; the largest difference.

    The reference has NaN where a kind of pixels is missing, and logs CRT's consistency before it counts.
    """
    found, expected = run.column(term), record.reference(term)
    assert len(found) == len(expected)
    counts = np.isfinite(expected)
    terms = record.meta["project_terms"]
    if term in terms:
        counts &= (found != 0) | (record.stored["project_losses"][:, terms.index(term)] != 0)
    if record.is_double:  # ToCo's energy loss is of float32 in the reference
        tolerance = np.full(len(found), 1e-8 if "ptc" in terms else 1e-10)
    else:
        tolerance = np.where(np.arange(len(found)) < CERTAIN_STEPS, 2e-5, 2e-2)
    differences = np.abs(found - np.where(counts, expected, found))
    assert (differences <= tolerance * np.maximum(1, np.abs(found))).all(), (record.path.stem, term, differences)
    return float(differences.max())


def compare_weights(record: Record, run: Replay) -> float:
    """Compares the norms of all final weights and buffers; the largest relative difference."""
    names = [str(name) for name in record.stored["names"]]
    assert set(names) == set(run.norms)
    expected = record.stored["reference_norms"]
    found = np.array([run.norms[name] for name in names])
    is_known = np.isfinite(expected)
    found, expected = found[is_known], expected[is_known]
    np.testing.assert_allclose(found, expected, rtol=1e-9 if record.is_double else 2e-2, atol=1e-7)
    return float((np.abs(found - expected) / np.maximum(expected, 1e-6)).max())


def compare_gradients(record: Record, run: Replay) -> float:
    """Compares norms of the gradients of the first step and, in float64, of the last; the largest relative difference.

    It is 0 where the record has none.
    """
    if "grad_names" not in record.stored:
        return 0.0
    largest = 0.0
    for place, found in zip(("first", "last") if record.is_double else ("first",), run.grad_norms, strict=False):
        norms = record.stored[f"reference_grad_norms_{place}"]
        for name, norm in zip(record.stored["grad_names"].tolist(), norms.tolist(), strict=True):
            if np.isfinite(norm) and name in found:
                assert found[name] == pytest.approx(norm, rel=1e-6 if record.is_double else 1e-2, abs=1e-9), name
                largest = max(largest, abs(found[name] - norm) / max(norm, 1e-3))
    return largest
