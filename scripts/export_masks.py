"""Exports masks to annotation tools: COCO, LabelMe, YOLO segmentation, CVAT.

    python scripts/export_masks.py --masks experiment/exp/segs/val --format coco --out exported data.root=data/VOC2012
    python scripts/export_masks.py --masks masks --format labelme cvat --out exported --classes classes.txt

Every PNG of the folder is a mask of label indices (0 background, 255 ignored; both are left out). COCO and CVAT are
exact, pixel by pixel; LabelMe and YOLO get polygons. Each format has a folder of its own below --out:

    coco/annotations.json   labelme/<id>.json   yolo/labels/<id>.txt, yolo/data.yaml   cvat/annotations.xml
"""

from pathlib import Path

import numpy as np

from common.data.classes import IGNORE_LABEL
from common.data.dataset import class_names
from common.data.masks import read_mask
from common.data.prepare.annotations import FORMATS, Annotated, open_writers
from common.run.command import parse_config, script_parser
from common.run.config import load_config
from common.run.errors import UserError, preview, run_script
from common.run.progress import progress
from common.score.options import EvaluationConfig


def main() -> int:
    """Masks → files of each format. Returns the exit code: 1 if a mask was left out."""
    parser = script_parser(__doc__, EvaluationConfig, reads=("data",))
    add = parser.add_argument
    add("--masks", type=Path, required=True, help="the folder of masks")
    add("--format", nargs="+", required=True, choices=FORMATS, help="one or several formats")
    add("--out", type=Path, required=True, help="the folder for them")
    add("--classes", default="", help="file of class names (default: of the data set, data.classes or data.dataset)")
    add("--suffix", default=".jpg", help="ending of the images' file names in the files (default: %(default)s)")
    args, overrides = parse_config(parser)
    given = [f"data.classes={args.classes}"] if args.classes else []
    classes = class_names(load_config(EvaluationConfig, None, [*given, *overrides]).data)
    paths = sorted(args.masks.glob("*.png")) if args.masks.is_dir() else []
    if not paths:
        raise UserError(f"{args.masks} is no folder with masks (*.png)")

    writers = open_writers(args.format, args.out, classes)
    wrong: list[str] = []
    for path in progress(paths, "exporting"):
        try:
            mask = labels(path, len(classes))
        except UserError as error:
            wrong.append(str(error))
            continue
        for writer in writers:
            writer.add(Annotated(path.stem, path.stem + args.suffix, mask))
    for writer in writers:
        print(f"{len(paths) - len(wrong)} masks written: {writer.close()}")
    if wrong:
        print(f"error: {len(wrong)} masks were left out: {preview(wrong)}")
    return int(bool(wrong))


def labels(path: Path, classes: int) -> np.ndarray:
    """A mask, checked against the classes.

    Raises:
        UserError: it is unreadable, or holds labels that no class has.
    """
    mask = read_mask(path)
    others = sorted({*np.unique(mask).tolist()} - {*range(classes + 1), IGNORE_LABEL})
    if others:
        raise UserError(f"{path} has labels without a class ({preview(others)}); there are {classes} classes")
    return mask


if __name__ == "__main__":
    run_script(main)
