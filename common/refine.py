"""What the stages share that refine a folder of seeds: their seeds, the masks' score.

A stage has several scripts, which write into one run folder: one before the training makes what is trained on, one
after it makes the masks.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import option
from common.data.dataset import DataConfig, ImageSet, class_names
from common.errors import UserError, preview
from common.evaluate import EvalConfig, FilePredictions, MaskFiles, evaluate
from common.run import RunFolder
from common.runtime import Runtime
from common.seeds import FORMATS, Seed, read_seed, seed_path
from common.segment import MaskFolder


@dataclass
class SeedsConfig:
    """The seeds that are refined: any method's, in either format."""

    folder: str = option("", "Folder of seed files, such as experiment/exp/dict.", flag="--seeds")

    def path(self) -> Path:
        """The folder.

        Raises:
            UserError: none is named, or there is none.
        """
        if not self.folder:
            raise UserError("which seeds? Name their folder: --seeds experiment/NAME/dict")
        if not Path(self.folder).is_dir():
            raise UserError(f"no folder of seeds {self.folder} (from {Path.cwd()}); an inference with --dict writes it")
        return Path(self.folder)


def seed_settings(folder: Path) -> dict[str, Any]:
    """What identifies the seeds in a folder, for the settings of what is made of them: where, and by what inference."""
    stamp = folder.parent / f"{folder.name}.json"
    return {"seeds": str(folder), "made_by": json.loads(stamp.read_text()) if stamp.is_file() else {}}


def require_maps(images: ImageSet, folder: Path, made_by: str) -> None:
    """Makes sure that every image has a file of maps in a folder.

    Args:
        made_by: the command that writes them, for the message.

    Raises:
        UserError: some have none; they are named.
    """
    there = {path.stem for path in folder.iterdir() if path.suffix[1:] in FORMATS} if folder.is_dir() else set()
    missing = [image_id for image_id in dict.fromkeys(images.ids) if image_id not in there]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(set(images.ids))} images of list {images.list_name!r} have no file in "
            f"{folder}: {preview(missing, 3)}. Make them with: {made_by}"
        )


def read_maps(folder: Path, image_id: str, size: tuple[int, int]) -> Seed:
    """An image's file of maps (seeds, or CRF scores), which must be of its size (H, W).

    Raises:
        UserError: it is missing, damaged, or of another size.
    """
    path = seed_path(folder, image_id)
    if path is None:
        raise UserError(f"no file of {image_id} in {folder}")
    maps = read_seed(path)
    shapes = {values.shape for values in maps.values()}
    if shapes - {tuple(size)}:
        raise UserError(f"{path} holds maps of {shapes.pop()}, but the image is of {tuple(size)} pixels (H, W)")
    return maps


def report_pseudo_masks(
    folder: MaskFolder, data: DataConfig, list_name: str, run: RunFolder, runtime: Runtime, num_workers: int
) -> None:
    """Prints the masks' mIoU over a list and writes ``eval_png.*``, or says why that is not possible."""
    truth = MaskFiles(data, list_name)
    without = sum(not folder.is_done(image_id) for image_id in truth.ids)
    reason = ""
    if without:
        reason = f"{without} of the {len(truth.ids)} images of {list_name!r} have no mask in {folder.path}"
    elif not any(truth.path(image_id).is_file() for image_id in truth.ids):
        reason = f"there are no true masks of {list_name!r}, such as {truth.path(truth.ids[0])}"
    if reason:
        if runtime.processes.is_main:
            print(f"not scored: {reason}")
        return
    result = evaluate(
        truth.ids, FilePredictions(folder.path, "png"), truth, class_names(data), EvalConfig(), "png", list_name,
        str(folder.path), processes=runtime.processes, num_workers=num_workers,
    )  # fmt: skip
    if runtime.processes.is_main:
        result.write(run.path, "eval_png")
        print(
            f"{folder.path}: {result.best.miou:.2f} mIoU over the {result.images} images of {list_name!r}; per class: "
            f"{run.path}/eval_png.json, .csv"
        )
