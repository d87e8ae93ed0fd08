"""The classes that are looked for in an image: given ones, all, or those whose class score is above its threshold."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.data.csv_labels import read_csv
from common.run.errors import UserError, preview
from common.run.similar import did_you_mean

ALL = "all"  # in place of class names


def named_classes(text: str, classes: Sequence[str]) -> np.ndarray:
    """Multi-hot float32 (C,) of class names, separated by commas, or of ``all``.

    Raises:
        UserError: a name is no class, or there is none.
    """
    if text.strip() == ALL:
        return np.ones(len(classes), np.float32)
    vector = np.zeros(len(classes), np.float32)
    names = list(filter(None, (part.strip() for part in text.split(","))))
    known = f"Take some of: {', '.join(classes)}; or {ALL}"
    if not names:
        raise UserError(f"--classes names no class. {known}")
    for name in names:
        if name not in classes:
            raise UserError(
                f"--classes: {name[:40]!r} is no class of this network.{did_you_mean(name, classes)} {known}"
            )
        vector[classes.index(name)] = 1
    return vector


def labels_in(table: Path, paths: Mapping[str, Path], classes: Sequence[str]) -> np.ndarray:
    """Multi-hot labels float32 (N, C) of images from a table as `read_csv` reads it, by their ids or file names.

    Raises:
        UserError: the table cannot be used, lacks images, or names several images by one row.
    """
    known = read_csv(table, classes)
    ids = [image_id if image_id in known else path.stem for image_id, path in paths.items()]
    twins = [image_id for image_id, count in Counter(ids).items() if count > 1 and image_id in known]
    if twins:
        same = [str(path) for image_id, path in zip(ids, paths.values(), strict=True) if image_id == twins[0]]
        raise UserError(
            f"{table}: the row {twins[0]!r} may mean {preview(same, 3)}. Give each of them a row by its id, such as "
            f"{next(own for own, path in paths.items() if str(path) == same[-1])!r}"
        )
    missing = [str(path) for image_id, path in zip(ids, paths.values(), strict=True) if image_id not in known]
    if missing:
        raise UserError(
            f"{table} has no row for {len(missing)} of the {len(ids)} images: {preview(missing, 3)}. Add the rows, or "
            "leave out --labels: then the network tells the classes"
        )
    return np.stack([known[image_id] for image_id in ids])


def above(thresholds: Sequence[float]) -> Callable[[Tensor], Tensor]:
    """The rule that makes labels of class logits (b, C): probabilities that reach their thresholds."""
    limits = torch.tensor(thresholds, dtype=torch.float64)
    return lambda logits: (logits.double().sigmoid() >= limits).float()
