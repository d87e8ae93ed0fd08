"""Scoring predictions against masks: from files, or from memory during training.

All processes call `evaluate` and get the same result or error. From files each process reads its share:

    masks = MaskFiles(config.data, "train")                 # both of common.score.files
    result = evaluate(masks.ids, FilePredictions(folder, "cam"), masks, classes, config.eval, processes=processes)
    result.best.miou, result.fixed.miou                  # percent
    result.write(run.path, "eval_cam")                   # eval_cam.json, .csv, .png

From memory each process gives pairs of image id and prediction, for its share of the images:

    pairs = (("2007_000032", {class index: float32 (H, W)}), ...)
    result = evaluate(ids, pairs, masks, classes, config.eval, processes=processes)

Where a network gives several predictions for an image, each has a `Scoring` of its own. ``classes`` are the foreground
names; label 0 is background everywhere else.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np

from common.run.errors import UserError
from common.run.processes import Processes
from common.run.progress import ProgressBar
from common.score.counts import ConfusionCounts, LabelRangeError, SweepCounts, first_argmax
from common.score.files import Prediction
from common.score.image_counts import CardCounts
from common.score.mask_meaning import NO_LABELS, ImageLabels, MaskMeaning
from common.score.options import EvalConfig
from common.score.result import Counts, Evaluation, Problem
from common.score.trivial import TrivialCounts
from common.score.values import SeedValues, finite_ends

CHUNK = 8  # images a thread takes at a time
SHOWN = 40  # unusable predictions that an error message lists

# Gives an image's prediction, by id and size (H, W).
Predictor = Callable[[str, tuple[int, int]], Prediction]
Masks = Callable[[str], np.ndarray]


class UnusablePredictions(UserError):
    """Predictions are missing, damaged or of the wrong size; ``problems`` has all of them."""

    def __init__(self, problems: Sequence[Problem], total: int) -> None:
        self.problems = list(problems)
        lines = [f"{problem.image_id}: {problem.reason}" for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"and {len(self.problems) - SHOWN} more")
        separator = " " if len(lines) == 1 else "\n  "
        super().__init__(separator.join([f"{len(self.problems)} of {total} images cannot be scored:", *lines]))


class Scoring:
    """Counts and problems of this process's predictions; `result` joins the ones of all processes.

    Attributes:
        counts: at all thresholds for ``cam``, a confusion matrix for the tasks that predict labels.
        problems: images that could not be scored, with the reasons.
        card: counts of single images, if they are wanted.
    """

    def __init__(
        self,
        task: str,
        classes: Sequence[str],
        config: EvalConfig,
        card: bool = False,
        image_labels: ImageLabels = NO_LABELS,
    ) -> None:
        """Begins with nothing.

        Args:
            task: one of `TASKS`.
            classes: foreground class names.
            card: whether single images are counted as well.
            image_labels: class indices by image id, which the true masks should agree with.
        """
        self.task, self.classes, self.config = task, list(classes), config
        labels = len(self.classes) + 1
        self.counts: Counts = SweepCounts(labels, config.grid()) if task == "cam" else ConfusionCounts(labels)
        self.trivial = TrivialCounts(labels)
        self.values = SeedValues()
        self.meaning = MaskMeaning(self.classes)
        self.image_labels = image_labels
        self.problems: list[Problem] = []
        self.card = CardCounts(labels, len(config.grid()) if task == "cam" else 0) if card else None

    def add(self, image_id: str, prediction: Prediction, mask: np.ndarray) -> None:
        """Counts a prediction against its mask, uint8 (H, W)."""
        self.read(image_id, lambda image_id, shape: prediction, lambda image_id: mask)

    def read(self, image_id: str, predict: Predictor, masks: Masks) -> None:
        """Reads the mask and the prediction of an image and counts them; a `UserError` becomes a problem."""
        try:
            mask = masks(image_id)
        except UserError as error:
            self.problems.append(Problem(image_id, str(error), fatal=True))
            return
        try:
            self._count(image_id, predict(image_id, mask.shape), mask)
        except UserError as error:
            self.problems.append(Problem(image_id, str(error), fatal=isinstance(error, LabelRangeError)))

    def _count(self, image_id: str, prediction: Prediction, mask: np.ndarray) -> None:
        if isinstance(self.counts, SweepCounts):
            seed = cast(dict[int, np.ndarray], prediction)
            ends = finite_ends(seed)
            sweep = self.counts.add(seed, mask)
            self.values.add(seed, ends, bool(sweep.truth[1:].any()))
            self._add_truth(image_id, sweep.truth, mask)
            if self.card is not None:
                self.card.add_seed(image_id, seed, mask, sweep)
            return
        if isinstance(prediction, dict):
            prediction = first_argmax(prediction, self.counts.num_labels, mask.shape)
        matrix = self.counts.add(prediction, mask)
        self._add_truth(image_id, matrix.sum(axis=1), mask)
        if self.card is not None:
            self.card.add_labels(image_id, prediction, mask, matrix)

    def _add_truth(self, image_id: str, pixels: np.ndarray, mask: np.ndarray) -> None:
        """Counts an image's pixels of each true label, int64 (K,)."""
        self.trivial.add(pixels)
        self.meaning.add_truth(pixels, mask.size, self.image_labels.get(image_id))

    def __iadd__(self, other: "Scoring") -> "Scoring":
        self.counts = _sum([self.counts, other.counts])
        self.trivial += other.trivial
        self.values += other.values
        self.meaning += other.meaning
        self.problems += other.problems
        if self.card is not None and other.card is not None:
            self.card += other.card
        return self

    def result(
        self, ids: Sequence[str], processes: Processes, list_name: str = "", source: str = "",
        allow_missing: bool = False,
    ) -> Evaluation:  # fmt: skip
        """Sums over all processes, which all call it.

        Args:
            ids: all images that were to be scored.
            list_name: as `evaluate`, like the others.

        Raises:
            UnusablePredictions: as `evaluate`.
        """
        counts = _sum(processes.gather_objects(self.counts))
        trivial = functools.reduce(operator.add, processes.gather_objects(self.trivial))
        values = functools.reduce(operator.add, processes.gather_objects(self.values))
        meaning = functools.reduce(operator.iadd, processes.gather_objects(self.meaning), MaskMeaning(self.classes))
        position = {image_id: number for number, image_id in reversed(list(enumerate(ids)))}
        problems = itertools.chain.from_iterable(processes.gather_objects(self.problems))
        left_out = sorted(problems, key=lambda problem: position[problem.image_id])
        _judge(left_out, len(ids), allow_missing)
        images = len(ids) - len(left_out)
        card = None if self.card is None else CardCounts.joined(processes.gather_objects(self.card), ids)
        return Evaluation(
            self.task, self.classes, counts, self.config, images, list_name, source, left_out, trivial.scores(),
            doubts=values.warnings(), card=card, findings=meaning.findings(),
        )  # fmt: skip


