"""Draws a contact sheet of masks in a run's folder: image, seed, true mask, the run's masks of it, and their errors.

    python scripts/show_masks.py --name exp --list val --masks segs/val segs_crf/val
    python scripts/show_masks.py --name irn_exp --list train --masks masks --images worst --count 20
    python scripts/show_masks.py --name psa_exp --list train --seeds experiment/exp/dict

Captions give the mean IoU of the image over the labels that it or its mask has. The column of seeds is there if masks
were made of seeds (their stamp names the folder), or with --seeds. The sheet goes to
experiment/<name>/masks_<list>.png, those of --images worst, best and first to masks_<list>_<images>.png.
"""

import argparse
import functools
from pathlib import Path

import numpy as np

from common.data.dataset import ImageSet, class_names, read_mask
from common.data.seeds import read_seed, seed_path
from common.data.stamp import LABEL_MAPS, MASKS, SEEDS, STRIDED_SEEDS, read_stamp, require_kind
from common.run.command import number, parse_config, script_parser
from common.run.config import at_least, load_config
from common.run.errors import UserError, run_script
from common.run.folder import MASK_SCORES, REFINED_MASK_SCORES, RunFolder
from common.run.needs import Needs
from common.score.options import EvaluationConfig, shared_sections
from common.score.sheet import CHOICES, Panels, chosen_images, header, of_weights, score_line, score_of
from common.visual import ERRORS, TRUE_MASK, contact_sheet, error_panel, mask_panel, seed_labels

SHOW_OTHERS = "Name folders of masks with --masks; seeds are drawn by scripts/show_seeds.py"
SEED_THRESHOLD = 0.4


def read_run_mask(folder: Path, image_id: str) -> np.ndarray:
    """A mask of the run.

    Raises:
        UserError: there is none, or it is damaged.
    """
    file = folder / f"{image_id}.png"
    if not file.is_file():
        raise UserError(f"no mask of {image_id} in {folder}; --masks names folders of the run")
    return read_mask(file)


def row(
    images: ImageSet, index: int, folders: dict[str, Path], classes: list[str], seeds: Path | None, threshold: float
) -> Panels:
    """The panels of an image.

    Args:
        folders: of masks, by their titles.
        seeds: folder of the seeds that the masks were made of.
        threshold: their background threshold.
    """
    image_id = images.ids[index]
    image = np.array(images.load_image(index))
    panels = [(f"image {image_id}", image)]
    path = seed_path(seeds, image_id) if seeds else None
    if path:
        labels = seed_labels(read_seed(path), threshold, image.shape[:2])
        panels.append(mask_panel(f"seed at {threshold:.2f}{score_of(labels, images, index)}", labels, classes))
    has_truth = images.mask_path(image_id).is_file()
    if has_truth:
        panels.append(mask_panel(TRUE_MASK, images.load_mask(index), classes))
    for title, folder in folders.items():
        mask = read_run_mask(folder, image_id)
        panels.append(mask_panel(f"{title}{score_of(mask, images, index)}", mask, classes))
        if has_truth and mask.shape == images.load_mask(index).shape:
            panels.append(error_panel(mask, images.load_mask(index)))
    return panels


def seeds_of(args: argparse.Namespace, folders: dict[str, Path]) -> Path | None:
    """The folder of seeds to show: the one of the command line, else the one that a stamp names, if it is there."""
    if args.seeds:
        require_kind(args.seeds, (SEEDS, STRIDED_SEEDS), lambda found, stamp: "--seeds names a folder of seeds")
        return args.seeds
    stamps = [read_stamp(folder) for folder in folders.values()]
    named = [Path(stamp.seeds) for stamp in stamps if stamp and stamp.seeds and Path(stamp.seeds).is_dir()]
    is_strided = [stamp.kind is STRIDED_SEEDS for folder in named if (stamp := read_stamp(folder))]
    return named[0] if named and not any(is_strided) else None


def main() -> None:
    """Command line → sheet."""
    parser = script_parser(__doc__, EvaluationConfig)
    parser.add_argument("--name", required=True, help="the run: experiment/<name>")
    parser.add_argument("--list", default="val", help="image list: a file or a name (default: %(default)s)")
    parser.add_argument("--masks", nargs="+", default=["masks"], help="folders inside the run folder (default: masks)")
    parser.add_argument("--seeds", type=Path, help="folder of seeds to show beside them")
    parser.add_argument(
        "--threshold",
        type=number(float, at_least(0)),
        default=SEED_THRESHOLD,
        help="of the seeds (default: %(default)s)",
    )
    parser.add_argument("--count", type=int, default=8, help="number of images (default: %(default)s)")
    parser.add_argument("--images", choices=CHOICES, default="spread", help="which (default: %(default)s)")
    args, overrides = parse_config(parser)
    if args.count < 1:
        raise UserError(f"--count {args.count}: at least one image")
    run = RunFolder(args.name).existing()
    own = shared_sections(run.config) if run.config.is_file() else []
    config = load_config(EvaluationConfig, None, [*own, *overrides])
    needs = Needs()
    needs.ask_all(config.data.needs([args.list]))
    needs.ask_all(functools.partial(run.require_folder, name) for name in [*args.masks])
    needs.settle(args.check)
    images = ImageSet(config.data, args.list)
    folders = {Path(name).parts[0]: run.path / name for name in args.masks}
    for folder in folders.values():
        require_kind(folder, (MASKS, LABEL_MAPS), lambda found, stamp: SHOW_OTHERS)
    seeds = seeds_of(args, folders)
    last = [*folders.values()][-1]
    shown = chosen_images(images, args.count, args.images, lambda index: read_run_mask(last, images.ids[index]))
    classes = class_names(config.data)
    rows = [row(images, index, folders, classes, seeds, args.threshold) for index in shown]
    stamp = read_stamp(last)
    files = {name: REFINED_MASK_SCORES if name == "segs_crf" else MASK_SCORES for name in folders}
    scores = [score_line(name, run.scores(files[name]), args.list, folder) for name, folder in folders.items()]
    weights = of_weights(str(stamp.settings.get("checkpoint", ""))) if stamp else ""
    lines = header(run, stamp.method if stamp else "", weights, images, args.images, scores)
    ending = "" if args.images == "spread" else f"_{args.images}"
    sheet = run.path / f"masks_{Path(args.list).stem}{ending}.png"
    contact_sheet(rows, sheet, header=lines, legend=ERRORS)
    print(f"contact sheet of {len(rows)} images: {sheet}")


if __name__ == "__main__":
    run_script(main)
