"""Scores seeds, CRF results and masks of any method: mIoU at every background threshold in one pass.

    python evaluation.py --name exp --task cam --dict_dir dict                     # seeds, on VOC's train list
    python evaluation.py --name exp --task crf --dict_dir crf/06 --list val
    python evaluation.py --name exp --task png --dict_dir pseudo_masks --data coco14
    python evaluation.py --name exp --task cam --dict_dir dict --card              # with intervals, where it is wrong
    python evaluation.py --name exp --task cam --dict_dir dict --list val --tune_on train    # threshold of another list
    python evaluation.py --name exp --trivial background                           # a bound that seeds must beat
    torchrun --nproc_per_node 2 evaluation.py --name exp --task cam --dict_dir dict

Predictions are read from experiment/<name>/<dict_dir>; eval_<task>.json, .csv and .png go to experiment/<name>. With
--card there are eval_<task>_card.json, _per_image.csv, _confusion.png and _classes.png as well: docs/evaluation.md.
"""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.data.dataset import LabelledImages, class_names
from common.data.layout import DataConfig
from common.data.stamp import read_stamp
from common.run.command import number, parse_config, script_parser
from common.run.config import at_least, config_path, load_config
from common.run.errors import UserError, run_script
from common.run.files import atomic_write, sweep
from common.run.fingerprint import content_digest
from common.run.folder import RunFolder
from common.run.lock import lock
from common.run.memory import keep_freed_memory
from common.run.needs import Needs
from common.run.processes import Processes, start_processes, stop_processes
from common.score.card import CARD_FILES, card_lines, read_card
from common.score.evaluate import Predictor, UnusablePredictions, evaluate
from common.score.files import TASKS, FilePredictions, MaskFiles
from common.score.lists import DEFAULT_LISTS, list_of, require_there
from common.score.options import EvaluationConfig, shared_sections
from common.score.origin import score_fingerprint
from common.score.report import known_labels
from common.score.result import Evaluation
from common.seeds.thresholds import store_background

DEFAULT_ROOTS = {"voc12": "data/VOC2012", "coco14": "data/COCO2014"}


@dataclass(frozen=True)
class TrivialPredictions:
    """Bounds that a seed must beat: ``background`` everywhere, or every pixel carrying the image's ``first_label``."""

    kind: str
    labels: dict[str, np.ndarray] = field(default_factory=dict)  # multi-hot, by id

    def __call__(self, image_id: str, shape: tuple[int, int]) -> dict[int, np.ndarray]:
        """A seed without classes, or of one class whose map is above every threshold."""
        present = np.flatnonzero(self.labels[image_id]).tolist() if self.kind == "first_label" else []
        return {present[0]: np.full(shape, np.finfo(np.float32).max, dtype=np.float32)} if present else {}


def setup(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, EvaluationConfig]:
    """Command line and configuration.

    Raises:
        UserError: arguments that contradict each other, or a wrong configuration.
    """
    parser = script_parser(__doc__, EvaluationConfig)
    lists = ", ".join(f"{name} for {dataset}" for dataset, name in DEFAULT_LISTS.items())
    add = parser.add_argument
    add("--name", required=True, help="the run: experiment/<name>")
    add("--task", choices=TASKS, default="cam", help="cam (default): seeds; crf, dl: .npy maps or labels; png: masks")
    add("--dict_dir", help="folder of the predictions, relative to experiment/<name>")
    add("--trivial", choices=("background", "first_label"), help="score this instead of predictions")
    add("--list", help=f"image list: a file or a name (default: {lists}; else the list recorded with the predictions)")
    add("--gt_dir", help="folder of the masks (default: the data set's own)")
    add("--data", help="voc12, coco14, or a YAML with a section data (default: the run's config.yaml, else voc12)")
    add("--allow-missing", action="store_true", help="leave out images without a usable prediction instead of failing")
    add("--out", help="name of the files written (default: eval_<task>)")
    add("--card", action="store_true", help="the evaluation card: intervals, boundaries, sizes, errors, single images")
    add("--tune_on", metavar="LIST", help="also report the score at the best threshold of another image list")
    add("--verbose", action="store_true", help="print every threshold")
    add(
        "--num_workers",
        type=number(int, at_least(0)),
        default=min(os.cpu_count() or 1, 8),
        help="threads a process (default: %(default)s)",
    )
    args, overrides = parse_config(parser, argv)
    if (args.dict_dir is None) == (args.trivial is None):
        raise UserError("give either --dict_dir (the folder of the run's predictions) or --trivial")
    if args.out and (Path(args.out).name != args.out or args.out.startswith(".")):
        raise UserError(f"--out {args.out!r}: a plain name is needed; the files go to experiment/{args.name}")
    if args.trivial and args.task != "cam":
        raise UserError("--trivial is scored as --task cam")
    if args.tune_on and args.task != "cam":
        raise UserError(f"--tune_on chooses a threshold; the task {args.task} has none")
    return args, load_config(EvaluationConfig, None, [*_from_yaml(args), *overrides])


