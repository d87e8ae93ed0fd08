"""Dense CRF of an image over its own classes, and the files of a folder of refined seeds.

The fully connected CRF of Kraehenbuehl and Koltun (NIPS 2011), by the package pydensecrf2 or by this project's lattice
(common/crf/mean_field.py), which needs no extension and runs on GPUs; labels are equal. A further backend is a function
(image, unary energies, config) -> marginals in `BACKENDS`.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from common.crf.options import CRFConfig, crf_folder
from common.data.images import ImageFile
from common.data.seeds import Seed, write_seed
from common.run.errors import UserError
from common.run.files import has_content
from common.run.pool import WorkerPool

SMALLEST_PROBABILITY = 1e-5  # seeds hold exact zeros


def dense_crf(image: np.ndarray, probabilities: np.ndarray, config: CRFConfig | None = None) -> np.ndarray:
    """Marginals of the dense CRF whose unary energies are -log(clip(probability, 1e-5, 1)).

    Args:
        image: uint8 RGB (H, W, 3).
        probabilities: float32 (n, H, W), background first; need not sum to 1.
        config: The default is `CRFConfig`'s.

    Returns:
        float32 (n, H, W); they sum to 1 over n.

    Raises:
        UserError: the maps are not of the image's size or hold NaN, or the backend is not available.
    """
    config = config or CRFConfig()
    if probabilities.ndim != 3 or image.shape != (*probabilities.shape[1:], 3):
        raise UserError(f"CRF: maps of shape {probabilities.shape} do not fit an image of shape {image.shape}")
    if np.isnan(probabilities).any():
        raise UserError("CRF: the maps hold NaN")
    if len(probabilities) == 1:
        return np.ones(probabilities.shape, dtype=np.float32)
    unary = -np.log(np.clip(probabilities, SMALLEST_PROBABILITY, 1)).astype(np.float32)
    return BACKENDS[crf_backend(config)](np.ascontiguousarray(image), unary, config)


def crf_backend(config: CRFConfig) -> str:
    """The key of `BACKENDS` that a configuration means on this machine.

    Raises:
        UserError: the package or the GPU is not available, or the package is to run on a GPU.
    """
    on_cpu = config.device == "cpu"
    config.check()
    if not on_cpu:
        import torch

        if not torch.cuda.is_available():
            raise UserError(f"CRF: device {config.device}, but this PyTorch sees no CUDA device; use device cpu")
    if config.backend == "pydensecrf":
        import_pydensecrf()
    if config.backend != "auto":
        return config.backend
    return "pydensecrf" if on_cpu and importlib.util.find_spec("pydensecrf") else "lattice"


def seed_crf(image: np.ndarray, seed: Seed, alpha: float, config: CRFConfig | None = None) -> Seed:
    """Refines a seed against a background of (1 - max over classes)^alpha; probabilities are not renormalised.

    Args:
        image: uint8 RGB (H, W, 3).
        seed: {class index: float32 (H, W)}, values in [0, 1].
        alpha: Background exponent: the larger, the less background.

    Returns:
        Marginals, float32 (H, W): key 0 background, key c + 1 class c (PSA's and the evaluator's ``crf`` format).
    """
    keys = sorted(seed)
    if not keys:
        return {0: np.ones(image.shape[:2], dtype=np.float32)}
    cams = np.stack([seed[key] for key in keys]).astype(np.float32, copy=False)
    background = np.power(1 - cams.max(axis=0, keepdims=True), alpha)
    marginals = dense_crf(image, np.concatenate([background, cams]), config)
    return dict(zip([0, *(key + 1 for key in keys)], marginals, strict=True))


def crf_done(
    folder: str | Path, alphas: Sequence[int], image_id: str, seed: Path | None = None, fmt: str = "npy"
) -> bool:
    """Whether an image's refined seeds exist for every alpha, none older than the seed file, if one is given."""
    files = [crf_folder(folder, alpha) / f"{image_id}.{fmt}" for alpha in alphas]
    made = seed.stat().st_mtime_ns if seed else 0
    return all(has_content(file) and file.stat().st_mtime_ns >= made for file in files)


def refine_to_files(
    image_file: ImageFile,
    image_id: str,
    seed: Seed,
    alphas: Sequence[int],
    folder: Path,
    config: CRFConfig | None = None,
) -> None:
    """Runs `seed_crf` for every alpha and writes ``<folder>/<alpha>/<image id>.npy``, each atomically."""
    image = np.array(image_file.read())
    for alpha in alphas:
        write_seed(crf_folder(folder, alpha), image_id, seed_crf(image, seed, alpha, config))


def crf_pool(num_workers: int, config: CRFConfig | None = None) -> WorkerPool:
    """A pool of processes for CRFs of images; on a GPU, which one image fills, jobs run in the calling process.

    Raises:
        UserError: as `crf_backend`.
    """
    config = config or CRFConfig()
    crf_backend(config)
    return WorkerPool(num_workers if config.device == "cpu" else 0, "CRF")


def import_pydensecrf() -> ModuleType:
    """The package's module.

    Raises:
        UserError: it is not installed.
    """
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise UserError(
            f"the dense CRF's backend pydensecrf needs the package pydensecrf2 ({error}). Install it: pip install "
            "pydensecrf2 (the package called pydensecrf no longer builds), or use the backend lattice"
        ) from error
    return densecrf


def _by_pydensecrf(image: np.ndarray, unary: np.ndarray, config: CRFConfig) -> np.ndarray:
    count, height, width = unary.shape
    crf = import_pydensecrf().DenseCRF2D(width, height, count)
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(count, -1)))
    crf.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=config.bilateral_sxy, srgb=config.bilateral_srgb, rgbim=image, compat=config.bilateral_compat
    )
    return np.array(crf.inference(config.iterations), dtype=np.float32).reshape(unary.shape)


def _by_lattice(image: np.ndarray, unary: np.ndarray, config: CRFConfig) -> np.ndarray:
    from common.crf.mean_field import lattice_marginals  # with PyTorch, which the other backend does without

    return lattice_marginals(image, unary, config)


BACKENDS: dict[str, Callable[[np.ndarray, np.ndarray, CRFConfig], np.ndarray]] = {
    "pydensecrf": _by_pydensecrf,
    "lattice": _by_lattice,
}
