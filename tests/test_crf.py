"""Dense CRF and its process pool. (Its numbers are compared with the reference's in tests/golden.)"""

import os
import signal
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from common.crf.dense import crf_backend, crf_done, crf_pool, dense_crf, refine_to_files, seed_crf
from common.crf.options import CRFConfig
from common.data.images import ImageFile
from common.data.seeds import read_seed
from common.run.errors import UserError
from tests.helpers import needs_pydensecrf


def two_halves(height: int = 24, width: int = 32) -> np.ndarray:
    """An image, left half dark, right half light."""
    image = np.full((height, width, 3), 40, np.uint8)
    image[:, width // 2 :] = 210
    return image


def noisy_seed(height: int = 24, width: int = 32) -> dict[int, np.ndarray]:
    """Class 4 is on the right half, with noise."""
    cam = np.random.default_rng(0).random((height, width), dtype=np.float32) * 0.6
    cam[:, width // 2 :] += 0.4
    return {4: cam}


BOTH = pytest.mark.parametrize("backend", [pytest.param("pydensecrf", marks=needs_pydensecrf), "lattice"])


def noisy_scene(height: int, width: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth image with noise and probabilities (count, H, W) of a network that is right more often than not."""
    rng = np.random.default_rng(height)
    coarse = rng.random((5, 6, 3), dtype=np.float32) * 255
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 4, (height, width, 3))
    scores = rng.normal(0, 1, (height, width, count))
    scores += 3 * cv2.resize(rng.normal(0, 1, (4, 5, count)), (width, height), interpolation=cv2.INTER_CUBIC)
    probabilities = torch.from_numpy(scores).softmax(-1).permute(2, 0, 1).float().numpy()
    return image.clip(0, 255).astype(np.uint8), np.ascontiguousarray(probabilities)


@BOTH
def test_noise_is_removed_along_the_image(backend: str) -> None:
    image, seed = two_halves(), noisy_seed()
    before = seed[4] > (1 - seed[4]) ** 2
    refined = seed_crf(image, seed, 2, CRFConfig(backend))
    assert list(refined) == [0, 5] and refined[5].dtype == np.float32 and refined[5].shape == (24, 32)
    np.testing.assert_allclose(refined[0] + refined[5], 1, atol=1e-5)
    truth = np.arange(32) >= 16
    after = refined[5] > refined[0]
    assert (after == truth).mean() > 0.99 > (before == truth).mean()


def test_a_larger_alpha_leaves_less_background() -> None:
    background = [seed_crf(two_halves(), noisy_seed(), alpha)[0].mean() for alpha in (1, 6, 24)]
    assert background[0] > background[1] > background[2]


@BOTH
def test_settings_are_used(backend: str) -> None:
    image, probabilities = two_halves(), np.random.default_rng(0).random((3, 24, 32), dtype=np.float32)
    default = dense_crf(image, probabilities, CRFConfig(backend))
    assert (default == dense_crf(image, probabilities, CRFConfig(backend))).all()
    for change in ({"iterations": 1}, {"gaussian_sxy": 1.0}, {"gaussian_compat": 1.0}, {"bilateral_sxy": 5.0},
                   {"bilateral_srgb": 200.0}, {"bilateral_compat": 1.0}):  # fmt: skip
        assert np.abs(dense_crf(image, probabilities, CRFConfig(backend, **change)) - default).max() > 1e-4, change
    unconnected = dense_crf(image, probabilities, CRFConfig(backend, gaussian_compat=0.0, bilateral_compat=0.0))
    np.testing.assert_allclose(unconnected, probabilities / probabilities.sum(axis=0), atol=1e-4)


@needs_pydensecrf
@pytest.mark.parametrize("size", [(60, 80), (61, 83)])
@pytest.mark.parametrize("settings", [
    {}, {"gaussian_sxy": 1.0, "gaussian_compat": 1.0, "bilateral_sxy": 121.0, "bilateral_srgb": 5.0,
         "bilateral_compat": 4.0},
], ids=["psa", "toco"])  # fmt: skip
def test_the_backends_agree(size: tuple[int, int], settings: dict[str, float]) -> None:
    image, probabilities = noisy_scene(*size, 21)
    package, lattice = (
        dense_crf(image, probabilities, CRFConfig(backend, **settings)) for backend in ("pydensecrf", "lattice")
    )
    assert lattice.dtype == np.float32 and lattice.shape == package.shape
    assert (lattice.argmax(0) == package.argmax(0)).mean() > 0.999
    assert (package.argmax(0) != probabilities.argmax(0)).mean() > 0.05  # it did change labels
    np.testing.assert_allclose(lattice, package, atol=1e-4)


@BOTH
def test_only_one_label(backend: str) -> None:
    assert (dense_crf(two_halves(), np.full((1, 24, 32), 0.3, np.float32), CRFConfig(backend)) == 1).all()


def test_a_seed_of_no_class_is_background() -> None:
    refined = seed_crf(two_halves(), {}, 6)
    assert list(refined) == [0] and (refined[0] == 1).all() and refined[0].shape == (24, 32)


@pytest.mark.parametrize("probabilities, words", [
    (np.zeros((2, 24, 31), np.float32), "do not fit"), (np.full((2, 24, 32), np.nan, np.float32), "NaN"),
])  # fmt: skip
def test_maps_that_cannot_be_refined(probabilities: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=words):
        dense_crf(two_halves(), probabilities)


@needs_pydensecrf
def test_the_package_is_preferred_where_it_is_installed() -> None:
    assert crf_backend(CRFConfig()) == crf_backend(CRFConfig("pydensecrf")) == "pydensecrf"
    assert crf_backend(CRFConfig("lattice")) == "lattice"


def test_a_missing_package_is_named_if_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    image, probabilities, asked = two_halves(), np.ones((2, 24, 32), np.float32), CRFConfig("pydensecrf")
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(UserError, match="pip install pydensecrf2"):
        dense_crf(image, probabilities, asked)
    with pytest.raises(UserError, match="pip install pydensecrf2"):
        crf_pool(2, asked)
    assert crf_backend(CRFConfig()) == "lattice"
    probabilities = np.random.default_rng(0).random((2, 24, 32), dtype=np.float32)
    assert (dense_crf(image, probabilities) == dense_crf(image, probabilities, CRFConfig("lattice"))).all()


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert crf_backend(CRFConfig(device="cuda")) == "lattice"
    assert crf_pool(4, CRFConfig(device="cuda"))._pool is None  # one image fills the GPU
    with pytest.raises(UserError, match="pydensecrf has no cuda version"):
        crf_backend(CRFConfig("pydensecrf", device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="sees no CUDA device"):
        dense_crf(two_halves(), np.ones((2, 24, 32), np.float32), CRFConfig(device="cuda"))


def test_the_pool_writes_what_one_process_writes(tmp_path: Path) -> None:
    Image.fromarray(two_halves()).save(tmp_path / "image.png")
    for workers in (0, 2):
        with crf_pool(workers) as pool:
            for index in range(6):
                seed = noisy_seed() if index else {}
                pool.submit(
                    refine_to_files,
                    ImageFile(tmp_path / "image.png"),
                    f"id{index}",
                    seed,
                    [6, 24],
                    tmp_path / f"crf{workers}",
                )
                assert pool._pool is None or len(pool._pool._pending_work_items) <= 4
    for folder in ("06", "24"):
        for index in range(6):
            alone, pooled = (read_seed(tmp_path / f"crf{workers}" / folder / f"id{index}.npy") for workers in (0, 2))
            assert list(alone) == list(pooled) == ([0, 5] if index else [0])
            assert all((alone[key] == pooled[key]).all() for key in alone)
    assert crf_done(tmp_path / "crf2", [6, 24], "id0") and not crf_done(tmp_path / "crf2", [6, 10], "id0")


def test_an_error_in_a_process_reaches_the_caller(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"image\.jpg cannot be decoded"), crf_pool(1) as pool:
        pool.submit(refine_to_files, ImageFile(tmp_path / "image.jpg"), "a", noisy_seed(), [6], tmp_path)


def test_a_killed_process_is_reported(tmp_path: Path) -> None:
    Image.fromarray(two_halves()).save(tmp_path / "image.png")
    with pytest.raises(UserError, match="CRF process died"), crf_pool(1) as pool:
        pool.submit(refine_to_files, ImageFile(tmp_path / "image.png"), "a", noisy_seed(), [6], tmp_path)
        while not crf_done(tmp_path, [6], "a"):
            time.sleep(0.05)
        os.kill(next(iter(pool._pool._processes)), signal.SIGKILL)
        while True:
            pool.submit(refine_to_files, ImageFile(tmp_path / "image.png"), "b", noisy_seed(), [6], tmp_path)
