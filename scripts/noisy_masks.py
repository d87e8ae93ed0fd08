"""Gives a share of the regions of masks wrong labels, to test how a training copes with noisy masks.

    python scripts/noisy_masks.py --masks experiment/irn/masks --out noisy
    python scripts/noisy_masks.py --masks experiment/irn/masks --out noisy_2 --share 0.3 --seed 1

A region is a connected part of one class. The chosen ones get another label, drawn evenly from all labels of the
folder, background among them; nothing else changes. The choice depends on --seed and the image's id alone.
"""

import zlib
from pathlib import Path

import cv2
import numpy as np

from common.data.classes import IGNORE_LABEL
from common.data.masks import read_mask, write_mask
from common.data.stamp import MASKS, Stamp, read_stamp
from common.run.command import number, script_parser
from common.run.config import FRACTION, at_least
from common.run.errors import UserError, run_script


def main() -> int:
    """Command line → masks. Returns the exit code."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--masks", type=Path, required=True, help="folder of masks")
    add("--out", type=Path, required=True, help="new folder for them")
    add("--share", type=number(float, FRACTION), default=0.3, help="share of the regions (default: %(default)s)")
    add("--seed", type=number(int, at_least(0)), default=0, help="of the choice (default: %(default)s)")
    args = parser.parse_args()
    paths = sorted(args.masks.glob("*.png")) if args.masks.is_dir() else []
    if not paths:
        raise UserError(f"{args.masks} is no folder with masks (*.png)")
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UserError(f"--out {args.out} exists; name a new folder, or delete it")
    masks = {path.stem: read_mask(path) for path in paths}
    present = np.unique(np.concatenate([np.unique(mask) for mask in masks.values()]))
    labels = present[present != IGNORE_LABEL]
    if len(labels) < 2:
        raise UserError(f"the masks in {args.masks} have a single label; a wrong one needs a second")

    args.out.mkdir(parents=True, exist_ok=True)
    total = wrong = 0
    for image_id, mask in masks.items():
        rng = np.random.default_rng([args.seed, zlib.crc32(image_id.encode())])
        noisy, regions, changed = with_wrong_labels(mask, labels, args.share, rng)
        write_mask(args.out / f"{image_id}.png", noisy)
        total, wrong = total + regions, wrong + changed
    before = read_stamp(args.masks)
    settings = {"masks": str(args.masks), "share": args.share, "seed": args.seed}
    Stamp(before.kind if before else MASKS, "noisy masks", settings).write(args.out)
    print(f"{args.out}: {len(masks)} masks, {wrong} of {total} regions with a wrong label")
    return 0


def with_wrong_labels(
    mask: np.ndarray, labels: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, int, int]:
    """A mask whose regions have wrong labels with probability ``share``.

    Args:
        mask: uint8 (H, W); background and ignored pixels are no regions.
        labels: the labels that wrong ones are drawn from.

    Returns:
        The mask, its number of regions, and the number of those with a wrong label.
    """
    noisy, total, wrong = mask.copy(), 0, 0
    for label in np.unique(mask).tolist():
        if label in (0, IGNORE_LABEL):
            continue
        count, parts = cv2.connectedComponents((mask == label).astype(np.uint8), connectivity=8)
        for part in range(1, count):
            total += 1
            if rng.random() < share:
                wrong += 1
                noisy[parts == part] = rng.choice(labels[labels != label])
    return noisy, total, wrong


if __name__ == "__main__":
    run_script(main)
