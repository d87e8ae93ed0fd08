"""PASCAL VOC 2012 beyond its archive: SBD's masks, and labels of the annotations."""

from functools import partial
from pathlib import Path

import numpy as np

from common.data.classes import IGNORE_LABEL, VOC12
from common.data.labels import read_labels, write_labels
from common.data.lists import LIST_DIR, read_list
from common.data.masks import write_mask
from common.data.prepare.matlab import read_struct_field
from common.run.errors import UserError, preview
from common.run.files import atomic_write
from common.run.progress import map_in_processes

_LABELS = (*range(len(VOC12) + 1), IGNORE_LABEL)


def augment_masks(root: Path, workers: int) -> None:
    """Writes SBD's masks and the official ones to SegmentationClassAug/; the official ones take precedence."""
    target = root / "SegmentationClassAug"
    official = sorted((root / "SegmentationClass").glob("*.png"))
    for path in official:
        with atomic_write(target / path.name, durable=False) as file:
            file.write(path.read_bytes())
    mats = [path for path in (root / "SBD" / "cls").glob("*.mat") if not (target / f"{path.stem}.png").exists()]
    if mats:
        map_in_processes(partial(_convert_mat, target), mats, workers, "SBD masks")
    total = sum(1 for _ in target.glob("*.png"))
    print(f"{target}: {len(official)} official masks, {len(mats)} made from SBD, {total} in all")


def _convert_mat(target: Path, path: Path) -> None:
    mask = read_struct_field(path, "GTcls", "Segmentation")
    if mask.ndim != 2 or not np.isin(mask, _LABELS).all():
        raise UserError(
            f"{path}: GTcls.Segmentation is no mask of rows and columns with labels 0 to {len(VOC12)} and "
            f"{IGNORE_LABEL}; get SBD again"
        )
    write_mask(target / f"{path.stem}.png", mask)


def label_voc(root: Path) -> None:
    """Writes labels.npz from Annotations/, and compares it with the shipped labels."""
    ids = sorted(path.stem for path in (root / "Annotations").glob("*.xml"))
    if not ids:
        print(f"no annotations in {root / 'Annotations'}: no labels.npz; the shipped labels serve the official lists")
        return
    labels = read_labels(root / "Annotations", ids, VOC12, "voc12")
    write_labels(root / "labels.npz", labels)
    lists = [read_list(LIST_DIR / "voc12" / f"{name}.txt", "voc12") for name in ("train_aug", "val")]
    shared = sorted(set().union(*lists) & set(ids))
    shipped = read_labels(LIST_DIR / "voc12" / "labels.npz", shared, VOC12, "voc12")
    different = [image_id for image_id in shared if (labels[image_id] != shipped[image_id]).any()]
    verdict = f"{len(different)} DIFFER: {preview(different)}" if different else "all equal"
    print(f"{root / 'labels.npz'}: {len(ids)} images; {len(shared)} compared with the shipped labels: {verdict}")
