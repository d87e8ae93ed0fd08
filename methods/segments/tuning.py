"""The thresholds of single classes that a configuration asks for: tuned on a list, or read from a file."""

import functools
import operator
from pathlib import Path

from common.data.dataset import ImageSet, class_names
from common.data.thresholds import read_thresholds, write_thresholds
from common.masks.from_seeds import require_maps
from common.run.folder import RunFolder
from common.run.processes import Processes
from common.run.progress import progress
from common.score.images import scored_images
from methods.segments.config import SegmentsConfig
from methods.segments.source import VoteSource
from methods.segments.thresholds import ClassCounts


def class_thresholds(
    source: VoteSource, config: SegmentsConfig, run: RunFolder, processes: Processes
) -> dict[int, float]:
    """Thresholds by class index; none unless the configuration asks for them.

    Tuned ones are also written, to ``thresholds.json`` in the run folder.

    Raises:
        UserError: the file is unusable; or seeds, segments or true masks of the list are missing.
    """
    classes = class_names(config.data)
    if config.vote.thresholds:
        return read_thresholds(Path(config.vote.thresholds), classes)
    if not config.vote.tune_on:
        return {}
    images = scored_images(ImageSet, config.data, config.vote.tune_on, config.eval)
    require_maps(images, source.seeds, "the inference script of the seeds' method, with --dict")
    source.require(images)
    counts = ClassCounts(len(classes))
    share = processes.shard(images.unique())
    for index in progress(share, "tuning", processes.is_main):
        inputs = source.inputs(images.ids[index], images.file(index))
        counts.add(inputs.read().voted(config.vote), images.load_mask(index))
    tuned = functools.reduce(operator.add, processes.gather_objects(counts)).tuned()
    if processes.is_main:
        settings = {"list": images.list_name, "images": len(images.unique())}
        write_thresholds(run.path / "thresholds.json", classes, tuned, settings)
    shown = ", ".join(f"{name} {value:.2f}" for name, value in zip(classes, tuned, strict=True))
    processes.say(f"thresholds tuned on the {len(images.unique())} images of {images.list_name!r}: {shown}")
    if config.infer.eval_list:
        scored = set(ImageSet(config.data, config.infer.eval_list, require_images=False).ids)
        shared = len(scored & set(images.ids))
        if shared:
            processes.say(f"note: {shared} of them are among the {len(scored)} images that are scored")
    return dict(enumerate(tuned))
