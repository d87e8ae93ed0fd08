"""Agreement of fused runs: for each pixel the share of runs that give it its most frequent label; one file per image.

``<id>.npz`` has ``agreeing``, the number of these runs (H, W), and ``runs``, the number of all.
"""

from pathlib import Path

import numpy as np

from common.data.segments import read_npz_map
from common.run.errors import UserError
from common.run.files import atomic_write


def write_agreement(folder: Path, image_id: str, agreeing: np.ndarray, runs: int) -> None:
    """Writes an image's numbers of agreeing runs (H, W), atomically."""
    with atomic_write(folder / f"{image_id}.npz", durable=False) as file:
        np.savez_compressed(file, agreeing=agreeing.astype(np.uint16), runs=np.int64(runs))


def read_agreement(folder: Path, image_id: str, size: tuple[int, int]) -> np.ndarray:
    """The shares of an image of ``size`` (H, W), float32 (H, W) in [0, 1].

    Raises:
        UserError: the file is missing, damaged, or of another size.
    """
    path = folder / f"{image_id}.npz"
    try:
        agreeing = read_npz_map(path, "agreeing", size)
        runs = int(read_npz_map(path, "runs", ()))
        if runs < 1 or agreeing.dtype.kind != "u" or agreeing.max(initial=0) > runs:
            raise ValueError(f"it counts up to {agreeing.max(initial=0)} agreeing runs of {runs}")
    except ValueError as error:
        raise UserError(
            f"{path} cannot be used as the agreement of runs: {error}; python scripts/fuse_seeds.py writes it"
        ) from error
    return agreeing.astype(np.float32) / np.float32(runs)
