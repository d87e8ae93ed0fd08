"""Contact sheet of a vote over segments: image, segments, true mask, seed before the vote, mask after it.

    python scripts/show_segments.py --name x                      the first 8 images of the run's list
    python scripts/show_segments.py --name x --list val --count 12

Takes the run of methods/segments/vote.py: its seeds, its segments, and its masks. Written to
experiment/NAME/segments_<list>.png.
"""

from pathlib import Path

import numpy as np

from common.data.dataset import ImageSet, class_names, read_mask
from common.data.seed_labels import seed_labels
from common.data.seeds import find_seed, read_seed
from common.data.segments import SegmentFiles, Segments, read_segments
from common.run.command import parse_config, script_parser
from common.run.config import load_config
from common.run.errors import UserError, run_script
from common.run.folder import RunFolder
from common.visual import contact_sheet, mask_panel
from methods.segments.config import SegmentsConfig

Panels = list[tuple[str, np.ndarray]]


def segment_picture(image: np.ndarray, segments: Segments) -> np.ndarray:
    """Each segment in its mean colour, what no segment covers in black; uint8 RGB (H, W, 3)."""
    picture = np.zeros_like(image)
    owners = segments.owners()
    is_covered = owners >= 0
    if is_covered.any():
        sizes = np.maximum(np.bincount(owners[is_covered]), 1)
        for channel in range(3):
            means = np.bincount(owners[is_covered], image[..., channel][is_covered]) / sizes
            picture[..., channel][is_covered] = np.round(means)[owners[is_covered]]
    return picture


def row(images: ImageSet, index: int, config: SegmentsConfig, run: RunFolder, files: SegmentFiles | None) -> Panels:
    """The panels of one image.

    Raises:
        UserError: a file is missing or damaged.
    """
    image_id = images.ids[index]
    pixels = np.array(images.load_image(index))
    classes = class_names(config.data)
    panels = [(image_id, pixels)]
    if files is not None:
        source = files.find(image_id)
        if source is None:
            raise UserError(f"no segments of {image_id} in {files.path}")
        segments = read_segments(source, pixels.shape[:2], image_id)
        panels.append((f"{len(segments.counts)} segments", segment_picture(pixels, segments)))
    if images.mask_path(image_id).is_file():
        panels.append(mask_panel("true", images.load_mask(index), classes))
    before = seed_labels(read_seed(find_seed(config.seeds.path(), image_id)), config.vote.before, pixels.shape[:2])
    panels.append(mask_panel("before", before, classes))
    return [*panels, mask_panel("after", read_mask(run.masks / f"{image_id}.png"), classes)]


def main() -> None:
    """Command line → sheet."""
    parser = script_parser(__doc__, SegmentsConfig)
    parser.add_argument("--name", required=True, help="the run of vote.py: experiment/<name>")
    parser.add_argument("--list", default="", help="image list: a file or a name (default: the run's)")
    parser.add_argument("--count", type=int, default=8, help="number of images (default: %(default)s)")
    args, overrides = parse_config(parser)
    if args.count < 1:
        raise UserError(f"--count {args.count}: at least one image")
    run = RunFolder(args.name).existing()
    config = load_config(SegmentsConfig, run.config, overrides)
    images = ImageSet(config.data, args.list or config.infer.image_list)
    path = config.segments.path(run.segments)
    files = SegmentFiles(path, config.data.dataset) if path else None
    sheet = run.path / f"segments_{Path(images.list_name).stem}.png"
    shown = images.unique()[: args.count]
    contact_sheet([row(images, index, config, run, files) for index in shown], sheet)
    print(f"contact sheet of {len(shown)} images: {sheet}")


if __name__ == "__main__":
    run_script(main)
