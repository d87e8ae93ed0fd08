"""The shipped lists and labels against the reference's."""

import numpy as np

from common.data.classes import VOC12
from common.data.labels import read_labels
from common.data.lists import LIST_DIR, read_list
from tests.golden.harness import Case, Results, runner


@runner("data", "lists")
def lists(case: Case) -> Results:
    """Every list and label table that the case names, from ``data/lists/``."""
    dataset, results = case.params["dataset"], {}
    for role in {output["role"] for output in case.entry["outputs"].values()}:
        if role in ("label_names", "label_bits"):
            names = [name.decode() for name in case.stored["label_names"]]
            table = read_labels(LIST_DIR / dataset / "labels.npz", names, VOC12, dataset)
            with np.load(LIST_DIR / dataset / "labels.npz") as shipped:
                results["label_names", None] = shipped["names"]
            results["label_bits", None] = np.packbits(
                np.stack([table[name] for name in names]).astype(np.uint8), axis=1
            )
        elif role == "classes":
            results[role, None] = np.array(VOC12)
        else:
            ids = read_list(LIST_DIR / dataset / f"{role}.txt", dataset)
            results[role, None] = np.array(ids, dtype="S") if dataset == "voc12" else np.array(ids, dtype=np.int64)
    return results
