"""Draws a contact sheet of masks in a run's folder: image, true mask, and the run's masks of it.

    python scripts/show_masks.py --name exp --list val --masks segs/val segs_crf/val
    python scripts/show_masks.py --name irn_exp --list train --masks masks --count 20

The images are spread evenly over the list. The sheet goes to experiment/<name>/masks_<list>.png.
"""

import functools
from pathlib import Path

import numpy as np

from common.data.dataset import ImageSet, class_names
from common.data.masks import read_mask
from common.data.stamp import LABEL_MAPS, MASKS, require_kind
from common.run.command import parse_config, script_parser
from common.run.config import load_config
from common.run.errors import UserError, run_script
from common.run.folder import RunFolder
from common.run.needs import Needs
from common.score.options import EvaluationConfig, shared_sections
from common.visual import contact_sheet, mask_panel

SHOW_OTHERS = "Name folders of masks with --masks; seeds are drawn by scripts/show_seeds.py"
Panels = list[tuple[str, np.ndarray]]


def rows(images: ImageSet, run: Path, folders: list[str], classes: list[str], count: int) -> list[Panels]:
    """The panels of some images; ``folders`` are folders of masks inside the run folder.

    Raises:
        UserError: an image has no mask in one of the folders.
    """
    made = []
    for index in np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int).tolist():
        image_id = images.ids[index]
        panels = [("image", np.array(images.load_image(index)))]
        if images.mask_path(image_id).is_file():
            panels.append(mask_panel("true", images.load_mask(index), classes))
        for folder in folders:
            file = run / folder / f"{image_id}.png"
            if not file.is_file():
                raise UserError(f"no mask of {image_id} in {file.parent}; --masks names folders of the run")
            panels.append(mask_panel(Path(folder).parts[0], read_mask(file), classes))
        made.append(panels)
    return made


def main() -> None:
    """Command line → sheet."""
    parser = script_parser(__doc__, EvaluationConfig)
    parser.add_argument("--name", required=True, help="the run: experiment/<name>")
    parser.add_argument("--list", default="val", help="image list: a file or a name (default: %(default)s)")
    parser.add_argument("--masks", nargs="+", default=["masks"], help="folders inside the run folder (default: masks)")
    parser.add_argument("--count", type=int, default=8, help="number of images (default: %(default)s)")
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
    for folder in args.masks:
        require_kind(run.path / folder, (MASKS, LABEL_MAPS), lambda found, stamp: SHOW_OTHERS)
    sheet = run.path / f"masks_{Path(args.list).stem}.png"
    contact_sheet(rows(images, run.path, args.masks, class_names(config.data), args.count), sheet)
    print(f"contact sheet of {min(args.count, len(images))} images: {sheet}")


if __name__ == "__main__":
    run_script(main)
