"""Draws a contact sheet of a run's seeds: image, true mask, seed at a threshold, its errors, CAMs of the labels.

    python scripts/show_seeds.py --name cti_demo --list val --count 8
    python scripts/show_seeds.py --name exp --list train --count 20 --threshold 0.42
    python scripts/show_seeds.py --name exp --list train --images worst

The default threshold is the best of experiment/<name>/eval_cam.json, else eval.fixed_threshold. The caption of
a seed has the mean IoU of the image over the labels that it or its mask has. The sheet goes to
experiment/<name>/seeds_<list>.png, those of --images worst, best and first to seeds_<list>_<images>.png.
"""

import functools
from pathlib import Path

import numpy as np

from common.data.dataset import LabelledImages
from common.data.seeds import Seed, read_seed, seed_path
from common.data.stamp import SEEDS, read_stamp, require_kind
from common.run.command import number, parse_config, script_parser
from common.run.config import at_least, load_config
from common.run.errors import UserError, run_script
from common.run.folder import SEED_SCORES, SEEDS_DIR, RunFolder
from common.run.needs import Needs
from common.score.lists import list_of
from common.score.options import EvaluationConfig, shared_sections
from common.score.read import read_score
from common.score.sheet import CHOICES, Panels, chosen_images, header, of_weights, score_line, score_of
from common.visual import ERRORS, cam_panels, contact_sheet, error_panel, seed_labels

SHOW_OTHERS = "Name a folder of seeds with --dict_dir; masks are drawn by scripts/show_masks.py"


def best_threshold(path: Path, seeds: Path, otherwise: float) -> float:
    """The best threshold of an evaluation's result; ``otherwise`` without a result of this folder of seeds.

    Raises:
        UserError: the result is damaged.
    """
    if not path.is_file():
        return otherwise
    try:
        scores = read_score(path)
        is_of_other = scores.get("source", str(seeds)) not in (str(seeds), "seeds in memory")
        return otherwise if is_of_other else float(scores["best"]["threshold"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} has no best threshold; delete it, or give --threshold") from error


def seed_of(images: LabelledImages, index: int, folder: Path) -> Seed:
    """The seed of an image.

    Raises:
        UserError: it has none, or it is damaged.
    """
    path = seed_path(folder, images.ids[index])
    if path is None:
        raise UserError(
            f"no seed of {images.ids[index]} in {folder}; the method's inference script (--dict) makes seeds"
        )
    return read_seed(path)


def row(images: LabelledImages, index: int, seed: Seed, threshold: float) -> Panels:
    """The panels of an image: image, true mask, seed with its score, errors, CAMs by class."""
    image = np.array(images.load_image(index))
    labels = seed_labels(seed, threshold, image.shape[:2])
    score = score_of(labels, images, index)
    if not images.mask_path(images.ids[index]).is_file():
        return cam_panels(image, seed, images.classes, threshold)
    mask = images.load_mask(index)
    panels = cam_panels(image, seed, images.classes, threshold, mask)
    caption, picture = panels[2]
    start, _, names = caption.partition(":")
    panels[0] = f"image {images.ids[index]}", image
    panels[2:3] = [(f"{start}{score}:{names}", picture)]
    if mask.shape == labels.shape:
        panels.insert(3, error_panel(labels, mask))
    return panels


def main() -> None:
    """Command line → sheet."""
    parser = script_parser(__doc__, EvaluationConfig)
    parser.add_argument("--name", required=True, help="the run: experiment/<name>")
    parser.add_argument("--list", help="image list: a file or a name (default: the seeds' own, else val)")
    parser.add_argument("--count", type=int, default=8, help="number of images (default: %(default)s)")
    parser.add_argument("--images", choices=CHOICES, default="spread", help="which (default: %(default)s)")
    parser.add_argument("--dict_dir", default=SEEDS_DIR, help="folder of the seeds in the run's (default: %(default)s)")
    parser.add_argument("--threshold", type=number(float, at_least(0)), help="background threshold of the drawn seeds")
    args, overrides = parse_config(parser)
    if args.count < 1:
        raise UserError(f"--count {args.count}: at least one image")
    run = RunFolder(args.name).existing()
    own = shared_sections(run.config) if run.config.is_file() else []
    config = load_config(EvaluationConfig, None, [*own, *overrides])
    stamp = read_stamp(run.path / args.dict_dir)
    args.list = args.list or (list_of(config.data, stamp) if stamp else "val")
    needs = Needs()
    needs.ask_all(config.data.needs([args.list]))
    needs.ask_all(functools.partial(run.require_folder, name) for name in [args.dict_dir])
    needs.settle(args.check)
    images = LabelledImages(config.data, args.list)
    threshold = args.threshold
    if threshold is None:
        threshold = best_threshold(run.scores(SEED_SCORES), run.path / args.dict_dir, config.eval.fixed_threshold)
    folder = run.path / args.dict_dir
    require_kind(folder, SEEDS, lambda found, stamp: SHOW_OTHERS, images.ids, images.sample_classes)

    def labels_of(index: int) -> np.ndarray:
        size = images.load_mask(index).shape[:2]
        return seed_labels(seed_of(images, index, folder), threshold, (size[0], size[1]))

    shown = chosen_images(images, args.count, args.images, labels_of)
    rows = [row(images, index, seed_of(images, index, folder), threshold) for index in shown]
    stamp = read_stamp(folder)
    weights = of_weights(str(stamp.settings.get("checkpoint", ""))) if stamp else ""
    score = score_line("seeds at their best threshold", run.scores(SEED_SCORES), args.list, folder)
    lines = header(run, stamp.method if stamp else "", weights, images, args.images, [score])
    ending = "" if args.images == "spread" else f"_{args.images}"
    sheet = run.path / f"seeds_{Path(args.list).stem}{ending}.png"
    contact_sheet(rows, sheet, header=lines, legend=ERRORS)
    print(f"contact sheet of {len(rows)} images at threshold {threshold:.2f}: {sheet}")


if __name__ == "__main__":
    run_script(main)