def _from_yaml(args: argparse.Namespace) -> list[str]:
    """The sections data and eval of ``--data`` or of the run's configuration, as key=value texts."""
    if args.data in DEFAULT_ROOTS:
        return [f"data.dataset={args.data}", f"data.root={DEFAULT_ROOTS[args.data]}"]
    path = config_path(args.data) if args.data else RunFolder(args.name).config
    return shared_sections(path) if path.is_file() else []  # a folder of predictions made elsewhere: VOC


def require_input(args: argparse.Namespace, config: EvaluationConfig) -> None:
    """Makes sure that predictions, list and true masks are there.

    Raises:
        UserError: some are missing; all are named.
        SystemExit: none is, and ``--check`` is given.
    """
    needs = Needs()
    if args.dict_dir:
        needs.ask(_predictions, args)
    needs.ask(_masks, args, config.data)
    needs.ask(config.data.require_classes)
    if args.tune_on:
        needs.ask(config.data.require_list, args.tune_on)
    needs.ask(lambda: config.data.require_list(_list_name(args, config.data)))
    needs.settle(args.check)


def _list_name(args: argparse.Namespace, data: DataConfig) -> str:
    """The list that is scored: ``--list``, else see `list_of`."""
    folder = RunFolder(args.name).path / (args.dict_dir or "")
    return args.list or list_of(data, read_stamp(os.path.normpath(folder)) if args.dict_dir else None)


def _predictions(args: argparse.Namespace) -> str:
    """The folder of predictions, which may be another run's, also seen from a run folder that is a link.

    Raises:
        UserError: it is missing.
    """
    folder = Path(os.path.normpath(RunFolder(args.name).existing().path / args.dict_dir))
    if not folder.is_dir():
        raise UserError(f"no folder of predictions {folder}; the method's inference script (--dict) makes seeds")
    return str(folder)


def _masks(args: argparse.Namespace, data: DataConfig) -> str:
    """The folder of the true masks or of the data set; raises `UserError` if it is missing."""
    if args.gt_dir and not Path(args.gt_dir).is_dir():
        raise UserError(f"no folder of true masks {args.gt_dir} (--gt_dir, from {Path.cwd()})")
    return args.gt_dir or data.require_folder()


def score(args: argparse.Namespace, config: EvaluationConfig, processes: Processes) -> Evaluation:
    """Reads, counts, and sums over processes; first on the list of ``--tune_on``.

    Raises:
        UserError: see `common.score.evaluate.evaluate`; unusable predictions are also listed in a file.
    """
    list_name = _list_name(args, config.data)
    tuned = score_list(args, config, args.tune_on, False, processes) if args.tune_on else None
    return dataclasses.replace(score_list(args, config, list_name, args.card, processes), tuned=tuned)


def score_list(
    args: argparse.Namespace, config: EvaluationConfig, list_name: str, card: bool, processes: Processes
) -> Evaluation:
    """Scores the predictions of a list; with counts of single images for a ``card``."""
    run = RunFolder(args.name)
    classes = class_names(config.data)
    files = None if args.trivial else FilePredictions(Path(_predictions(args)), args.task)
    masks = MaskFiles(config.data, list_name, args.gt_dir or "")
    if files:
        files.require_kind(masks)
        if not args.allow_missing:
            require_there(files, masks, config.data)
    predict: Predictor = files or _trivial(args.trivial, config.data, list_name)
    source = str(files.folder) if files else f"trivial {args.trivial}"
    try:
        result = evaluate(
            masks.ids, predict, masks, classes, config.eval, args.task, list_name, source,
            allow_missing=args.allow_missing, processes=processes, num_workers=args.num_workers, card=card,
            image_labels=known_labels(config.data, list_name),
        )  # fmt: skip
        if files and processes.is_main:
            result.fingerprint = score_fingerprint(masks, files, config.eval)
        return result
    except UnusablePredictions as error:
        if processes.is_main and run.path.is_dir():
            with atomic_write(run.path / f"{_stem(args)}_unusable.txt", "w") as file:
                file.writelines(f"{problem.image_id}\t{problem.reason}\n" for problem in error.problems)
        raise


