"""Measures the size of a report of photographs with rough CAMs, part by part, and beside plainer ways to store it.

    python scripts/benchmark_report.py                                      # 100 images of VOC's list val
    python scripts/benchmark_report.py --root my_voc --list val --cells 10  # CAMs of 10 x 10 random cells

Every image has CAMs of two classes: random cells, independent of each other, brought to the image bilinearly. CAMs of
trained networks are smoother, above all beside the objects, and smaller.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from common.data.dataset import ImageSet
from common.data.layout import DataConfig
from common.report import pictures
from common.report.page import page
from common.run.command import number, script_parser
from common.run.config import at_least
from common.run.errors import run_script
from common.run.progress import progress
from common.score.bins import ThresholdBins

THRESHOLDS = (np.arange(100) / 100).astype(np.float32)
BASE64 = 4 / 3
CLASSES = (0, 5)


@dataclass
class Sizes:
    """Bytes of the parts of a report, and of plainer forms of some of them."""

    parts: Counter[str]
    plain: Counter[str]

    def add(self, entry: dict, seed: dict[int, np.ndarray]) -> None:
        """Takes in what the page has of an image."""
        run = entry["runs"][0]
        cams = sum(len(own["map"]) for own in run["cams"])
        own = {"photographs": len(entry["photo"]), "levels": len(run["number"]), "labels": len(run["label"])}
        self.parts.update({**own, "masks": len(entry.get("truth", b"")), "CAMs of single classes": cams})
        largest = np.maximum.reduce(list(seed.values()))
        self.plain["levels"] += len(pictures.plane(ThresholdBins(THRESHOLDS)(largest).astype(np.uint8)))


def main() -> int:
    """Command line → table. Returns the exit code."""
    parser = script_parser(__doc__)
    count: Callable[[str], int] = number(int, at_least(1))
    parser.add_argument("--root", default="data/VOC2012", help="a data set in VOC's layout (default: %(default)s)")
    parser.add_argument("--list", default="val", help="image list (default: %(default)s)")
    parser.add_argument("--images", type=count, default=100, help="images of the page (default: %(default)s)")
    parser.add_argument("--cells", type=count, default=28, help="random cells across a CAM (default: %(default)s)")
    args = parser.parse_args()
    images = ImageSet(DataConfig(root=args.root), args.list)
    rng = np.random.default_rng(0)
    entries = []
    sizes = Sizes(Counter(), Counter())
    for place in progress(range(args.images), "pictures"):
        index = place % len(images)
        image = images.load_image(index)
        shape = image.height, image.width
        seed = {key: rough_map(rng, args.cells, shape) for key in CLASSES}
        entry = {"id": str(place), "photo": pictures.photo(image)}
        if images.mask_path(images.ids[index]).is_file():
            entry["truth"] = pictures.plane(images.load_mask(index))
        entry["runs"] = [pictures.prediction_entry(seed, ThresholdBins(THRESHOLDS), shape)]
        sizes.add(entry, seed)
        entries.append(entry)
    whole = len(page({"images": entries})) / 1e6
    for name, size in sizes.parts.items():
        print(f"{name:24} {size / 1e6:7.3f} MB")
    bare = sum(sizes.parts.values()) / 1e6
    print(f"{'page':24} {whole:7.3f} MB, {whole / bare:.3f} of its pictures")
    print(f"{'page, in base64':24} {whole + (BASE64 - 1) * bare:7.3f} MB")
    change = (sizes.plain["levels"] - sizes.parts["levels"]) / 1e6
    print(f"{'and levels as they are':24} {whole + (BASE64 - 1) * bare + BASE64 * change:7.3f} MB")
    return 0


def rough_map(rng: np.random.Generator, cells: int, shape: tuple[int, int]) -> np.ndarray:
    """Independent random cells, brought to (H, W) bilinearly, float32."""
    return np.clip(cv2.resize(rng.random((cells, cells), dtype=np.float32), shape[::-1]), 0, 1)


if __name__ == "__main__":
    run_script(main)
