"""Scoring predictions against masks: from files by `evaluate`, or image by image during training.

From files (all processes call it, each reads its share, all get the same result or error):

    masks = MaskFiles(config.data, "train")
    result = evaluate(masks.ids, FilePredictions(folder, "cam"), masks, classes, config.eval, processes=processes)
    result.best.miou, result.fixed.miou                  # percent
    result.write(run.path, "eval_cam")                   # eval_cam.json, .csv, .png

In training, where seeds are in memory:

    counts = new_counts("cam", len(classes) + 1, config.eval)
    for ...: counts.add({class index: float32 (H, W)}, mask)
    result = Evaluation("cam", classes, summed(counts, processes), config.eval, images=len(ids), list_name=name)

``classes`` are the foreground names; label 0 is background everywhere else.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.data.dataset import LAYOUTS, DataConfig, read_mask
from common.data.lists import find_list, read_list
from common.dist import Processes
from common.errors import UserError
from common.files import load_npy
from common.metrics import ConfusionCounts, LabelRangeError, SweepCounts, first_argmax
from common.results import Counts, EvalConfig, Evaluation, Problem
from common.seeds import FORMATS, read_seed, seed_path

TASKS = ("cam", "crf", "png", "dl")
CHUNK = 8  # images a thread takes at a time
SHOWN = 40  # unusable predictions that an error message lists

Prediction = dict[int, np.ndarray] | np.ndarray


class MaskFiles:
    """Ground-truth masks of a list's images; called with an id, reads one: uint8 (H, W).

    Attributes:
        ids: the list's image ids, in its order.
    """

    def __init__(self, config: DataConfig, list_name: str, gt_dir: str = "") -> None:
        """Reads the list.

        Args:
            list_name: A list's name or file; ``all`` of a folder data set: every image that has a mask.
            gt_dir: Folder of the masks, in place of the data set's own. COCO's file names hold the split, which is then
                taken from this path: ``train`` if that is in it, else ``val``.

        Raises:
            UserError: there is no such list.
        """
        pattern = config.mask or LAYOUTS[config.dataset].mask
        split = config.split if config.split != "auto" else ("val" if "val" in Path(list_name).stem else "train")
        self._pattern = str(Path(config.root) / pattern)
        if gt_dir:
            split = "train" if "train" in gt_dir else "val"
            self._pattern = str(Path(gt_dir) / Path(pattern).name)
        self._pattern = self._pattern.replace("{split}", split)
        file = Path(self._pattern)
        self._provided_by = LAYOUTS[config.dataset].provided_by
        if config.dataset == "folder" and list_name == "all":
            self.ids = sorted(path.stem for path in file.parent.glob(file.name.replace("{id}", "*")))
        else:
            self.ids = read_list(find_list(list_name, config.dataset, config.root), config.dataset)

    def path(self, image_id: str) -> Path:
        """Where the mask of an image is, or would be."""
        return Path(self._pattern.replace("{id}", image_id))

    def __call__(self, image_id: str) -> np.ndarray:
        path = self.path(image_id)
        if not path.is_file():
            raise UserError(f"no ground-truth mask {path}. Give its folder (--gt_dir) or get it: {self._provided_by}")
        return read_mask(path)


@dataclass(frozen=True)
class FilePredictions:
    """Predictions in a folder, one file per image; called with id and size, reads one.

    ``cam``: seed files. ``crf`` and ``dl``: ``<id>.npy`` with {label: scores (H, W)}, background as 0, or an integer
    array of labels. ``png``: ``<id>.png`` of label indices.
    """

    folder: Path
    task: str

    def __call__(self, image_id: str, shape: tuple[int, int]) -> Prediction:
        """Raises `UserError` for a missing, damaged or unsafe file."""
        folder = Path(self.folder)
        if self.task == "cam":
            path = seed_path(folder, image_id)
            if path is None:
                raise UserError(f"missing: {folder / image_id}.{' or .'.join(FORMATS)}")
            return read_seed(path)
        path = folder / f"{image_id}.{'png' if self.task == 'png' else 'npy'}"
        if not path.is_file():
            raise UserError(f"missing: {path}")
        if self.task == "png":
            return read_mask(path)
        content = load_npy(path)
        if isinstance(content, np.ndarray) and content.ndim == 2 and content.dtype.kind in "iub":
            return content
        return read_seed(path)  # names what is wrong with anything that is no dictionary of maps


class UnusablePredictions(UserError):
    """Predictions are missing, damaged or of the wrong size; ``problems`` has all of them."""

    def __init__(self, problems: Sequence[Problem], total: int) -> None:
        self.problems = list(problems)
        lines = [f"  {problem.image_id}: {problem.reason}" for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"  and {len(self.problems) - SHOWN} more")
        super().__init__("\n".join([f"{len(self.problems)} of {total} images cannot be scored:", *lines]))


def new_counts(task: str, num_labels: int, config: EvalConfig) -> Counts:
    """Empty counts: over all thresholds for ``cam``, a confusion matrix for the tasks that predict labels."""
    return SweepCounts(num_labels, config.grid()) if task == "cam" else ConfusionCounts(num_labels)


def summed(counts: Counts, processes: Processes) -> Counts:
    """The sum of all processes' counts, on all of them."""
    return functools.reduce(operator.add, processes.gather_objects(counts))


