"""The fusion of one image, to files: a job for `common.run.pool.WorkerPool`, whose processes import this module."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common.data.agreement import write_agreement
from common.data.dataset import image_size
from common.data.seeds import Seed, write_seed
from common.masks.from_seeds import read_class_maps
from common.run.errors import UserError
from methods.fusion.config import Run
from methods.fusion.fusing import agreeing_runs, fuse, run_labels


class Inputs(NamedTuple):
    """An image, its file, and the number of classes of the data set without background."""

    image_id: str
    image: Path
    num_classes: int


def read_runs(runs: Sequence[Run], inputs: Inputs) -> list[Seed]:
    """An image's seed in each run.

    Raises:
        UserError: one is missing, damaged, or of another size than the image; or their classes differ.
    """
    size = image_size(inputs.image)
    seeds = [read_class_maps(run.folder, inputs.image_id, size, inputs.num_classes) for run in runs]
    for run, seed in zip(runs, seeds, strict=True):
        if list(seed) != list(seeds[0]):
            raise UserError(
                f"the seeds of {inputs.image_id} are of different classes: {list(seeds[0])} in {runs[0].folder}, "
                f"{list(seed)} in {run.folder}; only seeds of the same labels can be fused"
            )
    return seeds


def write_fused(runs: Sequence[Run], inputs: Inputs, how: str, seeds: Path, agreement: Path, fmt: str) -> None:
    """Writes the agreement of an image's seeds, then the fused seed."""
    found = read_runs(runs, inputs)
    thresholds = [run.threshold for run in runs]
    labels = run_labels(found, thresholds, image_size(inputs.image))
    write_agreement(agreement, inputs.image_id, agreeing_runs(labels), len(runs))
    fused = fuse(found, how, [run.weight for run in runs], thresholds) if found[0] else {}
    write_seed(seeds, inputs.image_id, fused, fmt)