def _trivial(kind: str, data: DataConfig, list_name: str) -> TrivialPredictions:
    if kind == "background":
        return TrivialPredictions(kind)
    images = LabelledImages(data, list_name)
    return TrivialPredictions(kind, dict(zip(images.ids, images.labels, strict=True)))


def _stem(args: argparse.Namespace) -> str:
    return args.out or (f"eval_trivial_{args.trivial}" if args.trivial else f"eval_{args.task}")


def show(result: Evaluation, verbose: bool) -> None:
    """Prints the thresholds, the classes at the points to report, and the points."""
    points = result.points()
    width = max(map(len, result.labels))
    if result.thresholds is not None:
        count = len(result.thresholds)
        for index, (threshold, miou) in enumerate(zip(result.thresholds, result.scores.miou, strict=True)):
            if verbose or abs(threshold * 20 - round(threshold * 20)) < 1e-6:  # every 0.05
                print(f"{index}/{count} threshold: {threshold:.3f}\tmIoU: {miou:.3f}%")
        headings = (f"{name.replace('_', ' ')} {point.threshold:.2f}" for name, point in points.items())
        print("\n" + " " * width + "".join(f"  |{heading:^27}" for heading in headings))
    print(f"{'class':>{width}}" + "  |    IoU  precision  recall " * len(points))
    for rows in zip(*(result.per_class(point) for point in points.values()), strict=True):
        values = "".join(f"  | {iou:6.2f}  {precision:9.2f}  {recall:6.2f} " for _, iou, precision, recall in rows)
        print(f"{rows[0][0]:>{width}}{values}")
    print()
    for name, point in points.items():
        where = f"threshold: {point.threshold:.3f} ({_origin(name, result)})\t" if point.threshold is not None else ""
        means = f"precision: {point.mean_precision:.3f}%  recall: {point.mean_recall:.3f}%"
        print(f"{where}mIoU: {point.miou:.3f}%  {means}")


def _origin(point: str, result: Evaluation) -> str:
    """How the threshold of a point was chosen."""
    if point == "fixed":
        return "fixed beforehand"
    if point == "tuned" and result.tuned is not None:
        return f"best of list {result.tuned.list_name}"
    searched = result.thresholds if point == "best" else result.config.reference_range
    if searched is None:
        return ""
    titles = {
        "best": "best of",
        "reference_range": "the reference's range",
        "early_stop": "the reference's early stop in",
    }
    return f"{titles[point]} {searched[0]:.2f} to {searched[-1]:.2f}, tuned on list {result.list_name}"


def store_threshold(args: argparse.Namespace, result: Evaluation) -> None:
    """Stores the threshold of ``--tune_on`` beside the weights that made the seeds, if they are known and there."""
    stamp = read_stamp(_predictions(args))
    weights = Path(str(stamp.settings.get("checkpoint", ""))) if stamp else Path()
    if stamp is None or result.tuned is None or not weights.is_file():
        return
    if content_digest(weights) == stamp.settings.get("weights"):
        best = result.tuned.best
        place = store_background(weights, result.classes, float(best.threshold or 0), args.tune_on, round(best.miou, 4))
        print(f"background threshold {best.threshold:.2f} of list {args.tune_on}, for scripts/predict.py: {place}")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line → evaluation → table and files."""
    args, config = setup(argv)
    require_input(args, config)
    keep_freed_memory()
    processes = start_processes()
    try:
        result = score(args, config, processes)
        if processes.is_main:
            folder = RunFolder(args.name).path
            stem = _stem(args)
            folder.mkdir(parents=True, exist_ok=True)
            lock(folder, f".{stem}.lock")
            sweep(folder)
            result.write(folder, stem)
            show(result, args.verbose)
            print(f"{result.images} images of list {result.list_name}; {result.source}")
            if args.card:
                print("", *card_lines(read_card(folder, stem)), sep="\n")
                print(f"written: {folder / stem}{', '.join(CARD_FILES)}")
            for warning in result.warnings():
                print(f"warning: {warning}")
            if result.left_out:
                print(f"{len(result.left_out)} images left out: no usable prediction; {stem}.json names them")
            print(f"written: {folder / stem}.json, .csv" + (" and .png" if result.thresholds is not None else ""))
            if args.tune_on and args.dict_dir:
                store_threshold(args, result)
    finally:
        stop_processes()


if __name__ == "__main__":
    run_script(main)
