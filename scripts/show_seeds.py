"""Draws a contact sheet of a run's seeds: image, mask, seed at a threshold, CAM of each labelled class.

    python scripts/show_seeds.py --name cti_demo --list val --count 8
    python scripts/show_seeds.py --name exp --list train --count 20 --threshold 0.42

The default threshold is the best of experiment/<name>/eval_cam.json, else eval.fixed_threshold. The images are spread
evenly over the list. The sheet goes to experiment/<name>/seeds_<list>.png.
"""

import functools
from pathlib import Path

import numpy as np

from common.data.dataset import LabelledImages
from common.data.seeds import read_seed, seed_path
from common.data.stamp import SEEDS, require_kind
from common.run.command import number, parse_config, script_parser
from common.run.config import at_least, load_config
from common.run.errors import UserError, run_script
from common.run.folder import SEED_SCORES, SEEDS_DIR, RunFolder
from common.run.needs import Needs
from common.run.text import read_json_object
from common.score.options import EvaluationConfig, shared_sections
from common.visual import cam_panels, contact_sheet

SHOW_OTHERS = "Name a folder of seeds with --dict_dir; masks are drawn by scripts/show_masks.py"
Panels = list[tuple[str, np.ndarray]]


def spread(total: int, count: int) -> list[int]:
    """At most ``count`` indices, evenly spread over ``total``."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()


def best_threshold(path: Path, otherwise: float) -> float:
    """The best threshold of an evaluation's result; ``otherwise`` without a result.

    Raises:
        UserError: the result is damaged.
    """
    if not path.is_file():
        return otherwise
    try:
        return float(read_json_object(path, "the scores")["best"]["threshold"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} has no best threshold; delete it, or give --threshold") from error


def rows(images: LabelledImages, folder: Path, threshold: float, count: int) -> list[Panels]:
    """The panels of some images.

    Raises:
        UserError: an image has no seed.
    """
    made = []
    for index in spread(len(images), count):
        image_id = images.ids[index]
        path = seed_path(folder, image_id)
        if path is None:
            raise UserError(f"no seed of {image_id} in {folder}; the method's inference script (--dict) makes seeds")
        mask = images.load_mask(index) if images.mask_path(image_id).is_file() else None
        made.append(cam_panels(np.array(images.load_image(index)), read_seed(path), images.classes, threshold, mask))
    return made


def main() -> None:
    """Command line → sheet."""
    parser = script_parser(__doc__, EvaluationConfig)
    parser.add_argument("--name", required=True, help="the run: experiment/<name>")
    parser.add_argument("--list", default="val", help="image list: a file or a name (default: %(default)s)")
    parser.add_argument("--count", type=int, default=8, help="number of images (default: %(default)s)")
    parser.add_argument("--dict_dir", default=SEEDS_DIR, help="folder of the seeds in the run's (default: %(default)s)")
    parser.add_argument("--threshold", type=number(float, at_least(0)), help="background threshold of the drawn seeds")
    args, overrides = parse_config(parser)
    if args.count < 1:
        raise UserError(f"--count {args.count}: at least one image")
    run = RunFolder(args.name).existing()
    own = shared_sections(run.config) if run.config.is_file() else []
    config = load_config(EvaluationConfig, None, [*own, *overrides])
    needs = Needs()
    needs.ask_all(config.data.needs([args.list]))
    needs.ask_all(functools.partial(run.require_folder, name) for name in [args.dict_dir])
    needs.settle(args.check)
    images = LabelledImages(config.data, args.list)
    threshold = args.threshold
    if threshold is None:
        threshold = best_threshold(run.scores(SEED_SCORES), config.eval.fixed_threshold)
    sheet = run.path / f"seeds_{Path(args.list).stem}.png"
    folder = run.path / args.dict_dir
    require_kind(folder, SEEDS, lambda found, stamp: SHOW_OTHERS, images.ids, images.sample_classes)
    contact_sheet(rows(images, folder, threshold, args.count), sheet)
    print(f"contact sheet of {min(args.count, len(images))} images at threshold {threshold:.2f}: {sheet}")


if __name__ == "__main__":
    run_script(main)
