"""Scores the golden seeds through files, as ``evaluation.py`` does."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from common.data.classes import BACKGROUND, COCO14, VOC12
from common.data.dataset import DataConfig
from common.data.masks import write_mask
from common.data.seeds import Seed, write_seed
from common.score.evaluate import EvalConfig, evaluate
from common.score.files import FilePredictions, MaskFiles
from common.score.result import Evaluation
from tests.golden.harness import Case, Results, runner


class ListedThresholds(EvalConfig):
    """Takes ``thresholds`` as they are instead of as first, last and step."""

    def grid(self) -> list[float]:
        """The thresholds, ascending."""
        return sorted(set(self.thresholds))


DATASETS = {"voc": ("voc12", VOC12), "coco": ("coco14", COCO14)}


@runner("eval", "eval")
def evaluation(case: Case) -> Results:
    """IoU at every threshold for ``cam``, and of the ``crf`` task where the case has background maps."""
    images = [{name: case.make(recipe) for name, recipe in image.items()} for image in case.entry["inputs"]["images"]]
    seeds = [dict(zip(map(int, image["keys"]), image["maps"], strict=True)) for image in images]
    swept = scored(case, images, seeds, "cam")
    wanted = case.params["thresholds"]
    at = [swept.thresholds.tolist().index(threshold) for threshold in wanted]
    scores = swept.scores
    found = {
        "IoU": scores.iou[at], "mIoU": scores.miou[at], "mP": scores.mean_precision[at], "mR": scores.mean_recall[at],
        "categories": np.array(reference_spelling(swept.classes)),
    }  # fmt: skip
    if all(image.get("crfbg") is not None for image in images):
        shifted = [
            {0: image["crfbg"], **{key + 1: cam for key, cam in seed.items()}}
            for image, seed in zip(images, seeds, strict=True)
        ]
        crf = scored(case, images, shifted, "crf").scores
        found |= {"crf_IoU": crf.iou, "crf_mIoU": crf.miou}
    return {(role, None): value for role, value in found.items()}


def scored(case: Case, images: list[dict], predictions: list[Seed], task: str) -> Evaluation:
    """Writes predictions and masks under the file names of the case, and scores them."""
    dataset, classes = DATASETS[case.params["dataset"]]
    names = case.stored["names"] if "names" in case.stored else case.stored["ids"]
    config = ListedThresholds(thresholds=case.params["thresholds"])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, image, prediction in zip(names, images, predictions, strict=True):
            write_seed(root / task, (case.params["prediction_file"] % name).removesuffix(".npy"), prediction)
            mask = root / (case.params["gt_file"] % name)
            mask.parent.mkdir(exist_ok=True)
            Image.fromarray(image["gt"]).save(mask)
        (root / "images.txt").write_text("\n".join(str(name) for name in names))
        data = DataConfig(dataset=dataset, root=folder)
        masks = MaskFiles(data, str(root / "images.txt"), str(root / Path(case.params["gt_file"]).parent))
        return evaluate(masks.ids, FilePredictions(root / task, task), masks, classes, config, task, progress=False)


def swept_voc(
    images: Sequence[tuple[Seed, np.ndarray]], thresholds: list[float], early_stop: bool = False
) -> Evaluation:
    """Scores seeds against VOC masks at the thresholds given, through files."""
    with tempfile.TemporaryDirectory() as folder:
        root, ids = Path(folder), [str(number) for number in range(len(images))]
        for image_id, (seed, gt) in zip(ids, images, strict=True):
            write_seed(root / "cam", image_id, seed)
            write_mask(root / "SegmentationClass" / f"{image_id}.png", gt)
        (root / "images.txt").write_text("\n".join(ids))
        masks = MaskFiles(DataConfig(root=folder), str(root / "images.txt"))
        config = ListedThresholds(thresholds, reference_range=[thresholds[0], thresholds[-1]], early_stop=early_stop)
        return evaluate(masks.ids, FilePredictions(root / "cam", "cam"), masks, list(VOC12), config, progress=False)


def reference_spelling(classes: list[str]) -> list[str]:
    """Our class names as the reference spells them: underscores, and one slip."""
    return [BACKGROUND, *(name.replace(" ", "_").replace("horse", "horise") for name in classes)]