def evaluate(
    ids: Sequence[str],
    predict: Callable[[str, tuple[int, int]], Prediction],
    masks: Callable[[str], np.ndarray],
    classes: Sequence[str],
    config: EvalConfig,
    task: str = "cam",
    list_name: str = "",
    source: str = "",
    allow_missing: bool = False,
    processes: Processes = Processes(),  # noqa: B008 - immutable
    num_workers: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Scores predictions of the images ``ids``.

    Args:
        predict: Gives an image's prediction from its id and (H, W): a seed for ``cam``, label scores or labels else.
        masks: Gives an image's true labels, uint8 (H, W), from its id.
        classes: Foreground class names.
        source: Where the predictions come from, for the record.
        allow_missing: Leave out images without a usable prediction, and record them, instead of failing.
        num_workers: Threads of this process; 0 works in the calling one.

    Raises:
        UnusablePredictions: predictions are missing, damaged or of another size than their mask, which is not
            allowed; masks are missing or damaged, labels are not the data set's, or nothing is left to score.
    """
    empty = functools.partial(new_counts, task, len(classes) + 1, config)
    score = functools.partial(_count_chunk, predict=predict, masks=masks, empty=empty)
    share = processes.shard(list(enumerate(ids)))
    chunks = [share[start : start + CHUNK] for start in range(0, len(share), CHUNK)]
    counts, problems = empty(), []
    shown = progress and processes.is_main
    with (
        ThreadPoolExecutor(max(num_workers, 1)) as threads,
        tqdm(total=len(share), desc=f"evaluating {task}", unit="img", disable=not shown, dynamic_ncols=True) as bar,
    ):
        for chunk, (part, wrong) in zip(chunks, (threads.map if num_workers else map)(score, chunks), strict=True):
            counts += part
            problems += wrong
            bar.update(len(chunk))
    counts = summed(counts, processes)
    numbered = itertools.chain.from_iterable(processes.gather_objects(problems))
    problems = [problem for _, problem in sorted(numbered, key=operator.itemgetter(0))]
    _judge(problems, len(ids), allow_missing)
    return Evaluation(task, list(classes), counts, config, len(ids) - len(problems), list_name, source, problems)


def _count_chunk(
    chunk: Sequence[tuple[int, str]], predict: Callable, masks: Callable, empty: Callable[[], Counts]
) -> tuple[Counts, list[tuple[int, Problem]]]:
    counts, problems = empty(), []
    for position, image_id in chunk:
        try:
            gt = masks(image_id)
        except UserError as error:
            problems.append((position, Problem(image_id, str(error), fatal=True)))
            continue
        try:
            prediction = predict(image_id, gt.shape)
            if isinstance(counts, ConfusionCounts) and isinstance(prediction, dict):
                prediction = first_argmax(prediction, counts.num_labels, gt.shape)
            counts.add(prediction, gt)
        except UserError as error:
            problems.append((position, Problem(image_id, str(error), fatal=isinstance(error, LabelRangeError))))
    return counts, problems


def _judge(problems: Sequence[Problem], total: int, allow_missing: bool) -> None:
    if not total:
        raise UserError("there is no image to score: the list is empty")
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise UnusablePredictions(fatal, total)
    if problems and (not allow_missing or len(problems) == total):
        raise UnusablePredictions(problems, total)