def evaluate(
    ids: Sequence[str],
    predictions: Predictor | Iterable[tuple[str, Prediction]],
    masks: Masks,
    classes: Sequence[str],
    config: EvalConfig,
    task: str = "cam",
    list_name: str = "",
    source: str = "",
    allow_missing: bool = False,
    processes: Processes = Processes(),  # noqa: B008 - immutable
    num_workers: int = 0,
    progress: bool = True,
    card: bool = False,
    image_labels: ImageLabels = NO_LABELS,
) -> Evaluation:
    """Scores predictions of the images ``ids``.

    Args:
        predictions: gives the prediction of any image; or pairs of id and prediction, one for each image of this
            process's share.
        masks: gives an image's true labels, uint8 (H, W), from its id.
        classes: foreground class names.
        source: origin of the predictions, for the record.
        allow_missing: leave out images without a usable prediction, and record them, instead of failing.
        num_workers: threads of this process that read; 0 works in the calling one.
        progress: whether a bar is shown while predictions are read.
        card: whether single images are counted as well, for an evaluation card.
        image_labels: class indices by image id; true masks that disagree with them are warned of.

    Raises:
        UnusablePredictions: predictions are missing, damaged or of another size than their mask, which is not
            allowed; masks are missing or damaged, labels are not the data set's, or nothing is left to score.
    """
    scoring = Scoring(task, classes, config, card, image_labels)
    if callable(predictions):
        share = processes.shard(ids)
        empty = functools.partial(Scoring, task, classes, config, card, image_labels)
        with ProgressBar(f"evaluating {task}", len(share), active=progress and processes.is_main) as bar:
            for count, part in _read_chunks(share, predictions, masks, empty, num_workers):
                scoring += part
                bar.advance(count)
    else:
        for image_id, prediction in predictions:
            scoring.read(image_id, functools.partial(_given, prediction), masks)
    return scoring.result(ids, processes, list_name, source, allow_missing)


def _read_chunks(
    ids: Sequence[str], predict: Predictor, masks: Masks, empty: Callable[[], Scoring], num_workers: int
) -> Iterable[tuple[int, Scoring]]:
    """Yields the number of images and their scoring for each chunk of a list, in threads if there are workers."""

    def score(chunk: Sequence[str]) -> tuple[int, Scoring]:
        part = empty()
        for image_id in chunk:
            part.read(image_id, predict, masks)
        return len(chunk), part

    chunks = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
    with ThreadPoolExecutor(max(num_workers, 1)) as threads:
        yield from threads.map(score, chunks) if num_workers else map(score, chunks)


def _given(prediction: Prediction, image_id: str, shape: tuple[int, int]) -> Prediction:
    return prediction


def _sum(counts: Sequence[Counts]) -> Counts:
    return functools.reduce(operator.add, counts)


def _judge(problems: Sequence[Problem], total: int, allow_missing: bool) -> None:
    if not total:
        raise UserError("there is no image to score: the list is empty")
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise UnusablePredictions(fatal, total)
    if problems and (not allow_missing or len(problems) == total):
        raise UnusablePredictions(problems, total)
